//! The Spec's mounts, pure: what is mounted where, with options sorted by where the kernel wants them.

pub(crate) mod apply;
pub(crate) mod binding;
mod cgroup;
mod copy;
pub(crate) mod idmapped;
pub mod options;

use std::os::fd::OwnedFd;
use std::path::Path;

use creel_types::spec::{IdMapping, Linux, Mount, NamespaceKind, Spec};
use serde::Serialize;

pub use cgroup::{CgroupHierarchy, cgroup_hierarchies};
pub use options::{Attributes, Links, MountOptions, Propagation};

use crate::plan::Step;
use crate::{Error, Facts, Rootfs, namespaces, validate};

/// Mounts something nowhere, for whoever mounts it into containers: with `bind` or `rbind` among the options a copy of the
/// mount at the path `source`, else a new file system of this type. Options are those of fstab(5). What it returns is
/// unmounted when nothing refers to it any more.
///
/// # Errors
/// [`Error::Invalid`] for options that the kernel cannot be given; [`Error::Step`] with what the kernel says otherwise.
pub fn detached(filesystem: &str, source: &str, options: &[String]) -> Result<OwnedFd, Error> {
    let mut parsed = options::parse("options", options)?;
    let made = if parsed.bind {
        apply::open_source(source, parsed.recursive).and_then(|tree| {
            let Attributes { set, clear } = parsed.attributes;
            apply::set_attributes(&tree, set, clear, false)?;
            let Attributes { set, clear } = parsed.tree_attributes;
            apply::set_attributes(&tree, set, clear, true)?;
            Ok(tree)
        })
    } else {
        if parsed.attributes.set & creel_sys::mount::ATTR_RDONLY != 0 && source.starts_with('/') {
            // A journal is not to be replayed on a medium that is read-only.
            parsed.superblock.push("ro");
        }
        apply::new_filesystem(filesystem, source, &parsed, &[])
    };
    made.map_err(|fault| Error::Step {
        step: format!("mount {source}"),
        message: fault.message,
        errno: fault.errno,
        kind: fault.kind,
    })
}

/// What of the mounts' options is passed over: a bind mount has no file system of its own that could read any.
pub(crate) fn warnings(steps: &[Step]) -> Vec<String> {
    let one = |step: &Step| match step {
        Step::Mount { mount: MountStep::Bind { destination, options, .. } } => {
            let data = options.data.iter().map(|(name, _)| name.as_str());
            let names: Vec<&str> = options.superblock.iter().copied().chain(data).collect();
            let text =
                || format!("options of the bind mount {destination} were left out: {}", names.join(", "));
            (!names.is_empty()).then(text)
        }
        _ => None,
    };
    steps.iter().filter_map(one).collect()
}

/// How the owners of an idmapped mount's files are shown (mount_setattr(2), "ID-mapped mounts").
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdMap {
    /// User ids: in the file system, and shown.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
    /// The user namespace whose maps are taken, if there are none of these: the one that the container joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
    /// Whether the mounts below it are mapped too.
    pub recursive: bool,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
        /// SELinux context of its files; used where SELinux is.
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<String>,
        /// It becomes read-only after everything that lies below it is in place.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        seal_later: bool,
        /// Options.
        options: MountOptions,
    },
    /// A change of what is mounted already.
    Change {
        /// Absolute path inside the container; something must be mounted there.
        destination: String,
        /// Options: of the mount only, if they say `bind`; otherwise of its file system, too.
        options: MountOptions,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute path inside the container.
        destination: String,
        /// Absolute path on the host.
        source: String,
        /// How owners are shown.
        #[serde(skip_serializing_if = "Option::is_none")]
        id_map: Option<IdMap>,
        /// Options.
        options: MountOptions,
    },
    /// The control groups.
    Cgroup {
        /// Absolute path inside the container.
        destination: String,
        /// The hierarchies of cgroup v1; empty for the unified one.
        hierarchies: Vec<CgroupHierarchy>,
        /// Whether a cgroup namespace hides what is above the container's own group; otherwise v1 groups are bound, and
        /// of the unified hierarchy all is seen.
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
            | MountStep::Change { destination, .. }
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
            MountStep::Change { .. } => "other options",
        }
    }

    /// Whether it is a bind mount that stays tied to its source's mount: each sees what is mounted below the other.
    pub(crate) fn is_tied(&self) -> bool {
        let tied = |change: &Propagation| matches!(change.mode, libc::MS_SHARED | libc::MS_SLAVE);
        matches!(self, MountStep::Bind { options, .. } if options.propagation.as_ref().is_some_and(tied))
    }

    /// Whether [`crate::Step::SealMounts`] makes it read-only.
    pub fn is_sealed_later(&self) -> bool {
        matches!(self, MountStep::New { seal_later: true, .. })
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
pub(crate) fn plan(
    spec: &Spec,
    bundle: &Path,
    rootfs: &Rootfs,
    facts: &Facts,
) -> Result<Vec<MountStep>, Error> {
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let one = |(index, mount)| plan_one(&format!("mounts[{index}]"), mount, linux, (bundle, rootfs), facts);
    spec.mounts.iter().enumerate().map(one).collect()
}

fn plan_one(
    field: &str,
    mount: &Mount,
    linux: &Linux,
    (bundle, rootfs): (&Path, &Rootfs),
    facts: &Facts,
) -> Result<MountStep, Error> {
    let destination = place(&format!("{field}.destination"), &mount.destination, rootfs)?;
    let mut options = options::parse(&format!("{field}.options"), &mount.options)?;
    let filesystem = mount.kind.as_deref().unwrap_or("");
    let is_bind = options.bind || filesystem == "bind";
    let id_map = id_map(field, mount, options.id_map, linux)?;
    if id_map.is_some() && (!is_bind || options.remount) {
        return Err(Error::invalid(field, "only bind mounts can show their owners through a map"));
    }
    let below_proc = destination.starts_with("/proc/");
    if below_proc && !(is_bind && !options.remount && PROC_FILES.contains(&destination.as_str())) {
        return Err(Error::invalid(
            field,
            format!("{destination} is inside /proc and cannot be mounted over"),
        ));
    }
    if options.copy_up && (filesystem != "tmpfs" || is_bind || options.remount) {
        return Err(Error::invalid(field, "tmpcopyup is an option of a new tmpfs"));
    }
    if !options.links.is_empty() && (!is_bind || options.remount) {
        let text = "src-nofollow, dest-nofollow and copy-symlink are options of a bind mount";
        return Err(Error::invalid(field, text));
    }
    if options.links.copy && (options.links.keep_source || options.links.cover) {
        return Err(Error::invalid(
            field,
            "copy-symlink mounts nothing that src-nofollow or dest-nofollow could say more of",
        ));
    }
    if destination == "/" {
        // Whatever is mounted there is the root from then on.
        let special = matches!(filesystem, "cgroup" | "cgroup2" | "proc" | "sysfs") && !is_bind;
        if options.copy_up || special || options.links.copy || options.links.cover {
            return Err(Error::invalid(field, "nothing of that kind can be mounted over the root itself"));
        }
    }
    if options.remount {
        return Ok(MountStep::Change { destination, options });
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
        return Ok(MountStep::Bind { destination, source, id_map, options });
    }
    let source = mount.source.clone().unwrap_or_else(|| filesystem.to_string());
    match filesystem {
        "" | "none" => Err(Error::invalid(field, "neither a type nor bind is given")),
        "cgroup" | "cgroup2" => {
            let namespaced = namespaces::has(&linux.namespaces, NamespaceKind::Cgroup);
            let hierarchies = match filesystem {
                "cgroup" => facts.cgroups.iter().filter(|group| !group.is_unified()).cloned().collect(),
                _ => Vec::new(),
            };
            Ok(MountStep::Cgroup { destination, hierarchies, namespaced, options })
        }
        _ if filesystem.contains('\0') || source.contains('\0') => {
            Err(Error::invalid(field, "the type or the source holds a NUL"))
        }
        _ => {
            let read_only = options.attributes.set & creel_sys::mount::ATTR_RDONLY;
            // Mount points and devices are still to be made in it.
            let seal_later = read_only != 0 && (filesystem == "tmpfs" || destination == "/dev");
            if seal_later {
                options.attributes.set &= !read_only;
            } else if read_only != 0 && source.starts_with('/') {
                // A journal is not to be replayed on a medium that is read-only.
                options.superblock.push("ro");
            }
            let label = linux.mount_label.clone().filter(|label| !label.is_empty());
            // These have no files of their own to be labelled.
            let label = label.filter(|_| !matches!(filesystem, "proc" | "sysfs" | "mqueue"));
            Ok(MountStep::New {
                destination,
                filesystem: filesystem.into(),
                source,
                label,
                seal_later,
                options,
            })
        }
    }
}

/// The map of an idmapped mount: its own, or that of the container's user namespace.
fn id_map(field: &str, mount: &Mount, asked: Option<bool>, linux: &Linux) -> Result<Option<IdMap>, Error> {
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    let (uids, gids) = match (uids.is_empty(), gids.is_empty(), asked) {
        (true, true, None) => return Ok(None),
        (true, true, Some(_)) => (&linux.uid_mappings, &linux.gid_mappings),
        _ => (uids, gids),
    };
    let joined = linux.namespaces.iter().find(|space| space.kind == NamespaceKind::User);
    let joined = joined.and_then(|space| space.path.clone()).filter(|_| uids.is_empty() && gids.is_empty());
    if joined.is_none() && (uids.is_empty() || gids.is_empty()) {
        let text =
            "an idmapped mount needs uidMappings and gidMappings, its own or those of a user namespace";
        return Err(Error::invalid(field, text));
    }
    validate::check_maps(&format!("{field}.uidMappings"), uids)?;
    validate::check_maps(&format!("{field}.gidMappings"), gids)?;
    Ok(Some(IdMap { uids: uids.clone(), gids: gids.clone(), joined, recursive: asked == Some(true) }))
}

/// Where in the container a destination is.
pub(crate) fn place(field: &str, destination: &str, rootfs: &Rootfs) -> Result<String, Error> {
    clean(field, inside(destination, rootfs))
}

/// A destination that is named by its path on the host is the one inside, as runc has it.
fn inside<'a>(destination: &'a str, rootfs: &Rootfs) -> &'a str {
    match rootfs {
        Rootfs::Directory(root) if root.as_os_str() != "/" => {
            let inside = Path::new(destination).strip_prefix(root).ok().and_then(Path::to_str);
            inside.filter(|path| !path.is_empty()).unwrap_or(destination)
        }
        _ => destination,
    }
}

/// An absolute destination without doubled slashes, `.` and `..` (which stays at the root as in a chroot). A relative
/// one begins at the root, as the specification allows for old configurations.
fn clean(field: &str, path: &str) -> Result<String, Error> {
    if path.contains('\0') {
        return Err(Error::invalid(field, "a path holds a NUL"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}
