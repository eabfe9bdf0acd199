//! Speaking with CRIU: its `swrk` mode takes one request on a socket and asks back meanwhile (criu's `rpc.proto`).

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{Exec, Whom, exit_now, wait};
use creel_sys::{close_range, fdpass};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::MountPropagationFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Error, Result};

/// The largest answer that is read.
const MAX_ANSWER: usize = 40 << 10;

/// A protocol buffer that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A whole number; negative ones take ten bytes, as the format wants.
    pub(crate) fn number(&mut self, field: u32, number: i64) -> &mut Message {
        self.varint(u64::from(field) << 3);
        self.varint(number as u64);
        self
    }

    /// A truth value, only if it holds: all of CRIU's are false by default.
    pub(crate) fn flag(&mut self, field: u32, on: bool) -> &mut Message {
        if on {
            self.number(field, 1);
        }
        self
    }

    /// A text.
    pub(crate) fn text(&mut self, field: u32, text: impl AsRef<OsStr>) -> &mut Message {
        self.bytes(field, text.as_ref().as_bytes())
    }

    /// A message inside.
    pub(crate) fn inner(&mut self, field: u32, message: &Message) -> &mut Message {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Message {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A field of a protocol buffer that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; `None` when it is damaged.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(taken)
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        found.push((key >> 3, field));
    }
    Some(found)
}

/// What CRIU answers (`criu_resp`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Answer {
    kind: u64,
    success: bool,
    restored: Option<i32>,
    script: String,
    notify_pid: i32,
    errno: i32,
    message: String,
}

const NOTIFY: u64 = 6;

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Answer> {
        let mut answer = Answer::default();
        for (number, field) in fields(bytes)? {
            match (number, field) {
                (1, Field::Number(kind)) => answer.kind = kind,
                (2, Field::Number(success)) => answer.success = success != 0,
                (4, Field::Bytes(inner)) => {
                    for field in fields(inner)? {
                        if let (1, Field::Number(pid)) = field {
                            answer.restored = i32::try_from(pid).ok();
                        }
                    }
                }
                (5, Field::Bytes(inner)) => {
                    for field in fields(inner)? {
                        match field {
                            (1, Field::Bytes(name)) => {
                                answer.script = String::from_utf8_lossy(name).into_owned()
                            }
                            (2, Field::Number(pid)) => answer.notify_pid = i32::try_from(pid).unwrap_or(0),
                            _ => {}
                        }
                    }
                }
                (7, Field::Number(errno)) => answer.errno = errno as i32,
                (9, Field::Bytes(text)) => answer.message = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
        Some(answer)
    }
}

/// What CRIU is to do (`criu_req_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

/// CRIU's process, and what it needs.
pub(crate) struct Worker<'a> {
    pub(crate) criu: &'a Path,
    /// A directory that is made a mount in CRIU's own mount namespace.
    pub(crate) mount: Option<PathBuf>,
    /// Descriptors that it inherits under the same numbers, besides the first three.
    pub(crate) inherit: Vec<i32>,
    /// Moves CRIU, and with it what it restores, into a group.
    pub(crate) by_pid: Option<Placing<'a>>,
    /// Where CRIU's process is written down, for whoever wants to end what does not end by itself.
    pub(crate) place: &'a crate::store::Entry,
}

/// Puts the process of that id into a control group.
pub(crate) type Placing<'a> = &'a mut dyn FnMut(i32) -> Result<()>;

/// What CRIU reports on its way: the step's name, the process id it concerns, a descriptor.
pub(crate) type Notified<'n> = &'n mut dyn FnMut(&str, i32, Option<OwnedFd>) -> Result<()>;

impl Worker<'_> {
    /// Has CRIU do one task; returns the process id of what was restored.
    pub(crate) fn run(mut self, task: Task, opts: &Message, notified: Notified<'_>) -> Result<Option<i32>> {
        let pair =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|e| Error::call("socketpair", e))?;
        let prepared = self.prepare(&theirs)?;
        let flags = if self.mount.is_some() { creel_sys::clone::NEWNS } else { 0 };
        let cloned =
            clone(&Clone { flags, cgroup: None }).map_err(|e| Error::call("cannot clone for CRIU", e))?;
        let (pid, pidfd) = match cloned {
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
            Cloned::Child => {
                let _ = self.become_criu(&prepared, &theirs);
                exit_now(127)
            }
        };
        drop(theirs);
        let mut request = Message::default();
        request.number(1, task as i64).inner(2, opts);
        // CRIU does nothing until it is asked.
        let placed =
            self.place.keep_worker(pid).and_then(|()| self.by_pid.take().map_or(Ok(()), |place| place(pid)));
        let done = placed.and_then(|()| converse(ours.as_fd(), pidfd.as_fd(), task, &request, notified));
        // Its end is what lets a waiting CRIU go.
        drop(ours);
        let _ = wait(Whom::Pidfd(pidfd.as_fd()), true);
        self.place.forget_worker();
        done
    }

    fn prepare(&self, socket: &OwnedFd) -> Result<Exec> {
        let text = |text: &OsStr| {
            CString::new(text.as_bytes()).map_err(|_| Error::Invalid("an argument holds a NUL".into()))
        };
        let number = socket.as_raw_fd().to_string();
        let argv = ["criu".as_ref(), "swrk".as_ref(), OsStr::new(&number)].map(text);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let envp = vec![text(&[OsString::from("PATH="), path].into_iter().collect::<OsString>())?];
        Ok(Exec::new(text(self.criu.as_os_str())?, argv.into_iter().collect::<Result<_>>()?, envp))
    }

    fn become_criu(&self, exec: &Exec, socket: &OwnedFd) -> std::io::Result<()> {
        if let Some(dir) = &self.mount {
            rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            rustix::mount::mount_bind_recursive(dir, dir)?;
        }
        creel_sys::signal::set_mask(creel_sys::signal::SignalSet::EMPTY)?;
        for fd in self.inherit.iter().chain([&socket.as_raw_fd()]) {
            close_range::inherit(*fd)?;
        }
        Err(exec.run())
    }
}

/// Waits until there is something to read; `false` when CRIU has ended without a word. What it has started may hold its
/// end of the socket for longer than it lives.
fn speaks(socket: BorrowedFd<'_>, process: BorrowedFd<'_>) -> Result<bool> {
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::call("poll", e)),
        }
    }
}

fn converse(
    socket: BorrowedFd<'_>,
    process: BorrowedFd<'_>,
    task: Task,
    request: &Message,
    notified: Notified<'_>,
) -> Result<Option<i32>> {
    let failed = |e: std::io::Error| Error::call("cannot speak with CRIU", e);
    fdpass::send(socket, &request.0, &[]).map_err(failed)?;
    let mut buf = vec![0u8; MAX_ANSWER];
    loop {
        let silent = || Error::Invalid("CRIU ended without an answer".into());
        if !speaks(socket, process)? {
            return Err(silent());
        }
        let (n, fds) = match fdpass::recv(socket, &mut buf) {
            Ok((0, _)) => return Err(silent()),
            // It has not even read what it was asked.
            Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => return Err(silent()),
            other => other.map_err(failed)?,
        };
        let answer =
            Answer::parse(&buf[..n]).ok_or_else(|| Error::Invalid("CRIU's answer cannot be read".into()))?;
        if !answer.success {
            return Err(Error::Invalid(
                format!("errno {} {}", answer.errno, answer.message).trim_end().into(),
            ));
        }
        if answer.kind != NOTIFY {
            return if answer.kind == task as u64 {
                Ok(answer.restored)
            } else {
                Err(Error::Invalid(format!("CRIU answers something else: type {}", answer.kind)))
            };
        }
        let result = notified(&answer.script, answer.notify_pid, fds.into_iter().next());
        let mut reply = Message::default();
        reply.number(1, NOTIFY as i64).number(3, i64::from(result.is_ok()));
        fdpass::send(socket, &reply.0, &[]).map_err(failed)?;
        result?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_protocol_buffers() {
        let mut inner = Message::default();
        inner.text(1, "key").number(2, 300);
        let mut message = Message::default();
        message.number(1, 1).flag(2, false).flag(3, true).inner(5, &inner).number(4, -1);
        let expected = [
            &[0x08, 1, 0x18, 1, 0x2a, 8, 0x0a, 3, b'k', b'e', b'y', 0x10, 0xac, 0x02, 0x20][..],
            &[0xff; 9],
            &[1],
        ]
        .concat();
        assert_eq!(message.0, expected);
    }

    #[test]
    fn answers() {
        let mut notify = Message::default();
        notify.text(1, "orphan-pts-master").number(2, 77);
        let mut restored = Message::default();
        restored.number(1, 42);
        let mut answer = Message::default();
        answer.number(1, 6).number(2, 1).inner(4, &restored).inner(5, &notify).number(7, 3).text(9, "why");
        let wanted = Answer {
            kind: 6,
            success: true,
            restored: Some(42),
            script: "orphan-pts-master".into(),
            notify_pid: 77,
            errno: 3,
            message: "why".into(),
        };
        assert_eq!(Answer::parse(&answer.0), Some(wanted));
        assert_eq!(Answer::parse(&answer.0[..answer.0.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Answer::parse(&bytes);
        }

        #[test]
        fn numbers_come_back(number: i64, field in 1u32..1000) {
            let mut message = Message::default();
            message.number(field, number);
            prop_assert_eq!(fields(&message.0), Some(vec![(u64::from(field), Field::Number(number as u64))]));
        }
    }
}
