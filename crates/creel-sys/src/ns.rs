//! Namespaces: unshare(2) and setns(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check_int;

/// Moves the calling thread into new namespaces (`CLONE_NEW*` bits of [`crate::clone`]).
///
/// # Errors
/// EINVAL for any other bit; else the kernel's.
pub fn unshare(flags: u64) -> io::Result<()> {
    use crate::clone::{NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWTIME, NEWUSER, NEWUTS};
    let known = NEWCGROUP | NEWIPC | NEWNET | NEWNS | NEWPID | NEWTIME | NEWUSER | NEWUTS;
    if flags & !known != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: only namespace bits are passed; none of them touches memory or the descriptor table.
    check_int(unsafe { libc::unshare(flags as libc::c_int) }).map(drop)
}

/// Joins namespaces: `fd` is a namespace file, with `flags` its kind or 0; or a pidfd, with `flags` the kinds to
/// join of that process.
///
/// # Errors
/// The kernel's (setns(2)).
pub fn setns(fd: impl AsFd, flags: u64) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; setns touches no memory.
    check_int(unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags as libc::c_int) }).map(drop)
}

/// The kind of namespace that a namespace file is, as a `CLONE_NEW*` bit (ioctl_ns(2), NS_GET_NSTYPE, Linux 4.11).
///
/// # Errors
/// ENOTTY when the file is no namespace.
pub fn kind(fd: impl AsFd) -> io::Result<u64> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument and returns a number.
    let bit = check_int(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE as _) })?;
    Ok(u64::from(bit as u32))
}

/// Sets the host name of the UTS namespace.
///
/// # Errors
/// The kernel's (sethostname(2)): EPERM, EINVAL (longer than 64 bytes).
pub fn sethostname(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice.
    check_int(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// The kernel's (setdomainname(2)): EPERM, EINVAL (longer than 64 bytes).
pub fn setdomainname(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice.
    check_int(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}
