//! What can go wrong between a client and its daemon.

use std::path::PathBuf;

use creel_types::{Classify, ErrorKind};

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text after `-H` names no endpoint that this client can use; the second field says why.
    #[error("invalid host `{0}`: {1}")]
    Endpoint(String, &'static str),
    /// Nobody answers on the socket.
    #[error("Cannot connect to the creel daemon at unix://{}. Is the creel daemon running? ({})", .0.display(), words(.1))]
    Connect(PathBuf, std::io::Error),
    /// The daemon answered with an error: HTTP status and message.
    #[error("Error response from daemon: {message}")]
    Status {
        /// HTTP status, 400 to 599.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// The connection failed or the daemon did not speak HTTP; the first field says during what.
    #[error("{0}: {1}")]
    Transport(String, String),
    /// The daemon's JSON does not fit; the first field says which answer.
    #[error("reading the daemon's answer to {0}: {1}")]
    Decode(String, String),
}

impl Error {
    /// The HTTP status, if the daemon answered with an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the daemon says that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}

/// An operating system error in words, without its number.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Endpoint(..) => ErrorKind::InvalidArgument,
            Error::Connect(..) => ErrorKind::Unavailable,
            Error::Transport(..) | Error::Decode(..) => ErrorKind::Internal,
            Error::Status { status, .. } => match status {
                400 => ErrorKind::InvalidArgument,
                401 | 403 => ErrorKind::Unauthorized,
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                501 => ErrorKind::Unsupported,
                503 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
        }
    }
}
