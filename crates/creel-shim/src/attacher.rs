//! One stream connection: somebody who watches a process's output and may feed its stdin.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::framing::mux;
use crate::log::Stream;
use crate::proto::Attach;

/// Unsent bytes at which the process's output is read no further.
const LIMIT: usize = 32 * 1024;

/// A connection that gets output and gives input.
#[derive(Debug)]
pub(crate) struct Attacher {
    /// Names it among all connections of the shim.
    pub(crate) id: u64,
    socket: OwnedFd,
    wants: Attach,
    out: VecDeque<u8>,
    /// No more input comes: the other side has shut its half down.
    input_ended: bool,
    /// Nobody is there any more.
    gone: bool,
}

/// What came from an attacher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// So many bytes, at the beginning of the buffer.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The end of its stdin.
    End,
}

impl Attacher {
    /// Serves `socket`; `first` is sent before any output.
    pub(crate) fn new(id: u64, socket: OwnedFd, wants: Attach, first: &[u8]) -> Self {
        let mut attacher =
            Self { id, socket, wants, out: first.iter().copied().collect(), input_ended: false, gone: false };
        attacher.flush();
        attacher
    }

    /// Whether its input is stdin.
    pub(crate) fn gives_stdin(&self) -> bool {
        self.wants.stdin
    }

    fn takes(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.wants.stdout,
            Stream::Stderr => self.wants.stderr,
        }
    }

    /// Sends output, or keeps what the socket does not take. `framed` puts a multiplexing header before it.
    pub(crate) fn send(&mut self, stream: Stream, bytes: &[u8], framed: bool) {
        if self.gone || !self.takes(stream) {
            return;
        }
        if framed {
            let number = if stream == Stream::Stdout { mux::STDOUT } else { mux::STDERR };
            self.out.extend(mux::header(number, bytes.len() as u32));
        }
        self.out.extend(bytes);
        self.flush();
    }

    /// Whether output of this stream must wait for it.
    pub(crate) fn holds_back(&self, stream: Stream) -> bool {
        !self.gone && self.takes(stream) && self.out.len() >= LIMIT
    }

    /// Whether all that it was sent has left.
    pub(crate) fn is_flushed(&self) -> bool {
        self.gone || self.out.is_empty()
    }

    /// Bytes that it has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        if self.gone { 0 } else { self.out.len() }
    }

    /// Whether nobody is there any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The descriptor and what to poll it for; `take_input` tells whether stdin has room.
    pub(crate) fn interest(&self, take_input: bool) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        if !self.out.is_empty() {
            flags |= PollFlags::OUT;
        }
        // Without stdin, bytes are read to be dropped; a hang-up is told whatever is asked for.
        if !self.input_ended && (take_input || !self.wants.stdin) {
            flags |= PollFlags::IN;
        }
        (self.socket.as_fd(), flags)
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) {
        while !self.gone && !self.out.is_empty() {
            match rustix::net::send(
                &self.socket,
                self.out.as_slices().0,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.gone = true,
            }
        }
        if self.out.capacity() > LIMIT / 8 {
            self.out = VecDeque::new();
        }
    }

    /// Reads what it sends.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Input {
        if self.input_ended || self.gone {
            return Input::Nothing;
        }
        match rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.input_ended = true;
                Input::End
            }
            Ok((n, _)) => Input::Bytes(n),
            Err(Errno::AGAIN | Errno::INTR) => Input::Nothing,
            Err(_) => {
                self.gone = true;
                Input::Nothing
            }
        }
    }

    /// Notes that the other side is gone altogether.
    pub(crate) fn hang_up(&mut self) {
        self.gone = true;
    }
}

impl Drop for Attacher {
    /// Ends the stream so that the other side reads an end and not ECONNRESET, which a unix socket gives when it is
    /// closed with unread bytes.
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        let mut rest = [0; 1024];
        while matches!(rustix::net::recv(&self.socket, &mut rest[..], RecvFlags::DONTWAIT), Ok((1.., _))) {}
    }
}
