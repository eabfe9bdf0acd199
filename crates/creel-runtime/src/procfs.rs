//! A procfs of our own: freshly mounted, attached nowhere, reachable by nobody else.

use std::fmt::Display;
use std::os::fd::OwnedFd;

use creel_sys::openat2;
use rustix::fs::OFlags;

use crate::error::Fault;
use crate::mounts::{MountOptions, apply};

/// The fresh procfs of the process's pid namespace.
#[derive(Debug)]
pub(crate) struct Procfs {
    mount: OwnedFd,
}

impl Procfs {
    pub(crate) fn open() -> Result<Procfs, Fault> {
        Ok(Procfs { mount: apply::new_filesystem("proc", "proc", &MountOptions::default(), &[])? })
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
