//! The immutable picture of all rows in memory. Every committed transaction publishes a new one; whoever holds
//! one keeps seeing the state of its moment, without locks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use creel_types::{ContainerId, Digest, Reference};

use crate::images::ImageRecord;
use crate::layers::{LayerId, LayerRecord};
use crate::records::Record;
use crate::snapshots::Snapshot;

/// Something that is stored under a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// A blob.
    Blob(Digest),
    /// An unpacked layer.
    Layer(LayerId),
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Blob(digest) => write!(f, "blob {digest}"),
            Content::Layer(layer) => write!(f, "layer {layer}"),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Kind {
    by_id: BTreeMap<String, Arc<Record>>,
    by_name: HashMap<String, String>,
}

/// All rows as they were after one transaction. Cloning copies pointers only.
#[derive(Debug, Clone, Default)]
pub struct View {
    blobs: Arc<HashMap<Digest, u64>>,
    layers: Arc<HashMap<LayerId, Arc<LayerRecord>>>,
    images: Arc<BTreeMap<Digest, Arc<ImageRecord>>>,
    references: Arc<BTreeMap<Reference, Digest>>,
    snapshots: Arc<HashMap<ContainerId, Arc<Snapshot>>>,
    kinds: Arc<HashMap<String, Arc<Kind>>>,
}

impl View {
    /// The size of a stored blob in bytes.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).copied()
    }

    /// All blobs and their sizes in bytes, in no order.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.blobs.iter().map(|(digest, size)| (digest, *size))
    }

    /// One layer.
    pub fn layer(&self, id: &LayerId) -> Option<Arc<LayerRecord>> {
        self.layers.get(id).cloned()
    }

    /// All layers, in no order.
    pub fn layers(&self) -> impl Iterator<Item = &Arc<LayerRecord>> {
        self.layers.values()
    }

    /// One image by its full id.
    pub fn image(&self, id: &Digest) -> Option<Arc<ImageRecord>> {
        self.images.get(id).cloned()
    }

    /// All images by ascending id.
    pub fn images(&self) -> impl Iterator<Item = &Arc<ImageRecord>> {
        self.images.values()
    }

    /// The images whose id begins with these bytes' hexadecimal `prefix`, by ascending id.
    pub(crate) fn images_by_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ImageRecord>> {
        let mut lowest = prefix.to_owned();
        lowest.extend(std::iter::repeat_n('0', 64usize.saturating_sub(prefix.len())));
        let from = Digest::from_hex(&lowest).ok();
        from.into_iter()
            .flat_map(move |from| self.images.range(from..))
            .take_while(move |(id, _)| id.hex().starts_with(prefix))
            .map(|(_, image)| image)
    }

    /// What a tag or a `repository@digest` points to.
    pub fn reference(&self, reference: &Reference) -> Option<Digest> {
        self.references.get(reference).copied()
    }

    /// All references and the ids they point to, in order.
    pub fn references(&self) -> impl Iterator<Item = (&Reference, &Digest)> {
        self.references.iter()
    }

    /// The snapshot of a container.
    pub fn snapshot(&self, id: &ContainerId) -> Option<Arc<Snapshot>> {
        self.snapshots.get(id).cloned()
    }

    /// All snapshots, in no order.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.snapshots.values()
    }

    /// One record.
    pub fn record(&self, kind: &str, id: &str) -> Option<Arc<Record>> {
        self.kinds.get(kind)?.by_id.get(id).cloned()
    }

    /// The record of a kind that has this name.
    pub fn record_by_name(&self, kind: &str, name: &str) -> Option<Arc<Record>> {
        let kind = self.kinds.get(kind)?;
        kind.by_id.get(kind.by_name.get(name)?).cloned()
    }

    /// All records of a kind by ascending id.
    pub fn records(&self, kind: &str) -> Vec<Arc<Record>> {
        self.kinds.get(kind).map(|kind| kind.by_id.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn insert_blob(&mut self, digest: Digest, size: u64) {
        Arc::make_mut(&mut self.blobs).insert(digest, size);
    }

    pub(crate) fn remove_blob(&mut self, digest: &Digest) {
        Arc::make_mut(&mut self.blobs).remove(digest);
    }

    /// What an image needs and is not there, because it was damaged and put aside. An image that lacks a layer cannot
    /// be run; one that lacks a blob cannot be pushed or saved. Pulling it again brings in what is missing.
    pub fn lacks(&self, image: &ImageRecord) -> Vec<Content> {
        let blobs = [image.id]
            .into_iter()
            .chain(image.manifest.iter().map(|manifest| manifest.digest))
            .chain(image.layers.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest)))
            .filter(|digest| self.blob_size(digest).is_none())
            .map(Content::Blob);
        let layers = image.layers.iter().map(|layer| layer.layer);
        let mut lacking: Vec<Content> =
            blobs.chain(layers.filter(|id| self.layer(id).is_none()).map(Content::Layer)).collect();
        lacking.sort_unstable();
        lacking.dedup();
        lacking
    }

    /// Adds a layer; images that lacked it are as large as they were again.
    pub(crate) fn insert_layer(&mut self, layer: LayerRecord) {
        let id = layer.id;
        if Arc::make_mut(&mut self.layers).insert(id, Arc::new(layer)).is_none() {
            self.measure_images_with(&id);
        }
    }

    fn measure_images_with(&mut self, id: &LayerId) {
        let with = |image: &&Arc<ImageRecord>| image.layers.iter().any(|layer| layer.layer == *id);
        let changed: Vec<ImageRecord> = self.images.values().filter(with).map(|i| (**i).clone()).collect();
        for mut image in changed {
            let layers: HashSet<LayerId> = image.layers.iter().map(|layer| layer.layer).collect();
            image.size = layers.iter().filter_map(|id| Some(self.layer(id)?.bytes)).sum();
            self.insert_image(image);
        }
    }

    pub(crate) fn remove_layer(&mut self, id: &LayerId) {
        if Arc::make_mut(&mut self.layers).remove(id).is_some() {
            self.measure_images_with(id);
        }
    }

    pub(crate) fn insert_image(&mut self, image: ImageRecord) {
        Arc::make_mut(&mut self.images).insert(image.id, Arc::new(image));
    }

    /// Takes an image away together with all references to it.
    pub(crate) fn remove_image(&mut self, id: &Digest) {
        Arc::make_mut(&mut self.images).remove(id);
        Arc::make_mut(&mut self.references).retain(|_, image| image != id);
    }

    /// Points a reference to an image and shows it in the images' own lists.
    pub(crate) fn set_reference(&mut self, reference: Reference, image: Digest) -> Option<Digest> {
        let displaced =
            Arc::make_mut(&mut self.references).insert(reference, image).filter(|old| *old != image);
        if let Some(old) = &displaced {
            self.refresh_references(old);
        }
        self.refresh_references(&image);
        displaced
    }

    pub(crate) fn remove_reference(&mut self, reference: &Reference) {
        if let Some(image) = Arc::make_mut(&mut self.references).remove(reference) {
            self.refresh_references(&image);
        }
    }

    fn refresh_references(&mut self, id: &Digest) {
        let Some(image) = self.images.get(id) else { return };
        let mut image = ImageRecord::clone(image);
        let all =
            || self.references.iter().filter(|(_, to)| *to == id).map(|(reference, _)| reference.clone());
        image.references = all().filter(|r| r.digest().is_none()).collect();
        image.repo_digests = all().filter(|r| r.digest().is_some()).collect();
        Arc::make_mut(&mut self.images).insert(*id, Arc::new(image));
    }

    pub(crate) fn insert_snapshot(&mut self, snapshot: Snapshot) {
        Arc::make_mut(&mut self.snapshots).insert(snapshot.id.clone(), Arc::new(snapshot));
    }

    pub(crate) fn remove_snapshot(&mut self, id: &ContainerId) {
        Arc::make_mut(&mut self.snapshots).remove(id);
    }

    pub(crate) fn insert_record(&mut self, record: Record) {
        let kind = Arc::make_mut(&mut self.kinds).entry(record.kind.clone()).or_default();
        let kind = Arc::make_mut(kind);
        if let Some(old) = kind.by_id.get(&record.id).and_then(|old| old.name.clone()) {
            kind.by_name.remove(&old);
        }
        if let Some(name) = &record.name {
            kind.by_name.insert(name.clone(), record.id.clone());
        }
        kind.by_id.insert(record.id.clone(), Arc::new(record));
    }

    pub(crate) fn remove_record(&mut self, kind: &str, id: &str) {
        let Some(kind) = Arc::make_mut(&mut self.kinds).get_mut(kind) else { return };
        let kind = Arc::make_mut(kind);
        if let Some(name) = kind.by_id.remove(id).and_then(|old| old.name.clone()) {
            kind.by_name.remove(&name);
        }
    }
}
