//! Device numbers and nodes (makedev(3), mknodat(2)).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check_int;

/// Joins a major and a minor number as the kernel does.
pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// The major number of a device.
pub fn major(dev: u64) -> u32 {
    libc::major(dev)
}

/// The minor number of a device.
pub fn minor(dev: u64) -> u32 {
    libc::minor(dev)
}

/// Makes a node `name` in the directory `dir`; `mode` holds type and permissions (less the umask).
///
/// # Errors
/// The kernel's (mknodat(2)): EEXIST, EPERM.
pub fn mknodat(dir: impl AsFd, name: &CStr, mode: u32, dev: u64) -> io::Result<()> {
    // SAFETY: the name ends in NUL.
    check_int(unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, dev) }).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (136, 1_000_000), (4095, 1_048_575)] {
            let dev = super::makedev(major, minor);
            assert_eq!((super::major(dev), super::minor(dev)), (major, minor));
        }
    }
}
