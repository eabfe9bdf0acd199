//! The Spec's mounts, pure: what is mounted where, with options sorted by where the kernel wants them.

pub(crate) mod apply;
mod cgroup;
mod copy;
pub mod options;

use std::path::Path;

use creel_types::spec::{NamespaceKind, Spec};
use serde::Serialize;

pub use cgroup::{CgroupHierarchy, cgroup_hierarchies};
pub use options::{Attributes, MountOptions, Propagation};

use crate::{Error, Facts, namespaces, validate};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum MountStep {
    /// A file system.
    New {
        /// Absolute path inside the container.
        destination: String,
        /// Type, like `tmpfs`.
        filesystem: String,
        /// Device or name, as it is shown in mountinfo.
        source: String,
        /// Options.
        options: MountOptions,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute path inside the container.
        destination: String,
        /// Absolute path on the host.
        source: String,
        /// Options.
        options: MountOptions,
    },
    /// The control groups.
    Cgroup {
        /// Absolute path inside the container.
        destination: String,
        /// The hierarchies of cgroup v1; empty for the unified one.
        hierarchies: Vec<CgroupHierarchy>,
        /// Whether a cgroup namespace hides what is above the container's own group; otherwise that group is bound.
        namespaced: bool,
        /// Options.
        options: MountOptions,
    },
}

impl MountStep {
    /// Where it is mounted.
    pub fn destination(&self) -> &str {
        match self {
            MountStep::New { destination, .. }
            | MountStep::Bind { destination, .. }
            | MountStep::Cgroup { destination, .. } => destination,
        }
    }

    /// What is mounted, for messages.
    pub fn label(&self) -> &str {
        match self {
            MountStep::New { filesystem, .. } => filesystem,
            MountStep::Bind { source, .. } => source,
            MountStep::Cgroup { .. } => "cgroup",
        }
    }
}

/// Files of procfs over which containers are commonly given a view of their own (lxcfs); nothing else below `/proc`
/// may be mounted over, since procfs is what creel and the program trust.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// The mounts of a Spec, in its order.
pub(crate) fn plan(spec: &Spec, bundle: &Path, facts: &Facts) -> Result<Vec<MountStep>, Error> {
    let empty = Vec::new();
    let spaces = spec.linux.as_ref().map_or(&empty, |linux| &linux.namespaces);
    let mut steps = Vec::with_capacity(spec.mounts.len());
    for (index, mount) in spec.mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let destination = clean(&format!("{field}.destination"), &mount.destination)?;
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Error::unsupported(field, "idmapped mounts are not supported yet"));
        }
        let options = options::parse(&format!("{field}.options"), &mount.options)?;
        let filesystem = mount.kind.as_deref().unwrap_or("");
        let is_bind = options.bind || filesystem == "bind";
        if destination.starts_with("/proc/") && !(is_bind && PROC_FILES.contains(&destination.as_str())) {
            return Err(Error::invalid(
                field,
                format!("{destination} is inside /proc and cannot be mounted over"),
            ));
        }
        if destination == "/proc" && filesystem != "proc" && !is_bind {
            return Err(Error::invalid(field, "only procfs can be mounted on /proc"));
        }
        if is_bind {
            let source = mount.source.as_deref().unwrap_or("");
            if source.is_empty() || source.contains('\0') {
                return Err(Error::invalid(format!("{field}.source"), "a bind mount needs a path to bind"));
            }
            let source = bundle.join(source).display().to_string();
            steps.push(MountStep::Bind { destination, source, options });
            continue;
        }
        if options.copy_up && filesystem != "tmpfs" {
            return Err(Error::invalid(field, "tmpcopyup is an option of tmpfs"));
        }
        let source = mount.source.clone().unwrap_or_else(|| filesystem.to_string());
        match filesystem {
            "" | "none" => return Err(Error::invalid(field, "neither a type nor bind is given")),
            "cgroup" | "cgroup2" => {
                let namespaced = namespaces::has(spaces, NamespaceKind::Cgroup);
                let hierarchies = match filesystem {
                    "cgroup" => facts.cgroups.iter().filter(|group| !group.is_unified()).cloned().collect(),
                    _ => Vec::new(),
                };
                steps.push(MountStep::Cgroup { destination, hierarchies, namespaced, options });
            }
            _ if filesystem.contains('\0') => return Err(Error::invalid(field, "the type holds a NUL")),
            _ => {
                steps.push(MountStep::New { destination, filesystem: filesystem.into(), source, options });
            }
        }
    }
    Ok(steps)
}

/// An absolute destination without doubled slashes, `.` and `..` (which stays at the root as in a chroot).
fn clean(field: &str, path: &str) -> Result<String, Error> {
    validate::absolute(field, path)?;
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid(field, "nothing can be mounted over the root itself; use root.path"));
    }
    Ok(format!("/{}", parts.join("/")))
}
