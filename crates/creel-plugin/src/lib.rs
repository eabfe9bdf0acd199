//! Docker's plugin protocol, version 1 (docs.docker.com, "Docker Plugin API" and "Use Docker Engine plugins"): JSON over
//! HTTP on sockets that plugins leave in known directories.
//!
//! Layer 2. What it must not know: volumes as the engine keeps them, containers, the database. Begin reading at
//! [`Plugins`], which finds plugins; [`VolumeDriver`] speaks to one.

mod call;
mod discover;
mod volume;

pub use discover::{Address, Plugins, address};
pub use volume::{PluginVolume, VolumeDriver};

use creel_types::{Classify, ErrorKind};

/// Why a plugin could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no plugin of this name.
    #[error("plugin \"{0}\" not found")]
    NotFound(String),
    /// It is there, and is no volume driver.
    #[error("plugin \"{0}\" does not implement VolumeDriver")]
    NotADriver(String),
    /// What says where it is cannot be used.
    #[error("plugin \"{name}\": {why}")]
    Address {
        /// The plugin.
        name: String,
        /// Why, and what is wanted.
        why: String,
    },
    /// It did not answer, or not in time, or not in the protocol's words.
    #[error("plugin \"{name}\" does not answer {method}: {why}")]
    Silent {
        /// The plugin.
        name: String,
        /// What it was asked, like `VolumeDriver.Mount`.
        method: &'static str,
        /// What happened instead.
        why: String,
    },
    /// It answered that it failed.
    #[error("{method}: {why}")]
    Refused {
        /// What it was asked.
        method: &'static str,
        /// Its own words.
        why: String,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound(_) => ErrorKind::NotFound,
            Error::NotADriver(_) | Error::Address { .. } => ErrorKind::InvalidArgument,
            Error::Silent { .. } => ErrorKind::Unavailable,
            Error::Refused { .. } => ErrorKind::Internal,
        }
    }
}
