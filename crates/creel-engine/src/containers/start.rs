//! Start: the Spec is written, a shim is spawned, the container is created and its program executed.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use creel_shim::proto::{self, Answer, Call, Opening, ShimConfig, files};
use creel_types::ErrorKind;
use jiff::Timestamp;

use super::container::{Container, Pending, Running};
use super::join::{self, Joined};
use super::{ending, etc, facts, host, remove};
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};
use crate::options::{RemoveOptions, Timings};
use crate::record::{AtRest, ContainerRecord};
use crate::shim::{Link, unexpected};
use crate::spec;
use crate::trees;
use crate::volumes::manage::tell_mounted;
use crate::volumes::mounting::{self, Opened};
use crate::volumes::plugins;

/// How long a shim is given to end itself after a start that failed.
const SHIM_PATIENCE: Duration = Duration::from_secs(5);

/// Starts a container.
pub(crate) async fn start(core: &Arc<Core>, id: &str) -> Result<Timings> {
    let container = core.containers.find(id)?;
    let core = core.clone();
    to_the_end(async move {
        let _owner = container.owner.lock().await;
        begin(&core, &container).await
    })
    .await
}

/// Starts a container whose owner the caller is.
pub(crate) async fn begin(core: &Arc<Core>, container: &Arc<Container>) -> Result<Timings> {
    let life = container.life();
    if life.removed {
        return Err(Error::not_found(format!("No such container: {}", container.id)));
    }
    if let Some(running) = life.running {
        return Err(if running.paused {
            Error::conflict("cannot start a paused container, try unpause instead")
        } else {
            Error::not_modified(format!("container {} runs already", container.id))
        });
    }
    if life.dead {
        return Err(Error::conflict("container is marked for removal and cannot be started"));
    }
    let mut steps = Steps::default();
    let launched = launch(core, container, &mut steps).await;
    if launched.is_err() {
        plugins::unmount_all(core, &container.record()).await;
    }
    match launched {
        Ok(()) => {
            core.tell(container, "start", &[]);
            Ok(steps.timings)
        }
        Err(Refusal::Prepare(error)) => {
            let text = error.to_string();
            Err(failed(core, container, &error, text).await)
        }
        Err(Refusal::Task(error)) => {
            let text = format!("failed to create task for container: {error}");
            Err(failed(core, container, &error, text).await)
        }
    }
}

/// At which stage a start failed: Docker words the two differently.
enum Refusal {
    /// Before there was a shim.
    Prepare(Error),
    /// By the shim or the runtime.
    Task(Error),
}

/// Steps and how long each took.
#[derive(Default)]
struct Steps {
    timings: Timings,
    since: Option<Instant>,
}

impl Steps {
    fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Ends a step.
    fn done(&mut self, name: &str) {
        self.done_with(name, Vec::new());
    }

    /// Ends a step of which a room below has measured parts: those are steps of their own, and this one is the rest.
    fn done_with(&mut self, name: &str, parts: Vec<proto::Timing>) {
        let now = Instant::now();
        let mut rest = now - self.since.replace(now).unwrap_or(now);
        for (part, microseconds) in parts {
            let took = Duration::from_micros(microseconds);
            rest = rest.saturating_sub(took);
            self.timings.push((part, took));
        }
        self.timings.push((name.to_owned(), rest));
    }
}

async fn launch(
    core: &Arc<Core>,
    container: &Arc<Container>,
    steps: &mut Steps,
) -> std::result::Result<(), Refusal> {
    steps.begin();
    let dir = core.run_dir(&container.id);
    // Another start may just be mounting what exists once.
    let mut gates = Vec::new();
    for name in mounting::shared_volumes(core, &container.record()) {
        gates.push(core.volumes.gate(&format!("mount:{name}")).await);
    }
    plugins::mount_all(core, container).await.map_err(Refusal::Prepare)?;
    let (this, owner, target) = (core.clone(), container.clone(), dir.clone());
    let prepared = blocking(move || {
        let joined = join::open(&this, &owner.record())?;
        if let Some(network) = &joined.network {
            owner.change(|record| {
                record.config.hostname.clone_from(&network.hostname);
                record.config.domainname.clone_from(&network.domainname);
            });
        }
        let record = owner.record();
        let trees = prepare(&this, &record, &target, &joined)?;
        Ok((record, joined, trees))
    });
    // The joined namespaces are held until the container is in them, the trees until they are mounted.
    let (record, _joined, _trees) = prepared.await.map_err(Refusal::Prepare)?;
    steps.done("daemon.prepare");
    let (link, shim) =
        Link::spawn(core.program.sealed(), &dir, &container.id, core.told.clone()).map_err(Refusal::Task)?;
    steps.done("daemon.spawn");
    let run = async {
        no_empty_program(record.args().first())?;
        let created = link.call(Call::Create).await?;
        let Answer::Created { timings, .. } = created else { return Err(unexpected(&created)) };
        steps.done_with("shim.begin", timings);
        connect(&link, container.take_pending()).await;
        steps.done("daemon.attach");
        let started = link.call(Call::Start).await?;
        let Answer::Started { pid, started_at, timings } = started else { return Err(unexpected(&started)) };
        steps.done_with("daemon.start", timings);
        Ok((pid, started_at))
    };
    match run.await {
        Ok((pid, started_at)) => {
            tell_mounted(core, &record);
            started(core, container, &record, link, pid, started_at);
            Ok(())
        }
        Err(error) => {
            give_up(core, &record, &link, shim, &dir).await;
            Err(Refusal::Task(error))
        }
    }
}

/// Takes note of a container that runs, and watches over its end.
pub(crate) fn started(
    core: &Arc<Core>,
    container: &Arc<Container>,
    record: &ContainerRecord,
    link: Arc<Link>,
    pid: i32,
    started_at: Timestamp,
) {
    // A program that is over already has taken its group along.
    let cgroup =
        core.cgroup(record).map_err(|e| tracing::debug!(container = container.id.short(), "{e}")).ok();
    container.change(|record| {
        record.rest = AtRest::Started { at: started_at };
        record.boot_id.clone_from(&core.boot_id);
        record.stopped_by_user = false;
    });
    let paused = cgroup.as_ref().is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
    let running = Running { pid, started_at, link: link.clone(), cgroup: cgroup.map(Arc::new), paused };
    container.set_life(|life| life.running = Some(running));
    ending::watch(core.clone(), container.clone(), link);
}

/// Gives every waiting attachment its stream before the program writes its first byte.
async fn connect(link: &Link, pending: Vec<Pending>) {
    for Pending { attach, stream } in pending {
        // Whoever left meanwhile needs none.
        if !stream.is_closed() {
            let _ = stream.send(link.open(&Opening::Attach(attach)).await);
        }
    }
}

/// A program without a name is not found, as in Docker; OCI's rule would call the whole Spec wrong.
pub(crate) fn no_empty_program(program: Option<&String>) -> Result<()> {
    match program {
        Some(program) if program.is_empty() => {
            let text = "exec: \"\": executable file not found in $PATH";
            Err(Error::new(ErrorKind::ProgramNotFound, text))
        }
        _ => Ok(()),
    }
}

/// What the shim needs to find in the run directory.
fn prepare(core: &Core, record: &ContainerRecord, dir: &Path, joined: &Joined) -> Result<Opened> {
    let rootfs = trees::rootfs(core.store.whole_snapshot(&record.id)?);
    let mut facts = facts::gather(core, record, &rootfs, joined)?;
    let opened = mounting::open(core, record)?;
    facts.trees = record
        .mounts
        .iter()
        .filter_map(|mount| Some((mount.destination.clone(), opened.source(&mount.destination)?)))
        .collect();
    let spec = spec::build(record, &facts)?;
    if joined.network.is_none() {
        etc::write(record, &core.dir(&record.id))?;
    }
    let host = &record.host_config;
    let (log_max_size, log_max_files) = host::log_limits(host)?;
    let config = ShimConfig {
        id: record.id.to_string(),
        bundle: dir.to_owned(),
        rootfs,
        cgroup_path: Some(facts.cgroup_path.clone()),
        log_path: core.log_path(record),
        log_max_size,
        log_max_files,
        open_stdin: record.config.open_stdin,
        stdin_once: record.config.stdin_once,
        terminal: record.config.tty,
        held: opened.held(),
        init: host.init.unwrap_or(false).then(|| core.program.plain().to_owned()),
    };
    clear(dir)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io(format_args!("making {}", dir.display()), e))?;
    let write = |name: &str, json: serde_json::Result<Vec<u8>>| {
        let path = dir.join(name);
        let json = json.map_err(|e| Error::internal(format!("writing {}: {e}", path.display())))?;
        std::fs::write(&path, json).map_err(|e| Error::io(format_args!("writing {}", path.display()), e))
    };
    write(files::SPEC, serde_json::to_vec(&spec))?;
    write(files::CONFIG, serde_json::to_vec(&config))?;
    Ok(opened)
}

/// Removes a run directory, if it is there.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format_args!("removing {}", dir.display()), e))
        }
        _ => Ok(()),
    }
}

/// Takes back what a start that failed has made.
async fn give_up(core: &Arc<Core>, record: &ContainerRecord, link: &Link, shim: i32, dir: &Path) {
    let asked = tokio::time::timeout(SHIM_PATIENCE, async {
        let _ = link.call(Call::Shutdown { force: true }).await;
        link.ended().await
    });
    if asked.await.is_err() && shim > 0 {
        tracing::warn!(
            container = record.id.short(),
            "the shim does not end after a failed start: killing it"
        );
        let _ = creel_sys::signal::kill(shim, libc::SIGKILL);
    }
    let (core, record, dir) = (core.clone(), record.clone(), dir.to_owned());
    let cleared = blocking(move || {
        if let Ok(cgroup) = core.cgroup(&record) {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
        }
        clear(&dir)
    });
    if let Err(e) = cleared.await {
        tracing::warn!("{e}");
    }
}

/// Keeps why a start failed, as Docker does, and words the error as Docker does.
async fn failed(core: &Arc<Core>, container: &Arc<Container>, error: &Error, text: String) -> Error {
    drop(container.take_pending());
    let code = match error.kind() {
        ErrorKind::ProgramNotFound => 127,
        ErrorKind::ProgramNotExecutable => 126,
        _ => 128,
    };
    let record = container.change(|record| match &mut record.rest {
        AtRest::Exited { code: old, error, .. } => {
            *old = code;
            error.clone_from(&text);
        }
        rest => *rest = AtRest::Created { code, error: text.clone() },
    });
    container.set_life(|life| {
        life.exits += 1;
        // The start itself answers with the reason; Docker's wait tells only the code.
        life.last = Some((code, None));
    });
    if record.host_config.auto_remove {
        let (core, container) = (core.clone(), container.clone());
        tokio::spawn(async move {
            let _owner = container.owner.lock().await;
            if let Err(e) = remove::finish(&core, &container, RemoveOptions::default()).await {
                tracing::warn!(container = container.id.short(), "removing it after a failed start: {e}");
            }
        });
    } else if let Err(e) = core.put(record).await {
        tracing::warn!(container = container.id.short(), "{e}");
    }
    let kind = match error.kind() {
        kind @ (ErrorKind::ProgramNotFound
        | ErrorKind::ProgramNotExecutable
        | ErrorKind::InvalidArgument
        | ErrorKind::Conflict
        | ErrorKind::Unsupported) => kind,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, text)
}
