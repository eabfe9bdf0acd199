//! Kill, stop, restart, pause and unpause.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use creel_shim::proto::Call;
use creel_types::ErrorKind;

use super::container::{Container, Running};
use super::start;
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};

/// Seconds between the stop signal and SIGKILL, unless the container or the caller says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long a process may take to die of SIGKILL before everything in the cgroup is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

fn number(signal: &str) -> Result<i32> {
    creel_sys::signal::parse(signal).ok_or_else(|| match signal.parse::<u32>() {
        Ok(n) if n > 0 => Error::invalid(format!("the linux daemon does not support signal {n}")),
        _ => Error::invalid(format!("invalid signal: {signal}")),
    })
}

/// How stop and restart begin: the container, and the signal if one is named. `doing` is said of a wrong signal.
fn begin(core: &Core, id: &str, signal: Option<&str>, doing: &str) -> Result<(Arc<Container>, Option<i32>)> {
    let container = core.containers.find(id)?;
    let signal = signal.filter(|text| !text.is_empty()).map(number).transpose();
    Ok((container, signal.map_err(|e| e.within(format_args!("{doing}{id}")))?))
}

fn not_running(container: &Container) -> Error {
    Error::conflict(format!("container {} is not running", container.id))
}

/// Sends a signal to a container's first process; a process that is gone already is fine.
async fn send(container: &Container, running: &Running, signal: i32) -> Result<()> {
    // Without a pid namespace of its own the end of the first process ends nothing else.
    let all = signal == libc::SIGKILL && !container.record().host_config.pid_mode.is_empty();
    match running.link.call(Call::Signal { signal, all }).await {
        Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::NotFound | ErrorKind::Conflict) => {
            tracing::debug!(container = container.id.short(), "signal {signal}: {e}");
            Ok(())
        }
        other => other.map(drop),
    }
}

async fn thaw(container: &Container, running: &Running) -> Result<()> {
    if !running.paused {
        return Ok(());
    }
    if let Some(cgroup) = running.cgroup.clone() {
        blocking(move || cgroup.thaw().map_err(|e| Error::of(&e))).await?;
    }
    container.set_life(|life| {
        if let Some(running) = &mut life.running {
            running.paused = false;
        }
    });
    Ok(())
}

/// Waits until the container has ended more often than `exits` times.
async fn ended(container: &Container, exits: u64, patience: Option<Duration>) -> bool {
    let mut watch = container.watch();
    let wait = watch.wait_for(|life| life.exits > exits || life.removed);
    match patience {
        None => wait.await.is_ok(),
        Some(patience) => tokio::time::timeout(patience, wait).await.is_ok(),
    }
}

/// Sends a signal, `SIGKILL` if none is named. Takes no owner's lock: it must get through while a stop waits.
pub(crate) async fn kill(core: &Arc<Core>, id: &str, signal: Option<&str>) -> Result<()> {
    let doing = |e: Error| e.within(format_args!("cannot kill container: {id}"));
    let container = core.containers.find(id).map_err(doing)?;
    let signal = number(signal.filter(|text| !text.is_empty()).unwrap_or("KILL")).map_err(doing)?;
    let not_running = doing(not_running(&container));
    let core = core.clone();
    to_the_end(async move {
        let life = container.life();
        let running = life.running.ok_or(not_running)?;
        if signal == libc::SIGKILL {
            container.change(|record| record.stopped_by_user = true);
            return destroy(&core, &container, &running, life.exits).await;
        }
        send(&container, &running, signal).await?;
        core.tell(&container, "kill", &[("signal", signal.to_string())]);
        Ok(())
    })
    .await
}

/// Ends a container by force: SIGKILL for its first process, and if that does not end it, for all in its group.
async fn destroy(core: &Core, container: &Container, running: &Running, exits: u64) -> Result<()> {
    send(container, running, libc::SIGKILL).await?;
    core.tell(container, "kill", &[("signal", libc::SIGKILL.to_string())]);
    // A frozen process dies when it thaws.
    thaw(container, running).await?;
    if ended(container, exits, Some(KILL_PATIENCE)).await {
        return Ok(());
    }
    kill_all(running).await?;
    if ended(container, exits, Some(KILL_PATIENCE)).await {
        return Ok(());
    }
    Err(Error::internal(format!(
        "container {} does not end although its processes were killed; one may hang in the kernel (see `ps`, state D)",
        container.id
    )))
}

async fn kill_all(running: &Running) -> Result<()> {
    match running.cgroup.clone() {
        Some(cgroup) => blocking(move || cgroup.kill_all().map_err(|e| Error::of(&e))).await,
        None => Ok(()),
    }
}

/// Stops a container: its stop signal, then SIGKILL when the time is over.
pub(crate) async fn stop(
    core: &Arc<Core>,
    id: &str,
    signal: Option<&str>,
    timeout: Option<i64>,
) -> Result<()> {
    let (container, signal) = begin(core, id, signal, "cannot stop container: ")?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        halt(&core, &container, signal, timeout).await
    })
    .await
}

/// Stops a container whose owner the caller is.
pub(super) async fn halt(
    core: &Arc<Core>,
    container: &Arc<Container>,
    signal: Option<i32>,
    timeout: Option<i64>,
) -> Result<()> {
    let record = container.record();
    let configured = || record.config.stop_signal.as_deref().and_then(creel_sys::signal::parse);
    let signal = signal.or_else(configured).unwrap_or(libc::SIGTERM);
    let seconds = timeout.or(record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    let life = container.life();
    let Some(running) = life.running else {
        return Err(Error::not_modified(format!("container {} is not running", container.id)));
    };
    container.change(|record| record.stopped_by_user = true);
    send(container, &running, signal).await?;
    core.tell(container, "kill", &[("signal", signal.to_string())]);
    thaw(container, &running).await?;
    let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    if !ended(container, life.exits, patience).await {
        destroy(core, container, &running, life.exits).await?;
    }
    core.tell(container, "stop", &[]);
    Ok(())
}

/// Stops a container if it runs, and starts it.
pub(crate) async fn restart(
    core: &Arc<Core>,
    id: &str,
    signal: Option<&str>,
    timeout: Option<i64>,
) -> Result<()> {
    let (container, signal) = begin(core, id, signal, "Cannot restart container ")?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        container.restarting.store(true, Ordering::SeqCst);
        let stopped = match halt(&core, &container, signal, timeout).await {
            Err(e) if e.kind() == ErrorKind::NotModified => Ok(()),
            other => other,
        };
        container.restarting.store(false, Ordering::SeqCst);
        stopped?;
        start::begin(&core, &container).await?;
        core.tell(&container, "restart", &[]);
        Ok(())
    })
    .await
}

/// Freezes or thaws all processes of a container.
pub(crate) async fn freeze(core: &Arc<Core>, id: &str, freeze: bool) -> Result<()> {
    let container = core.containers.find(id)?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        let not_paused = || Error::conflict(format!("Container {} is not paused", container.id));
        let running =
            container.running().ok_or_else(|| if freeze { not_running(&container) } else { not_paused() })?;
        match (freeze, running.paused) {
            (true, true) => {
                return Err(Error::conflict(format!("Container {} is already paused", container.id)));
            }
            (false, false) => {
                return Err(not_paused());
            }
            (true, false) => {
                hold(&container, &running).await?;
                core.tell(&container, "pause", &[]);
            }
            (false, true) => {
                thaw(&container, &running).await?;
                core.tell(&container, "unpause", &[]);
            }
        }
        Ok(())
    })
    .await
}

/// Freezes a container that runs.
pub(super) async fn hold(container: &Container, running: &Running) -> Result<()> {
    let cgroup = running
        .cgroup
        .clone()
        .ok_or_else(|| Error::unsupported("the container's cgroup cannot be reached: it cannot be paused"))?;
    blocking(move || cgroup.freeze().map_err(|e| Error::of(&e))).await?;
    container.set_life(|life| {
        if let Some(running) = &mut life.running {
            running.paused = true;
        }
    });
    Ok(())
}

/// Thaws a container that [`hold`] froze.
pub(super) async fn release(container: &Container) -> Result<()> {
    match container.running() {
        Some(running) => thaw(container, &running).await,
        None => Ok(()),
    }
}
