//! Volumes and images as mounts that are attached nowhere: what a start hands to a container.
//!
//! Whatever has to be resolved or mounted (a subpath, a file system of the driver's options, an image's layers) becomes
//! an open tree here, and the Spec names the tree by this process's descriptor. The shim copies it before it clones the
//! container. So nothing is mounted in the host's mount namespace, and no path is looked at twice.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use creel_shim::proto::{Held, ShimConfig, files};
use creel_store::Store;
use creel_sys::mount::{self as sys, OpenTreeFlags};
use creel_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{LOCAL, Volume, Volumes};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::overlay;
use crate::reconcile;
use crate::record::{ContainerRecord, MountKind, MountOf, MountRecord};

/// The trees of one start. They are good as long as this value lives.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// By destination.
    mounts: Vec<(String, OwnedFd)>,
    /// By volume: what exists only as long as somebody has it mounted.
    shared: Vec<(String, OwnedFd)>,
}

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

impl Opened {
    /// Where the mount at this destination has its source, if it is a tree.
    pub(crate) fn source(&self, destination: &str) -> Option<String> {
        self.mounts.iter().find(|(at, _)| at == destination).map(|(_, tree)| path_of(tree))
    }

    /// What the shim is to keep for other containers.
    pub(crate) fn held(&self) -> Vec<Held> {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let one = |(name, fd): &(String, OwnedFd)| Held { name: name.clone(), pid, fd: fd.as_raw_fd() };
        self.shared.iter().map(one).collect()
    }
}

/// Opens what the container's mounts need.
pub(crate) fn open(core: &Core, record: &ContainerRecord) -> Result<Opened> {
    let mut trees = Opened::default();
    for mount in &record.mounts {
        let Some(of) = &mount.of else { continue };
        let tree = match mount.kind {
            MountKind::Volume => volume(core, record, mount, of, &mut trees.shared)?,
            MountKind::Image => Some(image(core, mount, of)?),
            MountKind::Bind | MountKind::Tmpfs => None,
        };
        trees.mounts.extend(tree.map(|tree| (mount.destination.clone(), tree)));
    }
    Ok(trees)
}

fn volume(
    core: &Core,
    record: &ContainerRecord,
    mount: &MountRecord,
    of: &MountOf,
    shared: &mut Vec<(String, OwnedFd)>,
) -> Result<Option<OwnedFd>> {
    core.volumes.check_whole(&of.name)?;
    let volume = core
        .volumes
        .get(&of.name)
        .ok_or_else(|| Error::not_found(format!("get {}: no such volume", of.name)))?;
    if volume.driver != LOCAL {
        let root = directory(Path::new(&mount.source));
        let failed = |e| Error::io(format_args!("error while mounting volume '{}'", mount.source), e);
        let whole = of.subpath.is_empty();
        let tree = |root: OwnedFd| beneath(&root, &of.subpath, &mount.source).map(Some);
        return if whole { root.map(|_| None).map_err(failed) } else { tree(root.map_err(failed)?) };
    }
    if volume.options.is_none() && of.subpath.is_empty() {
        return match Path::new(&mount.source).is_dir() {
            true => Ok(None),
            false => Err(Error::not_found(format!(
                "error while mounting volume '{}': its directory is gone",
                mount.source
            ))),
        };
    }
    if !is_memory(&volume) {
        let root = local_root(&core.store, &volume)?;
        // A file system of its own is taken as it is.
        let whole = volume.options.is_some() && of.subpath.is_empty();
        return if whole { Ok(Some(root)) } else { beneath(&root, &of.subpath, &mount.source).map(Some) };
    }
    let root = match shared.iter().position(|(name, _)| *name == of.name) {
        Some(at) => shared.remove(at).1,
        None => match elsewhere(core, record, &of.name) {
            Some(root) => root,
            None => local_root(&core.store, &volume)?,
        },
    };
    match beneath(&root, &of.subpath, &mount.source) {
        // Before Linux 6.15 nothing is copied that is attached nowhere: this container has it alone.
        Err(_) if of.subpath.is_empty() && clone(&root).is_err_and(|e| e == Errno::INVAL) => Ok(Some(root)),
        tree => {
            let tree = tree?;
            shared.push((of.name.clone(), root));
            Ok(Some(tree))
        }
    }
}

/// The volumes of a container that exist only as long as somebody has them mounted, in one order for all.
pub(crate) fn shared_volumes(core: &Core, record: &ContainerRecord) -> Vec<String> {
    let memory = |name: &String| core.volumes.get(name).is_some_and(|volume| is_memory(&volume));
    let mut names: Vec<String> = record.volumes().map(|(_, of)| of.name.clone()).filter(memory).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Such a volume as another container that runs has it mounted: its shim keeps it open, whoever was the daemon then.
fn elsewhere(core: &Core, record: &ContainerRecord, volume: &str) -> Option<OwnedFd> {
    let users = core.volumes.users(volume).into_iter().filter(|id| *id != record.id);
    users.filter_map(|id| core.containers.get(&id)).find_map(|container| {
        container.running()?;
        let dir = core.run_dir(&container.id);
        let config: ShimConfig =
            serde_json::from_slice(&std::fs::read(dir.join(files::CONFIG)).ok()?).ok()?;
        let n = config.held.iter().position(|held| held.name == volume)?;
        let pid = reconcile::shim_pid(&dir)?;
        let shim = creel_sys::pidfd::open(pid).ok()?;
        let root = creel_sys::pidfd::getfd(&shim, ShimConfig::HELD + i32::try_from(n).ok()?).ok()?;
        // Another process may have its number by now.
        reconcile::is_shim_of(pid, &dir).then_some(root)
    })
}

/// Whether a volume's file system is made anew whenever it is mounted.
pub(crate) fn is_memory(volume: &Volume) -> bool {
    matches!(option(volume, "type"), "tmpfs" | "ramfs")
}

fn option<'a>(volume: &'a Volume, name: &str) -> &'a str {
    volume.options.as_ref().and_then(|options| options.get(name)).map_or("", String::as_str)
}

/// The root of a local volume, with what its options say mounted.
pub(crate) fn local_root(store: &Store, volume: &Volume) -> Result<OwnedFd> {
    let path = Volumes::mountpoint(store, volume);
    let what = format!("error while mounting volume '{}'", path.display());
    if volume.options.is_none() {
        return directory(&path).map_err(|e| Error::io(what, e));
    }
    let (kind, device) = (option(volume, "type"), option(volume, "device"));
    let options: Vec<String> =
        option(volume, "o").split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    creel_runtime::mounts::detached(kind, device, &options).map_err(|e| {
        let (kind, why) = match &e {
            // Docker's exit code for it is that of a program that is not there.
            creel_runtime::Error::Step { errno: Some(libc::ENOENT), .. } => {
                (ErrorKind::ProgramNotFound, "no such file or directory".to_owned())
            }
            creel_runtime::Error::Step { message, kind, .. } => (*kind, message.clone()),
            other => (ErrorKind::InvalidArgument, other.to_string()),
        };
        let mount = format!("mount {device}:{}", path.display());
        Error::new(kind, format!("{what}: failed to mount local volume: {mount}: {why}"))
    })
}

fn directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A copy of what lies at `subpath` below `root`, which no link leads out of: it is resolved once, and mounted by the
/// descriptor that came of it.
fn beneath(root: &OwnedFd, subpath: &str, shown: &str) -> Result<OwnedFd> {
    let place = match subpath {
        "" => None,
        subpath => {
            let found = creel_sys::openat2::open_beneath(root, subpath, OFlags::PATH, 0);
            Some(found.map_err(|e| no_subpath(&e, shown, subpath))?)
        }
    };
    clone(place.as_ref().unwrap_or(root))
        .map_err(|e| Error::io(format_args!("error while mounting volume '{shown}'"), e))
}

fn no_subpath(error: &std::io::Error, shown: &str, subpath: &str) -> Error {
    let path = format!("{shown}/{subpath}");
    match error.raw_os_error() {
        // Docker's exit code for it is that of a program that is not there.
        Some(libc::ENOENT) => Error::new(
            ErrorKind::ProgramNotFound,
            format!("cannot access path {path}: lstat {path}: no such file or directory"),
        ),
        Some(libc::EXDEV) => {
            Error::invalid(format!("cannot access path {path}: a link in it leads out of the volume"))
        }
        _ => Error::io(
            format_args!("cannot access path {path}"),
            std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)),
        ),
    }
}

fn clone(fd: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    sys::open_tree(fd, c"", flags)
}

/// An image's files as one tree.
fn image(core: &Core, mount: &MountRecord, of: &MountOf) -> Result<OwnedFd> {
    let what =
        |e: Errno| Error::io(format_args!("mounting the image {} at {}", mount.source, mount.destination), e);
    let image = core.store.resolve_image(&of.name)?;
    let mut layers: Vec<_> =
        image.layers.iter().rev().map(|layer| core.store.layer_dir(&layer.layer)).collect();
    let tree = match layers.len() {
        0 => return Err(Error::invalid(format!("the image {} has no files to mount", mount.source))),
        1 if creel_sys::erofs::is_image(&layers[0]) => {
            let what = format!("mounting the image {} at {}", mount.source, mount.destination);
            creel_sys::erofs::mount(&layers[0]).map_err(|e| Error::io(what, e))?
        }
        1 => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            sys::open_tree(CWD, &layers[0], flags).map_err(what)?
        }
        _ => {
            let top = layers.remove(0);
            overlay::read_only(&layers, &top)?
        }
    };
    match of.subpath.as_str() {
        "" => Ok(tree),
        subpath => beneath(&tree, subpath, &mount.source),
    }
}
