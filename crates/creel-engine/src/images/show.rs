//! Everything about one image, and how it came to be.

use std::collections::BTreeMap;

use creel_store::{Driver, ImageRecord};
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
        config: Some(config.config.clone().unwrap_or_default().into()),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        graph_driver: graph_driver(core, &image),
        root_fs: ImageRootFs {
            kind: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata { last_tag_time: times::rfc3339(image.tagged) },
    })
}

/// Where the layers are. Only `UpperDir` and `LowerDir` are there: layers are never mounted on the host. As in
/// Docker, nothing is told by the driver that copies.
fn graph_driver(core: &Core, image: &ImageRecord) -> GraphDriver {
    let name = core.store.driver().docker_name().to_owned();
    if core.store.driver() == Driver::Copy {
        return GraphDriver { name, data: None };
    }
    let dirs: Vec<String> = image
        .layers
        .iter()
        .rev()
        .map(|layer| core.store.layer_dir(&layer.layer).display().to_string())
        .collect();
    let mut data = BTreeMap::new();
    if let (Some((upper, lower)), Some(top)) = (dirs.split_first(), image.layers.last()) {
        let dir = core.store.paths().layer(&top.layer);
        data.insert("MergedDir".to_owned(), dir.join("merged").display().to_string());
        data.insert("UpperDir".to_owned(), upper.clone());
        data.insert("WorkDir".to_owned(), dir.join("work").display().to_string());
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
    }
    GraphDriver { name, data: Some(data) }
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
    // The image's own step, and those of the images that it was made from here.
    let mut step = Some(image);
    while let Some(image) = step {
        let at = items.len().checked_sub(image.config.history.len());
        if let Some(item) = at.and_then(|at| items.get_mut(at)) {
            item.id = image.id.to_string();
            item.tags = Some(familiar(&image.references)).filter(|tags| !tags.is_empty());
        }
        // A parent has fewer steps than its child: this ends, whatever the rows say.
        let parent = image.parent.and_then(|id| core.store.image(&id));
        step = parent.filter(|parent| parent.config.history.len() < image.config.history.len());
    }
    Ok(items)
}
