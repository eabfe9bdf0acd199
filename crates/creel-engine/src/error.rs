//! One error for all use cases: its kind decides the HTTP status, its text is complete.

use std::fmt;

use creel_types::{Classify, ErrorKind};

/// What the engine's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a use case failed. The text says what was tried, on what, and why; it contains its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The named thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The present state forbids it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The wish cannot be honoured here; the message says why.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The state asked for holds already.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    /// A defect of creel or of the system below it.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error of a room below, with its kind and its words.
    pub fn of(cause: &impl Classify) -> Self {
        Self::new(cause.kind(), cause.to_string())
    }

    /// A system call failed: `what` was tried.
    pub fn io(what: impl fmt::Display, cause: impl Into<std::io::Error>) -> Self {
        let cause = cause.into();
        let kind = match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, format!("{what}: {cause}"))
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with words before its text.
    pub fn within(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}
impl From<creel_store::Error> for Error {
    fn from(cause: creel_store::Error) -> Self {
        Self::of(&cause)
    }
}

impl From<creel_shim::client::ClientError> for Error {
    fn from(cause: creel_shim::client::ClientError) -> Self {
        Self::of(&cause)
    }
}
