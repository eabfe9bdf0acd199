//! After a start of the daemon: what is kept on disk is held against what /run and the shims say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_shim::proto::{ExitRecord, Status, files};
use creel_types::ContainerId;
use jiff::Timestamp;

use crate::containers::{Container, ending, remove, start};
use crate::core::{Core, blocking};
use crate::error::Result;
use crate::execs;
use crate::options::RemoveOptions;
use crate::record::{AtRest, ContainerRecord, KIND};
use crate::shim::{End, Link};

/// What is to be done about one container. Pure, so that every case can be tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: what is written holds.
    Rest,
    /// It ended as its exit record says.
    Ended(ExitRecord),
    /// The machine was started anew while it ran.
    Rebooted,
    /// Its shim may live: connect.
    Connect,
    /// It was being removed, or is to be.
    Remove,
}

/// What is found of a container outside its record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) same_boot: bool,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) run_dir: bool,
}

/// Decides.
pub(crate) fn judge(record: &ContainerRecord, found: &Found) -> Verdict {
    if record.removing {
        return Verdict::Remove;
    }
    if let Some(exit) = &found.exit {
        return Verdict::Ended(exit.clone());
    }
    match (&record.rest, found.same_boot) {
        (_, true) if found.run_dir => Verdict::Connect,
        (AtRest::Started { .. }, true) => Verdict::Ended(ending::lost()),
        (AtRest::Started { .. }, false) => Verdict::Rebooted,
        // Whether it ever ran is not written down for what is removed in any case.
        (AtRest::Created { .. }, false) if record.host_config.auto_remove => Verdict::Remove,
        (AtRest::Exited { .. }, _) if record.host_config.auto_remove => Verdict::Remove,
        _ => Verdict::Rest,
    }
}

/// Reads all records and puts everything right.
pub(crate) async fn reconcile(core: &Arc<Core>) -> Result<()> {
    for record in core.store.records(KIND) {
        match serde_json::from_slice::<ContainerRecord>(&record.json) {
            Ok(record) if core.store.snapshot(&record.id).is_ok() => {
                record.volumes().for_each(|(_, of)| core.volumes.add_user(&of.name, &record.id));
                core.containers.insert(Container::new(record));
            }
            Ok(_) => quarantine(core, &record.id, "its writable layer is missing").await,
            Err(e) => quarantine(core, &record.id, &e.to_string()).await,
        }
    }
    let tasks: Vec<_> = core
        .containers
        .all()
        .into_iter()
        .map(|container| {
            let core = core.clone();
            tokio::spawn(async move {
                if let Err(e) = settle(&core, &container).await {
                    tracing::error!(container = container.id.short(), "finding out about it: {e}");
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    leftovers(core).await;
    Ok(())
}

async fn quarantine(core: &Arc<Core>, id: &str, why: &str) {
    tracing::error!("the record of container {id} is put aside: {why}");
    let (store, id, why) = (core.store.clone(), id.to_owned(), why.to_owned());
    if let Err(e) = blocking(move || Ok(store.quarantine_record(KIND, &id, &why)?)).await {
        tracing::error!("{e}");
    }
}

async fn settle(core: &Arc<Core>, container: &Arc<Container>) -> Result<()> {
    let _owner = container.owner.lock().await;
    let record = container.record();
    let dir = core.run_dir(&container.id);
    let found = Found {
        same_boot: record.boot_id == core.boot_id,
        exit: ending::read_exit(&dir),
        run_dir: dir.join(files::CONFIG).exists(),
    };
    match judge(&record, &found) {
        Verdict::Rest => Ok(()),
        Verdict::Remove => remove::finish(core, container, RemoveOptions::default()).await,
        Verdict::Ended(exit) => {
            started_at(container, &dir);
            end_shim(&dir).await;
            clear_cgroup(core, &record).await;
            ending::finish(core, container, End::Exited(exit)).await;
            Ok(())
        }
        Verdict::Rebooted => {
            let exit = ExitRecord {
                code: 255,
                signal: None,
                oom_killed: false,
                finished_at: Timestamp::now(),
                error: Some("the machine was started anew while the container ran".to_owned()),
            };
            ending::finish(core, container, End::Exited(exit)).await;
            Ok(())
        }
        Verdict::Connect => connect(core, container, &record, &dir).await,
    }
}

async fn connect(
    core: &Arc<Core>,
    container: &Arc<Container>,
    record: &ContainerRecord,
    dir: &Path,
) -> Result<()> {
    let connected = Link::reconnect(dir, &container.id, core.told.clone());
    let connected = tokio::time::timeout(std::time::Duration::from_secs(10), connected).await;
    let (link, snapshot) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) | Err(_) => {
            started_at(container, dir);
            // It may have ended while we tried: then it left its record. A container that was never started by that
            // shim is not called ended.
            let exit = ending::read_exit(dir);
            kill_shim(dir).await;
            clear_cgroup(core, record).await;
            let ran = exit.is_some() || dir.join(files::STATE).exists();
            if ran {
                ending::finish(core, container, exit.map_or(End::Lost, End::Exited)).await;
            } else {
                start::clear(dir)?;
            }
            return Ok(());
        }
    };
    match (snapshot.status, &snapshot.record) {
        (_, Some(exit)) => ending::finish(core, container, End::Exited(exit.clone())).await,
        (Status::Running | Status::Ending, _) => {
            let pid = snapshot.pid.unwrap_or(0);
            let at = snapshot.started_at.unwrap_or_else(Timestamp::now);
            execs::adopt(core, &container.id, &snapshot);
            start::started(core, container, record, link, pid, at);
        }
        // The daemon died between create and start: nobody waits for this one any more.
        _ => {
            let _ = link.call(creel_shim::proto::Call::Shutdown { force: true }).await;
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), link.ended()).await;
            clear_cgroup(core, record).await;
            start::clear(dir)?;
        }
    }
    Ok(())
}

/// Takes over from /run when a container was started, if its record does not know.
fn started_at(container: &Container, dir: &Path) {
    let state = std::fs::read(dir.join(files::STATE)).ok();
    let state = state.and_then(|json| serde_json::from_slice::<creel_shim::proto::StateRecord>(&json).ok());
    if let Some(state) = state {
        container.change(|record| {
            if !matches!(record.rest, AtRest::Started { .. }) {
                record.rest = AtRest::Started { at: state.started_at };
            }
        });
    }
}

/// A shim whose container has ended ends by itself; one that hangs is no use to anybody.
async fn end_shim(dir: &Path) {
    if let Ok(control) = creel_shim::client::Control::connect(dir) {
        drop(control);
        kill_shim(dir).await;
    }
}

/// Kills the shim of a run directory, if its recorded process is one.
async fn kill_shim(dir: &Path) {
    let Some(pid) = shim_pid(dir) else { return };
    if let Ok(pidfd) = creel_sys::pidfd::open(pid)
        && is_shim_of(pid, dir)
    {
        let _ = creel_sys::pidfd::send_signal(&pidfd, libc::SIGKILL);
    }
}

/// The process of the shim of a run directory, as its record says.
pub(crate) fn shim_pid(dir: &Path) -> Option<i32> {
    let json = std::fs::read(dir.join(files::STATE)).ok()?;
    Some(serde_json::from_slice::<creel_shim::proto::StateRecord>(&json).ok()?.shim_pid)
}

/// Whether this process is the shim of a run directory.
pub(crate) fn is_shim_of(pid: i32, dir: &Path) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|b| *b == 0).collect();
    words.get(1) == Some(&&b"shim"[..])
        && words.contains(&std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str()))
}

async fn clear_cgroup(core: &Arc<Core>, record: &ContainerRecord) {
    let (core, record) = (core.clone(), record.clone());
    let _ = blocking(move || {
        if let Ok(cgroup) = core.cgroup(&record) {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
        }
        Ok(())
    })
    .await;
}

/// Run directories without a record: their containers are killed.
async fn leftovers(core: &Arc<Core>) {
    let Ok(entries) = std::fs::read_dir(core.config.run_dir.join("containers")) else { return };
    let dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for dir in dirs {
        let id =
            dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<ContainerId>().ok());
        let Some(id) = id else { continue };
        if core.containers.get(&id).is_some() {
            continue;
        }
        tracing::warn!(
            container = id.short(),
            "it runs, but nothing is known of it: it is killed and cleared away"
        );
        kill_shim(&dir).await;
        let this = core.clone();
        let cleared = blocking(move || {
            let config = std::fs::read(dir.join(files::CONFIG)).ok();
            let config =
                config.and_then(|json| serde_json::from_slice::<creel_shim::proto::ShimConfig>(&json).ok());
            let path = config.and_then(|config| config.cgroup_path);
            if let Some(path) = path
                && let Ok(cgroup) = creel_cgroup::Cgroup::open(&this.hierarchies, &path)
            {
                let _ = cgroup.kill_all();
                let _ = cgroup.remove();
            }
            start::clear(&dir)
        });
        if let Err(e) = cleared.await {
            tracing::warn!("{e}");
        }
    }
}

/// The id of this boot of the machine (random(4)).
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::tests::record;

    fn exit(code: i32) -> ExitRecord {
        ExitRecord { code, signal: None, oom_killed: false, finished_at: Timestamp::UNIX_EPOCH, error: None }
    }

    #[test]
    fn every_case_has_its_verdict() {
        let id = "a".repeat(64);
        let created = record(&id, "x");
        let mut started = created.clone();
        started.rest = AtRest::Started { at: Timestamp::UNIX_EPOCH };
        let mut removed = started.clone();
        removed.removing = true;
        let mut throwaway = created.clone();
        throwaway.host_config.auto_remove = true;
        let here = Found { same_boot: true, ..Found::default() };
        let running = Found { run_dir: true, ..here.clone() };
        let ended = Found { exit: Some(exit(3)), ..running.clone() };
        let other_boot = Found::default();
        assert_eq!(judge(&created, &here), Verdict::Rest);
        assert_eq!(judge(&created, &running), Verdict::Connect);
        assert_eq!(judge(&started, &running), Verdict::Connect);
        assert_eq!(judge(&started, &ended), Verdict::Ended(exit(3)));
        assert!(matches!(judge(&started, &here), Verdict::Ended(exit) if exit.code == 137));
        assert_eq!(judge(&started, &other_boot), Verdict::Rebooted);
        assert_eq!(judge(&removed, &running), Verdict::Remove);
        assert_eq!(judge(&throwaway, &here), Verdict::Rest);
        assert_eq!(judge(&throwaway, &other_boot), Verdict::Remove);
    }
}
