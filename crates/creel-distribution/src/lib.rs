//! Moves images: registry pull and push, docker-archive and oci-archive.
//!
//! Layer 2. Knows registries (OCI distribution-spec 1.1) and archives (OCI image-layout, `docker save`), and fills
//! and reads the store. Must not know: containers, the engine, who its caller is.
//!
//! Where to begin: [`pull()`] for the order of things; `client` for how one request is sent, `layers` for how many
//! layers come in and are unpacked at once; [`load`] for archives.
//!
//! What a stranger sends is bounded everywhere: documents by 4 MiB, blobs by the size that their descriptor
//! promises, redirects and nesting by a count. Credentials go to the registry's own origin and to the token server
//! that it names, both over TLS unless the host is this machine or was listed as insecure.

mod archive;
mod auth;
pub mod change;
mod client;
mod config;
mod document;
mod endpoint;
mod error;
mod fetch;
mod images;
mod import;
mod layers;
mod login;
mod progress;
mod pull;
mod push;
mod retry;
mod transport;
mod trust;
mod upload;
mod words;

pub use archive::{LoadOptions, Loaded, Saving, load, save};
pub use auth::{Auth, AuthError};
pub use client::RegistryOptions;
pub use config::{Mirror, MirrorError, RegistryConfig};
pub use error::{Error, Result};
pub use import::{ImportOptions, import};
pub use login::login;
pub use progress::{Progress, ProgressEvent, PushAux, Recorded, Silent};
pub use pull::{PullOptions, Pulled, pull};
pub use push::{PushOptions, Pushed, push};
pub use retry::RetryPolicy;
pub use trust::{Policy, PolicyError, PolicyFile};
