//! What takes how much of the disk, and what of it a prune would free. Shared content is counted once.

use std::collections::{HashMap, HashSet};

use creel_types::Digest;

use crate::aside;
use crate::gc::Marked;
use crate::layers::LayerId;
use crate::store::Store;
use crate::view::View;

/// A number of things and the room that they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// How many there are.
    pub count: u64,
    /// How many of them are in use.
    pub active: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of those that are not in use.
    pub reclaimable: u64,
}

impl Use {
    pub(crate) fn add(&mut self, bytes: u64, active: bool) {
        self.count += 1;
        self.bytes += bytes;
        if active {
            self.active += 1;
        } else {
            self.reclaimable += bytes;
        }
    }
}

/// What [`Store::disk_use`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Layers: the bytes of their files' contents; of one that is an EROFS image those of image and archive.
    pub layers: Use,
    /// Blobs: layers' archives, configurations, manifests and indexes.
    pub blobs: Use,
    /// What interrupted downloads left; in use while somebody goes on with it.
    pub partials: Use,
    /// Damaged content that was put aside.
    pub quarantine: Use,
}

impl Store {
    /// What interrupted downloads left.
    pub fn partials(&self) -> Use {
        self.measure_partials()
    }

    /// How many damaged things lie in the quarantine.
    pub fn quarantined(&self) -> u64 {
        std::fs::read_dir(self.paths.quarantine()).map_or(0, |entries| entries.count() as u64)
    }

    /// Measures what is stored. In use is what snapshots, open leases and the images `used` keep; the rest goes when
    /// all other images are deleted and [`Store::gc`] has run.
    pub fn disk_use(&self, used: &HashSet<Digest>) -> DiskUse {
        let view = self.view();
        let mut kept = Marked::by(&view, |image| used.contains(&image.id));
        self.leases.collect(&mut kept.blobs, &mut kept.layers);
        let mut found = DiskUse {
            partials: self.measure_partials(),
            quarantine: aside::measure(&self.paths),
            ..DiskUse::default()
        };
        for layer in view.layers() {
            found.layers.add(layer.stored(), kept.layers.contains(&layer.id));
        }
        for (digest, bytes) in view.blobs() {
            found.blobs.add(bytes, kept.blobs.contains(digest));
        }
        found
    }
}

impl View {
    /// How many bytes of each image's layers other images have as well.
    pub fn shared_sizes(&self) -> HashMap<Digest, u64> {
        let mut users: HashMap<LayerId, u32> = HashMap::new();
        let distinct = |image: &crate::ImageRecord| -> HashSet<LayerId> {
            image.layers.iter().map(|layer| layer.layer).collect()
        };
        for image in self.images() {
            for layer in distinct(image) {
                *users.entry(layer).or_default() += 1;
            }
        }
        let shared = |image: &crate::ImageRecord| {
            let layers = distinct(image).into_iter().filter(|layer| users.get(layer).is_some_and(|n| *n > 1));
            layers.filter_map(|layer| Some(self.layer(&layer)?.bytes)).sum()
        };
        self.images().map(|image| (image.id, shared(image))).collect()
    }
}
