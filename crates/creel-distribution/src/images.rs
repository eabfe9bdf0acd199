//! From an image in the store to the documents that travel: its manifest, made if it came with none, and its
//! layers in compressed form.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use creel_layer::Compression;
use creel_store::{ImageRecord, NewImage, Store};
use creel_types::Digest;
use creel_types::image::{Descriptor, Manifest, media_type};

use crate::document::LIMIT;
use crate::error::{Error, Result};
use crate::pull::is_plain_layer;

/// A descriptor without annotations and platform.
pub(crate) fn descriptor(media: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media.to_owned(), digest, size, platform: None, annotations: Default::default() }
}

/// The media type of a layer with this compression.
pub(crate) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    }
}

/// How a stored archive is compressed.
pub(crate) fn detect(store: &Arc<Store>, blob: &Digest) -> Result<Compression> {
    let mut start = Vec::new();
    let file = store.open_blob(blob).map_err(Error::store(format!("reading blob {blob}")))?;
    file.take(4)
        .read_to_end(&mut start)
        .map_err(|error| Error::io(format!("reading blob {blob}"), &error))?;
    Ok(Compression::detect(&start))
}

/// An image's manifest: the one that it came with, or an OCI one over its archives as they are.
pub(crate) fn manifest(store: &Arc<Store>, image: &ImageRecord) -> Result<(Descriptor, Vec<u8>)> {
    let reading = format!("reading the manifest of image {}", image.id);
    if let Some(manifest) = &image.manifest {
        let bytes = store.read_blob(&manifest.digest, LIMIT).map_err(Error::store(reading))?;
        return Ok((manifest.clone(), bytes));
    }
    let config_size = store
        .blob_size(&image.id)
        .ok_or_else(|| Error::document("configuration", image.id, "it is not in the store"))?;
    let layers = image
        .layers
        .iter()
        .map(|layer| {
            layer.blob.clone().ok_or_else(|| Error::Unsupported {
                name: format!("image {}", image.id),
                reason: format!("the archive of its layer {} is not kept", layer.diff_id),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: descriptor(media_type::OCI_CONFIG, image.id, config_size),
        layers,
        annotations: Default::default(),
    };
    let bytes =
        serde_json::to_vec(&manifest).map_err(|error| Error::document("manifest", image.id, error))?;
    let digest = crate::fetch::sha256(&bytes);
    Ok((descriptor(media_type::OCI_MANIFEST, digest, bytes.len() as u64), bytes))
}

/// Makes an image ready to be pushed: one that came with no manifest gets its plain layers compressed and a
/// manifest, and both are remembered, so that the next push finds them and its digests are the same.
pub(crate) fn publishable(store: &Arc<Store>, image: Arc<ImageRecord>) -> Result<Arc<ImageRecord>> {
    if image.manifest.is_some() {
        return Ok(image);
    }
    let mut made = (*image).clone();
    for layer in &mut made.layers {
        if let Some(blob) = &mut layer.blob
            && is_plain_layer(&blob.media_type)
        {
            *blob = gzipped(store, &blob.digest)?;
        }
    }
    let (manifest, bytes) = manifest(store, &made)?;
    let storing = format!("storing the manifest of image {}", image.id);
    store.put_blob(&bytes).map_err(Error::store(&storing))?;
    store
        .put_image(NewImage {
            config: made.id,
            manifest: Some(manifest),
            layers: made.layers,
            parent: made.parent,
            references: Vec::new(),
        })
        .map_err(Error::store(storing))
}

/// Compresses a stored archive with gzip into another blob. The same archive gives the same blob.
fn gzipped(store: &Arc<Store>, blob: &Digest) -> Result<Descriptor> {
    let action = format!("compressing layer {blob}");
    let failed = |error: io::Error| Error::io(&action, &error);
    let file = store.open_blob(blob).map_err(Error::store(&action))?;
    let writer = store.blob_writer(None, None).map_err(Error::store(&action))?;
    let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::default());
    io::copy(&mut BufReader::with_capacity(256 << 10, file), &mut encoder).map_err(failed)?;
    encoder.flush().map_err(failed)?;
    let writer = encoder.finish().map_err(failed)?;
    let size = writer.written();
    let digest = writer.commit().map_err(Error::store(&action))?;
    Ok(descriptor(media_type::OCI_LAYER_GZIP, digest, size))
}
