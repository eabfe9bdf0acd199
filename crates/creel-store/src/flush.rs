//! Writing back while layers are being unpacked, so that the sync at the end finds little left to do.
//!
//! The kernel would leave what is written in memory for half a minute, while the disk idles. What this does is never
//! relied upon: each layer is still synced by itself, see [`Synced`], and a failure is told to that sync.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crate::files::Synced;

/// How long what is written may stay in memory.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct State {
    /// Layers that are being unpacked.
    users: usize,
    running: bool,
}

/// Syncs every quarter of a second as long as somebody unpacks.
#[derive(Debug, Default)]
pub(crate) struct Flusher(Arc<(Mutex<State>, Condvar)>);

/// Somebody who unpacks.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<(Mutex<State>, Condvar)>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).users -= 1;
        self.0.1.notify_all();
    }
}

impl Flusher {
    /// Has the file system of `path` written back for as long as the answer lives.
    pub(crate) fn ahead(&self, path: &Path) -> Ahead {
        let path = path.to_owned();
        self.ahead_by(move || {
            if let Err(why) = Synced::open(&path).and_then(|synced| synced.sync()) {
                tracing::debug!("{why}");
            }
        })
    }

    fn ahead_by(&self, sync: impl Fn() + Send + 'static) -> Ahead {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.users += 1;
        if !state.running {
            let shared = self.0.clone();
            let started = Builder::new().name("layer-flush".to_owned()).spawn(move || run(&shared, sync));
            // Without a thread all is left to the sync at the end.
            state.running = started.is_ok();
        }
        drop(state);
        Ahead(self.0.clone())
    }
}

fn run((state, changed): &(Mutex<State>, Condvar), sync: impl Fn()) {
    loop {
        let held = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(held, PAUSE, |state| state.users > 0);
        let (mut held, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if held.users == 0 {
            held.running = false;
            return;
        }
        drop(held);
        sync();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    fn until(what: &str, check: impl Fn() -> bool) {
        let begun = Instant::now();
        while !check() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn it_syncs_as_long_as_somebody_unpacks_and_one_thread_is_enough_for_all() {
        let flusher = Flusher::default();
        let running = || flusher.0.0.lock().unwrap().running;
        let (syncs, at_once, most) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ahead = || {
            let (syncs, at_once, most) = (syncs.clone(), at_once.clone(), most.clone());
            flusher.ahead_by(move || {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                at_once.fetch_sub(1, Ordering::SeqCst);
                syncs.fetch_add(1, Ordering::SeqCst);
            })
        };
        for round in 1..=2 {
            let users = [ahead(), ahead(), ahead()];
            let before = syncs.load(Ordering::SeqCst);
            until("two syncs", || syncs.load(Ordering::SeqCst) >= before + 2);
            let [first, second, last] = users;
            drop((first, second));
            let before = syncs.load(Ordering::SeqCst);
            until("a sync for who is left", || syncs.load(Ordering::SeqCst) > before);
            drop(last);
            until("the end of the thread", || !running());
            let after = syncs.load(Ordering::SeqCst);
            std::thread::sleep(PAUSE * 2);
            assert_eq!(syncs.load(Ordering::SeqCst), after, "round {round}: it goes on for nobody");
        }
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_is_done_at_once_waits_for_nothing_and_syncs_nothing() {
        let flusher = Flusher::default();
        let syncs = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        for _ in 0..20 {
            let syncs = syncs.clone();
            drop(flusher.ahead_by(move || {
                syncs.fetch_add(1, Ordering::SeqCst);
            }));
        }
        assert!(begun.elapsed() < PAUSE || syncs.load(Ordering::SeqCst) > 0);
        until("the end of the thread", || !flusher.0.0.lock().unwrap().running);
        assert!(syncs.load(Ordering::SeqCst) <= 1);
    }
}
