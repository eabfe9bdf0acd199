//! The Docker Engine API: routes, versions and streams over the engine.
//!
//! Layer 4. This crate translates: requests into calls of [`creel_engine::Engine`], results into documents of
//! [`creel_wire`], errors into statuses. It decides nothing about containers. It knows no other adapter.
//!
//! Where to begin: [`router`] lists every route with the function that answers it.

mod body;
mod containers;
mod error;
mod execs;
mod files;
mod hijack;
mod images;
mod params;
mod router;
mod server;
mod system;
mod volumes;

pub use error::ApiError;
pub use router::router;
pub use server::serve;
