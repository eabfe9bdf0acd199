//! Leases: what a running pull, load or build has looked at or stored is not collected before it is done.
//!
//! A lease lives in memory only. The root directory's lock makes this process the only one that can hold a
//! lease, so a row would tell the next process nothing but that somebody has died. (It would also cost an fsync
//! each.) While a lease is open, everything that is stored or asked for and found is noted in it, in every open
//! one, whoever asked: nobody can forget to name what he relies on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_types::Digest;

use crate::layers::LayerId;
use crate::store::Store;

#[derive(Debug, Default)]
struct Held {
    blobs: HashSet<Digest>,
    layers: HashSet<LayerId>,
}

/// The open leases of one store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: Mutex<(u64, HashMap<u64, Held>)>,
}

impl Leases {
    fn open(&self) -> MutexGuard<'_, (u64, HashMap<u64, Held>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch_blob(&self, digest: Digest) {
        for held in self.open().1.values_mut() {
            held.blobs.insert(digest);
        }
    }

    pub(crate) fn touch_layer(&self, layer: LayerId) {
        for held in self.open().1.values_mut() {
            held.layers.insert(layer);
        }
    }

    /// Adds what all open leases hold.
    pub(crate) fn collect(&self, blobs: &mut HashSet<Digest>, layers: &mut HashSet<LayerId>) {
        for held in self.open().1.values() {
            blobs.extend(&held.blobs);
            layers.extend(&held.layers);
        }
    }
}

/// Keeps what is stored or found from now on until it is dropped, so that [`Store::gc`] cannot take away what a
/// pull has found and not yet made an image of.
#[derive(Debug)]
pub struct Lease {
    store: Arc<Store>,
    id: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.leases.open().1.remove(&self.id);
    }
}

impl Store {
    /// Opens a lease; dropping it ends it.
    pub fn lease(self: &Arc<Self>) -> Lease {
        let mut open = self.leases.open();
        open.0 += 1;
        let id = open.0;
        open.1.insert(id, Held::default());
        drop(open);
        Lease { store: self.clone(), id }
    }
}
