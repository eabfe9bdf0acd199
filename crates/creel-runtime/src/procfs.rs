//! A procfs of our own: freshly mounted, attached nowhere, reachable by nobody else.

use std::fmt::Display;
use std::os::fd::OwnedFd;

use creel_sys::openat2;
use creel_types::ErrorKind;
use rustix::fs::{Mode, OFlags};

use crate::error::Fault;
use crate::mounts::{MountOptions, apply};

/// The fresh procfs of the process's pid namespace.
#[derive(Debug)]
pub(crate) struct Procfs {
    mount: OwnedFd,
}

impl Procfs {
    pub(crate) fn open() -> Result<Procfs, Fault> {
        match apply::new_filesystem("proc", "proc", &MountOptions::default(), &[]) {
            // In a user namespace whose host shows only parts of its own procfs, there is none to be had.
            Err(fault) if fault.errno == Some(libc::EPERM) => Procfs::mounted().map_err(|_| fault),
            other => Ok(Procfs { mount: other? }),
        }
    }

    /// The one at `/proc`, if it is one: its file system and its root say so. What is mounted over its files is no part
    /// of it, and [`Procfs::write`] crosses no mount.
    fn mounted() -> Result<Procfs, Fault> {
        const ROOT_INODE: u64 = 1;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mount = rustix::fs::open("/proc", flags, Mode::empty())?;
        if !apply::is_procfs(&mount)? || rustix::fs::fstat(&mount)?.st_ino != ROOT_INODE {
            return Err(Fault::new(ErrorKind::InvalidArgument, "/proc is no procfs"));
        }
        Ok(Procfs { mount })
    }

    /// Writes a file of procfs in one write; no link is followed on the way to it.
    pub(crate) fn write(&self, path: &str, value: &str) -> Result<(), Fault> {
        let file = openat2::open_strict(&self.mount, path, OFlags::WRONLY, 0)?;
        rustix::io::write(&file, value.as_bytes())?;
        Ok(())
    }

    /// Writes a file of the calling process.
    pub(crate) fn write_own(&self, name: impl Display, value: &str) -> Result<(), Fault> {
        self.write(&format!("{}/{name}", creel_sys::process::pid()), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_followed() {
        let procfs = Procfs::mounted().unwrap();
        let own = std::process::id();
        let write = |path: &str| procfs.write(path, "same").map_err(|fault| fault.errno);
        assert_eq!(write(&format!("{own}/comm")), Ok(()));
        for path in ["self/comm".to_string(), format!("{own}/root/proc/{own}/comm"), "mounts".into()] {
            assert_eq!(write(&path), Err(Some(libc::ELOOP)), "{path}");
        }
    }
}
