//! Create: a request becomes a record and a snapshot, both or neither.

use std::path::Path;
use std::sync::Arc;

use creel_store::ImageRecord;
use creel_types::{ContainerId, Platform};
use creel_wire::container::{CreateRequest, CreateResponse};
use creel_wire::host::HostConfig;
use jiff::Timestamp;

use super::container::Container;
use super::{host, mounts};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::record::{AtRest, ContainerRecord, KIND, MountRecord};
use crate::volumes::taking as volumes;
use crate::{merge, names};

/// Creates a container.
pub(crate) async fn create(
    core: &Arc<Core>,
    name: Option<&str>,
    request: CreateRequest,
    platform: Option<Platform>,
) -> Result<CreateResponse> {
    let given = name.map(names::check).transpose()?.map(str::to_owned);
    if request.config.image.is_empty() {
        return Err(Error::invalid("no image was named"));
    }
    let image = image(core, &request.config.image, platform.as_ref())?;
    let id = ContainerId::from_random(names::random_bytes());
    let (mut record, warnings) = prepare(core, &id, &image, request)?;
    let name = given.unwrap_or_else(|| names::random(&core.containers.names(), names::random_number));
    let guard = core.containers.take_name(&name, &id)?;
    record.name = name;
    volumes::find_images(core, &mut record)?;
    volumes::take(core, &mut record).await?;
    let container = Container::new(record);
    let (this, record) = (core.clone(), container.record());
    let written = blocking(move || {
        let store = &this.store;
        let json =
            serde_json::to_vec(&*record).map_err(|e| Error::internal(format!("writing a record: {e}")))?;
        let root = store.create_container(&record.id, &image, KIND, Some(&record.name), &json)?;
        volumes::fill(&this, &record, &root).inspect_err(|_| {
            if let Err(e) = store.delete_container(&record.id, KIND) {
                tracing::warn!(container = record.id.short(), "undoing a create: {e}");
            }
        })?;
        Ok(root)
    });
    let filled = async {
        let root = written.await?;
        volumes::fill_by_plugins(core, &container.record(), &root).await.inspect_err(|_| {
            if let Err(e) = core.store.delete_container(&container.id, KIND) {
                tracing::warn!(container = container.id.short(), "undoing a create: {e}");
            }
        })
    };
    if let Err(e) = filled.await {
        volumes::give_back(core, &container.record()).await;
        return Err(e);
    }
    core.containers.insert(container.clone());
    guard.keep();
    core.tell(&container, "create", &[]);
    Ok(CreateResponse { id: id.to_string(), warnings })
}

/// The image to run, if it is for the platform that was asked for.
fn image(core: &Core, name: &str, platform: Option<&Platform>) -> Result<Arc<ImageRecord>> {
    let image = core.store.resolve_image(name)?;
    let has = image.config.platform();
    if let Some(wanted) = platform
        && !wanted.accepts(&has)
    {
        return Err(Error::not_found(format!(
            "image with reference {name} was found but does not provide the specified platform ({wanted}): it is for {has}"
        )));
    }
    Ok(image)
}

/// The record, all but its name, and what the user should be warned of.
fn prepare(
    core: &Core,
    id: &ContainerId,
    image: &ImageRecord,
    request: CreateRequest,
) -> Result<(ContainerRecord, Vec<String>)> {
    let CreateRequest { mut config, mut host_config, networking_config } = request;
    let cpus = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    let machine = machine(core, &host_config, online_cpus().unwrap_or(cpus));
    let mut warnings = host::check(&config, &mut host_config, networking_config.as_ref(), &machine)?;
    donors(core, &mut host_config)?;
    let platform = image.config.platform();
    if !Platform::host().accepts(&platform) {
        warnings.push(format!(
            "The requested image's platform ({platform}) does not match the detected host platform ({}) and no \
             specific platform was requested",
            Platform::host()
        ));
    }
    let image_config = image.config.config.clone().unwrap_or_default();
    merge::merge(&mut config, &image_config)?;
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = mounts::clean(&config.working_dir);
    }
    host::complete(&mut host_config, &machine);
    let mounts = mounts::all(&config, &host_config, taken_over(core, &host_config)?)?;
    if config.hostname.is_empty() {
        let shared = host_config.network_mode == "host" || host_config.uts_mode == "host";
        config.hostname = if shared { hostname_of_host() } else { id.short().to_owned() };
    } else if host_config.uts_mode == "host" {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    // The kernel takes any 64 bytes (sethostname(2)); a line break would forge lines of /etc/hostname.
    if config.hostname.len() > 64 || config.hostname.contains(char::is_control) {
        return Err(Error::invalid(format!("invalid hostname: {}", config.hostname)));
    }
    let record = ContainerRecord {
        id: id.clone(),
        name: String::new(),
        created: Timestamp::now(),
        config,
        host_config,
        image: image.id,
        platform,
        mounts,
        boot_id: core.boot_id.clone(),
        rest: AtRest::Created { code: 0, error: String::new() },
        stopped_by_user: false,
        removing: false,
    };
    Ok((record, warnings))
}

/// What this request is checked against; what it does not ask for is not looked at.
fn machine(core: &Core, host: &HostConfig, cpus: i64) -> host::Machine {
    let h = &core.hierarchies;
    let cpuset = |file: &str| {
        let v1 = h.v1_with("cpuset").map(|dir| dir.join(format!("cpuset.{file}")));
        let path =
            v1.or_else(|| h.unified_with("cpuset").map(|dir| dir.join(format!("cpuset.{file}.effective"))));
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        text.trim().to_owned()
    };
    let list = |wish: &str, file: &str| if wish.is_empty() { String::new() } else { cpuset(file) };
    let weights =
        |dir: &Path| ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| dir.join(file).exists());
    host::Machine {
        cpus,
        oom_switch: h.v1_with("memory").is_some(),
        cpu_list: list(&host.cpuset_cpus, "cpus"),
        node_list: list(&host.cpuset_mems, "mems"),
        blkio_weight: host.blkio_weight == 0 || h.v1_with("blkio").is_none_or(weights),
    }
}

/// Names the containers whose namespaces are joined by their ids, which outlive names.
fn donors(core: &Core, host: &mut HostConfig) -> Result<()> {
    for (mode, words) in
        [(&mut host.network_mode, "joining network namespace of container: "), (&mut host.pid_mode, "")]
    {
        if let Some(name) = mode.strip_prefix("container:") {
            let donor =
                core.containers.find(name).map_err(|e| Error::new(e.kind(), format!("{words}{e}")))?;
            *mode = format!("container:{}", donor.id);
        }
    }
    Ok(())
}

/// The mounts of the containers that `--volumes-from` names.
fn taken_over(core: &Core, host: &HostConfig) -> Result<Vec<MountRecord>> {
    let mut all = Vec::new();
    for spec in host.volumes_from.iter().flatten() {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
        // "Not found" would make clients pull the image.
        let donor = core.containers.find(name).map_err(|e| Error::invalid(e.to_string()))?;
        all.extend(mounts::taken_over(&donor.record().mounts, mode)?);
    }
    Ok(all)
}

/// The host's own name.
pub(crate) fn hostname_of_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How many processors are on line, whatever this process may use of them.
pub(crate) fn online_cpus() -> Option<i64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let mut count = 0;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        count += last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1;
    }
    Some(count)
}
