//! What can go wrong between a Spec and a running program.

use creel_types::{Classify, ErrorKind};
use serde::{Deserialize, Serialize};

/// A failure of this library.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The Spec says something that is wrong in itself.
    #[error("{field}: {reason}")]
    Invalid {
        /// Where, in the Spec's words, like `process.cwd`.
        field: String,
        /// Why, and what is wanted.
        reason: String,
    },
    /// The Spec asks for something that creel does not apply (yet) or this kernel cannot.
    #[error("{field}: {reason}")]
    Unsupported {
        /// Where, in the Spec's words.
        field: String,
        /// Why, and what can be done.
        reason: String,
    },
    /// The program is missing or cannot be executed; the text is Docker's.
    #[error("{message}")]
    Program {
        /// [`ErrorKind::ProgramNotFound`] or [`ErrorKind::ProgramNotExecutable`].
        kind: ErrorKind,
        /// What was looked for, and how that went.
        message: String,
    },
    /// A step of the plan failed in the container's process.
    #[error("{step}: {message}")]
    Step {
        /// The step, with its subject: `mount /proc`.
        step: String,
        /// What the kernel, or the check, said.
        message: String,
        /// The kernel's error number, if there was one.
        errno: Option<i32>,
        /// The kind of failure.
        kind: ErrorKind,
    },
    /// Something failed on the caller's side, before or around the clone.
    #[error("{what}: {message}")]
    Setup {
        /// What was tried.
        what: String,
        /// Why it failed.
        message: String,
        /// The kind of failure.
        kind: ErrorKind,
    },
    /// The container's process ended before it could say why.
    #[error(
        "the container's process ended while it was being set up ({how}); it may have been killed for lack of memory"
    )]
    Died {
        /// How it ended.
        how: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Unsupported { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn setup(what: impl Into<String>, error: impl std::fmt::Display) -> Error {
        Error::Setup { what: what.into(), message: error.to_string(), kind: ErrorKind::Internal }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid { .. } => ErrorKind::InvalidArgument,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Program { kind, .. } | Error::Step { kind, .. } | Error::Setup { kind, .. } => *kind,
            Error::Died { .. } => ErrorKind::Internal,
        }
    }
}

/// Why one step failed, before the executor adds which step it was.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) errno: Option<i32>,
    pub(crate) kind: ErrorKind,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Fault {
        Fault { message: message.into(), errno: None, kind }
    }

    /// Puts what was tried before the reason.
    pub(crate) fn context(mut self, what: impl std::fmt::Display) -> Fault {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        let kind = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
                ErrorKind::Unavailable
            }
            Some(libc::ENOENT) => ErrorKind::NotFound,
            Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::ENODEV) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Fault { message: plain(&error), errno: error.raw_os_error(), kind }
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Fault {
        Fault::from(std::io::Error::from(error))
    }
}

/// The system's words for an error in lower case and without Rust's "(os error N)", as Go programs print them.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        // An abbreviation stays as it is; only an ordinary first word is lowered.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_string(),
    }
}

/// [`ErrorKind`] as it crosses from the child to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireKind {
    NotFound,
    Conflict,
    Invalid,
    Unsupported,
    Unavailable,
    ProgramNotFound,
    ProgramNotExecutable,
    Internal,
}

impl From<ErrorKind> for WireKind {
    fn from(kind: ErrorKind) -> WireKind {
        match kind {
            ErrorKind::NotFound => WireKind::NotFound,
            ErrorKind::Conflict => WireKind::Conflict,
            ErrorKind::InvalidArgument => WireKind::Invalid,
            ErrorKind::Unsupported => WireKind::Unsupported,
            ErrorKind::Unavailable => WireKind::Unavailable,
            ErrorKind::ProgramNotFound => WireKind::ProgramNotFound,
            ErrorKind::ProgramNotExecutable => WireKind::ProgramNotExecutable,
            _ => WireKind::Internal,
        }
    }
}

impl From<WireKind> for ErrorKind {
    fn from(kind: WireKind) -> ErrorKind {
        match kind {
            WireKind::NotFound => ErrorKind::NotFound,
            WireKind::Conflict => ErrorKind::Conflict,
            WireKind::Invalid => ErrorKind::InvalidArgument,
            WireKind::Unsupported => ErrorKind::Unsupported,
            WireKind::Unavailable => ErrorKind::Unavailable,
            WireKind::ProgramNotFound => ErrorKind::ProgramNotFound,
            WireKind::ProgramNotExecutable => ErrorKind::ProgramNotExecutable,
            WireKind::Internal => ErrorKind::Internal,
        }
    }
}
