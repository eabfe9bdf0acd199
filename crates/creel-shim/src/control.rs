//! Control connections, and connections that have not said yet what they are to be.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::framing::{self, Lines};
use crate::proto::{Event, Message, Outcome, Reply};

/// Unread replies and events at which a control connection is given up.
const LIMIT: usize = 4 << 20;

/// What a connection has shown itself to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing came yet.
    New,
    /// It sent a request.
    Control,
    /// It was refused: nothing more is read, and it ends when its last line is sent.
    Closing,
}

/// One connection that speaks in lines.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Names it among all connections of the shim.
    pub(crate) id: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it gets events.
    pub(crate) subscribed: bool,
    socket: OwnedFd,
    lines: Lines,
    out: VecDeque<u8>,
    gone: bool,
}

impl Connection {
    /// Serves `socket`.
    pub(crate) fn new(id: u64, socket: OwnedFd) -> Self {
        Self {
            id,
            kind: Kind::New,
            subscribed: false,
            socket,
            lines: Lines::default(),
            out: VecDeque::new(),
            gone: false,
        }
    }

    /// Reads what has come.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) {
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.gone = true,
                Ok((n, _)) if self.kind != Kind::Closing => {
                    self.lines.push(&buffer[..n]);
                    if n == buffer.len() {
                        continue;
                    }
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
            return;
        }
    }

    /// The next line, if one is whole.
    pub(crate) fn next_line(&mut self) -> Option<Vec<u8>> {
        if self.kind == Kind::Closing {
            return None;
        }
        match self.lines.next_line() {
            Ok(line) => line,
            Err(error) => {
                let failure = crate::failure(creel_types::ErrorKind::InvalidArgument, error.to_string());
                self.reply(Reply { seq: 0, outcome: Outcome::Error(failure) });
                self.kind = Kind::Closing;
                None
            }
        }
    }

    /// Sends a reply.
    pub(crate) fn reply(&mut self, reply: Reply) {
        self.send(&Message::Reply(reply));
    }

    /// Sends an event, if it is subscribed.
    pub(crate) fn tell(&mut self, event: &Event) {
        if self.subscribed {
            self.send(&Message::Event(event.clone()));
        }
    }

    /// Sends one line.
    pub(crate) fn send<T: serde::Serialize>(&mut self, message: &T) {
        match framing::encode(message) {
            Ok(line) => self.out.extend(line),
            Err(_) => self.gone = true,
        }
        self.flush();
        self.gone |= self.out.len() > LIMIT;
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) {
        while !self.out.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, self.out.as_slices().0, flags) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.out = VecDeque::new();
    }

    /// The descriptor and what to poll it for.
    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let wanted = if self.out.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        (self.socket.as_fd(), wanted)
    }

    /// Bytes that have not been taken yet.
    pub(crate) fn unsent(&self) -> usize {
        if self.gone { 0 } else { self.out.len() }
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.gone || (self.kind == Kind::Closing && self.out.is_empty())
    }

    /// Becomes a stream connection: its socket and the bytes that came after the line.
    pub(crate) fn into_stream(self) -> (OwnedFd, Vec<u8>) {
        (self.socket, self.lines.into_rest())
    }
}
