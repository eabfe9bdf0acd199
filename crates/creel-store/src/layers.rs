//! Layers: tar streams unpacked once into directories of their own, shared by all images that name them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_layer::{Limits, UnpackOptions, Unpacked};
use creel_types::image::Descriptor;
use creel_types::{Classify, Digest, ErrorKind};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::blobs::BlobWriter;
use crate::db::sql;
use crate::driver::LayerForm;
use crate::erofs::{self, Kept};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::files::{self, Synced, Temp};
use crate::hashing::Plain;
use crate::paths::Paths;
use crate::store::Store;
use crate::view::View;

/// Names an unpacked layer: by its diffID, or, if it took anything from the layers below it, by its chainID
/// (image-spec `config.md`, "Layer ChainID").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(Digest);

impl LayerId {
    /// The layer stored under this digest.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest under which it is stored.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// The directory's name: 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its name in the store.
    pub id: LayerId,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Whether it took (or looked for) entries in the layers below it, and so fits above those alone.
    pub composed: bool,
    /// Whether its tar has an entry for the root, so that the directory's mode and owner are the image's.
    #[serde(default)]
    pub root_entry: bool,
    /// Bytes of its files' contents.
    pub bytes: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// In which form it is kept.
    #[serde(default)]
    pub form: LayerForm,
    /// Bytes that it takes in this form, if they are others than its files' contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
}

impl LayerRecord {
    /// Bytes that it takes on the disk.
    pub fn stored(&self) -> u64 {
        self.stored.unwrap_or(self.bytes)
    }
}

/// The diffIDs that are being unpacked now, so that two pulls unpack a layer once.
#[derive(Debug, Default)]
pub(crate) struct Applying {
    busy: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// Archives and the diffIDs that were found in them.
    proven: Mutex<HashSet<(Digest, Digest)>>,
}

impl Applying {
    fn proven(&self) -> MutexGuard<'_, HashSet<(Digest, Digest)>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock of one diffID. Locks that nobody holds are forgotten on the way.
    fn turn(&self, diff_id: &Digest) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(*diff_id).or_default().clone()
    }
}

/// How [`Store::apply_layer`] goes about it.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// The media type, if it is known; the stream's first bytes decide about the compression all the same.
    pub media_type: Option<String>,
    /// Keep the archive as this blob, in the same pass, verified against its digest and size.
    pub keep_blob: Option<Descriptor>,
    /// How large the layer may be; `None`: as [`Store::set_limits`] says.
    pub limits: Option<Limits>,
    /// In which form it is to be kept, if that is possible; `None`: as the storage driver says.
    pub form: Option<LayerForm>,
}

/// The chainIDs of a stack of diffIDs, the lowest first (image-spec `config.md`, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The digest of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    finish(context)
}

/// The digest of all that went into `context`.
pub(crate) fn finish(context: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::from_sha256(bytes)
}

/// Whether what a record speaks of lies where it should; in words why not.
pub(crate) fn is_there(paths: &Paths, record: &LayerRecord) -> std::result::Result<(), String> {
    let path = paths.layer_as(&record.id, record.form);
    let wanted = |path: &Path, directory: bool| match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() == directory && (directory || meta.is_file()) => Ok(()),
        Ok(_) if directory => Err(format!("{} is not a directory", path.display())),
        Ok(_) => Err(format!("{} is not a file", path.display())),
        Err(why) => Err(format!("{}: {why}", path.display())),
    };
    match record.form {
        LayerForm::Directory | LayerForm::Plain => wanted(&path, true),
        LayerForm::Erofs => {
            wanted(&path, false).and_then(|()| wanted(&creel_sys::erofs::archive_of(&path), false))
        }
    }
}

/// Finds a layer above this stack: composed for it, or self-contained.
pub(crate) fn find(view: &View, diff_id: &Digest, parents: &[Digest]) -> Option<LayerId> {
    let mut stack = parents.to_vec();
    stack.push(*diff_id);
    let chain = chain_ids(&stack).last().copied()?;
    // a layer at the bottom has one name; only a record that says so is composed
    [LayerId(chain), LayerId(*diff_id)]
        .into_iter()
        .find(|id| view.layer(id).is_some_and(|l| l.diff_id == *diff_id && (id.0 == chain || !l.composed)))
}

impl Store {
    /// Whether a layer with this diffID is unpacked that fits above layers with the diffIDs `below` (the lowest
    /// first), and its name. Held by every [`Lease`](crate::Lease) that is open now.
    pub fn find_layer(&self, diff_id: &Digest, below: &[Digest]) -> Option<LayerId> {
        let _content = self.content_in_use();
        let found = find(&self.view(), diff_id, below)?;
        self.leases.touch_layer(found);
        Some(found)
    }

    /// Whether this layer is unpacked. Held by every [`Lease`](crate::Lease) that is open now.
    pub fn has_layer(&self, id: &LayerId) -> bool {
        let _content = self.content_in_use();
        let found = self.view().layer(id).is_some();
        if found {
            self.leases.touch_layer(*id);
        }
        found
    }

    /// What is known of a layer.
    pub fn layer(&self, id: &LayerId) -> Option<Arc<LayerRecord>> {
        self.view().layer(id)
    }

    /// The directory with a layer's files, or the EROFS image that it is kept as; to be read only.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.paths.layer_lower(id, &self.view())
    }

    /// Unpacks a layer, in one pass over `archive` (compressed or not): hash and keep the archive if
    /// `options.keep_blob` says so, decompress, hash, unpack into `tmp/`, verify, sync, rename, row.
    ///
    /// `parents` are the layers below, the lowest first; they must be applied already. A layer that is there (or
    /// that another thread is unpacking: then this one waits) is not unpacked again, but the archive is still
    /// read to its end if it is to be kept. On any error nothing is left behind.
    pub fn apply_layer<R: Read + Send>(
        self: &Arc<Self>,
        archive: R,
        diff_id: &Digest,
        parents: &[LayerId],
        options: &ApplyOptions,
    ) -> Result<LayerId> {
        let below = self.diff_ids(parents)?;
        self.apply(archive, diff_id, &below, Some(parents), options)?.ok_or(Error::Closed)
    }

    /// The same before the layers below are there, of which the diffIDs alone are known. `None`: the layer takes
    /// something from them, so it has to be applied again when they are; its archive is kept meanwhile, if
    /// `options.keep_blob` says so.
    pub fn apply_layer_alone<R: Read + Send>(
        self: &Arc<Self>,
        archive: R,
        diff_id: &Digest,
        below: &[Digest],
        options: &ApplyOptions,
    ) -> Result<Option<LayerId>> {
        self.apply(archive, diff_id, below, None, options)
    }

    /// [`Store::apply_layer`] from a blob that is stored already.
    pub fn apply_blob(
        self: &Arc<Self>,
        blob: &Digest,
        diff_id: &Digest,
        parents: &[LayerId],
        options: &ApplyOptions,
    ) -> Result<LayerId> {
        let file = self.open_blob(blob)?;
        self.apply_layer(file, diff_id, parents, options)
    }

    /// Whether this archive is known to hold a layer of this diffID: it was unpacked from it since the store was
    /// opened.
    pub fn is_proven(&self, blob: &Digest, diff_id: &Digest) -> bool {
        self.applying.proven().contains(&(*blob, *diff_id))
    }

    /// The diffIDs of layers that are applied.
    fn diff_ids(&self, layers: &[LayerId]) -> Result<Vec<Digest>> {
        let mut below = Vec::with_capacity(layers.len());
        for layer in layers {
            let record = self.layer(layer).filter(|_| self.has_layer(layer));
            below.push(record.ok_or_else(|| Error::NoSuchLayer(layer.digest()))?.diff_id);
        }
        Ok(below)
    }

    fn apply<R: Read + Send>(
        self: &Arc<Self>,
        archive: R,
        diff_id: &Digest,
        below: &[Digest],
        parents: Option<&[LayerId]>,
        options: &ApplyOptions,
    ) -> Result<Option<LayerId>> {
        // from here on neither the parents nor what is made can be collected before the caller can hold it
        let _lease = self.lease();
        self.diff_ids(parents.unwrap_or_default())?;
        let blob = match &options.keep_blob {
            Some(blob) if self.has_blob(&blob.digest) => None,
            Some(blob) => Some(self.blob_writer(Some(blob.digest), Some(blob.size))?),
            None => None,
        };
        let mut source = Source { archive, blob, failure: None };
        let turn = self.applying.turn(diff_id);
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find_layer(diff_id, below) {
            drop(turn);
            source.finish()?;
            return Ok(Some(found));
        }
        let stack = [below, &[*diff_id]].concat();
        let directory = self.temp("layer")?;
        files::make_dir(directory.path(), 0o710)?;
        // Opened before anything is written: it is told of every failure to write back from here on.
        let synced = Synced::open(directory.path())?;
        match self.unpack(&mut source, &directory, &stack, parents, options) {
            Ok(Some(record)) => {
                source.finish()?;
                let layer = self.keep_layer(directory, synced, record)?;
                if let Some(blob) = &options.keep_blob {
                    self.applying.proven().insert((blob.digest, *diff_id));
                }
                Ok(Some(layer))
            }
            Ok(None) => {
                drop(directory);
                source.finish()?;
                Ok(None)
            }
            // bytes that are not what was promised are the cause of whatever they did to the unpacking
            Err(why) => match source.failure.take() {
                Some(cause) => Err(cause),
                None if matches!(why.kind(), ErrorKind::DataLoss | ErrorKind::InvalidArgument) => {
                    source.drain_and_check()?;
                    Err(why)
                }
                None => Err(why),
            },
        }
    }

    /// Unpacks into `directory` and holds the stream against its diffID, the last of `stack`.
    pub(crate) fn unpack<R: Read + Send>(
        &self,
        source: R,
        directory: &Temp,
        stack: &[Digest],
        parents: Option<&[LayerId]>,
        options: &ApplyOptions,
    ) -> Result<Option<LayerRecord>> {
        let (Some(diff_id), Some(chain_id)) = (stack.last().copied(), chain_ids(stack).last().copied())
        else {
            return Err(Error::Closed);
        };
        let error = |why| layer_error(diff_id, directory.path(), why);
        let _ahead = self.flusher.ahead(&self.paths.layers());
        let unpack = UnpackOptions {
            limits: options.limits.unwrap_or_else(|| self.limits()),
            parents: parents.iter().copied().flatten().rev().map(|parent| self.layer_dir(parent)).collect(),
            alone: parents.is_none(),
        };
        let as_image = options.form.unwrap_or_else(|| self.driver().layers()) == LayerForm::Erofs;
        let done = std::thread::scope(|scope| {
            // What the decompressor says travels through the stream, as itself.
            let open = || {
                let compressed = BufReader::with_capacity(READ, source);
                creel_layer::decompress(compressed).map_err(io::Error::other)
            };
            let mut tar = Plain::new(open, scope)
                .map_err(|why| Error::io("start a thread for", directory.path(), why))?;
            let made = if as_image {
                Kept::with_archive(&mut tar, directory.path(), &unpack)
            } else {
                unpack_into(directory.path(), &unpack, |fs, unpack| {
                    creel_layer::unpack_buffered(&mut tar, fs, unpack)
                })
                .map(|unpacked| unpacked.map(Kept::Unpacked))
            };
            match made.map_err(|why| error(undisguised(why)))? {
                Some(made) => Ok(Some((made, tar.finish().ok_or(Error::Closed)?))),
                None => Ok(None),
            }
        })?;
        let Some((made, actual)) = done else { return Ok(None) };
        if actual != diff_id {
            return Err(Error::DigestMismatch {
                what: "layer (uncompressed, its diffID)".to_owned(),
                expected: diff_id,
                actual,
            });
        }
        let unpacked = match made {
            Kept::Unpacked(unpacked) => unpacked,
            Kept::Indexed(indexed) => {
                return erofs::write(*indexed, directory.path(), diff_id).map_err(error).map(Some);
            }
            // what its archive says is proven by now
            Kept::Unfit(why) => {
                tracing::info!(layer = %diff_id, "it is unpacked, not mounted as an image: {why}");
                match erofs::unpack_kept(directory.path(), &unpack).map_err(error)? {
                    Some(unpacked) => unpacked,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(LayerRecord {
            // at the bottom the two are one; then `composed` still keeps it from being used above others
            id: LayerId(if unpacked.composed { chain_id } else { diff_id }),
            diff_id,
            composed: unpacked.composed,
            root_entry: unpacked.root_entry,
            bytes: unpacked.bytes,
            entries: unpacked.entries,
            form: if unpacked.plain_marks { LayerForm::Plain } else { LayerForm::Directory },
            stored: None,
        }))
    }

    /// Makes an unpacked layer durable and gives it its name and its row.
    fn keep_layer(&self, directory: Temp, synced: Synced, record: LayerRecord) -> Result<LayerId> {
        let json = self.settle_layer(&directory, &synced, &record)?;
        let _content = self.content_in_use();
        self.place_layer(directory, record, json)
    }

    /// Notes what an unpacked layer is beside its files and makes all of it durable; returns the note. `synced` was opened
    /// before the layer was unpacked.
    pub(crate) fn settle_layer(
        &self,
        directory: &Temp,
        synced: &Synced,
        record: &LayerRecord,
    ) -> Result<String> {
        let id = record.id;
        let json = serde_json::to_string(record)
            .map_err(|why| Error::Invalid { what: format!("layer {id}"), why: why.to_string() })?;
        let note = directory.path().join("layer.json");
        std::fs::write(&note, &json).map_err(|why| Error::io("write", &note, why))?;
        failpoint("layer-before-sync");
        synced.sync()?;
        Ok(json)
    }

    /// Gives a layer that is durable its name and its row. To be called with the content lock held.
    pub(crate) fn place_layer(&self, directory: Temp, record: LayerRecord, json: String) -> Result<LayerId> {
        let id = record.id;
        failpoint("layer-before-rename");
        directory.rename_to(&self.paths.layer(&id))?;
        failpoint("layer-before-dir-sync");
        files::sync_dir(&self.paths.layers())?;
        failpoint("layer-before-row");
        let row = self.db.write(move |connection, view| {
            sql(connection, "write a layer", |c| {
                c.prepare_cached("INSERT OR REPLACE INTO layers (id, json) VALUES (?1, ?2)")?
                    .execute([id.to_string(), json])
            })?;
            view.insert_layer(record);
            Ok(())
        });
        match row {
            Ok(()) => {
                self.leases.touch_layer(id);
                failpoint("layer-after-row");
                Ok(id)
            }
            Err(why) => {
                let _ = self.discard(&self.paths.layer(&id));
                Err(why)
            }
        }
    }
}

/// Unpacks into `fs` in a layer's directory; `None`: the layers below are needed first.
pub(crate) fn unpack_into(
    directory: &Path,
    options: &UnpackOptions,
    unpack: impl FnOnce(&Path, &UnpackOptions) -> creel_layer::Result<Unpacked>,
) -> creel_layer::Result<Option<Unpacked>> {
    let fs = directory.join("fs");
    // not `files::make_dir`: its failure is one of unpacking
    let made = rustix::fs::mkdir(&fs, rustix::fs::Mode::from_raw_mode(0o755))
        .and_then(|()| rustix::fs::chmod(&fs, rustix::fs::Mode::from_raw_mode(0o755)));
    made.map_err(|cause| creel_layer::Error::Io {
        step: "create the directory",
        path: fs.clone(),
        cause: cause.into(),
    })?;
    match unpack(&fs, options) {
        Err(creel_layer::Error::NeedsBelow) => Ok(None),
        unpacked => unpacked.map(Some),
    }
}

/// A failure to make out the compression is read from the stream as any other; here it is itself again.
fn undisguised(why: creel_layer::Error) -> creel_layer::Error {
    use creel_layer::{Error as Layer, tar::TarError};
    match why {
        Layer::Tar(TarError::Read(cause)) => match cause.downcast::<Layer>() {
            Ok(itself) => itself,
            Err(cause) => Layer::Tar(TarError::Read(cause)),
        },
        why => why,
    }
}

/// How many bytes are read at once.
const READ: usize = 128 << 10;

/// An archive on its way, copied into a blob if it is to be kept.
struct Source<R> {
    archive: R,
    blob: Option<BlobWriter>,
    /// The first failure of either side, kept because it may be lost on its way through the decompressor.
    failure: Option<Error>,
}

impl<R: Read> Source<R> {
    /// Reads the rest, if there is a blob to complete, and stores that.
    fn finish(mut self) -> Result<()> {
        self.drain_and_check()?;
        match self.blob {
            Some(blob) => blob.commit().map(|_| ()),
            None => Ok(()),
        }
    }

    /// Reads the rest, if there is a blob to complete, and holds all of it against digest and size.
    fn drain_and_check(&mut self) -> Result<()> {
        if self.blob.is_some() && self.failure.is_none() {
            let copied = io::copy(self, &mut io::sink());
            if let (Err(why), None) = (copied, &self.failure) {
                self.failure = Some(Error::Read { why });
            }
        }
        match (self.failure.take(), &self.blob) {
            (Some(failure), _) => Err(failure),
            (None, Some(blob)) => blob.check().map(|_| ()),
            (None, None) => Ok(()),
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("the archive cannot be read any further"));
        }
        let count = match self.archive.read(buffer) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => return Err(why),
            Err(why) => {
                let shown = io::Error::new(why.kind(), why.to_string());
                self.failure = Some(Error::Read { why });
                return Err(shown);
            }
            Ok(count) => count,
        };
        if let Some(blob) = &mut self.blob
            && let Err(why) = blob.write_all(&buffer[..count])
        {
            let shown = io::Error::new(why.kind(), why.to_string());
            self.failure = Some(blob.failure(why));
            return Err(shown);
        }
        Ok(count)
    }
}

pub(crate) fn layer_error(layer: impl fmt::Display, directory: &Path, why: creel_layer::Error) -> Error {
    use creel_layer::Error as Layer;
    let full = match &why {
        Layer::Entry { cause, .. } | Layer::Io { cause, .. } | Layer::Write(cause) => {
            matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    };
    if full {
        return Error::NoSpace { what: "unpack a layer into", path: directory.to_owned() };
    }
    Error::Layer { layer: layer.to_string(), kind: why.kind(), why: why.to_string() }
}
