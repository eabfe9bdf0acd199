//! A layer as an EROFS image that points into the layer's own archive, so that it is mounted without being unpacked.
//!
//! [`index()`] reads an archive once and keeps what its headers say as a [`Tree`]; [`Tree::write`] makes the image: names,
//! attributes, and for each file the place of its content in the archive, which the kernel takes as a second device. Both
//! have blocks of 512 bytes, the tar format's own (kernel, `Documentation/filesystems/erofs.rst`, "chunk-based files";
//! the format is told in `write`).
//!
//! The image says the same as [`unpack()`](crate::unpack()) would make of the archive, or there is none: whatever is out of
//! the ordinary (parents that the layer lacks, sparse files, access lists, …) is left to that.

mod build;
mod tree;
mod write;

pub use build::{Indexed, Tee, Unfit, index};
pub use tree::Tree;
pub use write::root_of;
