//! Images: what is here, and how it comes and goes.

pub(crate) mod hello;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod show;
pub(crate) mod streams;
pub(crate) mod transfer;
pub(crate) mod verify;

use std::io::Write;
use std::sync::Arc;

use creel_store::{ImageRecord, LayerId, LayerRef, Store};
use creel_types::{Digest, Reference};

use crate::core::{Core, blocking};
use crate::error::{Error, Result};

/// Stores a small document.
pub(crate) fn put_blob(store: &Arc<Store>, bytes: &[u8]) -> Result<Digest> {
    let mut writer = store.blob_writer(None, Some(bytes.len() as u64))?;
    writer.write_all(bytes).map_err(|e| Error::io("storing a document", e))?;
    Ok(writer.commit()?)
}

/// The layers of a snapshot as an image names them: those of the image it was made from, archives included, if that is
/// still here.
pub(crate) fn layer_refs(
    store: &Store,
    image: Option<&ImageRecord>,
    layers: &[LayerId],
) -> Result<Vec<LayerRef>> {
    if let Some(image) = image
        && image.layers.iter().map(|layer| &layer.layer).eq(layers)
    {
        return Ok(image.layers.clone());
    }
    layers
        .iter()
        .map(|layer| {
            let record =
                store.layer(layer).ok_or_else(|| Error::internal(format!("layer {layer} is missing")))?;
            Ok(LayerRef { diff_id: record.diff_id, layer: *layer, blob: None })
        })
        .collect()
}

/// Tells an event about an image.
pub(crate) fn tell(core: &Core, action: &str, image: &str, name: &str) {
    core.events.tell("image", action, image, [("name".to_owned(), name.to_owned())].into());
}

/// Gives an image another name.
pub(crate) async fn tag(core: &Arc<Core>, source: &str, target: Reference) -> Result<()> {
    if target.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    let image = core.store.resolve_image(source)?;
    let (store, id) = (core.store.clone(), image.id);
    let name = target.familiar();
    blocking(move || Ok(store.tag(&target, &id)?)).await?;
    tell(core, "tag", &image.id.to_string(), &name);
    Ok(())
}
