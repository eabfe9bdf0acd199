//! What a shim is told before it starts: `shim.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use creel_runtime::Rootfs;

/// The content of `shim.json`: everything about one container that its OCI specification does not say.
///
/// Resources are in `config.json` (`linux.resources`); whether there is a terminal is said by both, and this one
/// decides how the streams are wired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// Directory that holds `config.json`; usually the run directory itself.
    pub bundle: PathBuf,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Path of the container's cgroup below each hierarchy's root, as `/creel/<id>`; `None` joins none.
    #[serde(default)]
    pub cgroup_path: Option<String>,
    /// The json-file log; `None` keeps no log (Docker's driver `none`).
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Size in bytes at which the log is rotated; `None` never rotates.
    #[serde(default)]
    pub log_max_size: Option<u64>,
    /// How many log files are kept, the current one included; 1 truncates in place. `None` means 1, as in Docker.
    #[serde(default)]
    pub log_max_files: Option<u32>,
    /// Whether stdin is a pipe (Docker's `OpenStdin`); otherwise it reads as empty.
    #[serde(default)]
    pub open_stdin: bool,
    /// Whether stdin closes when the first attached stdin has ended (Docker's `StdinOnce`).
    #[serde(default)]
    pub stdin_once: bool,
    /// Whether the container gets a pseudo-terminal instead of pipes.
    #[serde(default)]
    pub terminal: bool,
    /// Mounts that the shim keeps open as long as it lives, by names of the daemon's: so that another container can get a
    /// copy of what exists only as long as somebody has it mounted. The n-th is descriptor [`ShimConfig::HELD`] + n.
    #[serde(default)]
    pub held: Vec<Held>,
    /// Path of the creel executable, to run as PID 1 before the program (`--init`).
    #[serde(default)]
    pub init: Option<PathBuf>,
}

impl ShimConfig {
    /// The first of the descriptors that [`ShimConfig::held`] is about.
    pub const HELD: i32 = 200;
}

/// A mount to be kept open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What it is, for whoever looks for it.
    pub name: String,
    /// The process that has it open when the container is created.
    pub pid: i32,
    /// Its descriptor there.
    pub fd: i32,
}
