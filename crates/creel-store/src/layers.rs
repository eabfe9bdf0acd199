//! Layers: tar streams unpacked once into directories of their own, shared by all images that name them.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use creel_types::Digest;
use creel_types::image::Descriptor;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::error::Result;
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
    /// Whether it took entries from the layers below it, and so fits above those alone.
    pub composed: bool,
    /// Bytes of its files' contents.
    pub bytes: u64,
    /// Entries of its tar.
    pub entries: u64,
}

/// The diffIDs that are being unpacked now, so that two pulls unpack a layer once.
#[derive(Debug, Default)]
pub(crate) struct Applying {
    busy: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

/// How [`Store::apply_layer`] goes about it.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// The media type, if it is known; the stream's first bytes decide about the compression all the same.
    pub media_type: Option<String>,
    /// Keep the archive as this blob, in the same pass, verified against its digest and size.
    pub keep_blob: Option<Descriptor>,
    /// The most bytes that the unpacked layer may have.
    pub max_bytes: Option<u64>,
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

/// Finds a layer above this stack: composed for it, or self-contained.
fn find(view: &View, diff_id: &Digest, parents: &[Digest]) -> Option<LayerId> {
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

    /// The directory with a layer's files, in overlay's form; to be read only.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.paths.layer_fs(id)
    }

    /// Unpacks a layer, in one pass over `archive` (compressed or not): hash and keep the archive if
    /// `options.keep_blob` says so, decompress, hash, unpack into `tmp/`, verify, sync, rename, row.
    ///
    /// `parents` are the layers below, the lowest first; they must be applied already. A layer that is there (or
    /// that another thread is unpacking: then this one waits) is not unpacked again, but the archive is still
    /// read to its end if it is to be kept. On any error nothing is left behind.
    pub fn apply_layer<R: Read>(
        self: &Arc<Self>,
        archive: R,
        diff_id: &Digest,
        parents: &[LayerId],
        options: &ApplyOptions,
    ) -> Result<LayerId> {
        self.apply(archive, diff_id, parents, options)
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
        self.apply(file, diff_id, parents, options)
    }

    fn apply<R: Read>(
        self: &Arc<Self>,
        _archive: R,
        _diff_id: &Digest,
        _parents: &[LayerId],
        _options: &ApplyOptions,
    ) -> Result<LayerId> {
        Err(crate::Error::Closed)
    }
}
