//! Anonymous volumes: directories of a container's own, filled with what the image has at their place.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use creel_store::Root;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::record::{ContainerRecord, MountKind};
use crate::trees;

/// Makes the volumes of a new container.
pub(super) fn make(record: &ContainerRecord, snapshot: &Root) -> Result<()> {
    let volumes: Vec<_> = record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume).collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let root = trees::mounted(snapshot, false)?;
    for volume in volumes {
        let target = PathBuf::from(&volume.source);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&target)
            .map_err(|e| Error::io(format_args!("making the volume {}", target.display()), e))?;
        fill(&root, Path::new(&volume.destination), &target)
            .map_err(|e| e.within(format_args!("filling the volume at {}", volume.destination)))?;
    }
    Ok(())
}

fn fill(root: &std::os::fd::OwnedFd, path: &Path, target: &Path) -> Result<()> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(source) = creel_sys::openat2::open_in_root(root, inside, flags, 0) else {
        // The image has nothing there: the volume begins empty.
        return Ok(());
    };
    let into = rustix::fs::open(target, flags, Mode::empty()).map_err(|e| Error::io(target.display(), e))?;
    let (reader, writer) = std::io::pipe().map_err(|e| Error::io("making a pipe", e))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let options =
                creel_layer::PackOptions { naming: creel_layer::Naming::Content, ..Default::default() };
            let mut writer = std::io::BufWriter::new(writer);
            creel_layer::pack_tree(&source, Path::new("/"), &options, &mut writer)
                .map_err(|e| Error::of(&e))?;
            writer.flush().map_err(|e| Error::io("copying", e))
        });
        let unpacked = creel_layer::extract(reader, &into, Path::new("/"), &Default::default());
        let packed = packing.join().unwrap_or_else(|_| Err(Error::internal("the copying thread failed")));
        unpacked.map_err(|e| Error::of(&e))?;
        packed
    })?;
    let meta = std::fs::File::from(source_attributes(&source)?)
        .metadata()
        .map_err(|e| Error::io("reading the directory's attributes", e))?;
    std::os::unix::fs::lchown(target, Some(meta.uid()), Some(meta.gid()))
        .and_then(|()| {
            std::fs::set_permissions(target, std::fs::Permissions::from_mode(meta.mode() & 0o7777))
        })
        .map_err(|e| Error::io(format_args!("setting the attributes of {}", target.display()), e))
}

fn source_attributes(source: &std::os::fd::OwnedFd) -> Result<std::os::fd::OwnedFd> {
    source.try_clone().map_err(|e| Error::io("duplicating a descriptor", e))
}
