//! What can be wrong with a filter.

use creel_types::{Classify, ErrorKind};

/// A filter that cannot be read or compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word that the specification does not know.
    #[error("unknown seccomp {what} {word:?}; see config-linux.md, \"Seccomp\"")]
    Word {
        /// Action, operator, architecture.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// Values that contradict the specification.
    #[error("seccomp profile: {0}")]
    Invalid(String),
    /// The profile is not what Docker's format is.
    #[error("seccomp profile is not valid JSON of Docker's format: {0}")]
    Json(String),
    /// More instructions than the kernel takes.
    #[error(
        "the seccomp filter needs more than the 4096 instructions that the kernel takes; use fewer rules on arguments"
    )]
    TooLong,
    /// The filter is for a machine that this table of system calls does not cover.
    #[error(
        "no table of system calls for this machine's architecture ({0}); run without a filter (unconfined)"
    )]
    Machine(&'static str),
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Machine(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidArgument,
        }
    }
}
