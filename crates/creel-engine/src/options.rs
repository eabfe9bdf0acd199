//! What callers may wish for, use case by use case.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use creel_distribution::RegistryConfig;
use creel_store::Driver;
use creel_types::{Platform, Reference};
use creel_wire::container::Config;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::filters::Filters;

/// Bytes out of the engine. The sender stops after an error.
pub type ByteStream = mpsc::Receiver<Result<Bytes, Error>>;
/// Bytes into the engine.
pub type ByteSource = mpsc::Receiver<std::io::Result<Bytes>>;
/// Steps and how long each took, in their order.
pub type Timings = Vec<(String, Duration)>;

/// Where the engine keeps things and what it runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Durable state: images, layers, containers.
    pub root: PathBuf,
    /// State of what is running; lost at a reboot.
    pub run_dir: PathBuf,
    /// Path in the cgroup hierarchies below which every container gets its group, as `/creel`.
    pub cgroup_parent: String,
    /// The creel binary, for shims, `--init` and helpers.
    pub executable: PathBuf,
    /// What the user set about registries: insecure ones, mirrors, certificates.
    pub registries: RegistryConfig,
    /// The storage driver that is wanted; `None` for overlay where that works, and copies where not.
    pub driver: Option<Driver>,
    /// Where plugins leave their sockets; Docker's directories if empty.
    pub plugin_dirs: Vec<PathBuf>,
    /// The most bytes that an image's layer may have uncompressed; 0 for no limit, `None` for the default (256 GiB).
    pub max_layer_bytes: Option<u64>,
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
    /// Remove a link instead (refused: links are not there).
    pub link: bool,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it does not run; at once if it does not.
    #[default]
    NotRunning,
    /// Its next end, even if it does not run now.
    NextExit,
    /// Its removal.
    Removed,
}

/// Which containers to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The latest so many, whatever their state.
    pub limit: Option<usize>,
    /// Whether sizes are computed (slow).
    pub size: bool,
    /// Filters.
    pub filters: Filters,
}

/// What of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only lines up to this time.
    pub until: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// A log as a stream.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal: then the bytes are not framed.
    pub tty: bool,
    /// The bytes, in Docker's frames unless `tty`.
    pub bytes: ByteStream,
}

/// What to attach to.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// The streams as they are from now on.
    pub stream: bool,
    /// What was written before, out of the log.
    pub logs: bool,
    /// Keys that detach, like `ctrl-p,ctrl-q` (the default).
    pub detach_keys: Option<String>,
}

/// How an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachEnd {
    /// By the detach keys.
    Detached,
    /// The output ended and all of it was delivered.
    Ended,
    /// The client hung up.
    ClientGone,
}

/// How an archive is unpacked into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// Fail where a directory would replace a file or the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's user and group ids. (Docker's `copyUIDGID`.)
    pub copy_uid_gid: bool,
}

/// How a container becomes an image.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Its name.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// What for.
    pub message: Option<String>,
    /// Whether the container is frozen meanwhile.
    pub pause: bool,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Configuration that overrides the container's where it says something.
    pub config: Option<Config>,
}

/// How a tarball becomes an image.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Its name.
    pub reference: Option<Reference>,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// What for.
    pub message: Option<String>,
    /// The platform it is for; the host's if absent.
    pub platform: Option<Platform>,
}
