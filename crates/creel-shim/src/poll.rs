//! What the loop waits for.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::log::Stream;

/// A process the shim serves: 0 is the container's first, others are execs, never used twice.
pub(crate) type Task = u64;

/// What a descriptor is to the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// SIGTERM, and SIGCHLD of orphans that the shim inherited.
    Signals,
    /// The listening socket.
    Listener,
    /// The kernel's word of an OOM kill.
    Oom,
    /// A control connection, or one that has not said yet what it is.
    Control(u64),
    /// The end of a process that the shim started.
    Process(Task),
    /// Output of a process.
    Output(Task, Stream),
    /// A process's stdin.
    Stdin(Task),
    /// A stream connection.
    Attacher(Task, u64),
}

/// Descriptors to wait for, and until when.
#[derive(Default)]
pub(crate) struct Interests<'a> {
    tokens: Vec<Token>,
    fds: Vec<PollFd<'a>>,
    wake: Option<Instant>,
}

impl<'a> Interests<'a> {
    /// Waits for `flags` on `fd`; errors and hang-ups are always told.
    pub(crate) fn add(&mut self, token: Token, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.tokens.push(token);
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    /// Returns at that time at the latest.
    pub(crate) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |other| other.min(at)));
    }

    /// Waits, and puts what happened into `ready`.
    ///
    /// # Errors
    /// The kernel's (poll(2)), but not EINTR.
    pub(crate) fn wait(mut self, ready: &mut Vec<(Token, PollFlags)>) -> std::io::Result<()> {
        ready.clear();
        let timeout = self.wake.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let happened = self.fds.iter().map(PollFd::revents);
        ready.extend(self.tokens.iter().copied().zip(happened).filter(|(_, flags)| !flags.is_empty()));
        Ok(())
    }
}
