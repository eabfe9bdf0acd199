//! Process descriptors: a process that cannot be mistaken for another (pidfd_open(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::check;

/// The pidfd of a process, close-on-exec.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers, touches no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal; 0 only asks whether the process lives.
///
/// # Errors
/// ESRCH when the process has ended and been waited for, EPERM, EINVAL.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed; the descriptor is borrowed for the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    })
    .map(drop)
}

/// Takes a copy of another process's descriptor (pidfd_getfd(2)), close-on-exec.
///
/// # Errors
/// EBADF, EPERM, ESRCH.
pub fn getfd(pidfd: impl AsFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers, touches no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
