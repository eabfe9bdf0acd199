//! What a process was born with: taking the one descriptor that is meant for it and closing what leaked in.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{check, check_int};

/// Takes the inherited descriptor `wanted` as the process's own (close-on-exec) and closes every other one from 3 on.
///
/// For the first lines of a process only, before anything else was opened: descriptors that are owned already would be
/// closed under their owners. It therefore refuses to run twice. 0, 1 and 2 stay open; if `wanted` is one of them, it is
/// duplicated.
///
/// # Errors
/// EBADF when `wanted` is not open; EEXIST when called again; else the kernel's (close_range(2), fcntl(2)).
pub fn take(wanted: i32) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if wanted < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    let close = |first: i32, last: u32| -> io::Result<()> {
        if first as u32 > last {
            return Ok(());
        }
        // SAFETY: the caller promises that nothing in this process owns these descriptors yet.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
    };
    if wanted > 3 {
        close(3, wanted as u32 - 1)?;
    }
    close(wanted.max(2) + 1, u32::MAX)?;
    // SAFETY: duplicates a descriptor; touches no memory.
    let own = check_int(unsafe { libc::fcntl(wanted, libc::F_DUPFD_CLOEXEC, 3) })?;
    if wanted > 2 {
        // SAFETY: as above; the duplicate is what remains.
        check_int(unsafe { libc::close(wanted) })?;
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}
