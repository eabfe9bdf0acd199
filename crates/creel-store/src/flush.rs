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
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.users += 1;
        if !state.running {
            let shared = self.0.clone();
            let path = path.to_owned();
            let started = Builder::new().name("layer-flush".to_owned()).spawn(move || run(&shared, &path));
            // Without a thread all is left to the sync at the end.
            state.running = started.is_ok();
        }
        drop(state);
        Ahead(self.0.clone())
    }
}

fn run((state, changed): &(Mutex<State>, Condvar), path: &Path) {
    loop {
        let held = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(held, PAUSE, |state| state.users > 0);
        let (mut held, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if held.users == 0 {
            held.running = false;
            return;
        }
        drop(held);
        if let Err(why) = Synced::open(path).and_then(|synced| synced.sync()) {
            tracing::debug!("{why}");
        }
    }
}
