//! What a verb can fail with. Callers written for runc look for pieces of these texts, so the wording of the states is
//! runc's where it has one.

use std::path::Path;

use creel_runtime::error::plain;
use creel_types::{Classify, ErrorKind};

/// A failure of a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong; the text says what, and help was printed.
    #[error("{0}")]
    Usage(String),
    /// There is no such verb. The exit status is 3 then, as runc's.
    #[error("No help topic for '{0}'")]
    NoVerb(String),
    /// No id was given.
    #[error("container id cannot be empty")]
    EmptyId,
    /// The id has characters that are not allowed, or could mean another directory; the text says which.
    #[error("invalid container ID format: {0} in the container ID")]
    InvalidId(String),
    /// `create` of an id that is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// The id is not known.
    #[error("container does not exist")]
    NotExist,
    /// The verb needs a container whose first process lives.
    #[error("container not running")]
    NotRunning,
    /// `resume` of a container that is not paused.
    #[error("container not paused")]
    NotPaused,
    /// The container is in a state that does not allow the verb; the text says which.
    #[error("{0}")]
    State(String),
    /// Something in the arguments or the configuration cannot be honoured.
    #[error("{0}")]
    Invalid(String),
    /// A system call failed; the text is `call path: reason` as Go programs write it.
    #[error("{0}")]
    System(String, ErrorKind),
    /// The runtime library refused or failed.
    #[error("{0}")]
    Runtime(creel_runtime::Error),
    /// The control group could not be made, changed or removed.
    #[error("{0}")]
    Cgroup(creel_cgroup::Error),
    /// An error with what was tried before it, like `runc create failed: …`.
    #[error("{what}: {inner}")]
    During {
        /// What was tried.
        what: String,
        /// The error itself.
        inner: Box<Error>,
    },
    /// The kernel has refused the program when everything else was done. Without a log file runc's callers see the bare
    /// line, for there it is the container's process that says so.
    #[error("{0}")]
    Program(creel_runtime::Error),
    /// An error whose exit status is not 1.
    #[error("{inner}")]
    WithCode {
        /// The exit status.
        code: i32,
        /// The error itself.
        inner: Box<Error>,
    },
}

/// What the crate's functions return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed system call on a path.
    pub(crate) fn on(call: &str, path: impl AsRef<Path>, error: impl Into<std::io::Error>) -> Error {
        let error = error.into();
        Error::System(format!("{call} {}: {}", path.as_ref().display(), plain(&error)), kind(&error))
    }

    /// A failed system call that concerns no path.
    pub(crate) fn call(what: &str, error: impl Into<std::io::Error>) -> Error {
        let error = error.into();
        Error::System(format!("{what}: {}", plain(&error)), kind(&error))
    }

    /// Puts what was tried before the error.
    pub(crate) fn during(self, what: impl Into<String>) -> Error {
        Error::During { what: what.into(), inner: Box::new(self) }
    }

    /// Whether this is the kernel's refusal of the program.
    pub(crate) fn is_bare(&self) -> bool {
        match self {
            Error::Program(_) => true,
            Error::During { inner, .. } | Error::WithCode { inner, .. } => inner.is_bare(),
            _ => false,
        }
    }

    /// The error without what was tried before.
    pub(crate) fn innermost(&self) -> &Error {
        match self {
            Error::During { inner, .. } | Error::WithCode { inner, .. } => inner.innermost(),
            other => other,
        }
    }

    /// The exit status that the process ends with.
    pub fn code(&self) -> i32 {
        match self {
            Error::NoVerb(_) => 3,
            Error::WithCode { code, .. } => *code,
            _ => 1,
        }
    }
}

fn kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    }
}

impl From<creel_runtime::Error> for Error {
    fn from(error: creel_runtime::Error) -> Error {
        Error::Runtime(error)
    }
}

impl From<creel_cgroup::Error> for Error {
    fn from(error: creel_cgroup::Error) -> Error {
        Error::Cgroup(error)
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Usage(_) | Error::NoVerb(_) | Error::EmptyId | Error::InvalidId(_) | Error::Invalid(_) => {
                ErrorKind::InvalidArgument
            }
            Error::Exists | Error::NotRunning | Error::NotPaused | Error::State(_) => ErrorKind::Conflict,
            Error::NotExist => ErrorKind::NotFound,
            Error::System(_, kind) => *kind,
            Error::Runtime(error) | Error::Program(error) => error.kind(),
            Error::Cgroup(error) => error.kind(),
            Error::During { inner, .. } | Error::WithCode { inner, .. } => inner.kind(),
        }
    }
}
