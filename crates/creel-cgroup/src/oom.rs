//! Learning that the OOM killer was at work.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::apply::{self, Kernel, Real};
use crate::error::{Error, Result};
use crate::files;

/// Where a group's memory is counted.
#[derive(Debug, Clone)]
pub(crate) enum MemoryDir {
    V1(PathBuf),
    V2(PathBuf),
}

impl MemoryDir {
    /// How many processes the OOM killer has ended in the group and below it.
    pub(crate) fn oom_kills(&self) -> Result<u64> {
        match self {
            // memory.events counts for the whole subtree.
            MemoryDir::V2(dir) => count(&dir.join("memory.events")),
            // oom_control counts for one group.
            MemoryDir::V1(dir) => {
                let groups = apply::tree(&Real, dir).map_err(|cause| Error::file("read", dir, cause))?;
                groups.iter().map(|group| count(&group.join("memory.oom_control"))).sum()
            }
        }
    }
}

fn count(file: &Path) -> Result<u64> {
    Ok(files::read_keyed(file)?.get("oom_kill").copied().unwrap_or(0))
}

/// A descriptor that becomes readable when a group ran out of memory (and when the group is removed).
///
/// v1: an eventfd registered with `memory.oom_control` (`cgroup-v1/memory.rst`, "OOM Control"); v2: an inotify watch of
/// `memory.events`. Readable says only "look": [`OomWatch::oom_kills`] tells whether something was killed.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    memory: MemoryDir,
}

impl OomWatch {
    pub(crate) fn new(memory: MemoryDir) -> Result<OomWatch> {
        let fd = match &memory {
            MemoryDir::V1(dir) => {
                let file = dir.join("memory.oom_control");
                let fail = |cause: rustix::io::Errno| Error::file("watch", &file, cause.into());
                let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fail)?;
                let control = File::open(&file).map_err(|cause| Error::file("open", &file, cause))?;
                let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
                let register = dir.join("cgroup.event_control");
                Real.write(&register, &line).map_err(|cause| Error::file("write", &register, cause))?;
                fd
            }
            MemoryDir::V2(dir) => {
                let file = dir.join("memory.events");
                let fail = |cause: rustix::io::Errno| Error::file("watch", &file, cause.into());
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let fd = inotify::init(flags).map_err(fail)?;
                inotify::add_watch(&fd, &file, inotify::WatchFlags::MODIFY).map_err(fail)?;
                fd
            }
        };
        Ok(OomWatch { fd, memory })
    }

    /// Takes what has been announced, so that the descriptor is readable again only for something new.
    ///
    /// # Errors
    /// [`Error::File`] with the kernel's answer (read(2)).
    pub fn consume(&self) -> Result<()> {
        let mut buffer = [0u8; 1024];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(Error::file("read", Path::new("the OOM watch"), cause.into())),
            }
        }
    }

    /// How many processes the OOM killer has ended in the group and below it; 0 when the group is gone.
    ///
    /// # Errors
    /// [`Error::File`] when the counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        match self.memory.oom_kills() {
            Err(Error::File { cause, .. }) if files::gone(&cause) => Ok(0),
            other => other,
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
