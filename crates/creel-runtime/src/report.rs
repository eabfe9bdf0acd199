//! What the container's process tells its creator, over a close-on-exec socket whose end means "the program runs".

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use creel_sys::fdpass;
use creel_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault, WireKind};
use crate::filter::{Compiled, Filter};

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

/// The longest filter: BPF_MAXINSNS instructions of 8 bytes, and what is before them.
const MAX_FILTER: usize = 4096 * 8 + 8;

/// Packets beyond this are cut by the sender: error texts can quote long paths.
const MAX_PACKET: usize = 32 * 1024;

/// What a creator sends to a child that is at work already; the first byte of the packet says which.
#[derive(Debug)]
enum Parcel {
    /// The gate opens, or what was asked for is done, and this came of it.
    Go(Option<OwnedFd>),
    /// The doors of the control group, as descriptors; `None` when there are none any more.
    Doors(Option<Vec<OwnedFd>>),
    /// The packet: after its first byte the system call filter, as [`Filter::to_compiled`] writes it.
    Filter(Vec<u8>),
}

const DOORS: u8 = b'D';
const NO_DOORS: u8 = b'N';
const FILTER: u8 = b'F';

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: OwnedFd,
    /// Whether the group in which the child was to be born was gone.
    outside: bool,
    /// What came before it was asked for.
    early: RefCell<Vec<Parcel>>,
}

impl Reporter {
    pub(crate) fn new(socket: OwnedFd) -> Reporter {
        Reporter { socket, outside: false, early: RefCell::new(Vec::new()) }
    }

    /// The same for a child whose group was gone when it was born.
    pub(crate) fn outside(self, outside: bool) -> Reporter {
        Reporter { outside, ..self }
    }

    /// Whether the group of the unified hierarchy in which the child was to be born was gone.
    pub(crate) fn born_outside(&self) -> bool {
        self.outside
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
        match self.parcel(|parcel| matches!(parcel, Parcel::Go(_))) {
            Some(Parcel::Go(Some(fd))) => Ok(fd),
            _ => Err(Fault::new(ErrorKind::Unavailable, "the creator is gone")),
        }
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
        self.parcel(|parcel| matches!(parcel, Parcel::Go(_))).is_some()
    }

    /// Waits for the doors of the control group, which the creator sends when it has made them; `None` when they are gone
    /// already.
    pub(crate) fn doors(&self) -> Result<Option<Vec<OwnedFd>>, Fault> {
        match self.parcel(|parcel| matches!(parcel, Parcel::Doors(_))) {
            Some(Parcel::Doors(doors)) => Ok(doors),
            _ => Err(Fault::new(ErrorKind::Unavailable, "the creator is gone")),
        }
    }

    /// Waits for the system call filter, which the creator sends when it has compiled it.
    pub(crate) fn filter(&self) -> Result<Filter, Fault> {
        match self.parcel(|parcel| matches!(parcel, Parcel::Filter(_))) {
            Some(Parcel::Filter(packet)) => Filter::from_bytes(&packet[1..])
                .ok_or_else(|| Fault::new(ErrorKind::Internal, "the system call filter was cut off")),
            _ => Err(Fault::new(ErrorKind::Unavailable, "the creator is gone")),
        }
    }

    /// The first parcel of a kind; `None` when the creator is gone.
    fn parcel(&self, wanted: impl Fn(&Parcel) -> bool) -> Option<Parcel> {
        let mut early = self.early.borrow_mut();
        if let Some(at) = early.iter().position(&wanted) {
            return Some(early.remove(at));
        }
        loop {
            let (packet, fds) = fdpass::recv_packet(&self.socket, MAX_FILTER).ok()?;
            let parcel = match packet.split_first()? {
                (&GO, []) => Parcel::Go(fds.into_iter().next()),
                (&DOORS, []) => Parcel::Doors(Some(fds)),
                (&NO_DOORS, []) => Parcel::Doors(None),
                (&FILTER, _) => Parcel::Filter(packet),
                _ => return None,
            };
            if wanted(&parcel) {
                return Some(parcel);
            }
            early.push(parcel);
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
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<(Message, Vec<OwnedFd>)>, Error> {
    let what = "cannot read what the container's process reports";
    let (packet, fds) = match fdpass::recv_packet(&socket, MAX_PACKET) {
        // It ended without reading all that we sent, which is told once, before what it said itself.
        Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => fdpass::recv_packet(&socket, MAX_PACKET),
        other => other,
    }
    .map_err(|e| Error::setup(what, e))?;
    if packet.is_empty() {
        return Ok(None);
    }
    let message = serde_json::from_slice(&packet).map_err(|e| Error::setup(what, e))?;
    Ok(Some((message, fds)))
}

/// Tells a child that what it asked for is done, and gives it what came of it.
pub(crate) fn give(socket: impl AsFd, fd: Option<&OwnedFd>) -> Result<(), Error> {
    let fds: Vec<_> = fd.map(AsFd::as_fd).into_iter().collect();
    send_parcel(socket, &[GO], &fds)
}

/// Sends the doors of the control group; `None` when they are gone.
pub(crate) fn send_doors(socket: impl AsFd, doors: Option<&[BorrowedFd<'_>]>) -> Result<(), Error> {
    match doors {
        Some(doors) => send_parcel(socket, &[DOORS], doors),
        None => send_parcel(socket, &[NO_DOORS], &[]),
    }
}

/// Sends the system call filter.
pub(crate) fn send_filter(socket: impl AsFd, filter: &Compiled) -> Result<(), Error> {
    send_parcel(socket, &[&[FILTER], filter.as_bytes()].concat(), &[])
}

fn send_parcel(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    match fdpass::send(socket, bytes, fds) {
        // It has ended; the reader will see that and say so.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        other => {
            other.map(drop).map_err(|e| Error::setup("cannot tell the container's process what it needs", e))
        }
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
