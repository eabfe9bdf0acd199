//! What the container's process tells its creator, over a close-on-exec socket whose end means "the program runs".

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use creel_sys::fdpass;
use creel_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault, WireKind, plain};

/// Microseconds spent in one group of steps.
pub type Timing = (String, u64);

/// One message; one packet of a `SOCK_SEQPACKET` socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Something could not be done as asked, and the container works nevertheless.
    Warning(String),
    /// The terminal's master comes along as a descriptor.
    Console,
    /// A process in between has cloned the child, whose pidfd comes along.
    Born(i32),
    /// What a process in between was to open comes along.
    Tree,
    /// The creator is to do something, and to say so when it is done.
    Ask(Ask),
    /// The filter's listener will be this descriptor; a pidfd of the child and the memory on which it waits come along.
    Listener { number: i32 },
    /// Everything but the execve is done.
    Ready(Vec<Timing>),
    /// A step failed; the child exits.
    Failed { step: String, message: String, errno: Option<i32>, kind: WireKind },
}

/// What only the creator can do, since it takes rights, or a view of the host, that the child has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Write the maps of the new user namespace.
    IdMaps,
    /// Write the offsets of the new time namespace's clocks.
    TimeOffsets,
    /// Move the process into its control group.
    Group,
    /// Run the hooks of kinds prestart and createRuntime.
    Hooks,
    /// Open the source of this step, and hand it over.
    Source(usize),
}

/// The byte that opens the gate.
pub(crate) const GO: u8 = b'G';

/// Packets beyond this are cut by the sender: error texts can quote long paths.
const MAX_PACKET: usize = 32 * 1024;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: OwnedFd,
}

impl Reporter {
    pub(crate) fn new(socket: OwnedFd) -> Reporter {
        Reporter { socket }
    }

    /// The descriptor's number.
    pub(crate) fn number(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub(crate) fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) {
        // A creator that is gone cannot be told anything; the gate will tell the child so.
        if let Ok(bytes) = serde_json::to_vec(message)
            && bytes.len() <= MAX_PACKET
        {
            let _ = fdpass::send(&self.socket, &bytes, fds);
        }
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.send(&Message::Warning(text.into()), &[]);
    }

    pub(crate) fn failed(&self, step: String, fault: Fault) {
        let mut message = fault.message;
        truncate(&mut message, 8 * 1024);
        self.send(&Message::Failed { step, message, errno: fault.errno, kind: fault.kind.into() }, &[]);
    }

    /// Has the creator do something.
    pub(crate) fn ask(&self, ask: Ask) -> Result<(), Fault> {
        self.send(&Message::Ask(ask), &[]);
        if self.wait() { Ok(()) } else { Err(Fault::new(ErrorKind::Unavailable, "the creator is gone")) }
    }

    /// Has the creator open something.
    pub(crate) fn ask_for(&self, ask: Ask) -> Result<OwnedFd, Fault> {
        self.send(&Message::Ask(ask), &[]);
        let gone = || Fault::new(ErrorKind::Unavailable, "the creator is gone");
        let (read, fds) = fdpass::recv(&self.socket, &mut [0u8; 1]).map_err(|_| gone())?;
        fds.into_iter().next().filter(|_| read == 1).ok_or_else(gone)
    }

    /// Waits at a listening socket for the one who opens the gate; his connection carries the reports from then on. A
    /// signal that is readable at `signals` ends the process.
    pub(crate) fn accept(&mut self, listener: &OwnedFd, signals: &OwnedFd) -> Result<(), Fault> {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if let Some(info) = creel_sys::signal::read_signalfd(signals)? {
                creel_sys::process::exit_now(128 + info.signal);
            }
            if !fds[0].revents().contains(PollFlags::IN) {
                continue;
            }
            match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
                Ok(connection) => {
                    self.socket = connection;
                    // One who hangs up without a word has not opened it.
                    if self.wait() {
                        return Ok(());
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits until the gate opens; false when the creator is gone.
    pub(crate) fn wait(&self) -> bool {
        let mut byte = [0u8; 1];
        loop {
            match rustix::io::read(&self.socket, &mut byte) {
                Ok(1) => return byte[0] == GO,
                Err(rustix::io::Errno::INTR) => {}
                _ => return false,
            }
        }
    }
}

fn truncate(text: &mut String, max: usize) {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// A connected pair: (creator's end, child's end).
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::setup("cannot make a socket to the container's process", e))
}

/// Receives one message; `None` at the end of the stream.
pub(crate) fn receive(
    socket: impl AsFd,
    buf: &mut Vec<u8>,
) -> Result<Option<(Message, Vec<OwnedFd>)>, Error> {
    buf.resize(MAX_PACKET, 0);
    let what = "cannot read what the container's process reports";
    let (n, fds) = match fdpass::recv(socket, buf) {
        // The child died with our unread byte in its queue: an end like any other.
        Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => return Ok(None),
        other => other.map_err(|e| Error::setup(what, e))?,
    };
    if n == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buf[..n]).map_err(|e| Error::setup(what, e))?;
    Ok(Some((message, fds)))
}

/// Tells a child that what it asked for is done, and gives it what came of it.
pub(crate) fn give(socket: impl AsFd, fd: Option<&OwnedFd>) -> Result<(), Error> {
    let Some(fd) = fd else { return go(socket) };
    match fdpass::send(&socket, &[GO], &[fd.as_fd()]) {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
            Err(Error::setup("cannot give the container's process its descriptor", plain(&e)))
        }
        _ => Ok(()),
    }
}

/// Opens the gate.
pub(crate) fn go(socket: impl AsFd) -> Result<(), Error> {
    let flags = rustix::net::SendFlags::NOSIGNAL;
    match rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&[GO])],
        &mut rustix::net::SendAncillaryBuffer::default(),
        flags,
    ) {
        Ok(_) => Ok(()),
        // It died at the gate; the reader will see the end and say so.
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
        Err(e) => Err(Error::setup("cannot tell the container's process to start", e)),
    }
}

/// The caller's error for a failed step.
pub(crate) fn failure(step: String, message: String, errno: Option<i32>, kind: WireKind) -> Error {
    match kind {
        WireKind::ProgramNotFound | WireKind::ProgramNotExecutable => {
            Error::Program { kind: kind.into(), message }
        }
        _ => Error::Step { step, message, errno, kind: kind.into() },
    }
}
