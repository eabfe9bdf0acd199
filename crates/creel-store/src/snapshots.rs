//! Snapshots: the writable layer of a container over an image's layers, as directories for overlay, or a copy of the
//! layers that is the container's own. The store attaches no mount anywhere.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_types::{ContainerId, Digest};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::db::sql;
use crate::driver::{LayerForm, RootForm};
use crate::error::{Error, Result};
use crate::files::{Synced, Temp};
use crate::images::ImageRecord;
use crate::layers::{LayerId, layer_error};
use crate::lease::Lease;
use crate::paths::Paths;
use crate::records::{self, Record};
use crate::store::Store;
use crate::view::View;
use crate::{failpoint, files};

/// What a container's root is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// In which way.
    pub form: RootForm,
    /// The read-only layers, the topmost first: the init layer, then the image's layers; directories and EROFS images.
    pub lower: Vec<PathBuf>,
    /// The writable directory. Of a copy: the whole root.
    pub upper: PathBuf,
    /// Overlay's own directory, on the same file system as `upper`. A copy has none.
    pub work: PathBuf,
}

impl Root {
    /// Of a copy: a file that was made when it was whole, before the container's first start.
    pub fn made(&self) -> PathBuf {
        self.upper.with_file_name("made")
    }

    /// What the container has changed, as `docker diff` lists it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn changes(&self) -> Result<Vec<creel_layer::Change>> {
        match self.form {
            RootForm::Overlay => creel_layer::changes(&self.upper, &self.lower),
            RootForm::Copy => creel_layer::changes_of_copy(&self.upper, &self.lower, &self.made()),
        }
        .map_err(|why| layer_error(format_args!("of {}", self.upper.display()), &self.upper, why))
    }
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
    /// How the root is made.
    pub form: RootForm,
}

impl Snapshot {
    /// What the root is made of. A layer that is missing is named as if it were a directory.
    pub(crate) fn root(&self, paths: &Paths, view: &View) -> Root {
        let directory = paths.container(&self.id);
        let mut lower = vec![paths.init(&self.layers)];
        lower.extend(self.lowers(paths, view));
        let upper = match self.form {
            RootForm::Overlay => directory.join("upper"),
            RootForm::Copy => paths.copy(&self.id).join("fs"),
        };
        Root { form: self.form, lower, upper, work: directory.join("work") }
    }

    /// The image's layers, the topmost first.
    fn lowers(&self, paths: &Paths, view: &View) -> Vec<PathBuf> {
        self.layers.iter().rev().map(|layer| paths.layer_lower(layer, view)).collect()
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
pub(crate) fn make_init(
    paths: &Paths,
    view: &View,
    snapshot: &Snapshot,
    temp: impl FnOnce() -> PathBuf,
) -> Result<()> {
    let place = paths.init(&snapshot.layers);
    if place.is_dir() {
        return Ok(());
    }
    let temp = temp();
    files::make_dir(&temp, 0o755)?;
    creel_layer::make_init_layer(&temp, &snapshot.lowers(paths, view))
        .map_err(|why| layer_error(format_args!("of {}", place.display()), &temp, why))?;
    failpoint("init-made");
    match std::fs::rename(&temp, &place) {
        // somebody else was faster, and his is the same
        Err(_) if place.is_dir() => files::remove_tree(&temp),
        done => done.map_err(|why| Error::io("rename a temporary directory to", &place, why)),
    }
}

/// The topmost layer that says something about the root.
fn like(paths: &Paths, view: &View, snapshot: &Snapshot) -> Option<PathBuf> {
    let says = |layer: &&LayerId| view.layer(layer).is_some_and(|record| record.root_entry);
    snapshot.layers.iter().rev().find(says).map(|layer| paths.layer_lower(layer, view))
}

/// Makes a container's directories. Overlay shows the upper directory's mode and owner as those of the root, so
/// a new one gets them from the topmost layer that says something about the root. `temp` is where a copy is made.
pub(crate) fn make_directories(
    paths: &Paths,
    view: &View,
    snapshot: &Snapshot,
    temp: impl FnOnce() -> PathBuf,
) -> Result<()> {
    let directory = paths.container(&snapshot.id);
    files::make_dir(&directory, 0o710)?;
    if snapshot.form == RootForm::Copy {
        return make_copy(paths, view, snapshot, &temp());
    }
    let upper = directory.join("upper");
    files::make_dir(&directory.join("work"), 0o700)?;
    if upper.is_dir() {
        return Ok(());
    }
    // Under its name only when it is as it should be: what is there is not looked at again after a power cut.
    let new = directory.join("new");
    files::make_dir(&new, 0o755)?;
    if let Some(layer) = like(paths, view, snapshot) {
        copy_owner_and_mode(&layer, &new)?;
    }
    std::fs::rename(&new, &upper).map_err(|why| Error::io("rename a directory to", &upper, why))
}

/// Copies the layers into a root of the container's own: made beside, synced, renamed. It is there as a whole or not at
/// all, and that it is there is what says that the container's root is a copy.
fn make_copy(paths: &Paths, view: &View, snapshot: &Snapshot, temp: &Path) -> Result<()> {
    let place = paths.copy(&snapshot.id);
    if place.is_dir() {
        return Ok(());
    }
    if !temp.join("made").exists() {
        fill_copy(paths, view, snapshot, temp)?;
    }
    std::fs::rename(temp, &place).map_err(|why| Error::io("rename a temporary directory to", &place, why))?;
    failpoint("copy-before-dir-sync");
    files::sync_dir(&paths.container(&snapshot.id))?;
    files::sync_dir(&paths.containers())
}

/// Makes the copy under a temporary name, durably.
fn fill_copy(paths: &Paths, view: &View, snapshot: &Snapshot, temp: &Path) -> Result<()> {
    files::make_dir(temp, 0o710)?;
    let synced = Synced::open(temp)?;
    let root = snapshot.root(paths, view);
    let fs = temp.join("fs");
    files::make_dir(&fs, 0o755)?;
    let like = like(paths, view, snapshot).unwrap_or_else(|| paths.init(&snapshot.layers));
    creel_layer::compose(&root.lower, &like, &fs)
        .map_err(|why| layer_error(format_args!("of container {}", snapshot.id.short()), &fs, why))?;
    let made = temp.join("made");
    std::fs::write(&made, b"").map_err(|why| Error::io("write", &made, why))?;
    failpoint("copy-before-sync");
    synced.sync()
}

fn copy_owner_and_mode(from: &Path, to: &Path) -> Result<()> {
    let failed = |why| Error::io("read the attributes of", from, why);
    let (mode, uid, gid) = match creel_sys::erofs::is_image(from) {
        true => creel_layer::erofs::root_of(from).map_err(failed)?,
        false => {
            let meta = std::fs::symlink_metadata(from).map_err(failed)?;
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        }
    };
    if (uid, gid) != (0, 0) {
        std::os::unix::fs::lchown(to, Some(uid), Some(gid))
            .map_err(|why| Error::io("change the owner of", to, why))?;
    }
    if mode != 0o755 {
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
            .map_err(|why| Error::io("change the mode of", to, why))?;
    }
    Ok(())
}

impl Store {
    /// Makes the writable layer of a container over an image, durably. [`Store::create_container`] does it
    /// together with the container's record for half the cost.
    pub fn prepare_snapshot(self: &Arc<Self>, id: &ContainerId, image: &ImageRecord) -> Result<Root> {
        self.new_snapshot(id, image, None)
    }

    /// Makes the writable layer of a container and writes its record (kind `kind`, the id as text) with its
    /// unique name, in one transaction: both are there or neither.
    pub fn create_container(
        self: &Arc<Self>,
        id: &ContainerId,
        image: &ImageRecord,
        kind: &str,
        name: Option<&str>,
        json: &[u8],
    ) -> Result<Root> {
        records::check_json(kind, id.as_str(), json)?;
        let record = Record {
            kind: kind.to_owned(),
            id: id.as_str().to_owned(),
            name: name.map(str::to_owned),
            json: Arc::from(json),
        };
        self.new_snapshot(id, image, Some(record))
    }

    fn new_snapshot(
        self: &Arc<Self>,
        id: &ContainerId,
        image: &ImageRecord,
        record: Option<Record>,
    ) -> Result<Root> {
        let snapshot = Snapshot {
            id: id.clone(),
            image: image.id,
            layers: image.layers.iter().map(|l| l.layer).collect(),
            form: RootForm::Overlay,
        };
        let (temp, copy) = (self.temps.name("init"), self.temps.name("copy"));
        let snapshot = Snapshot { form: self.form_over(&self.view(), &snapshot.layers), ..snapshot };
        // Copying takes long: a lease keeps the layers meanwhile, and the collector need not wait.
        let _lease = match snapshot.form {
            RootForm::Overlay => None,
            RootForm::Copy => Some(self.copy_ahead(&snapshot, &temp, &copy)?),
        };
        let _content = self.content_in_use();
        if self.view().snapshot(id).is_some() {
            return Err(Error::SnapshotExists(id.clone()));
        }
        let view = self.view();
        check_layers(&view, &snapshot)?;
        let root = snapshot.root(&self.paths, &view);
        let made = make_init(&self.paths, &view, &snapshot, || temp.path().to_owned())
            .and_then(|()| make_directories(&self.paths, &view, &snapshot, || copy.path().to_owned()));
        drop((temp, copy));
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
                Ok(root)
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
    pub fn whole_snapshot(&self, id: &ContainerId) -> Result<Root> {
        let view = self.view();
        let snapshot = view.snapshot(id).ok_or_else(|| Error::NoSuchSnapshot(id.clone()))?;
        let missing = snapshot.layers.iter().find(|layer| view.layer(layer).is_none());
        if let Some(missing) = missing {
            return Err(not_whole(format_args!("the image of container {}", id.short()), missing));
        }
        // a snapshot that was read while a layer was missing has none yet
        let (temp, copy) = (self.temps.name("init"), self.temps.name("copy"));
        make_init(&self.paths, &view, &snapshot, || temp.path().to_owned())?;
        make_directories(&self.paths, &view, &snapshot, || copy.path().to_owned())?;
        Ok(snapshot.root(&self.paths, &view))
    }

    /// Makes the copy for a new container; what it is made of is held by the lease.
    fn copy_ahead(self: &Arc<Self>, snapshot: &Snapshot, init: &Temp, copy: &Temp) -> Result<Lease> {
        let lease = self.lease();
        for layer in &snapshot.layers {
            self.has_layer(layer);
        }
        let view = self.view();
        check_layers(&view, snapshot)?;
        make_init(&self.paths, &view, snapshot, || init.path().to_owned())?;
        fill_copy(&self.paths, &view, snapshot, copy.path())?;
        Ok(lease)
    }

    /// How a new container's root is made: as the driver says, but overlay cannot read layers with plain whiteouts.
    fn form_over(&self, view: &View, layers: &[LayerId]) -> RootForm {
        let plain = |id: &LayerId| view.layer(id).is_some_and(|layer| layer.form == LayerForm::Plain);
        if layers.iter().any(plain) { RootForm::Copy } else { self.driver().roots() }
    }

    /// What a container's root is made of, from memory.
    pub fn snapshot(&self, id: &ContainerId) -> Result<Root> {
        let view = self.view();
        match view.snapshot(id) {
            Some(snapshot) => Ok(snapshot.root(&self.paths, &view)),
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

    /// The bytes of all files in a container's writable layer, hard links counted once (Docker's `SizeRw`). Of a copy:
    /// those of the files that the container has made or changed.
    pub fn snapshot_size(&self, id: &ContainerId) -> Result<u64> {
        let root = self.snapshot(id)?;
        match root.form {
            RootForm::Overlay => files::tree_size(&root.upper),
            RootForm::Copy => {
                let changed = root.changes()?;
                let changed = changed.iter().filter(|change| change.kind != creel_layer::ChangeKind::Deleted);
                Ok(files::sizes_of(&root.upper, changed.map(|change| change.path.as_path())))
            }
        }
    }

    /// The size of the layers below a container's writable one, in bytes; with [`Store::snapshot_size`] it is
    /// Docker's `SizeRootFs`.
    pub fn snapshot_base_size(&self, id: &ContainerId) -> Result<u64> {
        let view = self.view();
        let snapshot = view.snapshot(id).ok_or_else(|| Error::NoSuchSnapshot(id.clone()))?;
        Ok(snapshot.layers.iter().filter_map(|layer| view.layer(layer)).map(|layer| layer.bytes).sum())
    }
}
