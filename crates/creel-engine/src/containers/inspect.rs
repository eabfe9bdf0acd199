//! Everything about one container.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_store::{Driver, Root, RootForm};
use creel_wire::container::{ContainerInspect, ContainerState, GraphDriver, NetworkSettings};

use super::container::Container;
use super::list;
use crate::core::Core;
use crate::error::Result;
use crate::record::{AtRest, ContainerRecord, MountRecord};
use crate::times;

/// Inspects a container.
pub(crate) async fn inspect(core: &Arc<Core>, id: &str, size: bool) -> Result<ContainerInspect> {
    let container = core.containers.find(id)?;
    let record = container.record();
    let dir = core.dir(&record.id);
    // Docker makes these files at the first start, and names none of them before.
    let file = |name: &str| {
        Some(dir.join(name))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    // Those of a network that is another container's are that container's.
    let donor = record.host_config.network_mode.strip_prefix("container:").and_then(|id| id.parse().ok());
    let started = container.running().is_some() || !matches!(record.rest, AtRest::Created { .. });
    let network_file = |name: &str| match donor.as_ref().map(|id| core.dir(id)) {
        None => file(name),
        Some(dir) if started => dir.join(name).display().to_string(),
        Some(_) => String::new(),
    };
    let log = format!("{}-json.log", record.id);
    let (size_rw, size_root_fs) = if size { list::sizes(core, &container).await } else { (None, None) };
    let mut args = record.args();
    let path = if args.is_empty() { String::new() } else { args.remove(0) };
    let graph_driver = graph_driver(core, &record);
    let execs = core.execs.running_in(&record.id);
    Ok(ContainerInspect {
        id: record.id.to_string(),
        created: record.created.to_string(),
        path,
        args,
        state: state(&container, &record),
        image: record.image.to_string(),
        resolv_conf_path: network_file("resolv.conf"),
        hostname_path: network_file("hostname"),
        hosts_path: network_file("hosts"),
        log_path: if record.has_log() { file(&log) } else { String::new() },
        name: format!("/{}", record.name),
        restart_count: 0,
        driver: graph_driver.name.clone(),
        platform: record.platform.os.clone(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: Some(execs).filter(|ids| !ids.is_empty()),
        host_config: record.host_config.clone(),
        graph_driver,
        size_rw,
        size_root_fs,
        mounts: record.mounts.iter().filter_map(MountRecord::point).collect(),
        config: record.config.clone(),
        network_settings: NetworkSettings { networks: list::networks(&record), ..NetworkSettings::default() },
    })
}

fn state(container: &Container, record: &ContainerRecord) -> ContainerState {
    let life = container.life();
    let mut state = ContainerState {
        status: container.state_word().to_owned(),
        running: life.running.is_some(),
        paused: life.running.as_ref().is_some_and(|running| running.paused),
        dead: life.dead,
        started_at: times::NEVER.to_owned(),
        finished_at: times::NEVER.to_owned(),
        ..ContainerState::default()
    };
    match &record.rest {
        AtRest::Created { code, error } => {
            state.exit_code = i64::from(*code);
            state.error.clone_from(error);
        }
        AtRest::Started { at } => state.started_at = times::rfc3339(Some(*at)),
        AtRest::Exited { code, oom_killed, error, started_at, finished_at } => {
            state.exit_code = i64::from(*code);
            state.oom_killed = *oom_killed;
            state.error.clone_from(error);
            state.started_at = times::rfc3339(*started_at);
            state.finished_at = times::rfc3339(Some(*finished_at));
        }
    }
    if let Some(running) = &life.running {
        state.pid = i64::from(running.pid);
        state.started_at = times::rfc3339(Some(running.started_at));
    }
    state
}

/// Where the layers are. `MergedDir` names no directory: the overlay is mounted in the container's namespace only. Docker
/// tells nothing of a copy.
fn graph_driver(core: &Core, record: &ContainerRecord) -> GraphDriver {
    let dir = core.dir(&record.id);
    let root = core.store.snapshot(&record.id).ok();
    let name = driver_of(core, root.as_ref()).docker_name().to_owned();
    let data = root.filter(|root| root.form == RootForm::Overlay).map(|root| {
        let lower: Vec<String> = root.lower.iter().map(|path| path.display().to_string()).collect();
        BTreeMap::from([
            ("ID".to_owned(), record.id.to_string()),
            ("LowerDir".to_owned(), lower.join(":")),
            ("MergedDir".to_owned(), dir.join("merged").display().to_string()),
            ("UpperDir".to_owned(), root.upper.display().to_string()),
            ("WorkDir".to_owned(), root.work.display().to_string()),
        ])
    });
    GraphDriver { name, data }
}

/// The driver that makes roots like this one.
fn driver_of(core: &Core, root: Option<&Root>) -> Driver {
    match root {
        Some(root) if root.form == RootForm::Copy => Driver::Copy,
        Some(root) if root.lower.iter().any(|layer| creel_sys::erofs::is_image(layer)) => Driver::Erofs,
        Some(_) => Driver::Overlay,
        None => core.store.driver(),
    }
}
