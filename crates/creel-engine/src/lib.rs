//! The use cases: images, containers, exec, logs, events, and reconciliation after a restart.
//!
//! Layer 3. What it must not know: HTTP, the command line, who its caller is. Begin reading at [`Engine`], a thin
//! façade; then `containers::start` for how a container comes to run, `containers::ending` for how its end is learnt,
//! and `reconcile` for what a new daemon does about what an old one left. `spec` makes an OCI configuration out of a
//! container's record and is pure, as are `merge`, `containers::host` and `containers::mounts`.

mod containers;
mod core;
mod driver;
mod engine;
mod error;
mod events;
mod execs;
mod filters;
mod helper;
mod images;
mod logs;
mod merge;
mod names;
mod options;
mod overlay;
mod program;
mod reconcile;
mod record;
mod session;
mod shim;
mod spec;
mod system;
mod times;
mod trees;
mod volumes;

pub use containers::attach::Attachment;
pub use containers::wait::WaitHandle;
pub use creel_distribution::{Auth, Mirror, MirrorError, PolicyFile, RegistryConfig};
pub use creel_store::Driver;
pub use engine::Engine;
pub use error::{Error, Result};
pub use execs::ExecSession;
pub use filters::Filters;
pub use helper::rootfs_helper_main;
pub use options::{
    AttachEnd, AttachOptions, ByteSource, ByteStream, CommitOptions, EngineConfig, ImportOptions,
    ListOptions, LogOptions, LogStream, PutOptions, RemoveOptions, Timings, WaitCondition,
};
