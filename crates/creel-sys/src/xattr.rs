//! Extended attributes of an open file, whatever way it was opened (xattr(7)).
//!
//! `O_PATH` descriptors do not allow fgetxattr(2) and its kin; the file is then named by `/proc/self/fd/N`, which
//! follows to the very object (for a symbolic link too). All values are raw bytes; all functions allocate.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check;

fn proc_path(fd: impl AsFd) -> io::Result<CString> {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).map_err(io::Error::other)
}

/// Reads a value; `None` when the file has no such attribute or its file system knows none.
///
/// # Errors
/// The kernel's (getxattr(2)).
pub fn get(fd: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(fd)?;
    // SAFETY: both strings end in NUL; pointer and length describe one buffer, or none to ask for the size.
    let result = sized(|buf, len| unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buf.cast(), len) });
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
        other => other.map(Some),
    }
}

/// The names of all attributes that the caller may see.
///
/// # Errors
/// The kernel's (listxattr(2)); a file system without attributes has none.
pub fn list(fd: impl AsFd) -> io::Result<Vec<CString>> {
    let path = proc_path(fd)?;
    // SAFETY: the path ends in NUL; pointer and length describe one buffer, or none to ask for the size.
    let bytes = match sized(|buf, len| unsafe { libc::listxattr(path.as_ptr(), buf.cast(), len) }) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    Ok(bytes
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

/// Sets a value, making the attribute if need be.
///
/// # Errors
/// The kernel's (setxattr(2)): EPERM, EOPNOTSUPP, ENOSPC, E2BIG.
pub fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = proc_path(fd)?;
    // SAFETY: both strings end in NUL; pointer and length describe one slice.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(libc::c_long::from(result)).map(drop)
}

/// Removes an attribute.
///
/// # Errors
/// The kernel's (removexattr(2)): ENODATA when there is none.
pub fn remove(fd: impl AsFd, name: &CStr) -> io::Result<()> {
    let path = proc_path(fd)?;
    // SAFETY: both strings end in NUL.
    check(libc::c_long::from(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })).map(drop)
}

/// Reads into a small buffer and, if the value is larger, into one of the size that the kernel names, again if it
/// grew meanwhile.
fn sized(read: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0u8; 256];
    loop {
        match check(read(buf.as_mut_ptr(), buf.len()) as libc::c_long) {
            Ok(n) => {
                buf.truncate(n as usize);
                return Ok(buf);
            }
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) => {
                let n = check(read(std::ptr::null_mut(), 0) as libc::c_long)?;
                buf.resize((n as usize).max(buf.len() * 2), 0);
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    #[test]
    fn values_of_all_sizes_round_trip() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        for len in [0, 1, 255, 257, 3000] {
            let value = vec![b'v'; len];
            match super::set(file.as_fd(), c"user.creel", &value) {
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
                other => other.unwrap(),
            }
            assert_eq!(super::get(file.as_fd(), c"user.creel").unwrap().unwrap(), value);
        }
        assert!(super::list(file.as_fd()).unwrap().iter().any(|name| name.as_c_str() == c"user.creel"));
        super::remove(file.as_fd(), c"user.creel").unwrap();
        assert_eq!(super::get(file.as_fd(), c"user.creel").unwrap(), None);
    }
}
