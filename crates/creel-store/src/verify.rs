//! Verifying: everything is read again, and what is not what it should be is named and put aside.
//!
//! A blob is held against its digest and its size. A layer is held against its archive: that is unpacked once more into
//! `tmp/` and the two trees are compared entry by entry, data included. So a layer whose archive is not kept, or is
//! damaged itself, cannot be proven; of it is known only that its directory is there. Verifying needs the room of
//! one layer more at a time.
//!
//! What is damaged goes to the quarantine, and its row goes. A layer whose archive is whole is replaced at once by the
//! fresh unpacking. An image that has lost its configuration goes with its names, since nothing is known about it any
//! more; one that has lost anything else stays in the list, is refused where the missing part is needed, and is whole
//! again after the next pull. What runs keeps the files it has mounted.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use creel_layer::Limits;
use creel_types::{ContainerId, Digest};

use crate::aside;
use crate::db::{self, sql};
use crate::driver::LayerForm;
use crate::erofs;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::files::{self, Synced};
use crate::images::ImageRecord;
use crate::layers::{self, ApplyOptions, LayerId, LayerRecord};
use crate::store::Store;
use crate::view::{Content, View};

/// How many differences of a layer are put into words.
const MOST: usize = 5;

/// What is to be verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The ids of these images alone, with all that they need; `None`: everything.
    pub images: Option<Vec<Digest>>,
    /// Put what is damaged aside; otherwise nothing is changed.
    pub quarantine: bool,
}

/// What is about to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checking {
    /// What it is.
    pub content: Content,
    /// Bytes of its kind (blobs, layers) that were read before it.
    pub done: u64,
    /// Bytes of its kind in all.
    pub total: u64,
}

/// What has become of something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was left as it is.
    Left,
    /// It is not used any more. Where it lies, unless there was nothing left to be moved.
    Quarantined(Option<PathBuf>),
    /// The same, and the layer was unpacked anew from its archive: it is whole again.
    Replaced(Option<PathBuf>),
    /// It could not be put aside, for this reason.
    Stuck(String),
}

/// Something that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What it is.
    pub content: Content,
    /// What is wrong with it, in words; of a layer the first differences.
    pub what: Vec<String>,
    /// How many differences there are.
    pub count: u64,
    /// The images that need it, by their familiar names, or by id if they have none.
    pub images: Vec<String>,
    /// The containers that have it below their writable layer.
    pub containers: Vec<ContainerId>,
    /// What has become of it.
    pub fate: Fate,
}

/// An image that lacks something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// Its familiar name, or its id.
    pub image: String,
    /// What is not there.
    pub lacks: Vec<Content>,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many layers were held against their archives.
    pub layers: u64,
    /// Bytes of blobs and of layers' files that were read.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Images that are not whole when all is done.
    pub incomplete: Vec<Incomplete>,
    /// Layers that cannot be held against anything because no whole archive of them is kept.
    pub unproven: Vec<LayerId>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// Whether it was broken off by the caller.
    pub broken_off: bool,
}

impl VerifyReport {
    /// Whether all that was looked at is as it should be.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.incomplete.is_empty() && self.unchecked.is_empty()
    }
}

/// What is to be read.
struct Scope {
    images: Vec<Arc<ImageRecord>>,
    blobs: Vec<(Digest, u64)>,
    /// The layers, those below before those above, with the layers below them.
    layers: Vec<(LayerId, Vec<LayerId>)>,
}

impl Scope {
    fn of(view: &View, wanted: Option<&[Digest]>) -> Result<Self> {
        let images: Vec<_> = match wanted {
            None => view.images().cloned().collect(),
            Some(ids) => ids
                .iter()
                .map(|id| view.image(id).ok_or_else(|| Error::NoSuchImage(id.to_string())))
                .collect::<Result<_>>()?,
        };
        let mut digests: HashSet<Digest> = match wanted {
            None => view.blobs().map(|(digest, _)| *digest).collect(),
            Some(_) => images.iter().flat_map(|image| blobs_of(image)).collect(),
        };
        let mut blobs: Vec<_> =
            digests.drain().filter_map(|digest| Some((digest, view.blob_size(&digest)?))).collect();
        blobs.sort_unstable();
        let (mut layers, mut seen) = (Vec::new(), HashSet::new());
        for image in &images {
            let stack: Vec<LayerId> = image.layers.iter().map(|layer| layer.layer).collect();
            for (at, id) in stack.iter().enumerate() {
                if view.layer(id).is_some() && seen.insert(*id) {
                    layers.push((*id, stack[..at].to_vec()));
                }
            }
        }
        if wanted.is_none() {
            let mut rest: Vec<_> =
                view.layers().map(|layer| layer.id).filter(|id| seen.insert(*id)).collect();
            rest.sort_unstable();
            layers.extend(rest.into_iter().map(|id| (id, Vec::new())));
        }
        Ok(Self { images, blobs, layers })
    }
}

fn blobs_of(image: &ImageRecord) -> impl Iterator<Item = Digest> {
    [image.id]
        .into_iter()
        .chain(image.manifest.iter().map(|manifest| manifest.digest))
        .chain(image.repo_digests.iter().filter_map(|reference| reference.digest().copied()))
        .chain(image.layers.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest)))
}

fn name_of(image: &ImageRecord) -> String {
    match image.references.first().or(image.repo_digests.first()) {
        Some(reference) => reference.familiar(),
        None => image.id.to_string(),
    }
}

/// Who needs something.
fn users(view: &View, content: &Content) -> (Vec<String>, Vec<ContainerId>) {
    let needs = |image: &ImageRecord| match content {
        Content::Blob(digest) => blobs_of(image).any(|blob| blob == *digest),
        Content::Layer(id) => image.layers.iter().any(|layer| layer.layer == *id),
    };
    let images = view.images().filter(|image| needs(image)).map(|image| name_of(image)).collect();
    let mut containers: Vec<_> = match content {
        Content::Blob(_) => Vec::new(),
        Content::Layer(id) => {
            let snapshots = view.snapshots().filter(|snapshot| snapshot.layers.contains(id));
            snapshots.map(|snapshot| snapshot.id.clone()).collect()
        }
    };
    containers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    (images, containers)
}

/// A layer that was unpacked once more: its directory, what makes it durable, and what it is.
type Fresh = (files::Temp, Synced, LayerRecord);

/// A file or directory that was looked at, so that nothing else is put aside in its place.
fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// How to call what is missing of a layer.
fn missing(record: &LayerRecord) -> String {
    match record.form {
        LayerForm::Directory | LayerForm::Plain => "its directory is missing".to_owned(),
        LayerForm::Erofs => "its image or its archive is missing".to_owned(),
    }
}

/// What the look at one layer came to.
enum Look {
    Whole,
    Unproven,
    Unchecked(String),
    Damaged { what: Vec<String>, count: u64, fresh: Option<Box<Fresh>> },
}

impl Store {
    /// Reads what `options` ask for once more and reports what is not as it should be; with
    /// [`VerifyOptions::quarantine`] that is put aside. `tell` is called before each piece; when it returns `false`,
    /// no further one is read. May run beside everything else: what goes or changes meanwhile is passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; what cannot be read is damage and no error.
    pub fn verify(
        self: &Arc<Self>,
        options: &VerifyOptions,
        tell: &mut dyn FnMut(Checking) -> bool,
    ) -> Result<VerifyReport> {
        // No lease: a long look must not keep what others delete meanwhile.
        let mut report = VerifyReport::default();
        let mut blobs = HashMap::new();
        if options.quarantine {
            let images = Scope::of(&self.view(), options.images.as_deref())?.images;
            self.replace_missing(&images, options, &mut blobs, &mut report)?;
        }
        let view = self.view();
        let scope = Scope::of(&view, options.images.as_deref())?;
        let (mut done, total) = (0, scope.blobs.iter().map(|(_, size)| size).sum());
        for (digest, size) in &scope.blobs {
            if !tell(Checking { content: Content::Blob(*digest), done, total }) {
                report.broken_off = true;
                break;
            }
            done += size;
            self.verify_blob(digest, *size, options, &mut blobs, &mut report)?;
        }
        let mut damaged_below = HashSet::new();
        let size = |id: &LayerId| view.layer(id).map_or(0, |record| record.bytes);
        let (mut done, total) = (0, scope.layers.iter().map(|(id, _)| size(id)).sum());
        for (id, below) in &scope.layers {
            if report.broken_off || !tell(Checking { content: Content::Layer(*id), done, total }) {
                report.broken_off = true;
                break;
            }
            done += size(id);
            let whole =
                self.verify_layer(&view, id, below, &damaged_below, options, &mut blobs, &mut report)?;
            if !whole {
                damaged_below.insert(*id);
            }
        }
        let now = self.view();
        for image in scope.images.iter().filter_map(|image| now.image(&image.id)) {
            let lacks = now.lacks(&image);
            if !lacks.is_empty() {
                report.incomplete.push(Incomplete { image: name_of(&image), lacks });
            }
        }
        Ok(report)
    }

    /// Unpacks the layers that images lack and whose archives are whole: somebody has deleted their directories, or an
    /// earlier look was killed after it had put them aside.
    fn replace_missing(
        self: &Arc<Self>,
        images: &[Arc<ImageRecord>],
        options: &VerifyOptions,
        blobs: &mut HashMap<Digest, bool>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        // nothing that is unpacked here may be collected before all of its image is
        let _lease = self.lease();
        for image in images {
            let mut below = Vec::new();
            for layer in &image.layers {
                let view = self.view();
                let content = Content::Layer(layer.layer);
                let archive = layer.blob.as_ref().map(|blob| blob.digest);
                let kept = archive.and_then(|archive| Some((archive, view.blob_size(&archive)?)));
                if let (None, Some((archive, size)), Some(_)) =
                    (view.layer(&layer.layer), kept, view.image(&image.id))
                    && self.verify_blob(&archive, size, options, blobs, report)?
                {
                    let own = ApplyOptions { limits: Some(Limits::NONE), ..Default::default() };
                    let (images, containers) = users(&view, &content);
                    let fate = match self.apply_blob(&archive, &layer.diff_id, &below, &own) {
                        Ok(made) if made == layer.layer => Fate::Replaced(None),
                        // its image is not made whole by it, and it is collected
                        Ok(made) => Fate::Stuck(format!("its archive holds layer {made}")),
                        Err(why) => Fate::Stuck(why.to_string()),
                    };
                    let what = vec!["it is missing".to_owned()];
                    report.damaged.push(Damage { content, what, count: 1, images, containers, fate });
                }
                below.push(layer.layer);
            }
        }
        Ok(())
    }

    /// Reads a blob, unless it was read already; tells whether it is whole.
    fn verify_blob(
        &self,
        digest: &Digest,
        size: u64,
        options: &VerifyOptions,
        known: &mut HashMap<Digest, bool>,
        report: &mut VerifyReport,
    ) -> Result<bool> {
        if let Some(whole) = known.get(digest) {
            return Ok(*whole);
        }
        let content = Content::Blob(*digest);
        let path = self.paths.blob(digest);
        let seen = identity(&path);
        if !self.is_still(&content, seen) {
            return Ok(false); // collected since the list was made
        }
        let what = match std::fs::File::open(&path).and_then(files::hash_file) {
            Ok((actual, length)) => {
                report.bytes += length;
                match (actual == *digest, length == size) {
                    (true, true) => None,
                    (_, false) => Some(format!("it has {length} bytes, not {size}")),
                    (false, _) => Some(format!("the digest of its content is {actual}")),
                }
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Some("its file is missing".to_owned()),
            Err(why) => Some(format!("it cannot be read: {why}")),
        };
        report.blobs += 1;
        let gone = what.is_some() && !self.is_still(&content, seen);
        known.insert(*digest, what.is_none());
        let Some(what) = what.filter(|_| !gone) else { return Ok(!gone) };
        let (images, containers) = users(&self.view(), &content);
        let fate = self.put_aside(&content, seen, None, options)?;
        report.damaged.push(Damage { content, what: vec![what], count: 1, images, containers, fate });
        Ok(false)
    }

    #[allow(clippy::too_many_arguments)] // One step of `verify`, which has gathered all this.
    fn verify_layer(
        &self,
        view: &View,
        id: &LayerId,
        below: &[LayerId],
        damaged_below: &HashSet<LayerId>,
        options: &VerifyOptions,
        blobs: &mut HashMap<Digest, bool>,
        report: &mut VerifyReport,
    ) -> Result<bool> {
        let content = Content::Layer(*id);
        let seen = identity(&self.paths.layer(id));
        let Some(record) = view.layer(id).filter(|_| self.is_still(&content, seen)) else { return Ok(false) };
        // any archive will do that some image names for it
        let named = view.images().flat_map(|image| &image.layers).filter(|layer| layer.layer == *id);
        let mut archives: Vec<_> = named.filter_map(|layer| Some(layer.blob.as_ref()?.digest)).collect();
        archives.sort_unstable();
        archives.dedup();
        let mut archive = None;
        for digest in archives {
            if let Some(size) = view.blob_size(&digest)
                && self.verify_blob(&digest, size, options, blobs, report)?
            {
                archive = Some(digest);
                break;
            }
        }
        let own = match record.form {
            LayerForm::Erofs => Some(self.look_at_image(&record, report)),
            LayerForm::Directory | LayerForm::Plain => None,
        };
        let looked = match archive {
            _ if matches!(own, Some(Look::Whole | Look::Unchecked(_))) => own.unwrap_or(Look::Unproven),
            Some(archive) if own.is_some() => self.unpack_again(&record, &archive, below, own)?,
            None if own.is_some() => own.unwrap_or(Look::Unproven),
            Some(_) if record.composed && below.iter().any(|below| damaged_below.contains(below)) => {
                Look::Unchecked(format!("layer {id}: a layer below it is damaged"))
            }
            Some(archive) => self.look_at_layer(&record, &archive, below, report)?,
            None if layers::is_there(&self.paths, &record).is_err() => {
                let what = vec![missing(&record)];
                Look::Damaged { what, count: 1, fresh: None }
            }
            None => Look::Unproven,
        };
        match looked {
            Look::Damaged { .. } | Look::Unchecked(_) if !self.is_still(&content, seen) => return Ok(false),
            Look::Whole => report.layers += 1,
            Look::Unproven => report.unproven.push(*id),
            Look::Unchecked(why) => report.unchecked.push(why),
            Look::Damaged { what, count, fresh } => {
                report.layers += 1;
                let (images, containers) = users(&self.view(), &content);
                let fate = self.put_aside(&content, seen, fresh.map(|fresh| *fresh), options)?;
                let whole = matches!(fate, Fate::Replaced(_));
                report.damaged.push(Damage { content, what, count, images, containers, fate });
                return Ok(whole);
            }
        }
        Ok(true)
    }

    /// Looks at a layer that is kept as an image: it needs nothing else to be proven by.
    fn look_at_image(&self, record: &LayerRecord, report: &mut VerifyReport) -> Look {
        let scratch = self.temps.name("verify");
        match erofs::damage(&self.paths.layer(&record.id), &record.diff_id, scratch.path()) {
            Ok((what, bytes)) => {
                report.bytes += bytes;
                match what {
                    None => Look::Whole,
                    Some(what) => Look::Damaged { what: vec![what], count: 1, fresh: None },
                }
            }
            Err(why) => Look::Unchecked(format!("layer {}: {why}", record.id)),
        }
    }

    /// Makes a layer anew that is an image and damaged, if its archive is good for that.
    fn unpack_again(
        &self,
        record: &LayerRecord,
        archive: &Digest,
        below: &[LayerId],
        own: Option<Look>,
    ) -> Result<Look> {
        match (self.unpack_afresh(record, archive, below)?, own) {
            (Ok(fresh), Some(Look::Damaged { what, count, .. })) => {
                Ok(Look::Damaged { what, count, fresh: Some(Box::new(fresh)) })
            }
            (_, Some(own)) => Ok(own),
            (_, None) => Ok(Look::Unproven),
        }
    }

    /// Unpacks a layer's archive once more, into the form that the layer has; what stands in the way is the look's outcome.
    fn unpack_afresh(
        &self,
        record: &LayerRecord,
        archive: &Digest,
        below: &[LayerId],
    ) -> Result<std::result::Result<Fresh, Look>> {
        let id = record.id;
        let unchecked = |why: Error| Ok(Err(Look::Unchecked(format!("layer {id}: {why}"))));
        let view = self.view();
        let stack: Option<Vec<Digest>> =
            below.iter().map(|layer| view.layer(layer).map(|record| record.diff_id)).collect();
        let Some(mut stack) = stack else {
            return Ok(Err(Look::Unchecked(format!("layer {id}: a layer below it is missing"))));
        };
        stack.push(record.diff_id);
        let file = match self.open_blob(archive) {
            Ok(file) => file,
            // Its image was deleted meanwhile, or the archive was just put aside; a container may keep the layer.
            Err(Error::NoSuchBlob(_)) => return Ok(Err(Look::Unproven)),
            Err(why) => return unchecked(why),
        };
        let fresh = self.temp("verify")?;
        files::make_dir(fresh.path(), 0o710)?;
        let synced = Synced::open(fresh.path())?;
        let own = ApplyOptions { limits: Some(Limits::NONE), form: Some(record.form), ..Default::default() };
        let parents = record.composed.then_some(below);
        match self.unpack(file, &fresh, &stack, parents, &own) {
            Ok(Some(unpacked)) => Ok(Ok((fresh, synced, unpacked))),
            Ok(None) => {
                let why = "its archive needs layers below that its record does not know of";
                Ok(Err(Look::Unchecked(format!("layer {id}: {why}"))))
            }
            Err(why) => unchecked(why),
        }
    }

    /// Unpacks a layer's archive once more and compares.
    fn look_at_layer(
        &self,
        record: &LayerRecord,
        archive: &Digest,
        below: &[LayerId],
        report: &mut VerifyReport,
    ) -> Result<Look> {
        let id = record.id;
        let (fresh, synced, unpacked) = match self.unpack_afresh(record, archive, below)? {
            Ok(fresh) => fresh,
            Err(look) => return Ok(look),
        };
        let (expected, found) = (fresh.path().join("fs"), self.paths.layer_fs(&id));
        if layers::is_there(&self.paths, record).is_err() {
            let what = vec![missing(record)];
            return Ok(Look::Damaged { what, count: 1, fresh: Some(Box::new((fresh, synced, unpacked))) });
        }
        match creel_layer::differences(&expected, &found, record.root_entry, MOST) {
            Ok(differences) if differences.count == 0 => {
                report.bytes += differences.bytes;
                fresh.delete()?;
                Ok(Look::Whole)
            }
            Ok(differences) => {
                report.bytes += differences.bytes;
                let (what, count) = (differences.first, differences.count);
                Ok(Look::Damaged { what, count, fresh: Some(Box::new((fresh, synced, unpacked))) })
            }
            Err(why) => Ok(Look::Unchecked(format!("layer {id}: {why}"))),
        }
    }

    /// Whether this content still has its row, and is what was `seen`.
    fn is_still(&self, content: &Content, seen: Option<(u64, u64)>) -> bool {
        let view = self.view();
        match content {
            Content::Blob(digest) => {
                view.blob_size(digest).is_some() && identity(&self.paths.blob(digest)) == seen
            }
            Content::Layer(id) => view.layer(id).is_some() && identity(&self.paths.layer(id)) == seen,
        }
    }

    /// Takes damaged content out of use, if it still is what was `seen`; a layer is replaced by its fresh unpacking.
    fn put_aside(
        &self,
        content: &Content,
        seen: Option<(u64, u64)>,
        fresh: Option<Fresh>,
        options: &VerifyOptions,
    ) -> Result<Fate> {
        if !options.quarantine {
            return Ok(Fate::Left);
        }
        let settled = match &fresh {
            Some((directory, synced, record)) => match self.settle_layer(directory, synced, record) {
                Ok(json) => Some(json),
                Err(why) => return Ok(Fate::Stuck(why.to_string())),
            },
            None => None,
        };
        let _content = self.content_alone();
        let path = match content {
            Content::Blob(digest) => self.paths.blob(digest),
            Content::Layer(id) => self.paths.layer(id),
        };
        if !self.is_still(content, seen) {
            return Ok(Fate::Stuck("it was deleted or replaced meanwhile".to_owned()));
        }
        // Moved first: what has lost its row and still lies there would be deleted when the store is opened.
        let moved = match aside::put(&self.paths, content) {
            Ok(moved) => moved,
            Err(why) => return Ok(Fate::Stuck(why.to_string())),
        };
        failpoint("verify-moved");
        let gone = *content;
        if let Err(why) = self.db.write(move |connection, view| forget(connection, view, &gone)) {
            if let Some(moved) = &moved
                && let Err(why) = std::fs::rename(moved, &path)
            {
                tracing::error!("{content} lies in {} now: {why}", moved.display());
            }
            return Ok(Fate::Stuck(why.to_string()));
        }
        failpoint("verify-row-gone");
        match (fresh, settled) {
            (Some((directory, _, record)), Some(json)) => match self.place_layer(directory, record, json) {
                Ok(_) => Ok(Fate::Replaced(moved)),
                Err(why) => {
                    tracing::warn!("{content} cannot be replaced: {why}");
                    Ok(Fate::Quarantined(moved))
                }
            },
            _ => Ok(Fate::Quarantined(moved)),
        }
    }
}

/// Deletes the row of something that is damaged; that of an image goes with its configuration.
fn forget(connection: &rusqlite::Connection, view: &mut View, content: &Content) -> Result<()> {
    match content {
        Content::Layer(id) => {
            sql(connection, "delete the row of a layer", |c| {
                c.execute("DELETE FROM layers WHERE id = ?1", [id.to_string()])
            })?;
            view.remove_layer(id);
        }
        Content::Blob(digest) => {
            sql(connection, "delete the row of a blob", |c| {
                c.execute("DELETE FROM blobs WHERE digest = ?1", [digest.to_string()])
            })?;
            view.remove_blob(digest);
            if let Some(image) = view.image(digest) {
                let names: Vec<String> =
                    image.references.iter().chain(&image.repo_digests).map(ToString::to_string).collect();
                let key = digest.to_string();
                let reason = "its configuration is damaged";
                db::quarantine(connection, "images", &key, None, names.join("\n").as_bytes(), reason)?;
                sql(connection, "delete the row of an image", |c| {
                    c.execute("DELETE FROM refs WHERE image = ?1", [&key])?;
                    c.execute("DELETE FROM images WHERE id = ?1", [&key])
                })?;
                view.remove_image(digest);
            }
        }
    }
    Ok(())
}
