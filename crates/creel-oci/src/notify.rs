//! Readiness, as systemd wants to hear it (sd_notify(3)).
//!
//! A caller with `$NOTIFY_SOCKET` waits for `READY=1`. The container's program cannot reach that socket, and systemd
//! would not know whose process id it sends. So it gets a socket of this runtime's own, in a read-only mount, and the
//! host's hears from here that it is ready and which process to look after. Nothing else that a container says goes
//! on: it could name foreign processes.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use creel_types::spec::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::store::Entry;

/// What systemd calls its socket's place.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The directory of the container's socket, in the state directory.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify/notify.sock";
/// Where the container finds that directory, if it cannot be where the host has its socket, as with crun: with runc's
/// name.
const PLACE: &str = "/run/notify";
/// The name of systemd's own socket, which a systemd inside needs for itself.
const SYSTEMDS: &str = "/run/systemd/notify";
/// The largest message that is read.
const MAX_MESSAGE: usize = 4096;
/// How long the host may take to accept a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long systemd may take to have seen to all messages.
const BARRIER: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Whether the caller wants to hear of readiness.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Gives the container the place of its socket. The socket itself is made when the container is started.
pub(crate) fn offer(entry: &Entry, root: &Path, spec: &mut Spec) -> Result<()> {
    entry.make_dir(DIRECTORY)?;
    let source = root.join(entry.id()).join(DIRECTORY);
    let source =
        source.to_str().ok_or_else(|| Error::Invalid(format!("{} is not UTF-8", source.display())))?;
    let place = place(std::env::var(VARIABLE).ok());
    spec.mounts.push(Mount {
        destination: place.clone(),
        source: Some(source.into()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).into(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("{VARIABLE}={place}/notify.sock"));
    }
    Ok(())
}

/// Where the container finds its socket's directory, when its caller has this socket.
fn place(callers: Option<String>) -> String {
    let fit = |path: &String| {
        path.starts_with('/') && path != SYSTEMDS && !path.split('/').any(|part| part == "..")
    };
    callers.filter(fit).unwrap_or_else(|| PLACE.into())
}

/// The container's socket, and the host's, if somebody is there.
#[derive(Debug)]
pub(crate) struct Notify {
    container: UnixDatagram,
    host: Option<UnixDatagram>,
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

impl Notify {
    /// Makes the container's socket and connects to the host's; `None` if nobody wants to hear of this container's
    /// readiness. That nobody listens at the host's is a warning: the container itself lacks nothing.
    pub(crate) fn listen(log: &Log, entry: &Entry) -> Result<Option<Notify>> {
        let host = match std::env::var_os(VARIABLE) {
            Some(value) if !value.is_empty() && entry.has(DIRECTORY) => connect(&value),
            _ => return Ok(None),
        };
        let host = host.map_err(|error| log.warn(&error.to_string())).ok();
        let failed = |e| Error::call("cannot make the socket for the container's readiness", e);
        let path = entry.path(SOCKET);
        // A start that failed has left one.
        let _ = std::fs::remove_file(&path);
        let container = UnixDatagram::bind(&path).map_err(failed)?;
        container.set_nonblocking(true).map_err(failed)?;
        // The program may be any user of the container's.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Some(Notify { container, host }))
    }

    /// Takes what the container has said; when it is ready the host is told, and to look after `pid`.
    pub(crate) fn pass_on(&self, pid: i32) -> Result<bool> {
        let mut buf = [0; MAX_MESSAGE];
        loop {
            match self.container.recv(&mut buf) {
                Ok(n) => {
                    let (Some(line), Some(host)) = (ready(&buf[..n]), &self.host) else { continue };
                    for text in [line, format!("MAINPID={pid}").as_bytes()] {
                        host.send(text).map_err(|e| Error::call(UNHEARD, e))?;
                    }
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Error::call("cannot read the container's readiness", e)),
            }
        }
    }

    /// Waits until the container is ready, or has ended; not at all if nobody is there to be told.
    pub(crate) fn wait(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        loop {
            let mut fds = [PollFd::new(self, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Error::call("poll", e)),
            }
            let ended = !fds[1].revents().is_empty();
            if self.pass_on(pid)? {
                return settle(host);
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// Waits until the host has seen to what it was told: it looks at the sender, who is about to end (`BARRIER=1` in
/// sd_notify(3)).
fn settle(host: &UnixDatagram) -> Result<()> {
    let (reader, writer) = std::io::pipe().map_err(|e| Error::call("pipe", e))?;
    creel_sys::fdpass::send(host, b"BARRIER=1", &[writer.as_fd()]).map_err(|e| Error::call(UNHEARD, e))?;
    drop(writer);
    // Who does not know of barriers keeps it, perhaps; what was to be said is said.
    let _ = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&BARRIER));
    Ok(())
}

const UNHEARD: &str = "cannot tell $NOTIFY_SOCKET that the container is ready";

/// A path, or a name without one after `@`.
fn connect(address: &OsStr) -> Result<UnixDatagram> {
    let connected = || {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    connected().map_err(|e: std::io::Error| {
        let what = format!("$NOTIFY_SOCKET is set to {}, where nobody can be told", address.display());
        Error::call(&what, e)
    })
}

/// The line of a message that says whether the program is ready.
fn ready(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_readiness_goes_on() {
        assert_eq!(ready(b"READY=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready(b"STATUS=fine\nREADY=1\nMAINPID=1\n"), Some(&b"READY=1"[..]));
        assert_eq!(ready(b"STATUS=READY=1\nMAINPID=1\n"), None);
    }

    #[test]
    fn where_the_container_finds_it() {
        for (callers, found) in [
            (Some("/run/user/7/x/notify.sock"), "/run/user/7/x/notify.sock"),
            (Some("/run/systemd/notify"), "/run/notify"),
            (Some("@abstract"), "/run/notify"),
            (Some("/a/../b"), "/run/notify"),
            (None, "/run/notify"),
        ] {
            assert_eq!(place(callers.map(str::to_owned)), found);
        }
    }

    #[test]
    fn names_and_paths() {
        let name = format!("creel-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        connect(OsStr::new(&format!("@{name}"))).unwrap().send(b"x").unwrap();
        assert_eq!(listener.recv(&mut [0; 4]).unwrap(), 1);
        let said = connect(OsStr::new("/nonexistent/socket")).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/socket") && said.contains("no such file"), "{said}");
    }

    proptest! {
        /// Whatever a container says, it is one line about readiness that the host hears.
        #[test]
        fn no_container_says_more(message in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "(READY=|MAINPID=|\n|1|x){0,12}".prop_map(String::into_bytes),
        ]) {
            if let Some(line) = ready(&message) {
                prop_assert!(line.starts_with(b"READY=") && !line.contains(&b'\n'));
            }
        }
    }
}
