//! What the Spec builder must be told of the machine, the image and other containers.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;

use creel_runtime::Rootfs;
use rustix::fs::{major, minor};

use super::join::Joined;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::record::{ContainerRecord, MountKind};
use crate::spec::{Facts, Identity, devices, resources};

/// Gathers everything for one start.
pub(super) fn gather(
    core: &Core,
    record: &ContainerRecord,
    rootfs: &Rootfs,
    joined: &Joined,
) -> Result<Facts> {
    let host = &record.host_config;
    make_sources(record)?;
    let devices = if host.privileged {
        devices::all_of_host()
    } else {
        let mut devices = Vec::new();
        for mapping in host.devices.iter().flatten() {
            devices.extend(devices::read(mapping)?);
        }
        devices
    };
    let mut block_devices = Vec::new();
    for path in resources::block_device_paths(host)? {
        let meta =
            std::fs::metadata(&path).map_err(|e| Error::invalid(format!("stat {path}: {}", words(&e))))?;
        if !meta.file_type().is_block_device() {
            return Err(Error::invalid(format!("{path} is not a block device")));
        }
        block_devices.push((path, (i64::from(major(meta.rdev())), i64::from(minor(meta.rdev())))));
    }
    Ok(Facts {
        identity: identity(rootfs, record)?,
        dir: joined.network.as_ref().map_or_else(|| core.dir(&record.id), |network| network.dir.clone()),
        joined: joined.paths.clone(),
        trees: Default::default(),
        devices,
        block_devices,
        cgroup_path: core.cgroup_path(record),
        all_capabilities: all_capabilities(),
    })
}

/// The capabilities that this kernel knows and that this daemon may give.
pub(crate) fn all_capabilities() -> Vec<String> {
    creel_runtime::caps::ALL
        .iter()
        .filter(|name| {
            let number = creel_runtime::caps::number(name);
            number.is_some_and(|number| creel_sys::caps::bounding_has(number) == Some(true))
        })
        .map(|name| (*name).to_owned())
        .collect()
}

fn identity(rootfs: &Rootfs, record: &ContainerRecord) -> Result<Identity> {
    let user = creel_runtime::resolve_user(rootfs, &record.config.user)
        .map_err(|e| user_error(&record.config.user, &e))?;
    let mut groups = vec![user.gid];
    groups.extend(user.additional_gids.iter().filter(|gid| **gid != user.gid));
    for group in record.host_config.group_add.iter().flatten() {
        let resolved =
            creel_runtime::resolve_user(rootfs, &format!("0:{group}")).map_err(|e| user_error(group, &e))?;
        if !groups.contains(&resolved.gid) {
            groups.push(resolved.gid);
        }
    }
    Ok(Identity { uid: user.uid, gid: user.gid, groups, home: Some(user.home) })
}

/// What the system says of an error, as Docker's words have it: small letters, no number.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Words an unknown or impossible user as Docker does.
pub(crate) fn user_error(wanted: &str, error: &impl creel_types::Classify) -> Error {
    const RANGE: &str = "uids and gids must be in range 0-2147483647";
    let text = error.to_string();
    let impossible =
        wanted.split(':').any(|part| part.parse::<i64>().is_ok_and(|n| i32::try_from(n).is_err() || n < 0));
    let text = if impossible { RANGE } else { text.strip_prefix("user: ").unwrap_or(&text) };
    Error::new(error.kind(), text)
}

/// Makes missing sources of `-v`; misses those of `--mount`.
fn make_sources(record: &ContainerRecord) -> Result<()> {
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        let source = Path::new(&mount.source);
        match std::fs::metadata(source) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && mount.create_source => {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(source).map_err(|e| {
                    Error::io(format_args!("error while creating mount source path '{}'", mount.source), e)
                })?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    mount.source
                )));
            }
            Err(e) => return Err(Error::io(format_args!("bind source path {}", mount.source), e)),
        }
    }
    Ok(())
}
