//! The durable store: blobs, layers, snapshots, images, records, leases and garbage collection.
//!
//! What it must not know: registries, HTTP, tokio, what a container record means. Its rules:
//!
//! 1. *Durable blob first, row second.* Content is written to `tmp/`, verified, synced and renamed to its place
//!    before a row names it. A crash at any point leaves a thing whole or absent.
//! 2. *One writer.* All rows are written by one thread; writes that arrive together share one transaction and
//!    one fsync. Reads come from an immutable [`View`] in memory and never wait for the disk.
//! 3. *One bad record is quarantined*, it never stops [`Store::open`].
//!
//! Begin reading at [`Store`], then `db` for the schema, then `gc` for what keeps what alive.

mod aside;
mod blobs;
mod claims;
mod commit;
mod db;
mod driver;
mod erofs;
mod error;
mod files;
mod flush;
mod gc;
mod hashing;
mod images;
mod layers;
mod lease;
mod partial;
mod paths;
mod rebuild;
mod records;
mod recover;
mod schema;
mod snapshots;
mod store;
mod usage;
mod verify;
mod view;
mod volumes;

#[cfg(test)]
mod tests;

pub use blobs::BlobWriter;
pub use claims::{Claim, Claiming};
pub use commit::Committed;
pub use creel_layer::Limits;
pub use driver::{Driver, LayerForm, RootForm};
pub use error::{Error, Result};
pub use gc::{Deleted, GcReport};
pub use images::{ImageRecord, LayerRef, NewImage, Untagged};
pub use layers::{ApplyOptions, LayerId, LayerRecord, chain_ids};
pub use lease::Lease;
pub use partial::PartialBlob;
pub use paths::Paths;
pub use records::Record;
pub use snapshots::{Root, Snapshot};
pub use store::{OpenReport, Store};
pub use usage::{DiskUse, Use};
pub use verify::{Checking, Damage, Fate, Incomplete, VerifyOptions, VerifyReport};
pub use view::{Content, View};
pub use volumes::StoredVolume;

/// A named step at which a test may kill this process.
#[cfg(test)]
pub(crate) fn failpoint(step: &str) {
    tests::failpoint(step);
}

/// A named step at which a test may kill this process; nothing outside tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn failpoint(_step: &str) {}
