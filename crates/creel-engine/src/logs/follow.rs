//! Learning that a log has grown: inotify on its directory, a clock where that is not to be had.

use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::net::unix::pipe::Receiver;

/// Without inotify (its limits are per user) the log is looked at so often.
const POLL: Duration = Duration::from_millis(100);

/// Tells that something in a directory changed.
#[derive(Debug)]
pub(super) struct Changes(Option<Receiver>);

impl Changes {
    pub(super) fn of(dir: &Path) -> Self {
        let watch = || -> std::io::Result<Receiver> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let what =
                inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, dir, what)?;
            // Like a pipe an inotify instance is only waited for and read.
            Receiver::from_owned_fd_unchecked(fd)
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
        if fd.readable().await.is_err() {
            tokio::time::sleep(POLL).await;
            return;
        }
        let mut buffer = [0; 4096];
        while matches!(fd.try_read(&mut buffer), Ok(n) if n > 0) {}
    }
}
