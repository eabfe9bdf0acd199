//! The Docker Engine API's JSON documents (version 1.51), as types shared by server and clients.
//!
//! Layer 0: plain data, no HTTP. Field names and meanings are those of Docker's published API reference; a field
//! that Docker may send as `null` reads as empty. Where Docker distinguishes absent from empty, the field is an
//! `Option`. A doc comment names units and what the name does not tell.

pub mod container;
pub mod exec;
pub mod host;
pub mod image;
pub mod stats;
pub mod system;
pub mod verify;
pub mod volume;

pub use creel_types::stream;

/// The newest API version that creel speaks.
pub const API_VERSION: &str = "1.51";
/// The oldest API version that creel accepts.
pub const MIN_API_VERSION: &str = "1.24";

/// The default socket of the daemon.
pub const DEFAULT_SOCKET: &str = "/run/creel/creel.sock";

/// Reads `null` as the type's default.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares structs of the API: PascalCase names, everything defaulted, `null` read as empty.
macro_rules! documents {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name { $($(#[$fmeta])* #[serde(deserialize_with = "crate::nullable")] pub $field : $ty,)* }
    )*};
}
pub(crate) use documents;
