//! Signals to this program, taken one by one instead of ending it.

use std::os::fd::OwnedFd;

use creel_sys::signal::{self, SignalSet};
use tokio::io::unix::AsyncFd;

/// Signals that stay as they are: faults of our own, those nobody can catch, and those by which a shell stops a
/// program that reads or writes in the background.
const LEFT_ALONE: [i32; 14] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGURG,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// A stream of signals.
#[derive(Debug)]
pub struct Signals(AsyncFd<OwnedFd>);

impl Signals {
    /// Catches all signals that can sensibly be passed on. Call it before any thread is started: threads inherit
    /// the mask.
    ///
    /// # Errors
    /// The kernel's.
    pub fn catch_all() -> std::io::Result<Self> {
        // 32 and 33 belong to the C library's threads.
        let all: Vec<i32> =
            (1..=signal::MAX).filter(|s| !LEFT_ALONE.contains(s) && !(32..34).contains(s)).collect();
        Self::catch(&all)
    }

    /// Catches these signals.
    ///
    /// # Errors
    /// The kernel's.
    pub fn catch(signals: &[i32]) -> std::io::Result<Self> {
        let set = SignalSet::of(signals);
        signal::set_mask(set)?;
        Ok(Self(AsyncFd::new(signal::signalfd(set)?)?))
    }

    /// The next signal's number.
    pub async fn next(&self) -> i32 {
        loop {
            let Ok(mut guard) = self.0.readable().await else { return std::future::pending().await };
            match signal::read_signalfd(self.0.get_ref()) {
                Ok(Some(info)) => return info.signal,
                Ok(None) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// How the API names a signal: `SIGTERM`, or the number of a real-time one.
pub fn api_name(number: i32) -> String {
    signal::name(number).unwrap_or_else(|| number.to_string())
}
