//! Layers: tar streams to files and back, overlay's whiteouts, differences between trees.
//!
//! Layer 1. Knows the tar format ([`tar`]), how OCI puts a change set into it (OCI image-spec, `layer.md`) and how
//! overlayfs keeps the same change set in a directory (kernel, `Documentation/filesystems/overlayfs.rst`). Knows no
//! images, no store and no registry. Everything is synchronous and works through directory descriptors: a name that
//! came out of an archive or a container is resolved by `openat2` below a root and never as a path of the host.
//!
//! Where to begin: [`unpack()`] for what happens to a layer, `unpack/apply.rs` for one entry of it.

mod changes;
mod clone;
mod compare;
mod compose;
mod compress;
pub mod erofs;
mod error;
mod extract;
mod fs;
mod gzip;
mod hashing;
mod init;
mod name;
mod pack;
mod resolve;
pub mod tar;
mod unpack;

use std::os::fd::OwnedFd;
use std::path::Path;

pub use changes::{Change, ChangeKind, changes, changes_of_copy};
pub use compare::{Differences, differences};
pub use compose::{Composed, compose};
pub use compress::{Compression, decompress};
pub use error::{Error, Result};
pub use extract::{ExtractOptions, Extracted, extract};
pub use hashing::{HashingReader, HashingWriter};
pub use init::make_init_layer;
pub use pack::{
    EXPAND_HOLES_UP_TO, Naming, PackOptions, Packed, PathStat, pack_copy, pack_diff, pack_tree, stat,
};
pub use unpack::{Limits, UnpackOptions, Unpacked, unpack, unpack_buffered};

/// Opens the root of a layer as it is kept: a directory, or an EROFS image (`*.erofs`, see [`creel_sys::erofs`]), whose
/// mount is attached nowhere and ends with the descriptor. All functions of this crate that take layers take either.
///
/// # Errors
/// It cannot be opened or mounted.
pub fn open_layer(path: &Path) -> Result<OwnedFd> {
    fs::open_layer(path)
}
