//! Learning that a log has grown: inotify on its directory, a clock where that is not to be had.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Without inotify (its limits are per user) the log is looked at so often.
const POLL: Duration = Duration::from_millis(100);

/// Tells that something in a directory changed.
#[derive(Debug)]
pub(super) struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    pub(super) fn of(dir: &Path) -> Self {
        let watch = || -> std::io::Result<AsyncFd<OwnedFd>> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let what =
                inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, dir, what)?;
            AsyncFd::register(fd)
        };
        match watch() {
            Ok(fd) => Self(Some(fd)),
            Err(e) => {
                tracing::debug!("watching {}: {e}; looking every {POLL:?} instead", dir.display());
                Self(None)
            }
        }
    }

    /// Waits for the next change; several at once are one.
    pub(super) async fn next(&mut self) {
        let Some(fd) = &self.0 else {
            tokio::time::sleep(POLL).await;
            return;
        };
        let Ok(mut guard) = fd.readable().await else {
            tokio::time::sleep(POLL).await;
            return;
        };
        let mut buffer = [0; 4096];
        while matches!(rustix::io::read(fd.get_ref(), &mut buffer), Ok(n) if n > 0) {}
        guard.clear_ready();
    }
}
