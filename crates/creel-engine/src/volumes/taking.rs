//! What a container's create does about its volumes: each is found or made, taken into use, and given its first content.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_store::{Root, Store};
use creel_types::{ContainerId, ErrorKind};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::manage::{self, Wish};
use super::{LOCAL, Volume, Volumes, mounting, plugins};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::record::{ContainerRecord, MountKind, MountRecord};
use crate::trees;

/// Finds or makes the volumes of a new container and takes them into use; its mounts then name them.
pub(crate) async fn take(core: &Arc<Core>, record: &mut ContainerRecord) -> Result<()> {
    let id = record.id.clone();
    for n in 0..record.mounts.len() {
        let Some(of) = record.mounts[n].volume().cloned() else { continue };
        let wish = Wish { name: of.name, driver: of.driver, options: of.options, labels: of.labels };
        let taken = manage::acquire(core, wish, Some(&id)).await;
        let (volume, _) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                give_back(core, record).await;
                // "Not found" would make clients pull the image.
                let kind =
                    if e.kind() == ErrorKind::NotFound { ErrorKind::InvalidArgument } else { e.kind() };
                return Err(Error::new(kind, e.to_string()));
            }
        };
        let mount = &mut record.mounts[n];
        if volume.driver == LOCAL {
            mount.source = Volumes::mountpoint(&core.store, &volume).display().to_string();
        }
        if let Some(of) = &mut mount.of {
            of.name.clone_from(&volume.name);
            of.driver.clone_from(&volume.driver);
        }
    }
    Ok(())
}

/// Ends a container's use of its volumes; those that were made up for it go.
pub(crate) async fn give_back(core: &Arc<Core>, record: &ContainerRecord) {
    core.volumes.release(&record.id);
    discard_anonymous(core, record).await;
}

/// Removes the volumes for which nobody chose a name, unless another container uses them.
pub(crate) async fn discard_anonymous(core: &Arc<Core>, record: &ContainerRecord) {
    for (_, of) in record.volumes().filter(|(_, of)| of.anonymous && !of.name.is_empty()) {
        match manage::discard(core, &of.name, false).await {
            Err(e) if !matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                tracing::warn!(container = record.id.short(), "removing an anonymous volume: {e}");
            }
            _ => {}
        }
    }
}

/// Gives the volumes of a new container what the image has at their place, where they are empty.
pub(crate) fn fill(core: &Core, record: &ContainerRecord, snapshot: &Root) -> Result<()> {
    let wanted: Vec<_> =
        record.mounts.iter().filter(|mount| mount.volume().is_some_and(|of| of.copy)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let root = trees::mounted(snapshot, false)?;
    for mount in wanted {
        let inside = mount.destination.trim_start_matches('/');
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(source) = creel_sys::openat2::open_in_root(&root, inside, flags, 0) else {
            // The image has no directory there: the volume stays as it is.
            continue;
        };
        fill_one(core, &record.id, mount, &source)
            .map_err(|e| e.within(format_args!("filling the volume at {}", mount.destination)))?;
    }
    Ok(())
}

/// As [`fill`], for volumes that plugins have to mount first.
pub(crate) async fn fill_by_plugins(
    core: &Arc<Core>,
    record: &ContainerRecord,
    snapshot: &Root,
) -> Result<()> {
    for (mount, of) in record.volumes().filter(|(_, of)| of.copy && of.driver != LOCAL) {
        let root = trees::mounted(snapshot, false)?;
        let inside = mount.destination.trim_start_matches('/');
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(source) = creel_sys::openat2::open_in_root(&root, inside, flags, 0) else { continue };
        let subpath = of.subpath.clone();
        let work = async move |place: PathBuf| {
            blocking(move || {
                let root = open_directory(&place)?;
                match within(&root, &subpath) {
                    Some(place) if is_empty(&place)? => copy(&source, &place),
                    _ => Ok(()),
                }
            })
            .await
        };
        plugins::meanwhile(core, &of.name, &of.driver, record.id.as_str(), work)
            .await
            .map_err(|e| e.within(format_args!("filling the volume at {}", mount.destination)))?;
    }
    Ok(())
}

/// The directory at a subpath of a volume, if there is one.
fn within(root: &OwnedFd, subpath: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = if subpath.is_empty() { "." } else { subpath };
    creel_sys::openat2::open_beneath(root, inside, flags, 0).ok()
}

fn is_empty(place: &OwnedFd) -> Result<bool> {
    let mut entries = rustix::fs::Dir::read_from(place).map_err(|e| Error::io("reading a volume", e))?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))))
}

fn fill_one(core: &Core, user: &ContainerId, mount: &MountRecord, source: &OwnedFd) -> Result<()> {
    let Some(of) = mount.volume() else { return Ok(()) };
    let Some(volume) = core.volumes.get(&of.name) else { return Ok(()) };
    let alone = core.volumes.users(&of.name) == std::slice::from_ref(user);
    if volume.is_plain() && of.subpath.is_empty() && alone {
        let fill = |place: &Path| copy(source, &open_directory(place)?);
        return core.store.fill_volume::<Error>(&of.name, fill).map(drop);
    }
    // Somebody may have it mounted, or it lies elsewhere: it is filled where it is.
    let Some(place) = place(&core.store, &volume, &of.subpath)? else { return Ok(()) };
    if is_empty(&place)? { copy(source, &place) } else { Ok(()) }
}

/// The directory that is to be filled; `None` where there is nothing to be filled, or what was filled would not last.
fn place(store: &Store, volume: &Volume, subpath: &str) -> Result<Option<OwnedFd>> {
    if volume.driver != LOCAL || mounting::is_memory(volume) {
        return Ok(None);
    }
    let root = match mounting::local_root(store, volume) {
        Ok(root) => root,
        // The start will say why.
        Err(e) => {
            tracing::debug!("{e}");
            return Ok(None);
        }
    };
    Ok(within(&root, subpath))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io(path.display(), e))
}

/// Copies what is in a directory, and its own owner, mode, attributes and times.
fn copy(source: &OwnedFd, into: &OwnedFd) -> Result<()> {
    let (reader, writer) = std::io::pipe().map_err(|e| Error::io("making a pipe", e))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let options =
                creel_layer::PackOptions { naming: creel_layer::Naming::Content, ..Default::default() };
            let mut writer = std::io::BufWriter::new(writer);
            creel_layer::pack_tree(source, Path::new("/"), &options, &mut writer)
                .map_err(|e| Error::of(&e))?;
            writer.flush().map_err(|e| Error::io("copying", e))
        });
        let unpacked = creel_layer::extract(reader, into, Path::new("/"), &Default::default());
        let packed = packing.join().unwrap_or_else(|_| Err(Error::internal("the copying thread failed")));
        unpacked.map_err(|e| Error::of(&e))?;
        packed
    })?;
    attributes(source, into).map_err(|e| Error::io("copying the attributes of the directory", e))
}

fn attributes(source: &OwnedFd, into: &OwnedFd) -> std::io::Result<()> {
    let stat = rustix::fs::fstat(source)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(into, Some(uid), Some(gid))?;
    rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in creel_sys::xattr::list(source.as_fd())? {
        // overlayfs's own, and labels that the policy gives.
        let left: [&CStr; 1] = [c"security.selinux"];
        if name.to_bytes().starts_with(b"trusted.") || left.contains(&name.as_c_str()) {
            continue;
        }
        if let Some(value) = creel_sys::xattr::get(source.as_fd(), &name)? {
            match creel_sys::xattr::set(into.as_fd(), &name, &value) {
                Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(e),
                _ => {}
            }
        }
    }
    let time = |sec, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    Ok(rustix::fs::futimens(into, &times)?)
}

/// Finds the images that a new container mounts; the mounts then name them by their ids.
pub(crate) fn find_images(core: &Core, record: &mut ContainerRecord) -> Result<()> {
    for mount in record.mounts.iter_mut().filter(|mount| mount.kind == MountKind::Image) {
        let image = core
            .store
            .resolve_image(&mount.source)
            .map_err(|e| Error::invalid(format!("the image of the mount at {}: {e}", mount.destination)))?;
        mount.of.get_or_insert_default().name = image.id.to_string();
    }
    Ok(())
}
