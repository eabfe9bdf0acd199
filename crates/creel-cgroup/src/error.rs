//! What can go wrong with control groups, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use creel_types::{Classify, ErrorKind};

use crate::files;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with control groups.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No control group hierarchy is mounted.
    #[error(
        "no control group hierarchy is mounted (nothing of type cgroup or cgroup2 in /proc/self/mountinfo); \
         mount one: mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoHierarchy,
    /// A file of the kernel's does not have the form that its documentation promises.
    #[error("cannot understand {what}: {text:?}")]
    Parse {
        /// The file, and where in it.
        what: String,
        /// The text in question, shortened.
        text: String,
    },
    /// The path of a group is not acceptable.
    #[error("control group path {path:?} {reason}; it must be absolute and without . or .. components")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A limit needs a controller that no hierarchy offers.
    #[error("cannot set {what}: the {controller} controller is not available here (see /proc/cgroups)")]
    NoController {
        /// The limit.
        what: String,
        /// The controller's name.
        controller: &'static str,
    },
    /// The place that was asked for is not this user's.
    #[error("unable to apply cgroup configuration: cannot make {}: permission denied; without linux.cgroupsPath it would be tried where this user may", .dir.display())]
    Denied {
        /// The directory that may not be made.
        dir: PathBuf,
    },
    /// An ordinary user asks for a limit and may not make the group that would have it.
    #[error(
        "cannot set {controller} limit: container could not join or create cgroup for {what} (no permission for {}): \
         rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        .skipped.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotDelegated {
        /// The limit.
        what: String,
        /// The controller's name.
        controller: &'static str,
        /// The directories that may not be made.
        skipped: Vec<PathBuf>,
    },
    /// A process cannot be put into a group.
    #[error("error adding pid {} to cgroups: {}: {}", .pid.map_or("of the new process".to_owned(), |pid| pid.to_string()), .file.display(), lower(.cause))]
    Join {
        /// The process, if it exists already.
        pid: Option<i32>,
        /// The group's door.
        file: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The kernel lacks the file behind a limit or a function.
    #[error("this kernel does not offer {what} ({file}: no such file or directory)")]
    Unsupported {
        /// The limit or function.
        what: String,
        /// The file.
        file: String,
    },
    /// Limits that contradict each other or are out of range.
    #[error("{0}")]
    Invalid(String),
    /// There is a group with processes in it already.
    #[error(
        "container's cgroup is not empty: {} has processes in it (one is {pid}); end them or choose another path", .dir.display()
    )]
    Occupied {
        /// The group's directory.
        dir: PathBuf,
        /// One of the processes.
        pid: i32,
    },
    /// There is a group already, and it is frozen.
    #[error(
        "container's cgroup unexpectedly frozen: {}; thaw it, remove it or choose another path", .dir.display()
    )]
    Frozen {
        /// The group's directory.
        dir: PathBuf,
    },
    /// There is no such group.
    #[error("control group {path} does not exist")]
    NotFound {
        /// Its path in the hierarchies.
        path: String,
    },
    /// Somebody removes the group as fast as it is made.
    #[error(
        "control group {} is removed by somebody as often as it is made; end that program or choose another path",
        .dir.display()
    )]
    Vanished {
        /// The group's directory in the hierarchy where that happened.
        dir: PathBuf,
    },
    /// A step of a plan failed.
    #[error("control group step failed: {step}: {cause}{hint}")]
    Step {
        /// The step, as [`crate::Step`] prints itself.
        step: String,
        /// The kernel's answer.
        cause: io::Error,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// Reading or writing a file failed.
    #[error("cannot {action} {}: {cause}", .path.display())]
    File {
        /// Read, write, open, remove, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The kernel refused the eBPF device program.
    #[error("cannot {action} the device program of {}: {cause}{log}", .dir.display())]
    Program {
        /// Load, attach, find.
        action: &'static str,
        /// The group's directory.
        dir: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
        /// What its verifier said, after a line break; or nothing.
        log: String,
    },
    /// The group did not reach a state in time.
    #[error("control group {} did not become {state} within {} ms", .dir.display(), .waited.as_millis())]
    Timeout {
        /// The group's directory.
        dir: PathBuf,
        /// Frozen, thawed, empty.
        state: &'static str,
        /// How long was waited.
        waited: std::time::Duration,
    },
    /// systemd cannot be reached, or refuses.
    #[error("cannot {what}: {why}{}", if .name.is_empty() { String::new() } else { format!(" ({name})") })]
    Systemd {
        /// What was to be done.
        what: String,
        /// The D-Bus name of its error; empty if it is none of systemd's.
        name: String,
        /// What it says.
        why: String,
    },
    /// Several directories could not be removed.
    #[error("cannot remove control group {path}: {}", .failures.join("; "))]
    Remove {
        /// Its path in the hierarchies.
        path: String,
        /// Each failure with its directory.
        failures: Vec<String>,
    },
}

/// The kernel's words as C programs and runc have them, without a capital.
fn lower(cause: &io::Error) -> String {
    let text = cause.to_string();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path, cause: io::Error) -> Error {
        Error::File { action, path: path.to_path_buf(), cause }
    }

    pub(crate) fn parse(what: impl Into<String>, text: &str) -> Error {
        Error::Parse { what: what.into(), text: text.chars().take(80).collect() }
    }

    /// Whether the group, or a part of it, was not there (any more): somebody may have removed it while it was empty, as
    /// systemd does. [`crate::Cgroup::admit`] makes it again.
    pub fn is_vanished(&self) -> bool {
        match self {
            Error::NotFound { .. } | Error::Vanished { .. } => true,
            // ENODEV can be about a device that a limit names.
            Error::Step { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
            Error::File { cause, .. } | Error::Join { cause, .. } | Error::Program { cause, .. } => {
                files::gone(cause)
            }
            _ => false,
        }
    }

    /// The kernel's error number behind this failure, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Step { cause, .. }
            | Error::File { cause, .. }
            | Error::Join { cause, .. }
            | Error::Program { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NoHierarchy | Error::NoController { .. } | Error::Unsupported { .. } => {
                ErrorKind::Unsupported
            }
            Error::Vanished { .. } => ErrorKind::Conflict,
            Error::Path { .. } | Error::Invalid(_) | Error::Denied { .. } | Error::NotDelegated { .. } => {
                ErrorKind::InvalidArgument
            }
            Error::Occupied { .. } | Error::Frozen { .. } => ErrorKind::Conflict,
            Error::NotFound { .. } => ErrorKind::NotFound,
            // EBUSY, ENODEV, EINVAL, ERANGE: the kernel says "no" to a value, not to us.
            Error::Step { cause, .. } => match cause.raw_os_error() {
                Some(16 | 19 | 22 | 34) => ErrorKind::InvalidArgument,
                _ => ErrorKind::Internal,
            },
            Error::File { cause, .. } if cause.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Error::Systemd { .. }
            | Error::Parse { .. }
            | Error::File { .. }
            | Error::Join { .. }
            | Error::Program { .. }
            | Error::Timeout { .. }
            | Error::Remove { .. } => ErrorKind::Internal,
        }
    }
}
