//! Creating, listing, inspecting, removing and pruning volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_types::{ContainerId, ErrorKind};
use creel_wire::volume::{Volume as Shown, VolumeCreate, VolumeList, VolumeUsage, VolumesPrune};
use jiff::Timestamp;

use super::{ANONYMOUS, LOCAL, Pairs, Volume, Volumes, local, plugins};
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::names;
use crate::record::ContainerRecord;

/// What is wished of a volume that may have to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Empty: one is made up.
    pub(crate) name: String,
    /// Empty: whatever it has, or `local`.
    pub(crate) driver: String,
    pub(crate) options: Pairs,
    pub(crate) labels: Option<Pairs>,
}

/// `POST /volumes/create`.
pub(crate) async fn create(core: &Arc<Core>, request: VolumeCreate) -> Result<Shown> {
    if request.cluster_volume_spec.is_some() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "This node is not a swarm manager: there are no cluster volumes in creel",
        ));
    }
    let VolumeCreate { name, driver, driver_opts, labels, .. } = request;
    let wish = Wish { name, driver, options: driver_opts, labels };
    let this = core.clone();
    let volume =
        to_the_end(async move { acquire(&this, wish, None).await.map(|(volume, _)| volume) }).await?;
    Ok(shown_fully(core, &volume).await)
}

/// Finds or makes a volume and takes it into use by a container, if one is named. Tells whether it is new.
pub(crate) async fn acquire(
    core: &Arc<Core>,
    mut wish: Wish,
    user: Option<&ContainerId>,
) -> Result<(Arc<Volume>, bool)> {
    if wish.name.is_empty() {
        wish.name = ContainerId::from_random(names::random_bytes()).to_string();
        wish.labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
    }
    let name = wish.name.clone();
    let _gate = core.volumes.gate(&name).await;
    let found = find_or_make(core, wish).await.map_err(|e| e.within(format_args!("create {name}")))?;
    if let Some(user) = user {
        core.volumes.add_user(&name, user);
    }
    Ok(found)
}

async fn find_or_make(core: &Arc<Core>, wish: Wish) -> Result<(Arc<Volume>, bool)> {
    let driver = match wish.driver.as_str() {
        "" | LOCAL => None,
        name => Some(plugins::driver(core, name).await?),
    };
    core.volumes.check_whole(&wish.name)?;
    let mut found = core.volumes.get(&wish.name);
    if found.is_none() {
        found = plugins::find(core, &wish.name).await.map(|volume| core.volumes.insert(volume));
    }
    if let Some(volume) = found {
        if !wish.driver.is_empty() && wish.driver != volume.driver {
            return Err(Error::conflict(format!(
                "volume name must be unique: there is one of driver {}",
                volume.driver
            )));
        }
        return Ok((volume, false));
    }
    let volume = Volume {
        driver: if wish.driver.is_empty() { LOCAL.to_owned() } else { wish.driver },
        name: wish.name,
        created: Timestamp::now(),
        labels: wish.labels,
        options: Some(wish.options).filter(|options| !options.is_empty()),
    };
    local::check_name(&volume.name)?;
    let options = volume.options.clone().unwrap_or_default();
    match &driver {
        None => local::check_options(&options)?,
        Some(driver) => driver.create(&volume.name, &options).await.map_err(|e| Error::of(&e))?,
    }
    let (store, json) = (core.store.clone(), serde_json::to_vec(&volume));
    let json = json.map_err(|e| Error::internal(format!("writing a volume's document: {e}")))?;
    let name = volume.name.clone();
    blocking(move || Ok(store.create_volume(&name, &json)?)).await?;
    let volume = core.volumes.insert(volume);
    tell(core, &volume, "create", &[]);
    Ok((volume, true))
}

/// Tells an event about a volume.
pub(crate) fn tell(core: &Core, volume: &Volume, action: &str, particulars: &[(&str, String)]) {
    let mut attributes = BTreeMap::from([("driver".to_owned(), volume.driver.clone())]);
    attributes.extend(particulars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    core.events.tell("volume", action, &volume.name, attributes);
}

/// Tells that a container that starts has its volumes mounted.
pub(crate) fn tell_mounted(core: &Core, record: &ContainerRecord) {
    for (mount, of) in record.volumes() {
        let Some(volume) = core.volumes.get(&of.name) else { continue };
        let particulars = [
            ("container", record.id.to_string()),
            ("destination", mount.destination.clone()),
            ("propagation", mount.propagation.clone()),
            ("read/write", mount.rw.to_string()),
        ];
        tell(core, &volume, "mount", &particulars);
    }
}

/// Tells that a container that has ended has them no more.
pub(crate) fn tell_unmounted(core: &Core, record: &ContainerRecord) {
    for (_, of) in record.volumes() {
        let Some(volume) = core.volumes.get(&of.name) else { continue };
        tell(core, &volume, "unmount", &[("container", record.id.to_string())]);
    }
}

/// As the API shows it.
fn shown(core: &Core, volume: &Volume) -> Shown {
    Shown {
        created_at: volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        driver: volume.driver.clone(),
        labels: volume.labels.clone(),
        mountpoint: match volume.driver.as_str() {
            LOCAL => Volumes::mountpoint(&core.store, volume).display().to_string(),
            _ => String::new(),
        },
        name: volume.name.clone(),
        options: volume.options.clone(),
        scope: "local".to_owned(),
        status: None,
        usage_data: None,
    }
}

/// `GET /volumes/{name}`.
pub(crate) async fn inspect(core: &Arc<Core>, name: &str) -> Result<Shown> {
    Ok(shown_fully(core, &*find(core, name).await?).await)
}

async fn find(core: &Core, name: &str) -> Result<Arc<Volume>> {
    if let Some(volume) = core.volumes.get(name) {
        return Ok(volume);
    }
    // A driver may have volumes that it was not asked for.
    let found = plugins::find(core, name).await.map(Arc::new);
    found.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
}

/// As the API shows it, with what its driver tells.
async fn shown_fully(core: &Core, volume: &Volume) -> Shown {
    let ours = shown(core, volume);
    if volume.driver == LOCAL {
        return ours;
    }
    match plugins::told(core, volume).await {
        Ok((told, scope)) => Shown {
            mountpoint: told.mountpoint,
            status: told.status,
            scope,
            created_at: if told.created_at.is_empty() { ours.created_at.clone() } else { told.created_at },
            ..ours
        },
        Err(e) => {
            tracing::warn!("volume {}: {e}", volume.name);
            ours
        }
    }
}

/// `GET /volumes`.
pub(crate) async fn list(core: &Arc<Core>, filters: &Filters) -> Result<VolumeList> {
    filters.allow(&["dangling", "name", "driver", "label"])?;
    let dangling = filters.switch("dangling")?;
    let none = Pairs::new();
    let takes = |volume: &Volume| {
        dangling.is_none_or(|dangling| core.volumes.users(&volume.name).is_empty() == dangling)
            && filters.any("driver", |driver| volume.driver == driver)
            && filters.any("name", |name| volume.name.contains(name))
            && filters.labels(volume.labels.as_ref().unwrap_or(&none))
    };
    let (others, warnings) = plugins::others(core).await;
    let mut volumes = core.volumes.all();
    volumes.extend(others.into_iter().map(Arc::new));
    let mut list = Vec::new();
    for volume in volumes.iter().filter(|volume| takes(volume)) {
        list.push(shown_fully(core, volume).await);
    }
    Ok(VolumeList { volumes: list, warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) })
}

/// `DELETE /volumes/{name}`.
pub(crate) async fn remove(core: &Arc<Core>, name: &str, force: bool) -> Result<()> {
    let (this, owned) = (core.clone(), name.to_owned());
    let removed = to_the_end(async move { discard(&this, &owned, force).await }).await;
    match removed {
        Err(e) if force && e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a volume that nobody uses; with `force`, also one whose driver is gone or fails.
pub(crate) async fn discard(core: &Arc<Core>, name: &str, force: bool) -> Result<()> {
    let _gate = core.volumes.gate(name).await;
    let volume = find(core, name).await?;
    let users: Vec<String> = core.volumes.users(name).iter().map(ToString::to_string).collect();
    if !users.is_empty() {
        return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
    }
    if volume.driver != LOCAL {
        let removed = async {
            let driver = plugins::driver(core, &volume.driver).await?;
            driver.remove(name).await.map_err(|e| Error::of(&e))
        };
        match removed.await {
            Err(e) if force => tracing::warn!("removing volume {name} all the same: {e}"),
            other => other.map_err(|e| e.within(format_args!("remove {name}")))?,
        }
    }
    let (store, owned) = (core.store.clone(), name.to_owned());
    blocking(move || Ok(store.remove_volume(&owned)?)).await?;
    core.volumes.forget(name);
    tell(core, &volume, "destroy", &[]);
    Ok(())
}

/// `POST /volumes/prune`.
pub(crate) async fn prune(core: &Arc<Core>, filters: Filters) -> Result<VolumesPrune> {
    filters.allow(&["label", "label!", "all"])?;
    let all = filters.switch("all").map_err(|_| {
        let given = filters.get("all").join(" ");
        Error::invalid(format!("invalid filter 'all': it is neither true nor false: \"{given}\""))
    })?;
    let core = core.clone();
    to_the_end(async move {
        let (mut deleted, mut space, none) = (Vec::new(), 0, Pairs::new());
        for volume in core.volumes.all() {
            // What has options may be somebody's else: it is removed by name only.
            let taken = volume.is_plain()
                && (all == Some(true) || volume.is_anonymous())
                && filters.labels(volume.labels.as_ref().unwrap_or(&none))
                && core.volumes.users(&volume.name).is_empty();
            if !taken {
                continue;
            }
            let size = size(&core, &volume).await;
            match discard(&core, &volume.name, false).await {
                Ok(()) => {
                    space += u64::try_from(size).unwrap_or(0);
                    deleted.push(volume.name.clone());
                }
                // It was taken into use or removed meanwhile.
                Err(e) => tracing::debug!("pruning: {e}"),
            }
        }
        core.events.tell("volume", "prune", "", [("reclaimed".to_owned(), space.to_string())].into());
        Ok(VolumesPrune { volumes_deleted: Some(deleted), space_reclaimed: space })
    })
    .await
}

/// The bytes of a volume's files; -1 if that cannot be known.
async fn size(core: &Arc<Core>, volume: &Arc<Volume>) -> i64 {
    let (store, volume) = (core.store.clone(), volume.clone());
    let measured = blocking(move || Ok(store.volume_size(&volume.name)?)).await;
    measured.ok().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1)
}

/// The volumes with what they take, as `system df` shows them: those whose room is ours.
pub(crate) async fn usage(core: &Arc<Core>) -> Vec<Shown> {
    let mut list = Vec::new();
    for volume in core.volumes.all().into_iter().filter(|volume| volume.is_plain()) {
        let users = core.volumes.users(&volume.name).len();
        let usage = VolumeUsage {
            ref_count: i64::try_from(users).unwrap_or(i64::MAX),
            size: size(core, &volume).await,
        };
        list.push(Shown { usage_data: Some(usage), ..shown(core, &volume) });
    }
    list
}
