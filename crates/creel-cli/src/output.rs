//! Writing to standard output and error.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::failure::Failure;

/// Exit code of a program that SIGPIPE ended: what Docker's client gives when its reader has gone.
const READER_GONE: i32 = 141;

/// Writes all bytes to a descriptor, also to one that somebody made non-blocking.
///
/// # Errors
/// The kernel's: EPIPE when the reader has gone, EIO, ENOSPC.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes a text to standard output.
///
/// # Errors
/// A silent failure when the reader has gone; else one that tells why.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes a line to standard output.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    write_all(std::io::stdout().as_fd(), bytes).map_err(|e| match e {
        Errno::PIPE => Failure::silent(READER_GONE),
        e => Failure::new(format!("writing to standard output: {}", crate::os_words(&e.into()))),
    })
}

/// Writes a line to standard error; nobody could be told if that fails.
pub(crate) fn complain(text: &str) {
    let _ = write_all(std::io::stderr().as_fd(), format!("{text}\n").as_bytes());
}
