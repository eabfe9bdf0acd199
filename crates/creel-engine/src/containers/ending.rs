//! The end of a container: learnt from its shim, written down, told to all who wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use creel_shim::proto::{ExitRecord, files};
use jiff::Timestamp;

use super::container::Container;
use super::{remove, start};
use crate::core::{Core, blocking};
use crate::options::RemoveOptions;
use crate::record::AtRest;
use crate::shim::{End, Link};
use crate::volumes::manage::tell_unmounted;
use crate::volumes::plugins;

/// A container that ends sooner than this is not marked as started on disk: what `/run` says is enough, and a machine
/// that loses power within this time loses no more than the fact that it ran.
const MARK_AFTER: Duration = Duration::from_millis(50);

/// Waits for the end and does what is due then. Holds no owner's lock: who stops a container waits for this.
pub(crate) fn watch(core: Arc<Core>, container: Arc<Container>, link: Arc<Link>) {
    tokio::spawn(async move {
        let end = match tokio::time::timeout(MARK_AFTER, link.ended()).await {
            Ok(end) => end,
            Err(_) => {
                let record = container.record();
                // A container with --rm is removed after a reboot, whether it is known to have run or not.
                if !record.host_config.auto_remove
                    && let Err(e) = core.put(record).await
                {
                    tracing::warn!(container = container.id.short(), "{e}");
                }
                link.ended().await
            }
        };
        finish(&core, &container, end).await;
    });
}

/// Reads `exit.json` of a run directory, if it is there and whole.
pub(crate) fn read_exit(dir: &Path) -> Option<ExitRecord> {
    let json = std::fs::read(dir.join(files::EXIT)).ok()?;
    serde_json::from_slice(&json).map_err(|e| tracing::warn!("{}: {e}", dir.join(files::EXIT).display())).ok()
}

/// The record of a container whose shim died without leaving one.
pub(crate) fn lost() -> ExitRecord {
    ExitRecord {
        code: 137,
        signal: Some(libc::SIGKILL),
        oom_killed: false,
        finished_at: Timestamp::now(),
        error: Some(
            "the container's shim died, and with it the container; see the kernel's log for why".to_owned(),
        ),
    }
}

/// Writes an end down and tells everybody.
pub(crate) async fn finish(core: &Arc<Core>, container: &Arc<Container>, end: End) {
    let dir = core.run_dir(&container.id);
    let record = container.record();
    let exit = match end {
        End::Exited(exit) => exit,
        End::Lost => {
            let (this, record, dir) = (core.clone(), record.clone(), dir.clone());
            let found = blocking(move || {
                let exit = read_exit(&dir);
                if let Ok(cgroup) = this.cgroup(&record) {
                    let _ = cgroup.kill_all();
                    let _ = cgroup.remove();
                }
                Ok(exit)
            });
            found.await.ok().flatten().unwrap_or_else(lost)
        }
    };
    let auto_remove = record.host_config.auto_remove && !container.restarting.load(Ordering::SeqCst);
    let record = container.change(|record| record.rest = at_rest(&record.rest, &exit));
    if !auto_remove {
        match core.put(record).await {
            Ok(()) => {
                let dir = dir.clone();
                if let Err(e) = blocking(move || start::clear(&dir)).await {
                    tracing::warn!("{e}");
                }
            }
            // What /run says is kept until it is written down: the next start of the daemon tries again.
            Err(e) => tracing::error!(container = container.id.short(), "writing down its end: {e}"),
        }
    }
    core.execs.container_ended(&container.id);
    container.set_life(|life| {
        life.running = None;
        life.exits += 1;
        life.last = Some((exit.code, exit.error.clone()));
    });
    core.tell(container, "die", &[("exitCode", exit.code.to_string())]);
    tell_unmounted(core, &container.record());
    // Nobody waits for a plugin.
    let (this, record) = (core.clone(), container.record());
    tokio::spawn(async move { plugins::unmount_all(&this, &record).await });
    if auto_remove {
        let (core, container) = (core.clone(), container.clone());
        tokio::spawn(async move {
            let _owner = container.owner.lock().await;
            if let Err(e) =
                remove::finish(&core, &container, RemoveOptions { volumes: true, ..Default::default() }).await
            {
                tracing::error!(container = container.id.short(), "removing it after its end: {e}");
            }
        });
    }
}

/// What is kept of an end.
pub(crate) fn at_rest(before: &AtRest, exit: &ExitRecord) -> AtRest {
    let started_at = match before {
        AtRest::Started { at } => Some(*at),
        AtRest::Exited { started_at, .. } => *started_at,
        AtRest::Created { .. } => None,
    };
    AtRest::Exited {
        code: exit.code,
        oom_killed: exit.oom_killed,
        error: exit.error.clone().unwrap_or_default(),
        started_at,
        finished_at: exit.finished_at,
    }
}
