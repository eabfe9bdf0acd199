//! What the Spec builder must be told of the machine, the image and other containers.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;

use creel_runtime::Rootfs;
use creel_types::spec::NamespaceKind;
use rustix::fs::{major, minor};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::record::{ContainerRecord, MountKind};
use crate::spec::{Facts, Identity, devices, resources};

/// Gathers everything for one start.
pub(super) fn gather(core: &Core, record: &ContainerRecord, rootfs: &Rootfs) -> Result<Facts> {
    let host = &record.host_config;
    make_sources(record)?;
    let (joined, joined_shm) = joined(core, record)?;
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
        let meta = std::fs::metadata(&path).map_err(|e| Error::invalid(format!("{path}: {e}")))?;
        if !meta.file_type().is_block_device() {
            return Err(Error::invalid(format!("{path} is not a block device")));
        }
        block_devices.push((path, (i64::from(major(meta.rdev())), i64::from(minor(meta.rdev())))));
    }
    Ok(Facts {
        identity: identity(rootfs, record)?,
        dir: core.dir(&record.id),
        joined,
        joined_shm,
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
    let user = creel_runtime::resolve_user(rootfs, &record.config.user).map_err(|e| Error::of(&e))?;
    let mut groups = vec![user.gid];
    groups.extend(user.additional_gids.iter().filter(|gid| **gid != user.gid));
    for group in record.host_config.group_add.iter().flatten() {
        let resolved =
            creel_runtime::resolve_user(rootfs, &format!("0:{group}")).map_err(|e| Error::of(&e))?;
        if !groups.contains(&resolved.gid) {
            groups.push(resolved.gid);
        }
    }
    Ok(Identity { uid: user.uid, gid: user.gid, groups, home: Some(user.home) })
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

type Joined = (Vec<(NamespaceKind, String)>, Option<String>);

/// Namespaces of other containers that this one joins.
fn joined(core: &Core, record: &ContainerRecord) -> Result<Joined> {
    let host = &record.host_config;
    let (mut joined, mut shm) = (Vec::new(), None);
    for (mode, kind) in [
        (&host.network_mode, NamespaceKind::Network),
        (&host.pid_mode, NamespaceKind::Pid),
        (&host.ipc_mode, NamespaceKind::Ipc),
    ] {
        let Some(other) = mode.strip_prefix("container:") else { continue };
        let container = core.containers.find(other)?;
        if container.id == record.id {
            return Err(Error::invalid(format!(
                "a container cannot join its own {} namespace",
                kind.proc_name()
            )));
        }
        let Some(running) = container.running() else {
            return Err(Error::conflict(format!(
                "cannot join {} of a non running container: {}",
                match kind {
                    NamespaceKind::Network => "network",
                    NamespaceKind::Pid => "PID",
                    _ => "IPC",
                },
                container.id
            )));
        };
        joined.push((kind, format!("/proc/{}/ns/{}", running.pid, kind.proc_name())));
        if kind == NamespaceKind::Ipc {
            shm = Some(format!("/proc/{}/root/dev/shm", running.pid));
        }
    }
    Ok((joined, shm))
}
