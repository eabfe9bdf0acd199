//! Everything about one image, and how it came to be.

use std::collections::BTreeMap;

use creel_store::ImageRecord;
use creel_types::Reference;
use creel_wire::container::GraphDriver;
use creel_wire::image::{HistoryItem, ImageInspect, ImageMetadata, ImageRootFs};

use crate::core::Core;
use crate::error::Result;
use crate::times;

fn familiar(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

/// Inspects an image.
pub(crate) fn inspect(core: &Core, name: &str) -> Result<ImageInspect> {
    let image = core.store.resolve_image(name)?;
    let config = &image.config;
    Ok(ImageInspect {
        id: image.id.to_string(),
        repo_tags: familiar(&image.references),
        repo_digests: familiar(&image.repo_digests),
        parent: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        comment: config.comment.clone().unwrap_or_default(),
        created: image.created.map(|time| time.to_string()).unwrap_or_default(),
        docker_version: String::new(),
        author: config.author.clone().unwrap_or_default(),
        config: config.config.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        graph_driver: graph_driver(core, &image),
        root_fs: ImageRootFs {
            kind: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata { last_tag_time: times::NEVER.to_owned() },
    })
}

fn graph_driver(core: &Core, image: &ImageRecord) -> GraphDriver {
    let dirs: Vec<String> = image
        .layers
        .iter()
        .rev()
        .map(|layer| core.store.layer_dir(&layer.layer).display().to_string())
        .collect();
    let mut data = BTreeMap::new();
    if let Some((upper, lower)) = dirs.split_first() {
        data.insert("UpperDir".to_owned(), upper.clone());
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
    }
    GraphDriver { name: "overlay2".to_owned(), data: Some(data) }
}

/// The steps of an image's making, the newest first.
pub(crate) fn history(core: &Core, name: &str) -> Result<Vec<HistoryItem>> {
    let image = core.store.resolve_image(name)?;
    let mut layers = image.layers.iter();
    let mut items: Vec<HistoryItem> = image
        .config
        .history
        .iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            let bytes = layer.and_then(|layer| core.store.layer(&layer.layer)).map_or(0, |layer| layer.bytes);
            HistoryItem {
                id: "<missing>".to_owned(),
                created: step.created.map_or(0, |time| time.as_second()),
                created_by: step.created_by.clone().unwrap_or_default(),
                tags: None,
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
                comment: step.comment.clone().unwrap_or_default(),
            }
        })
        .collect();
    items.reverse();
    if let Some(first) = items.first_mut() {
        first.id = image.id.to_string();
        first.tags = Some(familiar(&image.references)).filter(|tags| !tags.is_empty());
    }
    Ok(items)
}
