//! The state directory: one directory for each container below the root, reached by descriptor only.
//!
//! `state.json` is the [`Record`], replaced by rename, and called `creating.json` until the container is created;
//! `config.json` the Spec as the container was made from it;
//! `filter` its system call filter, compiled, which the Spec then lacks;
//! `start.sock` the gate at which a created container waits; `worker` the process id and start time of a CRIU that is at
//! work on it. A verb that changes a container holds an exclusive
//! flock(2) on its directory.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_runtime::Compiled;
use creel_types::spec::{self, Spec};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::id;
use crate::procfs;
use crate::record::Record;

const STATE: &str = "state.json";
/// A link to it, under crun's name: who waits for a container that crun makes, or runs, waits for this to appear.
const STATUS: &str = "status";
const CREATING: &str = "creating.json";
const CONFIG: &str = "config.json";
const GATE: &str = "start.sock";
const FILTER: &str = "filter";
const WORKER: &str = "worker";

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 20;
/// What most files fit into.
const USUAL_FILE: usize = 16 << 10;

/// The directory that holds all containers' directories.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Entry {
    id: String,
    fd: OwnedFd,
    /// Whether this value holds the lock.
    locked: Cell<bool>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A container's process that waits at its gate has a copy of the descriptor, and would keep the lock.
        self.unlock();
    }
}

pub(crate) fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

impl Root {
    /// Opens the root; `None` when it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Option<Root>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Root { path: path.to_owned(), fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::on("open", path, e)),
        }
    }

    /// Opens the root, which is made with its parents if need be. A sticky one is not swept away from a user's runtime
    /// directory (XDG Base Directory Specification).
    pub(crate) fn make(path: &Path, sticky: bool) -> Result<Root> {
        if let Some(root) = Root::open(path)? {
            return Ok(root);
        }
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(path)
            .map_err(|e| Error::on("mkdir", path, e))?;
        let root = Root::open(path)?.ok_or_else(|| Error::on("open", path, Errno::NOENT))?;
        if sticky {
            rustix::fs::fchmod(&root.fd, Mode::from_raw_mode(0o1700))
                .map_err(|e| Error::on("chmod", path, e))?;
        }
        Ok(root)
    }

    /// Makes the directory of a new container, locked.
    pub(crate) fn create(&self, id: &str) -> Result<Entry> {
        id::check(id)?;
        match rustix::fs::mkdirat(&self.fd, id, Mode::from_raw_mode(0o711)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists),
            Err(e) => return Err(Error::on("mkdir", self.path.join(id), e)),
        }
        let entry = self.entry(id)?.ok_or(Error::NotExist)?;
        entry.lock()?;
        // Somebody who deletes may have been faster than the lock.
        if !entry.is_linked() {
            return Err(Error::State(format!("container {id} was deleted while it was being created")));
        }
        Ok(entry)
    }

    /// A container's directory; `None` when there is none.
    pub(crate) fn entry(&self, id: &str) -> Result<Option<Entry>> {
        id::check(id)?;
        match open_dir(&self.fd, id) {
            Ok(fd) => Ok(Some(Entry { id: id.to_owned(), fd, locked: Cell::new(false) })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::on("open", self.path.join(id), e)),
        }
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let failed = |e| Error::on("open", &self.path, e);
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if let Some(name) =
                entry.file_name().to_str().ok().filter(|name| is_dir && id::check(name).is_ok())
            {
                ids.push(name.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Removes a container's directory with all that is in it.
    pub(crate) fn remove(&self, entry: &Entry) -> Result<()> {
        let failed =
            |e| Error::on("unable to remove container state dir: remove", self.path.join(&entry.id), e);
        // Most have these and no others. What the record names is gone already.
        for name in [CONFIG, FILTER, STATE, STATUS] {
            unlink(&entry.fd, name).map_err(failed)?;
        }
        match rustix::fs::unlinkat(&self.fd, entry.id.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(failed(e)),
        }
        empty(entry.fd.as_fd()).map_err(failed)?;
        match rustix::fs::unlinkat(&self.fd, entry.id.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

fn unlink(dir: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes what is in a directory.
fn empty(dir: std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                empty(open_dir(dir, name)?.as_fd())?;
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            }
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Entry {
    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the exclusive lock; it is held until this value is dropped.
    pub(crate) fn lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::LockExclusive) {
                Ok(()) => {
                    self.locked.set(true);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::call(&format!("cannot lock container {}", self.id), e)),
            }
        }
    }

    /// Lets go of the lock.
    pub(crate) fn unlock(&self) {
        if self.locked.replace(false) {
            let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
        }
    }

    /// Whether nobody else holds the lock; takes it then.
    pub(crate) fn try_lock(&self) -> bool {
        let got = rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive).is_ok();
        self.locked.set(self.locked.get() || got);
        got
    }

    /// Waits for the lock for a while only: who holds it may wait for something that never comes.
    pub(crate) fn lock_within(&self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_micros(200);
        while !self.try_lock() {
            if begun.elapsed() > patience {
                return Err(Error::State(format!(
                    "container {} is being changed by another process that does not finish; end that one first",
                    self.id
                )));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether somebody else is at work on the container just now.
    pub(crate) fn is_locked(&self) -> bool {
        if self.locked.get() {
            return false;
        }
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Whether the directory still has its name.
    pub(crate) fn is_linked(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// User id of the directory's owner.
    pub(crate) fn owner(&self) -> u32 {
        rustix::fs::fstat(&self.fd).map_or(0, |stat| stat.st_uid)
    }

    /// A name in the directory, by way of the descriptor: for calls that take paths only.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::on("open", format!("{name} of container {}", self.id), e)),
        };
        // Without room to begin with it is read in many small pieces.
        let mut bytes = Vec::with_capacity(USUAL_FILE);
        std::fs::File::from(fd)
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::on("read", format!("{name} of container {}", self.id), e))?;
        Ok(Some(bytes))
    }

    /// Writes a file whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |e: std::io::Error| Error::on("write", format!("{name} of container {}", self.id), e);
        let temporary = format!(".{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| failed(e.into()))?;
        std::fs::File::from(fd).write_all(bytes).map_err(failed)?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name).map_err(|e| failed(e.into()))
    }

    /// The record.
    ///
    /// # Errors
    /// [`Error::NotExist`] when there is none (yet), [`Error::Invalid`] when it is damaged.
    pub(crate) fn record(&self) -> Result<Record> {
        let (bytes, creating) = match self.read(STATE)? {
            Some(bytes) => (bytes, false),
            None => (self.read(CREATING)?.ok_or(Error::NotExist)?, true),
        };
        let mut record = Record::parse(&bytes)
            .map_err(|reason| Error::Invalid(format!("state of container {}: {reason}", self.id)))?;
        record.creating = creating;
        Ok(record)
    }

    /// Keeps the record of a container that is being created.
    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        self.write(CREATING, &record.to_json())
    }

    /// The container whose record was kept is created.
    pub(crate) fn publish(&self) -> Result<()> {
        rustix::fs::renameat(&self.fd, CREATING, &self.fd, STATE)
            .map_err(|e| Error::on("write", format!("{STATE} of container {}", self.id), e))
    }

    /// The verb that made the container has done all that it was asked for.
    pub(crate) fn announce(&self) -> Result<()> {
        match rustix::fs::symlinkat(STATE, &self.fd, STATUS) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(Error::on("write", format!("{STATUS} of container {}", self.id), e)),
        }
    }

    /// Writes down a process that works on the container for us, so that others can end it.
    pub(crate) fn keep_worker(&self, pid: i32) -> Result<()> {
        let start_time = procfs::stat(pid).map_or(0, |stat| stat.start_time);
        self.write(WORKER, format!("{pid} {start_time}\n").as_bytes())
    }

    /// It has ended.
    pub(crate) fn forget_worker(&self) {
        // Its id and start time will never be those of another process.
        let _ = unlink(&self.fd, WORKER);
    }

    /// The process that works on the container, if one does.
    pub(crate) fn worker(&self) -> Option<OwnedFd> {
        let bytes = self.read(WORKER).ok()??;
        let (pid, start_time) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        let (pid, start_time) = (pid.parse().ok()?, start_time.parse::<u64>().ok()?);
        let pidfd = creel_sys::pidfd::open(pid).ok()?;
        // With the pidfd in hand the id cannot change its owner any more.
        procfs::stat(pid).filter(|stat| stat.lives() && stat.start_time == start_time).map(|_| pidfd)
    }

    /// The Spec that the container was made from.
    pub(crate) fn spec(&self) -> Result<Spec> {
        let bytes = self.read(CONFIG)?.ok_or(Error::NotExist)?;
        spec::from_json(&bytes)
            .map_err(|e| Error::Invalid(format!("config.json of container {}: {e}", self.id)))
    }

    /// Keeps the Spec.
    pub(crate) fn store_spec(&self, spec: &Spec) -> Result<()> {
        let bytes = serde_json::to_vec(spec).map_err(|e| Error::Invalid(format!("config.json: {e}")))?;
        self.store_spec_text(&[&bytes])
    }

    /// The system call filter, compiled. One that should be there and is not is an error: nothing may run without it.
    pub(crate) fn filter(&self) -> Result<Compiled> {
        let bytes = self.read(FILTER)?;
        let damaged = || Error::Invalid(format!("{FILTER} of container {}: missing or damaged", self.id));
        bytes.and_then(Compiled::from_bytes).ok_or_else(damaged)
    }

    /// Keeps the system call filter of a container that is being created.
    pub(crate) fn store_filter(&self, filter: &Compiled) -> Result<()> {
        self.write(FILTER, filter.as_bytes())
    }

    /// Keeps the Spec as it was written, in pieces.
    pub(crate) fn store_spec_text(&self, pieces: &[&[u8]]) -> Result<()> {
        self.write(CONFIG, &pieces.concat())
    }

    /// Makes a directory that everybody may read.
    pub(crate) fn make_dir(&self, name: &str) -> Result<()> {
        let failed = |e| Error::on("mkdir", format!("{name} of container {}", self.id), e);
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
        // Whatever the umask is.
        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(failed)
    }

    /// Whether there is something of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes the socket at which the created process waits.
    pub(crate) fn make_gate(&self) -> Result<OwnedFd> {
        let failed = |e: Errno| Error::call("cannot make the socket that starts the container", e);
        let socket = socket().map_err(failed)?;
        let address = SocketAddrUnix::new(self.path(GATE)).map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        rustix::net::listen(&socket, 1).map_err(failed)?;
        Ok(socket)
    }

    /// Connects to the waiting process; `None` when it is gone.
    pub(crate) fn connect_gate(&self) -> Result<Option<OwnedFd>> {
        let failed = |e: Errno| Error::call("cannot reach the container's process", e);
        let socket = socket().map_err(failed)?;
        let address = SocketAddrUnix::new(self.path(GATE)).map_err(failed)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => Ok(Some(socket)),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// Whether the gate is there, which means that nobody has gone through.
    pub(crate) fn has_gate(&self) -> bool {
        self.has(GATE)
    }

    /// Takes the gate away: the container was started.
    pub(crate) fn remove_gate(&self) {
        // One that stays makes a running container look like a created one until it ends; nothing worse.
        let _ = unlink(&self.fd, GATE);
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(Root::open(&path).unwrap().is_none());
        let root = Root::make(&path, false).unwrap();
        let entry = root.create("x").unwrap();
        assert!(matches!(root.create("x"), Err(Error::Exists)));
        assert!(matches!(entry.record(), Err(Error::NotExist)));
        assert_eq!(root.ids().unwrap(), ["x"]);
        let other = root.entry("x").unwrap().unwrap();
        assert!(other.is_locked() && !other.try_lock());
        assert!(other.lock_within(Duration::from_millis(5)).is_err());
        drop(entry);
        assert!(!other.is_locked() && other.try_lock());
        std::fs::create_dir_all(path.join("x/sub/sub")).unwrap();
        std::fs::write(path.join("x/sub/file"), "").unwrap();
        root.remove(&other).unwrap();
        assert!(!other.is_linked() && root.entry("x").unwrap().is_none());
    }

    #[test]
    fn a_link_in_the_root_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::make(&dir.path().join("root"), false).unwrap();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", dir.path().join("root/x")).unwrap();
        assert!(root.entry("x").is_err());
        assert!(matches!(root.create("x"), Err(Error::Exists)));
        assert!(root.entry("../elsewhere").is_err());
    }

    #[test]
    fn a_worker_is_known_while_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Root::make(dir.path(), false).unwrap().create("x").unwrap();
        assert!(entry.worker().is_none());
        entry.keep_worker(std::process::id() as i32).unwrap();
        assert!(entry.worker().is_some());
        // Another process of that id.
        entry.write(WORKER, format!("{} 1\n", std::process::id()).as_bytes()).unwrap();
        assert!(entry.worker().is_none());
        for text in ["", "x", "1", "-1 2", "99999999999 1", "\u{0}"] {
            entry.write(WORKER, text.as_bytes()).unwrap();
            assert!(entry.worker().is_none());
        }
        entry.forget_worker();
        assert!(!entry.has(WORKER));
    }

    #[test]
    fn a_gate_is_reached_while_somebody_waits_there() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than a socket's path may be.
        let path = dir.path().join("long".repeat(40));
        let root = Root::make(&path, false).unwrap();
        let entry = root.create("x").unwrap();
        assert!(!entry.has_gate() && entry.connect_gate().unwrap().is_none());
        let gate = entry.make_gate().unwrap();
        assert!(entry.has_gate() && entry.connect_gate().unwrap().is_some());
        drop(gate);
        assert!(entry.has_gate() && entry.connect_gate().unwrap().is_none());
        entry.remove_gate();
        assert!(!entry.has_gate());
    }
}
