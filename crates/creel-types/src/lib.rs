//! The words of the house: ids, digests, references, platforms, OCI documents and error kinds.
//!
//! Layer 0. Nothing here performs I/O, knows a protocol or keeps state; every type is a value that can be
//! compared, printed and parsed. Where a format is somebody else's, the type names its specification.

pub mod digest;
pub mod error;
pub mod id;
pub mod image;
pub mod platform;
pub mod reference;
pub mod spec;
pub mod stream;
mod strict;

pub use digest::Digest;
pub use error::{Classify, ErrorKind};
pub use id::{ContainerId, ExecId};
pub use platform::Platform;
pub use reference::Reference;
