//! Signals to this program, taken one by one instead of ending it.

use creel_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc;

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
pub(crate) struct Signals(mpsc::UnboundedReceiver<i32>);

impl Signals {
    /// Catches all signals that can sensibly be passed on. Call it before any other thread is started: threads
    /// inherit the mask.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn catch_all() -> std::io::Result<Self> {
        // 32 and 33 belong to the C library's threads.
        let all: Vec<i32> =
            (1..=signal::MAX).filter(|s| !LEFT_ALONE.contains(s) && !(32..34).contains(s)).collect();
        let set = SignalSet::of(&all);
        signal::set_mask(set)?;
        let fd = signal::signalfd(set)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("signals".to_owned()).stack_size(64 << 10).spawn(move || {
            while poll(&mut [PollFd::new(&fd, PollFlags::IN)], None) != Err(rustix::io::Errno::BADF) {
                while let Ok(Some(info)) = signal::read_signalfd(&fd) {
                    if sender.send(info.signal).is_err() {
                        return;
                    }
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next signal's number.
    pub(crate) async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// How the API names a signal: `SIGTERM`, or the number of a real-time one.
pub(crate) fn api_name(number: i32) -> String {
    signal::name(number).unwrap_or_else(|| number.to_string())
}
