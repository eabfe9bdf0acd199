//! How a new process comes into a group without delay.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Open doors of a group, to be made before the clone and used by the child.
///
/// The child is born in the unified group ([`Entry::unified`] goes into `CLONE_INTO_CGROUP`) and, single-threaded,
/// writes `0` into the v1 `tasks` files itself ([`Entry::join_v1`]): that moves only the calling thread and spares the
/// grace period of about 11 ms for which a write of another process's id to `cgroup.procs` waits.
#[derive(Debug)]
pub struct Entry {
    pub(crate) unified: Option<OwnedFd>,
    pub(crate) tasks: Vec<File>,
}

impl Entry {
    /// Opens a directory of the unified hierarchy and the `tasks` files of directories of v1 hierarchies.
    pub(crate) fn open(unified: Option<PathBuf>, v1: impl Iterator<Item = PathBuf>) -> Result<Entry> {
        let open = |path: PathBuf, write: bool| {
            let file = File::options().read(!write).write(write).open(&path);
            file.map_err(|cause| Error::file("open", &path, cause))
        };
        let unified = unified.map(|dir| open(dir, false)).transpose()?.map(OwnedFd::from);
        Ok(Entry { unified, tasks: v1.map(|dir| open(dir.join("tasks"), true)).collect::<Result<_>>()? })
    }

    /// The same from `tasks` files that somebody else has opened for writing.
    pub fn from_tasks(tasks: Vec<OwnedFd>) -> Entry {
        Entry { unified: None, tasks: tasks.into_iter().map(File::from).collect() }
    }

    /// The directory of the group in the unified hierarchy, for clone3(2); `None` in the v1 layout.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// The `tasks` files of the v1 hierarchies, opened for writing; none in the v2 layout.
    pub fn tasks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tasks.iter().map(AsFd::as_fd)
    }

    /// Moves the calling thread into the group of every v1 hierarchy. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's: ENODEV when the group was removed, EPERM, ENOSPC for a cpuset without processors.
    pub fn join_v1(&self) -> rustix::io::Result<()> {
        for file in &self.tasks {
            rustix::io::write(file, b"0")?;
        }
        Ok(())
    }

    /// Moves the calling process into the unified group, for callers that cannot use clone3(2). Slower (see above).
    ///
    /// # Errors
    /// The kernel's: ENODEV when the group was removed, EBUSY when the group hands controllers down, EPERM.
    pub fn join_unified(&self) -> rustix::io::Result<()> {
        let Some(dir) = &self.unified else { return Ok(()) };
        let procs =
            rustix::fs::openat(dir, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&procs, b"0").map(drop)
    }
}
