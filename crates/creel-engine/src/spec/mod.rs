//! From a container's record to its OCI Spec, as Docker would write it. Pure: what must be asked of the machine
//! comes in as [`Facts`].

pub(crate) mod capabilities;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod security;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use creel_types::spec::{
    Capabilities, ConsoleSize, Linux, Namespace, NamespaceKind, Process, Root, Spec, User,
};

use crate::error::Result;
use crate::merge;
use crate::record::ContainerRecord;

/// The version of the runtime specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// What the builder cannot know by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Who the program runs as, resolved inside the root.
    pub(crate) identity: Identity,
    /// The directory with `hosts`, `hostname` and `resolv.conf`.
    pub(crate) dir: PathBuf,
    /// Paths of namespaces to join, by kind.
    pub(crate) joined: Vec<(NamespaceKind, String)>,
    /// Sources of mounts that were opened as trees, by destination.
    pub(crate) trees: BTreeMap<String, String>,
    /// Device nodes of the host that the container gets.
    pub(crate) devices: Vec<devices::HostDevice>,
    /// Numbers of the block devices named by I/O limits, by path.
    pub(crate) block_devices: Vec<(String, (i64, i64))>,
    /// The path of the container's cgroup.
    pub(crate) cgroup_path: String,
    /// Capabilities that this system knows, for those who get all of them.
    pub(crate) all_capabilities: Vec<String>,
}

/// A user as numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// Builds the Spec.
pub(crate) fn build(record: &ContainerRecord, facts: &Facts) -> Result<Spec> {
    let host = &record.host_config;
    let security = security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let capabilities = capabilities::of(host, &facts.all_capabilities)?;
    let uts_is_hosts = host.uts_mode == "host";
    let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty() && !uts_is_hosts);
    Ok(Spec {
        oci_version: OCI_VERSION.to_owned(),
        root: Some(Root { path: "rootfs".to_owned(), readonly: host.readonly_rootfs }),
        mounts: mounts::all(record, facts),
        process: Some(process(record, facts, &security, &capabilities)),
        hostname: named(&record.config.hostname),
        domainname: named(&record.config.domainname),
        hooks: None,
        annotations: host.annotations.clone().unwrap_or_default(),
        linux: Some(Linux {
            sysctl: host.sysctls.clone().unwrap_or_default(),
            resources: Some(resources::all(host, facts)?),
            cgroups_path: Some(facts.cgroup_path.clone()),
            namespaces: namespaces(record, facts),
            devices: facts.devices.iter().map(devices::HostDevice::node).collect(),
            seccomp: security.seccomp(host.privileged, &capabilities)?,
            rootfs_propagation: propagation(record),
            masked_paths: host.masked_paths.clone().unwrap_or_else(security::masked_paths),
            readonly_paths: host.readonly_paths.clone().unwrap_or_else(security::readonly_paths),
            ..Linux::default()
        }),
    })
}

/// Mounts that are to be seen outside need a root that lets events through.
fn propagation(record: &ContainerRecord) -> Option<String> {
    let wants =
        |word: &str| record.mounts.iter().any(|mount| mount.propagation.trim_start_matches('r') == word);
    if wants("shared") {
        Some("shared".to_owned())
    } else if wants("slave") {
        Some("rslave".to_owned())
    } else {
        None
    }
}

fn process(
    record: &ContainerRecord,
    facts: &Facts,
    security: &security::Security,
    capabilities: &[String],
) -> Process {
    let (config, host) = (&record.config, &record.host_config);
    let identity = &facts.identity;
    let [rows, columns] = host.console_size;
    let console = config.tty && rows > 0 && columns > 0;
    Process {
        terminal: config.tty,
        console_size: console.then_some(ConsoleSize { height: rows.into(), width: columns.into() }),
        user: User {
            uid: identity.uid,
            gid: identity.gid,
            umask: None,
            additional_gids: identity.groups.clone(),
        },
        args: record.args(),
        env: merge::environment(
            &config.hostname,
            config.tty,
            identity.home.as_deref(),
            config.env.as_deref().unwrap_or_default(),
        ),
        cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
        capabilities: Some(sets(capabilities, identity.uid)),
        rlimits: resources::rlimits(host),
        no_new_privileges: security.no_new_privileges,
        oom_score_adj: Some(host.oom_score_adj),
        ..Process::default()
    }
}

/// The five sets: like execve(2), nobody but root gets them effective.
pub(crate) fn sets(capabilities: &[String], uid: u32) -> Capabilities {
    let all = capabilities.to_vec();
    if uid == 0 {
        Capabilities {
            bounding: all.clone(),
            effective: all.clone(),
            permitted: all,
            ..Capabilities::default()
        }
    } else {
        Capabilities { bounding: all, ..Capabilities::default() }
    }
}

fn namespaces(record: &ContainerRecord, facts: &Facts) -> Vec<Namespace> {
    let host = &record.host_config;
    let shared_with_host = |kind| match kind {
        NamespaceKind::Network => host.network_mode == "host",
        NamespaceKind::Pid => host.pid_mode == "host",
        NamespaceKind::Ipc => host.ipc_mode == "host",
        NamespaceKind::Uts => host.uts_mode == "host",
        NamespaceKind::Cgroup => host.cgroupns_mode == "host",
        _ => false,
    };
    [
        NamespaceKind::Mount,
        NamespaceKind::Network,
        NamespaceKind::Uts,
        NamespaceKind::Pid,
        NamespaceKind::Ipc,
        NamespaceKind::Cgroup,
    ]
    .into_iter()
    .filter(|kind| !shared_with_host(*kind))
    .map(|kind| Namespace {
        kind,
        path: facts.joined.iter().find(|(joined, _)| *joined == kind).map(|(_, path)| path.clone()),
    })
    .collect()
}
