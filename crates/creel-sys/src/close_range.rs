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

/// Closes every descriptor from 3 on that is not in `keep`.
///
/// For a cloned child only, which has got copies of all that its creator holds and never runs the creator's
/// destructors: a descriptor that an owner in *this* process still uses would be closed under it.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_all_but(keep: &[i32]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first: u32 = 3;
    for last in keep.into_iter().map(Some).chain([None]) {
        match last {
            Some(fd) if fd < first => continue,
            Some(fd) if fd == first => {}
            // SAFETY: the caller is a child that does not use these descriptors (see above).
            Some(fd) => check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) }).map(drop)?,
            None => {
                // SAFETY: as above.
                check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) })?;
                return Ok(());
            }
        }
        first = last.map_or(first, |fd| fd + 1);
    }
    Ok(())
}
