//! close_range(2).

use std::io;

use crate::check;

/// Marks every descriptor from `first` on close-on-exec: what a program inherits is then decided by what is cleared
/// again. (Closing at once would pull descriptors from under their owners in this process.)
///
/// # Errors
/// ENOSYS before Linux 5.9, EINVAL before 5.11.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: only marks descriptors; none is closed before an execve.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOEXEC) }).map(drop)
}

/// Lets the program that is executed next inherit a descriptor: clears close-on-exec.
///
/// # Errors
/// EBADF when it is not open.
pub fn inherit(fd: i32) -> io::Result<()> {
    // SAFETY: F_SETFD takes a number and changes nothing but that flag.
    crate::check_int(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}
