//! Volumes of other drivers: plugins, asked by Docker's plugin protocol.

use std::path::PathBuf;
use std::sync::Arc;

use creel_plugin::{PluginVolume, VolumeDriver};
use jiff::Timestamp;

use super::{LOCAL, Volume};
use crate::containers::Container;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::record::ContainerRecord;

/// The driver of this name, which answers.
pub(crate) async fn driver(core: &Core, name: &str) -> Result<VolumeDriver> {
    core.plugins
        .volume_driver(name)
        .await
        .map_err(|e| Error::of(&e).within(format_args!("error looking up volume plugin {name}")))
}

/// Volumes that drivers know and we do not, and what went wrong with drivers.
pub(crate) async fn others(core: &Core) -> (Vec<Volume>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for name in core.plugins.names() {
        let listed = match core.plugins.volume_driver(&name).await {
            // Plugins for something else are none of ours.
            Err(creel_plugin::Error::NotADriver(_)) => continue,
            Err(e) => Err(e),
            Ok(driver) => driver.list().await,
        };
        match listed {
            Ok(volumes) => {
                let unknown = volumes.into_iter().filter(|v| core.volumes.get(&v.name).is_none());
                found.extend(unknown.map(|volume| as_ours(&name, &volume)));
            }
            Err(e) => warnings.push(e.to_string()),
        }
    }
    (found, warnings)
}

/// The volume of this name that some driver has without our having made it.
pub(crate) async fn find(core: &Core, wanted: &str) -> Option<Volume> {
    for name in core.plugins.names() {
        let Ok(driver) = core.plugins.volume_driver(&name).await else { continue };
        if let Ok(volume) = driver.get(wanted).await
            && volume.name == wanted
        {
            return Some(as_ours(&name, &volume));
        }
    }
    None
}

fn as_ours(driver: &str, volume: &PluginVolume) -> Volume {
    Volume {
        name: volume.name.clone(),
        driver: driver.to_owned(),
        created: volume.created_at.parse().unwrap_or(Timestamp::UNIX_EPOCH),
        labels: None,
        options: None,
    }
}

/// What a driver tells of a volume, and its scope.
pub(crate) async fn told(core: &Core, volume: &Volume) -> Result<(PluginVolume, String)> {
    let driver = driver(core, &volume.driver).await?;
    let told = driver.get(&volume.name).await.map_err(|e| Error::of(&e))?;
    Ok((told, driver.scope().await))
}

/// The volumes of a container that plugins mount, each once.
fn of_container(record: &ContainerRecord) -> Vec<(String, String)> {
    let mut all: Vec<_> = record
        .volumes()
        .filter(|(_, of)| of.driver != LOCAL && !of.driver.is_empty())
        .map(|(_, of)| (of.name.clone(), of.driver.clone()))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Has plugins mount a container's volumes; its mounts then say where they are. What was mounted before one that fails
/// is unmounted.
pub(crate) async fn mount_all(core: &Arc<Core>, container: &Container) -> Result<()> {
    let record = container.record();
    let wanted = of_container(&record);
    for (n, (name, plugin)) in wanted.iter().enumerate() {
        let mounted = async {
            let driver = driver(core, plugin).await?;
            driver.mount(name, record.id.as_str()).await.map_err(|e| Error::of(&e))
        };
        match mounted.await {
            Ok(place) => drop(container.change(|record| {
                let mounts = record.mounts.iter_mut();
                for mount in mounts.filter(|mount| mount.volume().is_some_and(|of| of.name == *name)) {
                    mount.source.clone_from(&place);
                }
            })),
            Err(e) => {
                unmount(core, &record, &wanted[..n]).await;
                return Err(e.within(format_args!("error while mounting volume '{name}'")));
            }
        }
    }
    Ok(())
}

/// Has plugins unmount what they mounted for a container.
pub(crate) async fn unmount_all(core: &Arc<Core>, record: &ContainerRecord) {
    unmount(core, record, &of_container(record)).await;
}

async fn unmount(core: &Arc<Core>, record: &ContainerRecord, volumes: &[(String, String)]) {
    for (name, plugin) in volumes {
        let unmounted = async {
            let driver = driver(core, plugin).await?;
            driver.unmount(name, record.id.as_str()).await.map_err(|e| Error::of(&e))
        };
        if let Err(e) = unmounted.await {
            tracing::warn!(container = record.id.short(), "unmounting volume {name}: {e}");
        }
    }
}

/// Mounts one volume for as long as `work` runs, which is given the place.
pub(crate) async fn meanwhile<T>(
    core: &Arc<Core>,
    name: &str,
    plugin: &str,
    user: &str,
    work: impl AsyncFnOnce(PathBuf) -> Result<T>,
) -> Result<T> {
    let driver = driver(core, plugin).await?;
    let place = driver.mount(name, user).await.map_err(|e| Error::of(&e))?;
    let done = work(place.into()).await;
    if let Err(e) = driver.unmount(name, user).await {
        tracing::warn!("unmounting volume {name}: {e}");
    }
    done
}
