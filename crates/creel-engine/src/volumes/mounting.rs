//! Volumes and images as mounts that are attached nowhere: what a start hands to a container.
//!
//! Whatever has to be resolved or mounted (a subpath, a file system of the driver's options, an image's layers) becomes
//! an open tree here, and the Spec names the tree by this process's descriptor. The shim copies it before it clones the
//! container. So nothing is mounted in the host's mount namespace, and no path is looked at twice.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use creel_store::Store;
use creel_sys::mount::{self as sys, OpenTreeFlags};
use creel_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{LOCAL, Volume, Volumes};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::overlay;
use crate::record::{ContainerRecord, MountKind, MountOf, MountRecord};

/// The trees of one start. They are good as long as this value lives.
#[derive(Debug, Default)]
pub(crate) struct Opened(Vec<(String, OwnedFd)>);

impl Opened {
    /// Where the mount at this destination has its source, if it is a tree.
    pub(crate) fn source(&self, destination: &str) -> Option<String> {
        let (_, tree) = self.0.iter().find(|(at, _)| at == destination)?;
        Some(format!("/proc/{}/fd/{}", std::process::id(), tree.as_raw_fd()))
    }
}

/// Opens what the container's mounts need.
pub(crate) fn open(core: &Core, record: &ContainerRecord) -> Result<Opened> {
    let mut trees = Opened::default();
    for mount in &record.mounts {
        let Some(of) = &mount.of else { continue };
        let tree = match mount.kind {
            MountKind::Volume => volume(core, mount, of)?,
            MountKind::Image => Some(image(core, mount, of)?),
            MountKind::Bind | MountKind::Tmpfs => None,
        };
        trees.0.extend(tree.map(|tree| (mount.destination.clone(), tree)));
    }
    Ok(trees)
}

fn volume(core: &Core, mount: &MountRecord, of: &MountOf) -> Result<Option<OwnedFd>> {
    core.volumes.check_whole(&of.name)?;
    let volume = core
        .volumes
        .get(&of.name)
        .ok_or_else(|| Error::not_found(format!("get {}: no such volume", of.name)))?;
    if volume.driver == LOCAL && volume.options.is_none() && of.subpath.is_empty() {
        return match Path::new(&mount.source).is_dir() {
            true => Ok(None),
            false => Err(Error::not_found(format!(
                "error while mounting volume '{}': its directory is gone",
                mount.source
            ))),
        };
    }
    let root = local_root(&core.store, &volume)?;
    beneath(&root, &of.subpath, &mount.source).map(Some)
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
    if volume.options.is_some() {
        return Err(Error::unsupported(format!(
            "error while mounting volume '{}': options of the driver local are not mounted yet",
            path.display()
        )));
    }
    directory(&path)
        .map_err(|e| Error::io(format_args!("error while mounting volume '{}'", path.display()), e))
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
