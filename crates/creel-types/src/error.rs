//! One vocabulary of failure, mapped once to each outward protocol.

use std::fmt;

/// What kind of failure an error is, whoever raised it.
///
/// Every module has its own error enum; all of them can say their kind through [`Classify`], and only the
/// adapters translate it: to an HTTP status here, to a gRPC code or an exit code elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist (HTTP 404).
    NotFound,
    /// The request contradicts the present state: a name in use, a container that runs (HTTP 409).
    Conflict,
    /// The request itself is wrong, whatever the state (HTTP 400).
    InvalidArgument,
    /// Credentials are missing or refused (HTTP 401 or 403).
    Unauthorized,
    /// Nothing to do: the state asked for already holds (HTTP 304).
    NotModified,
    /// The feature cannot be had here, and the message says why (HTTP 501).
    Unsupported,
    /// Something outside creel is not available now: a registry, a full disk (HTTP 503 or 500).
    Unavailable,
    /// Stored or received data is not what its digest or format promises (HTTP 500).
    DataLoss,
    /// The program to run does not exist in the container: Docker's exit code 127 (HTTP 400).
    ProgramNotFound,
    /// The program to run exists and cannot be executed: Docker's exit code 126 (HTTP 400).
    ProgramNotExecutable,
    /// Everything else: a defect of creel or of the system below it (HTTP 500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status code with which the Docker Engine API answers this kind.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::InvalidArgument | ErrorKind::ProgramNotFound | ErrorKind::ProgramNotExecutable => 400,
            ErrorKind::Unauthorized => 401,
            ErrorKind::NotModified => 304,
            ErrorKind::Unsupported => 501,
            ErrorKind::Unavailable | ErrorKind::DataLoss | ErrorKind::Internal => 500,
        }
    }

    /// The exit code with which `docker run` reports this kind when the container never ran.
    pub fn run_exit_code(self) -> u8 {
        match self {
            ErrorKind::ProgramNotFound => 127,
            ErrorKind::ProgramNotExecutable => 126,
            _ => 125,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            ErrorKind::NotFound => "not found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::InvalidArgument => "invalid argument",
            ErrorKind::Unauthorized => "unauthorized",
            ErrorKind::NotModified => "not modified",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::DataLoss => "data loss",
            ErrorKind::ProgramNotFound => "program not found",
            ErrorKind::ProgramNotExecutable => "program not executable",
            ErrorKind::Internal => "internal error",
        };
        f.write_str(word)
    }
}

/// An error that knows its [`ErrorKind`].
pub trait Classify: std::error::Error {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;
}
