//! Session keyrings (keyctl(2)).

use std::ffi::CStr;
use std::io;

use crate::check;

/// Gives the caller a new session keyring, so that it shares none with the host; `None` makes an anonymous one.
///
/// # Errors
/// ENOSYS without key support, EDQUOT when the user's quota of keys is used up, EPERM under a filter.
pub fn join_session_keyring(name: Option<&CStr>) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the name is null or ends in NUL.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
}
