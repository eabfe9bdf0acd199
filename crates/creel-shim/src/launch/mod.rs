//! The door to the runtime and the cgroup: what the loop asks of them, so that it can be tested without either.

mod container;

pub(crate) use container::Container;

use std::os::fd::{BorrowedFd, OwnedFd};

use creel_types::spec::Process;

use crate::proto::{Failure, Timing};

/// The process's own ends of its three streams; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// A process that exists.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its id, a child of the shim.
    pub(crate) pid: i32,
    /// Its pidfd.
    pub(crate) pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub(crate) console: Option<OwnedFd>,
    /// Where the time went.
    pub(crate) timings: Vec<Timing>,
    /// What could not be done exactly as asked.
    pub(crate) warnings: Vec<String>,
}

/// Makes processes and speaks for the container's cgroup.
pub(crate) trait Launcher {
    /// Sets the container up, waiting before its program.
    fn create(&mut self, pipes: Pipes) -> Result<Launched, Failure>;

    /// Executes the program. Yields where the time went, and warnings.
    fn start(&mut self) -> Result<(Vec<Timing>, Vec<String>), Failure>;

    /// Runs one more process in the container whose first is `pid`.
    fn exec(
        &mut self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        process: &Process,
        pipes: Pipes,
    ) -> Result<Launched, Failure>;

    /// Signals every process of the container; SIGKILL reaches frozen ones too.
    fn signal_all(&mut self, signal: i32) -> Result<(), Failure>;

    /// Whether the container is paused.
    fn is_frozen(&self) -> bool;

    /// Becomes readable when the OOM killer strikes.
    fn oom_fd(&self) -> Option<BorrowedFd<'_>>;

    /// How often the OOM killer has struck so far; makes [`Launcher::oom_fd`] silent again.
    fn oom_kills(&mut self) -> u64;

    /// Removes the cgroup.
    fn remove(&mut self) -> Result<(), Failure>;
}
