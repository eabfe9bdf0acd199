//! `checkpoint` and `restore`, by CRIU where it is installed.
//!
//! CRIU is told which mounts come from outside: those whose file system the host has mounted too. They are written to
//! the image directory beside CRIU's own files, with the descriptors that a restored process gets from its caller.

mod rpc;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_cgroup::{Cgroup, Layout};
use creel_runtime::path::Make;
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::kernelfs::unescape;
use creel_sys::process::{Ended, Whom, exit_now, wait};
use creel_types::spec::{NamespaceKind, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use self::rpc::{Message, Notified, Placing, Task, Worker};
use crate::container;
use crate::delete;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::options::{self, Options};
use crate::record::Status;
use crate::store::{Entry, Root};

/// What is kept beside CRIU's images.
const OWN_FILE: &str = "creel.json";

/// What a restore has to know that CRIU's images do not tell.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// Mounts from outside: place in the container, and where it is on the host.
    mounts: BTreeMap<String, PathBuf>,
}

/// What the first three descriptors were, as procfs names them, in the file that other runtimes write and read, too.
const DESCRIPTORS: &str = "descriptors.json";

/// Flags that are CRIU's options as they are, with their numbers in `criu_opts`.
const SAME_FLAGS: [(&str, u32); 8] = [
    ("leave-running", 3),
    ("ext-unix-sk", 4),
    ("tcp-established", 5),
    ("shell-job", 7),
    ("file-locks", 8),
    ("auto-dedup", 16),
    ("link-remap", 18),
    ("lazy-pages", 48),
];

/// Where CRIU's log goes when nothing else is said of it.
fn log_name(task: Task) -> &'static str {
    if task == Task::Restore { "restore.log" } else { "dump.log" }
}

/// `checkpoint ID`.
pub(crate) fn checkpoint(o: &Options, parsed: &Parsed, id: &str) -> Result<()> {
    let root = Root::open(&o.root)?.ok_or(Error::NotExist)?;
    let loaded = container::load_locked(o, id)?;
    let status = loaded.status();
    if matches!(status, Status::Created | Status::Creating | Status::Stopped) {
        return Err(Error::State(format!("Container cannot be checkpointed in {} state", status.word())));
    }
    if parsed.on("lazy-pages") && parsed.text("page-server").is_none() {
        // CRIU would wait at a port that nobody knows until all memory has been fetched from it.
        return Err(Error::Invalid(
            "--lazy-pages needs --page-server ADDRESS:PORT, where the memory is fetched from".into(),
        ));
    }
    let criu = find()?;
    let spec = loaded.entry.spec()?;
    let images = image_dir(parsed)?;
    let pid = loaded.record.pid;
    let task = if parsed.on("pre-dump") { Task::PreDump } else { Task::Dump };
    let cgroup = loaded.record.group.open()?;
    let mut opts = Message::default();
    let held = Held::open(parsed, &images, &mut opts)?;
    common(parsed, &spec, task, &mut opts)?;
    opts.number(2, i64::from(pid)).text(13, &loaded.record.rootfs);
    if let Some(parent) = parent_path(parsed, &images)? {
        opts.text(14, parent).flag(15, true);
    }
    page_server(parsed, &mut opts)?;
    opts.flag(46, parsed.on("tcp-skip-in-flight"));
    if let Some(dir) = cgroup.as_ref().and_then(freezer) {
        opts.text(44, dir);
    }
    if task == Task::Dump {
        let beside = Beside { mounts: outside(pid)? };
        for place in beside.mounts.keys() {
            opts.inner(23, &pair(place, place));
        }
        for name in external_namespaces(&spec, pid) {
            opts.text(37, name);
        }
        for (name, text) in
            [(OWN_FILE, serde_json::to_vec(&beside)), (DESCRIPTORS, serde_json::to_vec(&descriptors(pid)))]
        {
            let text = text.map_err(|e| Error::Invalid(e.to_string()))?;
            let file = images.join(name);
            std::fs::write(&file, text).map_err(|e| Error::on("write", &file, e))?;
        }
    }
    let status_fd = parsed.number("status-fd").filter(|fd| *fd >= 0);
    if let Some(fd) = status_fd {
        check_status_fd(fd)?;
    }
    let worker = Worker { criu: &criu, mount: None, inherit: Vec::new(), by_pid: None, place: &loaded.entry };
    let mut notified = |script: &str, _: i32, _: Option<OwnedFd>| {
        o.log.debug(&format!("CRIU notifies: {script}"));
        if let ("status-ready", Some(fd)) = (script, status_fd) {
            let told = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
            let _ = told.and_then(|mut file| std::io::Write::write_all(&mut file, b"\0"));
        }
        Ok(())
    };
    worker.run(task, &opts, &mut notified).map_err(|e| failed("DUMP", &e, parsed, &images, task))?;
    drop(held);
    if task == Task::Dump && !parsed.on("leave-running") {
        delete::destroy(o, &root, &loaded.entry, &loaded.record)?;
    }
    Ok(())
}

fn check_status_fd(fd: i64) -> Result<()> {
    let wrong = |why: &str| Error::Invalid(format!("invalid --status-fd argument {fd}: {why}"));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).map_err(|_| wrong("not open"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    if flags & 3 == 0 { Err(wrong("not writable")) } else { Ok(()) }
}

/// A key and a value, as most of CRIU's maps are.
fn pair(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.text(1, key).text(2, value);
    message
}

/// The directory whose freezer CRIU uses; in the hybrid layout it knows v1's only.
fn freezer(cgroup: &Cgroup) -> Option<PathBuf> {
    let hierarchies = cgroup.hierarchies();
    let v2 = || (hierarchies.layout() == Layout::V2).then(|| cgroup.dirs().last()).flatten();
    hierarchies.v1_dir("freezer", cgroup.path()).or_else(v2)
}

/// What a restored container is made of.
pub(crate) struct Restoring<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Path,
    /// The directories of its control group, each after the mount point of the hierarchy.
    pub(crate) groups: Vec<(PathBuf, PathBuf)>,
    /// The container's directory.
    pub(crate) place: &'a Entry,
    /// Moves CRIU, and with it what it restores, into the control group.
    pub(crate) by_pid: Option<Placing<'a>>,
}

/// Has CRIU bring the processes back as children of this one; returns the first one's process id. `notified` is told of
/// the steps, and given the terminal.
pub(crate) fn restore<'a>(
    parsed: &Parsed,
    what: Restoring<'a>,
    criu: &'a Path,
    images: &Path,
    notified: Notified<'_>,
) -> Result<i32> {
    let beside: Beside = read_beside(&images.join(OWN_FILE))?;
    let descriptors: Vec<String> = read_beside(&images.join(DESCRIPTORS))?;
    let task = Task::Restore;
    let mut opts = Message::default();
    let held = Held::open(parsed, images, &mut opts)?;
    common(parsed, what.spec, task, &mut opts)?;
    opts.flag(6, true).flag(26, true).text(13, what.rootfs);
    for (flag, number) in [("lsm-profile", 53), ("lsm-mount-context", 63)] {
        if let Some(value) = parsed.value(flag) {
            opts.text(number, value);
        }
    }
    for (place, host) in &beside.mounts {
        let source = spec_source(what.spec, place)
            .or_else(|| group_source(what.spec, &what.groups, place, host))
            .unwrap_or_else(|| host.clone());
        opts.inner(23, &pair(place, &source.to_string_lossy()));
    }
    let mut inherited = |key: &str, fd: i64| {
        let mut message = Message::default();
        message.text(1, key).number(2, fd);
        opts.inner(27, &message);
    };
    for (number, name) in descriptors.iter().enumerate().filter(|(_, name)| name.starts_with("pipe:")) {
        inherited(name, number as i64);
    }
    let joined = joined_namespaces(what.spec)?;
    for (key, file) in &joined {
        inherited(key, i64::from(file.as_raw_fd()));
    }
    make_mountpoints(what.spec, what.rootfs)?;
    let worker = Worker {
        criu,
        mount: Some(what.rootfs.to_owned()),
        inherit: joined.iter().map(|(_, file)| file.as_raw_fd()).collect(),
        by_pid: what.by_pid,
        place: what.place,
    };
    let restored =
        worker.run(task, &opts, notified).map_err(|e| failed("RESTORE", &e, parsed, images, task))?;
    drop(held);
    restored.ok_or_else(|| Error::Invalid("CRIU tells no process id".into()))
}

/// Makes the places of the Spec's mounts in the root file system, as `create` would: a restore may be the first that
/// sees it. Places in bind mounts are made with these mounted, in a mount namespace that ends with the process in it.
fn make_mountpoints(spec: &Spec, rootfs: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::call("cannot make the places of the mounts", e);
    let cloned = clone(&Clone { flags: creel_sys::clone::NEWNS, cgroup: None }).map_err(failed)?;
    match cloned {
        Cloned::Child => exit_now(i32::from(mount_sources(spec, rootfs).is_err())),
        Cloned::Parent { pidfd, .. } => match wait(Whom::Pidfd(pidfd.as_fd()), true).map_err(failed)? {
            Some((_, Ended::Exited(0))) => Ok(()),
            _ => Err(Error::Invalid(format!("cannot make the places of the mounts in {}", rootfs.display()))),
        },
    }
}

fn mount_sources(spec: &Spec, rootfs: &Path) -> std::io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty())?;
    let tmpfs: Vec<&str> = spec
        .mounts
        .iter()
        .filter(|mount| mount.kind.as_deref() == Some("tmpfs"))
        .map(|mount| mount.destination.trim_end_matches('/'))
        .collect();
    let in_tmpfs = |place: &str| {
        tmpfs.iter().any(|dir| place.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
    };
    for mount in &spec.mounts {
        // CRIU brings a tmpfs back with all that is in it, and cgroups are below /sys.
        if in_tmpfs(&mount.destination)
            || mount.kind.as_deref().is_some_and(|kind| kind.starts_with("cgroup"))
        {
            continue;
        }
        let source = mount
            .source
            .as_deref()
            .filter(|_| mount.options.iter().any(|option| option == "bind" || option == "rbind"));
        let Some(source) = source else {
            creel_runtime::path::mountpoint(root.as_fd(), &mount.destination, Make::Directory)?;
            continue;
        };
        let tree =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, source, tree)?;
        let stat = rustix::fs::fstat(&tree)?;
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let make = if is_dir { Make::Directory } else { Make::File };
        let target = creel_runtime::path::mountpoint(root.as_fd(), &mount.destination, make)?;
        creel_sys::mount::attach(&tree, &target)?;
    }
    Ok(())
}

/// Namespaces that the Spec joins, with the keys that the checkpoint gave them.
fn joined_namespaces(spec: &Spec) -> Result<Vec<(&'static str, OwnedFd)>> {
    let mut found = Vec::new();
    for one in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
        let key = match one.kind {
            NamespaceKind::Network => "extRootNetNS",
            NamespaceKind::Pid => "extRootPidNS",
            _ => continue,
        };
        if let Some(path) = one.path.as_deref().filter(|path| !path.is_empty()) {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| Error::on("open", path, e))?;
            found.push((key, file));
        }
    }
    Ok(found)
}

/// Directories that CRIU reaches through this process's descriptors.
struct Held {
    _images: OwnedFd,
    _work: Option<OwnedFd>,
}

impl Held {
    fn open(parsed: &Parsed, images: &Path, opts: &mut Message) -> Result<Held> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::on("open", path, e))
        };
        let images = open(images)?;
        opts.number(1, i64::from(images.as_raw_fd()));
        let work = match parsed.value("work-path") {
            Some(dir) => {
                let dir = options::absolute(Path::new(dir))?;
                std::fs::create_dir_all(&dir).map_err(|e| Error::on("mkdir", &dir, e))?;
                let work = open(&dir)?;
                opts.number(17, i64::from(work.as_raw_fd()));
                Some(work)
            }
            None => None,
        };
        Ok(Held { _images: images, _work: work })
    }
}

/// The program.
pub(crate) fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let may_run = |file: &PathBuf| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(may_run).ok_or_else(|| {
        Error::Invalid(
            "CRIU is missing: no program criu in $PATH; install the package criu to checkpoint and restore \
             containers"
                .into(),
        )
    })
}

/// Options for CRIU that a host has for all containers: crun's file, and runc's, which crun also reads where its own is
/// missing.
const DEFAULT_CONFIGS: [&str; 2] = ["/etc/criu/crun.conf", "/etc/criu/runc.conf"];

/// The directory of the images, absolute and there.
pub(crate) fn image_dir(parsed: &Parsed) -> Result<PathBuf> {
    let path = options::absolute(Path::new(parsed.value("image-path").unwrap_or("checkpoint".as_ref())))?;
    std::fs::create_dir_all(&path).map_err(|e| Error::on("mkdir", &path, e))?;
    Ok(path)
}

fn parent_path(parsed: &Parsed, images: &Path) -> Result<Option<PathBuf>> {
    let Some(parent) = parsed.value("parent-path").map(PathBuf::from) else { return Ok(None) };
    if parent.is_absolute() {
        return Err(Error::Invalid("--parent-path must be relative".into()));
    }
    match std::fs::metadata(images.join(&parent)) {
        Ok(found) if found.is_dir() => Ok(Some(parent)),
        Ok(_) => Err(Error::Invalid(format!(
            "invalid --parent-path: {} is no directory",
            images.join(&parent).display()
        ))),
        Err(e) => Err(Error::on("stat", images.join(&parent), e).during("invalid --parent-path")),
    }
}

fn page_server(parsed: &Parsed, opts: &mut Message) -> Result<()> {
    let Some(server) = parsed.text("page-server") else { return Ok(()) };
    let (address, port) = server
        .rsplit_once(':')
        .filter(|(address, port)| !address.is_empty() && !port.is_empty())
        .ok_or_else(|| Error::Invalid("Use --page-server ADDRESS:PORT to specify page server".into()))?;
    let port: u16 = port.parse().map_err(|_| Error::Invalid("Invalid port number".into()))?;
    let mut message = Message::default();
    message.text(1, address.trim_matches(['[', ']'])).number(2, i64::from(port));
    opts.inner(11, &message);
    Ok(())
}

/// What a dump and a restore have in common.
fn common(parsed: &Parsed, spec: &Spec, task: Task, opts: &mut Message) -> Result<()> {
    opts.number(9, 4).text(10, log_name(task)).flag(12, true).flag(50, true);
    for (flag, number) in SAME_FLAGS {
        opts.flag(number, parsed.on(flag));
    }
    let mode = match parsed.text("manage-cgroups-mode").as_deref() {
        // The container's groups are made here.
        None | Some("ignore") => 0,
        Some("soft") => 3,
        Some("full") => 4,
        Some("strict") => 5,
        Some(other) => return Err(Error::Invalid(format!("Invalid manage-cgroups-mode value: {other}"))),
    };
    opts.flag(24, true).number(34, mode);
    if let Some(other) = parsed.all("empty-ns").find(|kind| kind != "network") {
        return Err(Error::Invalid(format!("namespace {other:?} is not supported")));
    }
    // Network devices are whoever's made them.
    if own_network(spec) {
        opts.number(38, i64::from(libc::CLONE_NEWNET));
    }
    let named = spec.annotations.get("org.criu.config").map(String::as_str);
    let config = match named {
        Some(_) => named,
        None => DEFAULT_CONFIGS.into_iter().find(|path| Path::new(path).is_file()),
    };
    if let Some(config) = config.filter(|path| Path::new(path).is_file()) {
        opts.text(51, config);
    }
    Ok(())
}

fn own_network(spec: &Spec) -> bool {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.into_iter().any(|one| one.kind == NamespaceKind::Network && one.path.is_none())
}

/// Namespaces that were joined: CRIU leaves them to others.
fn external_namespaces(spec: &Spec, pid: i32) -> Vec<String> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let joined =
        namespaces.into_iter().filter(|one| one.path.as_deref().is_some_and(|path| !path.is_empty()));
    let name = |one: &creel_types::spec::Namespace| {
        let (word, key) = match one.kind {
            NamespaceKind::Network => ("net", "extRootNetNS"),
            NamespaceKind::Pid => ("pid", "extRootPidNS"),
            _ => return None,
        };
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{word}")).ok()?;
        let inode = link.to_string_lossy().split(['[', ']']).nth(1)?.to_owned();
        Some(format!("{word}[{inode}]:{key}"))
    };
    joined.filter_map(name).collect()
}

/// Where the Spec has a bind mount from.
fn spec_source(spec: &Spec, place: &str) -> Option<PathBuf> {
    let mount = spec.mounts.iter().find(|mount| {
        options::clean(Path::new(&mount.destination)) == Path::new(place)
            && mount.options.iter().any(|option| option == "bind" || option == "rbind")
    })?;
    let source = Path::new(mount.source.as_deref()?);
    options::absolute(source).ok()
}

/// What takes the place of the former control group, where that was mounted: the container may have another one now.
fn group_source(spec: &Spec, groups: &[(PathBuf, PathBuf)], place: &str, host: &Path) -> Option<PathBuf> {
    let of_groups = |mount: &creel_types::spec::Mount| {
        mount.kind.as_deref().is_some_and(|kind| kind.starts_with("cgroup"))
            && Path::new(place).starts_with(options::clean(Path::new(&mount.destination)))
    };
    spec.mounts.iter().find(|mount| of_groups(mount))?;
    let hierarchies = groups.iter().filter(|(mount, _)| host.starts_with(mount));
    // Of the hybrid layout's the innermost.
    hierarchies.max_by_key(|(mount, _)| mount.as_os_str().len()).map(|(_, dir)| dir.clone())
}

/// A file that is kept beside CRIU's images; another runtime's images may be without it.
fn read_beside<T: Default + serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    match std::fs::read(file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| Error::Invalid(format!("{}: {e}", file.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(e) => Err(Error::on("open", file, e)),
    }
}

fn descriptors(pid: i32) -> Vec<String> {
    let link = |fd: i32| std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    (0..3).map(|fd| link(fd).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()).collect()
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    device: String,
    root: PathBuf,
    place: PathBuf,
}

fn mounted(text: &str) -> Vec<Mounted> {
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let (device, root, place) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mounted { device: device.into(), root: unescape(root).into(), place: unescape(place).into() })
    };
    text.lines().filter_map(parse).collect()
}

/// The mounts of a process whose file system the host has mounted as well, with the place on the host.
fn outside(pid: i32) -> Result<BTreeMap<String, PathBuf>> {
    let read = |path: String| std::fs::read_to_string(&path).map_err(|e| Error::on("open", &path, e));
    let host = mounted(&read("/proc/self/mountinfo".into())?);
    Ok(external(&mounted(&read(format!("/proc/{pid}/mountinfo"))?), &host))
}

fn external(container: &[Mounted], host: &[Mounted]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for mount in container.iter().filter(|mount| mount.place != Path::new("/")) {
        let same = host.iter().rev().filter(|there| there.device == mount.device);
        let place = same.filter_map(|there| {
            let below = mount.root.strip_prefix(&there.root).ok()?;
            Some(if below.as_os_str().is_empty() { there.place.clone() } else { there.place.join(below) })
        });
        if let (Some(place), Some(key)) = (place.into_iter().next(), mount.place.to_str()) {
            found.insert(key.to_owned(), place);
        }
    }
    found
}

/// An error with what CRIU says in its log.
fn failed(what: &str, error: &Error, parsed: &Parsed, images: &Path, task: Task) -> Error {
    let dir = parsed.value("work-path").map_or(images.to_owned(), PathBuf::from);
    let log = dir.join(log_name(task));
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error (")).collect();
    let last = errors.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ");
    Error::Invalid(format!("criu failed: type {what} {error}: {last}; log file: {}", log.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_descriptors_are_written_as_others_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DESCRIPTORS);
        assert!(read_beside::<Vec<String>>(&file).unwrap().is_empty());
        let own = descriptors(i32::try_from(std::process::id()).unwrap());
        std::fs::write(&file, serde_json::to_vec(&own).unwrap()).unwrap();
        let read: Vec<String> = read_beside(&file).unwrap();
        assert_eq!((read.len(), &read), (3, &own));
        // As runc's images have it, and as creel's were.
        std::fs::write(&file, r#"["/dev/null","pipe:[1]","pipe:[2]"]"#).unwrap();
        assert_eq!(read_beside::<Vec<String>>(&file).unwrap()[1], "pipe:[1]");
        std::fs::write(&file, "{").unwrap();
        assert!(read_beside::<Vec<String>>(&file).is_err());
    }

    #[test]
    fn mounts_from_outside_are_told_apart() {
        let host = mounted(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
             30 22 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n\
             31 22 254:1 /sub /data\\040x rw - ext4 /dev/vdb rw\n",
        );
        let container = mounted(
            "50 49 254:0 /bundle/rootfs / rw - ext4 /dev/vda rw\n\
             51 50 0:77 / /proc rw - proc proc rw\n\
             52 51 0:77 /sys /proc/sys ro - proc proc rw\n\
             53 50 0:25 /c /sys/fs/cgroup/cpu ro - cgroup cgroup rw\n\
             54 50 254:1 /sub/dir /vol rw - ext4 /dev/vdb rw\n\
             55 50 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw\n",
        );
        let found: Vec<_> = external(&container, &host)
            .into_iter()
            .map(|(place, host)| format!("{place} {}", host.display()))
            .collect();
        assert_eq!(
            found,
            ["/etc/hosts /etc/hosts", "/sys/fs/cgroup/cpu /sys/fs/cgroup/cpu/c", "/vol /data x/dir"]
        );
    }

    #[test]
    fn groups_that_are_mounted_are_the_new_ones() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.3.0", "mounts": [
                {"destination": "/sys", "type": "sysfs"},
                {"destination": "/sys/fs/cgroup/", "type": "cgroup"},
                {"destination": "/cg", "type": "bind", "options": ["rbind"]}]}"#,
        )
        .unwrap();
        let groups: Vec<_> = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"]
            .map(|mount| (PathBuf::from(mount), Path::new(mount).join("new")))
            .to_vec();
        let source = |place: &str, host: &str| group_source(&spec, &groups, place, Path::new(host));
        assert_eq!(
            source("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/old"),
            Some("/sys/fs/cgroup/cpu/new".into())
        );
        assert_eq!(source("/sys/fs/cgroup", "/sys/fs/cgroup/old"), Some("/sys/fs/cgroup/new".into()));
        for (place, host) in
            [("/cg", "/sys/fs/cgroup/cpu/old"), ("/sys", "/sys/fs/cgroup"), ("/sys/fs/cgroup/x", "/var/x")]
        {
            assert_eq!(source(place, host), None);
        }
    }

    #[test]
    fn page_servers() {
        let written = |server: &str| {
            let verb = crate::verbs::find("checkpoint").unwrap();
            let words = ["--page-server".into(), server.into()];
            let parsed = crate::flags::parse(verb.flags, &words, false).unwrap();
            let mut opts = Message::default();
            page_server(&parsed, &mut opts).map(|()| opts).map_err(|e| e.to_string())
        };
        let message = |address: &str, port| {
            let mut inner = Message::default();
            inner.text(1, address).number(2, port);
            let mut outer = Message::default();
            outer.inner(11, &inner);
            outer
        };
        assert_eq!(written("10.0.0.1:27").unwrap(), message("10.0.0.1", 27));
        assert_eq!(written("[::1]:27").unwrap(), message("::1", 27));
        assert!(written(":27").is_err() && written("x:").is_err() && written("x:y").is_err());
    }
}
