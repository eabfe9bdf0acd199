//! The use cases: images, containers, exec, logs, events, and reconciliation after a restart.

mod engine;
mod error;
mod filters;
mod options;

pub use engine::{Attachment, Auth, Engine, ExecSession, WaitHandle};
pub use error::{Error, Result};
pub use filters::Filters;
pub use options::{
    AttachEnd, AttachOptions, ByteSource, ByteStream, CommitOptions, EngineConfig, ImportOptions,
    ListOptions, LogOptions, LogStream, PutOptions, RemoveOptions, Timings, WaitCondition,
};

/// The `main` of a helper process; filled in below.
pub fn rootfs_helper_main(_args: impl Iterator<Item = std::ffi::OsString>) -> i32 {
    1
}
