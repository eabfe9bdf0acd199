//! What a shim leaves in its directory for whoever comes later: `state.json` and `exit.json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The content of `exit.json`: how the container ended. Written once, by rename, after all output was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit status of the container's first process, or 128 + signal; 126 and 127 when the program could not be
    /// executed or found, 125 and 128 for other failures to start.
    pub code: i32,
    /// The signal that ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel's OOM killer ended a process of the container.
    #[serde(default)]
    pub oom_killed: bool,
    /// When the first process was found to have ended.
    pub finished_at: Timestamp,
    /// Why the container never ran, if it did not.
    #[serde(default)]
    pub error: Option<String>,
}

/// The content of `state.json`: written by rename when the program has been executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// The first process, in the shim's PID namespace.
    pub pid: i32,
    /// When its program was executed.
    pub started_at: Timestamp,
    /// The shim itself.
    pub shim_pid: i32,
    /// The shim's protocol version.
    pub version: u32,
}
