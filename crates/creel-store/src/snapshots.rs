//! Snapshots: the writable layer of a container over an image's layers, as directories for overlay. The store
//! mounts nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_types::{ContainerId, Digest};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::db::sql;
use crate::error::{Error, Result};
use crate::images::ImageRecord;
use crate::layers::{LayerId, layer_error};
use crate::paths::Paths;
use crate::records::{self, Record};
use crate::store::Store;
use crate::view::View;
use crate::{failpoint, files};

/// The directories of an overlay mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The read-only directories, the topmost first: the init layer, then the image's layers.
    pub lower: Vec<PathBuf>,
    /// The writable directory.
    pub upper: PathBuf,
    /// Overlay's own directory, on the same file system as `upper`.
    pub work: PathBuf,
}

/// One container's snapshot. While it exists its layers are kept, whether or not the image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The container.
    pub id: ContainerId,
    /// The image that it was made from.
    pub image: Digest,
    /// The layers below the writable one, the lowest first.
    pub layers: Vec<LayerId>,
}

impl Snapshot {
    /// The directories to mount.
    pub(crate) fn overlay(&self, paths: &Paths) -> Overlay {
        let directory = paths.container(&self.id);
        let mut lower = vec![paths.init(&self.layers)];
        lower.extend(self.layers.iter().rev().map(|layer| paths.layer_fs(layer)));
        Overlay { lower, upper: directory.join("upper"), work: directory.join("work") }
    }
}

fn insert(connection: &Connection, view: &mut View, snapshot: Snapshot) -> Result<()> {
    if view.snapshot(&snapshot.id).is_some() {
        return Err(Error::SnapshotExists(snapshot.id));
    }
    check_layers(view, &snapshot)?;
    let layers: Vec<_> = snapshot.layers.iter().map(ToString::to_string).collect();
    sql(connection, "write a snapshot", |c| {
        c.prepare_cached("INSERT INTO snapshots (id, image, layers) VALUES (?1, ?2, ?3)")?.execute(params![
            snapshot.id.as_str(),
            snapshot.image.to_string(),
            layers.join(" ")
        ])
    })?;
    view.insert_snapshot(snapshot);
    Ok(())
}

/// Whether all layers of a new snapshot are there.
fn check_layers(view: &View, snapshot: &Snapshot) -> Result<()> {
    let missing = snapshot.layers.iter().find(|layer| view.layer(layer).is_none());
    match missing {
        None => Ok(()),
        Some(missing) if view.image(&snapshot.image).is_some() => {
            Err(not_whole(format_args!("image {}", snapshot.image), missing))
        }
        // deleted since it was found
        Some(_) => Err(Error::NoSuchImage(snapshot.image.to_string())),
    }
}

fn not_whole(user: impl std::fmt::Display, missing: &LayerId) -> Error {
    Error::NotWhole { user: user.to_string(), layer: missing.digest() }
}

fn delete(connection: &Connection, view: &mut View, id: &ContainerId) -> Result<bool> {
    if view.snapshot(id).is_none() {
        return Ok(false);
    }
    sql(connection, "delete a snapshot", |c| {
        c.prepare_cached("DELETE FROM snapshots WHERE id = ?1")?.execute([id.as_str()])
    })?;
    view.remove_snapshot(id);
    Ok(true)
}

/// Makes the init layer over a snapshot's layers, if it is not there, under the temporary name `temp`. One rename puts
/// it in place, and it has no file data, so a journal that keeps the order of names keeps it whole through a power cut.
pub(crate) fn make_init(paths: &Paths, snapshot: &Snapshot, temp: impl FnOnce() -> PathBuf) -> Result<()> {
    let place = paths.init(&snapshot.layers);
    if place.is_dir() {
        return Ok(());
    }
    let lowers: Vec<_> = snapshot.layers.iter().rev().map(|layer| paths.layer_fs(layer)).collect();
    let temp = temp();
    files::make_dir(&temp, 0o755)?;
    creel_layer::make_init_layer(&temp, &lowers)
        .map_err(|why| layer_error(format_args!("of {}", place.display()), &temp, why))?;
    failpoint("init-made");
    match std::fs::rename(&temp, &place) {
        // somebody else was faster, and his is the same
        Err(_) if place.is_dir() => files::remove_tree(&temp),
        done => done.map_err(|why| Error::io("rename a temporary directory to", &place, why)),
    }
}

/// Makes a container's directories. Overlay shows the upper directory's mode and owner as those of the root, so
/// a new one gets them from the topmost layer that says something about the root.
pub(crate) fn make_directories(paths: &Paths, view: &View, snapshot: &Snapshot) -> Result<()> {
    let directory = paths.container(&snapshot.id);
    let upper = directory.join("upper");
    files::make_dir(&directory, 0o710)?;
    files::make_dir(&directory.join("work"), 0o700)?;
    if upper.is_dir() {
        return Ok(());
    }
    // Under its name only when it is as it should be: what is there is not looked at again after a power cut.
    let new = directory.join("new");
    files::make_dir(&new, 0o755)?;
    let says = |layer: &&LayerId| view.layer(layer).is_some_and(|record| record.root_entry);
    if let Some(layer) = snapshot.layers.iter().rev().find(says) {
        copy_owner_and_mode(&paths.layer_fs(layer), &new)?;
    }
    std::fs::rename(&new, &upper).map_err(|why| Error::io("rename a directory to", &upper, why))
}

fn copy_owner_and_mode(from: &Path, to: &Path) -> Result<()> {
    let meta =
        std::fs::symlink_metadata(from).map_err(|why| Error::io("read the attributes of", from, why))?;
    if (meta.uid(), meta.gid()) != (0, 0) {
        std::os::unix::fs::lchown(to, Some(meta.uid()), Some(meta.gid()))
            .map_err(|why| Error::io("change the owner of", to, why))?;
    }
    if meta.mode() & 0o7777 != 0o755 {
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(meta.mode() & 0o7777))
            .map_err(|why| Error::io("change the mode of", to, why))?;
    }
    Ok(())
}

impl Store {
    /// Makes the writable layer of a container over an image, durably. [`Store::create_container`] does it
    /// together with the container's record for half the cost.
    pub fn prepare_snapshot(&self, id: &ContainerId, image: &ImageRecord) -> Result<Overlay> {
        self.new_snapshot(id, image, None)
    }

    /// Makes the writable layer of a container and writes its record (kind `kind`, the id as text) with its
    /// unique name, in one transaction: both are there or neither.
    pub fn create_container(
        &self,
        id: &ContainerId,
        image: &ImageRecord,
        kind: &str,
        name: Option<&str>,
        json: &[u8],
    ) -> Result<Overlay> {
        records::check_json(kind, id.as_str(), json)?;
        let record = Record {
            kind: kind.to_owned(),
            id: id.as_str().to_owned(),
            name: name.map(str::to_owned),
            json: Arc::from(json),
        };
        self.new_snapshot(id, image, Some(record))
    }

    fn new_snapshot(&self, id: &ContainerId, image: &ImageRecord, record: Option<Record>) -> Result<Overlay> {
        let snapshot = Snapshot {
            id: id.clone(),
            image: image.id,
            layers: image.layers.iter().map(|l| l.layer).collect(),
        };
        let _content = self.content_in_use();
        if self.view().snapshot(id).is_some() {
            return Err(Error::SnapshotExists(id.clone()));
        }
        check_layers(&self.view(), &snapshot)?;
        let overlay = snapshot.overlay(&self.paths);
        let temp = self.temps.name("init");
        let made = make_init(&self.paths, &snapshot, || temp.path().to_owned())
            .and_then(|()| make_directories(&self.paths, &self.view(), &snapshot));
        drop(temp);
        let made = made.and_then(|()| {
            failpoint("snapshot-before-row");
            self.db.write(move |connection, view| {
                insert(connection, view, snapshot)?;
                match record {
                    Some(record) => records::put(connection, view, record),
                    None => Ok(()),
                }
            })
        });
        match made {
            Ok(()) => {
                failpoint("snapshot-after-row");
                Ok(overlay)
            }
            Err(why) => {
                if self.view().snapshot(id).is_none() {
                    let _ = self.discard(&self.paths.container(id));
                }
                Err(why)
            }
        }
    }

    /// [`Store::snapshot`], if all its layers are there to be mounted.
    ///
    /// # Errors
    /// [`Error::NotWhole`] if a layer was damaged and put aside, [`Error::NoSuchSnapshot`].
    pub fn whole_snapshot(&self, id: &ContainerId) -> Result<Overlay> {
        let view = self.view();
        let snapshot = view.snapshot(id).ok_or_else(|| Error::NoSuchSnapshot(id.clone()))?;
        let missing = snapshot.layers.iter().find(|layer| view.layer(layer).is_none());
        if let Some(missing) = missing {
            return Err(not_whole(format_args!("the image of container {}", id.short()), missing));
        }
        // a snapshot that was read while a layer was missing has none yet
        let temp = self.temps.name("init");
        make_init(&self.paths, &snapshot, || temp.path().to_owned())?;
        make_directories(&self.paths, &view, &snapshot)?;
        Ok(snapshot.overlay(&self.paths))
    }

    /// The directories of a container's snapshot, from memory.
    pub fn snapshot(&self, id: &ContainerId) -> Result<Overlay> {
        match self.view().snapshot(id) {
            Some(snapshot) => Ok(snapshot.overlay(&self.paths)),
            None => Err(Error::NoSuchSnapshot(id.clone())),
        }
    }

    /// The directory `containers/<id>` of a container, whether it exists or not.
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.paths.container(id)
    }

    /// Removes a container's snapshot and its whole directory. Without one it only makes sure that there is no
    /// directory. The row goes first, so a crash leaves at most a directory that [`Store::open`] sweeps.
    pub fn remove_snapshot(&self, id: &ContainerId) -> Result<()> {
        let row = id.clone();
        self.db.write(move |connection, view| delete(connection, view, &row))?;
        failpoint("snapshot-row-gone");
        self.discard(&self.paths.container(id))
    }

    /// Removes a container's snapshot, its directory and its record of this kind, with one transaction.
    /// Tells whether the record was there.
    pub fn delete_container(&self, id: &ContainerId, kind: &str) -> Result<bool> {
        let (row, kind) = (id.clone(), kind.to_owned());
        let was = self.db.write(move |connection, view| {
            delete(connection, view, &row)?;
            records::delete(connection, view, &kind, row.as_str())
        })?;
        failpoint("snapshot-row-gone");
        self.discard(&self.paths.container(id))?;
        Ok(was)
    }

    /// The bytes of all files in a container's writable layer, hard links counted once (Docker's `SizeRw`).
    pub fn snapshot_size(&self, id: &ContainerId) -> Result<u64> {
        let overlay = self.snapshot(id)?;
        files::tree_size(&overlay.upper)
    }

    /// The size of the layers below a container's writable one, in bytes; with [`Store::snapshot_size`] it is
    /// Docker's `SizeRootFs`.
    pub fn snapshot_base_size(&self, id: &ContainerId) -> Result<u64> {
        let view = self.view();
        let snapshot = view.snapshot(id).ok_or_else(|| Error::NoSuchSnapshot(id.clone()))?;
        Ok(snapshot.layers.iter().filter_map(|layer| view.layer(layer)).map(|layer| layer.bytes).sum())
    }
}
