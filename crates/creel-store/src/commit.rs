//! Committing: a container's writable layer becomes a layer and a blob.

use std::path::Path;
use std::sync::Arc;

use creel_types::ContainerId;

use crate::error::Result;
use crate::images::LayerRef;
use crate::layers::LayerId;
use crate::store::Store;

/// A layer made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The layer with its diffID and its gzip blob, as an image names it.
    pub layer: LayerRef,
    /// The unpacked size in bytes.
    pub bytes: u64,
    /// Whether nothing had been changed (the layer's tar has no entries).
    pub empty: bool,
}

impl Store {
    /// Makes a layer out of a writable directory over the layers `lowers` (the lowest first): packs what differs
    /// in a fixed order, stores it as a gzip blob and applies it.
    pub fn commit_layer(self: &Arc<Self>, upper: &Path, lowers: &[LayerId]) -> Result<Committed> {
        let _ = (upper, lowers);
        Err(crate::Error::Closed)
    }

    /// [`Store::commit_layer`] for a container's snapshot.
    pub fn commit_snapshot(self: &Arc<Self>, id: &ContainerId) -> Result<Committed> {
        let snapshot =
            self.view().snapshot(id).ok_or_else(|| crate::Error::NoSuchSnapshot(id.clone()))?;
        self.commit_layer(&snapshot.overlay(&self.paths).upper, &snapshot.layers)
    }
}
