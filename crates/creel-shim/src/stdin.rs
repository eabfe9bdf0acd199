//! What is on its way to a process's stdin.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Queue at which no more is read from attachers.
const LIMIT: usize = 64 * 1024;

/// The write end of a stdin pipe, or a terminal's master, with the bytes that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    fd: Option<OwnedFd>,
    queue: VecDeque<u8>,
    ending: bool,
}

impl Stdin {
    /// Gives the queue its descriptor, which must not block: bytes may have come before the process existed.
    pub(crate) fn connect(&mut self, fd: OwnedFd) {
        self.fd = Some(fd);
    }

    /// Takes bytes for the process.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.ending {
            self.queue.extend(bytes);
        }
    }

    /// Whether more should be read from attachers.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < LIMIT
    }

    /// Closes it once the queue is written.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// Closes it now, forgetting the queue: nobody reads any more.
    pub(crate) fn close(&mut self) {
        self.fd = None;
        self.ending = true;
        self.queue = VecDeque::new();
    }

    /// The descriptor to poll for writing, if bytes wait.
    pub(crate) fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.queue.is_empty()).map(AsFd::as_fd)
    }

    /// Writes as much as is taken.
    pub(crate) fn flush(&mut self) {
        let Some(fd) = &self.fd else { return };
        while !self.queue.is_empty() {
            match rustix::io::write(fd, self.queue.as_slices().0) {
                Ok(n) => drop(self.queue.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.close(),
            }
        }
        if self.queue.capacity() > LIMIT / 16 {
            self.queue = VecDeque::new();
        }
        if self.ending {
            self.fd = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pipe() -> (std::io::PipeReader, Stdin) {
        let (reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut stdin = Stdin::default();
        stdin.connect(writer);
        (reader, stdin)
    }

    #[test]
    fn everything_is_written_before_the_end() {
        let (mut reader, mut stdin) = pipe();
        let text: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        stdin.push(&text);
        stdin.end();
        stdin.push(b"too late");
        stdin.flush();
        assert!(stdin.wants_write().is_some() && !stdin.has_room());
        let mut got = vec![0; 50_000];
        reader.read_exact(&mut got).unwrap();
        while stdin.wants_write().is_some() {
            let mut more = [0; 4096];
            let n = reader.read(&mut more).unwrap();
            got.extend_from_slice(&more[..n]);
            stdin.flush();
        }
        reader.read_to_end(&mut got).unwrap();
        assert!(got == text);
    }

    #[test]
    fn a_closed_reader_ends_it() {
        let (reader, mut stdin) = pipe();
        drop(reader);
        stdin.push(b"x");
        stdin.flush();
        assert!(stdin.wants_write().is_none() && stdin.has_room());
    }
}
