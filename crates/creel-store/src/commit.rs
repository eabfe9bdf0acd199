//! Committing: a container's writable layer becomes a layer and a blob.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_layer::HashingWriter;
use creel_types::ContainerId;
use creel_types::image::{Descriptor, media_type};
use flate2::write::GzEncoder;

use crate::blobs::BlobWriter;
use crate::driver::RootForm;
use crate::error::{Error, Result};
use crate::images::LayerRef;
use crate::layers::{ApplyOptions, LayerId, layer_error};
use crate::store::Store;

/// A layer made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The layer with its diffID and its gzip blob, as an image names it.
    pub layer: LayerRef,
    /// Bytes of its files' contents.
    pub bytes: u64,
    /// Whether nothing had been changed (the layer's tar has no entries).
    pub empty: bool,
}

/// Where a new layer's archive goes.
type Tar = HashingWriter<GzEncoder<BlobWriter>>;

impl Store {
    /// Makes a layer out of a writable directory over the layers `lowers` (the lowest first): packs what differs
    /// in a fixed order, stores it as a gzip blob and applies it. Nothing may change the directory meanwhile.
    pub fn commit_layer(self: &Arc<Self>, upper: &Path, lowers: &[LayerId]) -> Result<Committed> {
        let below: Vec<PathBuf> = lowers.iter().rev().map(|layer| self.layer_dir(layer)).collect();
        self.commit_with(upper, lowers, |tar| creel_layer::pack_diff(upper, &below, tar))
    }

    fn commit_with(
        self: &Arc<Self>,
        upper: &Path,
        lowers: &[LayerId],
        pack: impl FnOnce(&mut Tar) -> creel_layer::Result<creel_layer::Packed>,
    ) -> Result<Committed> {
        let _lease = self.lease();
        if let Some(missing) = lowers.iter().find(|layer| !self.has_layer(layer)) {
            return Err(Error::NoSuchLayer(missing.digest()));
        }
        let blob = self.blob_writer(None, None)?;
        let mut tar = HashingWriter::new(GzEncoder::new(blob, flate2::Compression::default()));
        pack(&mut tar)
            .map_err(|why| layer_error(format_args!("of {}", upper.display()), &self.paths.tmp(), why))?;
        let (encoder, diff_id, _) = tar.finish();
        let blob = encoder.finish().map_err(|why| Error::io("write a blob in", &self.paths.tmp(), why))?;
        let size = blob.written();
        let digest = blob.commit()?;
        // this machine has made it, so it is no bomb
        let own = ApplyOptions { limits: Some(creel_layer::Limits::NONE), ..Default::default() };
        let layer = self.apply_blob(&digest, &diff_id, lowers, &own)?;
        let record = self.layer(&layer).ok_or(Error::NoSuchLayer(layer.digest()))?;
        let blob = Descriptor {
            media_type: media_type::OCI_LAYER_GZIP.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        };
        Ok(Committed {
            layer: LayerRef { diff_id, layer, blob: Some(blob) },
            bytes: record.bytes,
            empty: record.entries == 0,
        })
    }

    /// [`Store::commit_layer`] for a container's snapshot. Its init layer is none of the layers below: what the
    /// container did not touch of it is not in the writable directory, and the new image's containers have their own.
    pub fn commit_snapshot(self: &Arc<Self>, id: &ContainerId) -> Result<Committed> {
        let view = self.view();
        let snapshot = view.snapshot(id).ok_or_else(|| Error::NoSuchSnapshot(id.clone()))?;
        let root = snapshot.root(&self.paths, &view);
        match root.form {
            RootForm::Overlay => self.commit_layer(&root.upper, &snapshot.layers),
            // the init layer is in the copy, so it is in what that is compared with
            RootForm::Copy => self.commit_with(&root.upper, &snapshot.layers, |tar| {
                creel_layer::pack_copy(&root.upper, &root.lower, &root.made(), tar)
            }),
        }
    }
}
