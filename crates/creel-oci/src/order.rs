//! What `create`, `run` and `restore` were asked for: read, checked and opened before anything is made, so that there is
//! nothing to undo when it is wrong.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_runtime::{Compiled, Stdio};
use creel_types::spec::{self, IdMapping, Namespace, NamespaceKind, Process, Spec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::inherited::Inherited;
use crate::options;
use crate::profiles::Profiles;

/// The name of the configuration in a bundle.
pub(crate) const CONFIG: &str = "config.json";
/// crun's way to say `--pidfd-socket`: an annotation.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// A request for a new container.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) bundle: PathBuf,
    pub(crate) spec: Spec,
    /// The Spec as it was read, unless it was changed since.
    pub(crate) text: Option<Vec<u8>>,
    /// Its system call filter.
    pub(crate) profile: Profile,
    /// What is mounted here, as `/proc/self/mountinfo` tells it.
    pub(crate) mountinfo: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) sockets: Sockets,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) pivot: bool,
    pub(crate) keyring: bool,
    pub(crate) preserve_fds: Vec<i32>,
}

/// The profile of a Spec's system call filter.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Where it stands in the Spec's text.
    pub(crate) place: Option<Range<usize>>,
    /// As an earlier container had it compiled: the Spec is without it then.
    pub(crate) compiled: Option<Compiled>,
}

/// Sockets that a process's descriptors are sent to.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) console: Option<OwnedFd>,
    pub(crate) pidfd: Option<OwnedFd>,
}

impl Sockets {
    /// Connects to what the flags name, and checks that a terminal has somewhere to go.
    pub(crate) fn open(parsed: &Parsed, terminal: bool, detach: bool) -> Result<Sockets> {
        let console = parsed.value("console-socket").map(Path::new);
        if detach && terminal && console.is_none() {
            return Err(Error::Invalid(
                "cannot allocate tty if runc will detach without setting console socket; use --console-socket"
                    .into(),
            ));
        }
        if !(detach && terminal) && console.is_some() {
            return Err(Error::Invalid(
                "cannot use console socket if runc will not detach or allocate tty".into(),
            ));
        }
        Ok(Sockets {
            console: console.map(dial).transpose()?,
            pidfd: parsed.value("pidfd-socket").map(Path::new).map(dial).transpose()?,
        })
    }

    /// Sends what there is to send: the terminal's master, and the process's pidfd.
    pub(crate) fn send(&self, master: Option<&OwnedFd>, pidfd: BorrowedFd<'_>) -> Result<()> {
        if let (Some(socket), Some(master)) = (&self.console, master) {
            // runc sends the terminal's name along, as the container sees it; receivers need at least one byte.
            creel_sys::fdpass::send(socket, b"/dev/ptmx", &[master.as_fd()])
                .map_err(|e| Error::call("cannot send the terminal over the console socket", e))?;
        }
        if let Some(socket) = &self.pidfd {
            creel_sys::fdpass::send(socket, b"pidfd", &[pidfd])
                .map_err(|e| Error::call("cannot send the process descriptor over the pidfd socket", e))?;
        }
        Ok(())
    }
}

fn dial(path: &Path) -> Result<OwnedFd> {
    let failed = |e: rustix::io::Errno| {
        let reason = creel_runtime::error::plain(&e.into());
        Error::Invalid(format!("dial unix {}: connect: {reason}", path.display()))
    };
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

impl Order {
    /// Reads the flags and the bundle. The current directory is the bundle afterwards, as hooks expect it.
    ///
    /// A system call filter that is among `known` is not read again.
    pub(crate) fn read(
        parsed: &Parsed,
        detach: bool,
        inherited: &Inherited,
        known: Option<&Profiles>,
    ) -> Result<Order> {
        let pid_file = pid_file(parsed)?;
        let socket_flags = parsed.clone();
        // Sockets may be named from here, the Spec's paths from the bundle: sockets first.
        let bundle = parsed.value("bundle").map(Path::new);
        let config = parsed.value("config").map(Path::new);
        let text = match bundle {
            Some(bundle) => load(&bundle.join(config.unwrap_or(Path::new(CONFIG))), bundle)?,
            None => load(config.unwrap_or(Path::new(CONFIG)), Path::new("."))?,
        };
        let (mut spec, profile) = parse_knowing(&text, known)?;
        if let Some(process) = &spec.process {
            check_process(process)?;
        }
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        let mut sockets = Sockets::open(&socket_flags, terminal, detach)?;
        if let (None, Some(path)) = (&sockets.pidfd, spec.annotations.get(PIDFD_RECEIVER)) {
            sockets.pidfd = Some(dial(Path::new(path))?);
        }
        let preserve_fds = inherited.preserved();
        let mut changed = map_own_ids(&mut spec);
        if let Some(process) = &mut spec.process {
            changed |= inherited.announce(&mut process.env);
        }
        if let Some(bundle) = bundle {
            std::env::set_current_dir(bundle).map_err(|e| Error::on("chdir", bundle, e))?;
        }
        let bundle = options::current_dir()?;
        let Some(root) = &spec.root else {
            return Err(Error::Invalid("root property must not be empty".into()));
        };
        let rootfs = options::clean(&bundle.join(&root.path));
        Ok(Order {
            bundle,
            rootfs,
            spec,
            text: (!changed).then_some(text),
            profile,
            mountinfo: mountinfo()?,
            sockets,
            pid_file,
            detach,
            pivot: !parsed.on("no-pivot"),
            keyring: !parsed.on("no-new-keyring"),
            preserve_fds,
        })
    }
}

/// A new user namespace without maps gets ids of the caller's, as with crun: an ordinary user's own one as 0, of root's
/// those up to the process's. True if there were none.
fn map_own_ids(spec: &mut Spec) -> bool {
    let user = spec.process.as_ref().map(|process| (process.user.uid, process.user.gid)).unwrap_or_default();
    let Some(linux) = &mut spec.linux else { return false };
    let new = |space: &Namespace| space.kind == NamespaceKind::User && space.path.is_none();
    if !linux.namespaces.iter().any(new) || !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty() {
        return false;
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let map = |host_id: u32, last: u32| IdMapping {
        container_id: 0,
        host_id,
        size: if uid.is_root() { last.saturating_add(1) } else { 1 },
    };
    linux.uid_mappings = vec![map(uid.as_raw(), user.0)];
    linux.gid_mappings = vec![map(gid.as_raw(), user.1)];
    true
}

/// `--pid-file`, absolute.
pub(crate) fn pid_file(parsed: &Parsed) -> Result<Option<PathBuf>> {
    parsed.value("pid-file").map(|path| options::absolute(Path::new(path))).transpose()
}

fn load(path: &Path, bundle: &Path) -> Result<Vec<u8>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Err(e) = std::fs::metadata(bundle) {
                return Err(Error::on("chdir", bundle, e));
            }
            return Err(Error::Invalid("JSON specification file config.json not found".into()));
        }
        Err(e) => return Err(Error::on("open", path, e)),
    };
    Ok(bytes)
}

/// A Spec from its JSON.
pub(crate) fn parse(bytes: &[u8]) -> Result<Spec> {
    if bytes.trim_ascii() == b"null" {
        return Err(Error::Invalid("config cannot be null".into()));
    }
    spec::from_json(bytes).map_err(|e| Error::Invalid(format!("{CONFIG}: {e}")))
}

/// A Spec from its JSON; without its system call filter, if an earlier container had the same.
fn parse_knowing(text: &[u8], known: Option<&Profiles>) -> Result<(Spec, Profile)> {
    let place = known.and_then(|_| seccomp_of(text));
    if let (Some(place), Some(known)) = (&place, known)
        && let Some(compiled) = known.find(&text[place.clone()])
        // What is wrong with the rest is told with its place in the whole.
        && let Ok(spec) = parse(&without(text, place).concat())
        && !spec.annotations.contains_key(STRICT)
    {
        return Ok((spec, Profile { compiled: Some(compiled), place: Some(place.clone()) }));
    }
    Ok((parse(text)?, Profile { compiled: None, place }))
}

/// crun's annotation by which a filter can be refused that is taken otherwise.
const STRICT: &str = "run.oci.seccomp_fail_unknown_syscall";

/// The text of a Spec in pieces, with nothing where its system call filter stands.
pub(crate) fn without<'a>(text: &'a [u8], place: &Range<usize>) -> [&'a [u8]; 3] {
    [&text[..place.start], b"null", &text[place.end..]]
}

fn mountinfo() -> Result<String> {
    let path = Path::new("/proc/self/mountinfo");
    creel_sys::kernelfs::read_to_string(path).map_err(|e| Error::on("read", path, e))
}

/// Where in the text of a Spec the value of `linux.seccomp` stands.
fn seccomp_of(text: &[u8]) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        linux: Inner<'a>,
    }
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow)]
        seccomp: &'a RawValue,
    }
    let outer: Outer<'_> = serde_json::from_slice(text).ok()?;
    let value = outer.linux.seccomp.get().as_bytes();
    let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let range = start..start + value.len();
    (text.get(range.clone()) == Some(value)).then_some(range)
}

/// What runc says of a process that cannot be run.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    let wrong = |text: &str| Err(Error::Invalid(text.into()));
    if process.cwd.is_empty() {
        return wrong("Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        return wrong("Cwd must be an absolute path");
    }
    if process.args.is_empty() {
        return wrong("args must not be empty");
    }
    Ok(())
}

/// Writes a process id, whole or not at all.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::on("open", path, rustix::io::Errno::ISDIR))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let _ = std::fs::remove_file(&temporary);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        std::io::Write::write_all(&mut file, pid.to_string().as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| Error::on("open", path, e))
}

/// This process's own standard descriptors, for a process that is to have them.
pub(crate) fn own_stdio() -> Stdio {
    // One that is closed becomes /dev/null.
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok();
    Stdio {
        stdin: copy(rustix::stdio::stdin()),
        stdout: copy(rustix::stdio::stdout()),
        stderr: copy(rustix::stdio::stderr()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        std::fs::write(dir.path().join(".pid"), "left over").unwrap();
        write_pid(&path, 42).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "42");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_pid(&dir.path().join("none/pid"), 1).is_err());
    }

    #[test]
    fn a_filter_is_cut_out_of_a_spec() {
        let text = r#"{"hooks": {"seccomp": 1}, "linux": {"x": ["seccomp"], "seccomp": {"a": "}"} }}"#;
        let at = seccomp_of(text.as_bytes()).unwrap();
        assert_eq!(&text[at], r#"{"a": "}"}"#);
        for none in ["{}", r#"{"linux": {}}"#, r#"{"linux": {"seccomp": 1, "seccomp": 2}}"#, "[", ""] {
            assert_eq!(seccomp_of(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_user_namespace_without_maps() {
        let mapped = |text: &str| {
            let mut spec = parse(text.as_bytes()).unwrap();
            let changed = map_own_ids(&mut spec);
            let linux = spec.linux.unwrap();
            assert_eq!(changed, !linux.uid_mappings.is_empty());
            (linux.uid_mappings, linux.gid_mappings)
        };
        let (uids, gids) = mapped(
            r#"{"ociVersion": "1.0.0", "process": {"user": {"uid": 7, "gid": 8}, "cwd": "/", "args": ["x"]},
                "linux": {"namespaces": [{"type": "user"}]}}"#,
        );
        let root = rustix::process::geteuid().is_root();
        let map =
            |host_id, size| vec![IdMapping { container_id: 0, host_id, size: if root { size } else { 1 } }];
        assert_eq!(uids, map(rustix::process::geteuid().as_raw(), 8));
        assert_eq!(gids, map(rustix::process::getegid().as_raw(), 9));
        for other in [
            r#"{"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}}"#,
            r#"{"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "mount"}]}}"#,
        ] {
            assert!(mapped(other).0.is_empty(), "{other}");
        }
    }

    #[test]
    fn what_is_no_spec() {
        for (text, error) in [("null", "config cannot be null"), ("{", "config.json: ")] {
            let found = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }
}
