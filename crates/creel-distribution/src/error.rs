//! What can go wrong when images are moved, each with what was tried, on what, and why it failed.

use creel_types::{Classify, Digest, ErrorKind};

/// A failure of pull, push, load, save or import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry could not be reached, or the connection broke more often than is retried.
    #[error("{action} failed: {reason}")]
    Network {
        /// What was being asked for, with the registry's address.
        action: String,
        /// The transport's own words.
        reason: String,
    },
    /// The registry answered with an error status.
    #[error("{action} failed: the registry answered {status}{detail}")]
    Status {
        /// What was being asked for, with the registry's address.
        action: String,
        /// The HTTP status code.
        status: u16,
        /// What the registry's error body says, with a colon in front, or empty.
        detail: String,
    },
    /// There is no such repository or tag, or it may not be seen.
    #[error("manifest for {reference} not found: repository or tag unknown, or login needed{detail}")]
    UnknownImage {
        /// The image as people write it.
        reference: String,
        /// What the registry's error body says, with a colon in front, or empty.
        detail: String,
    },
    /// The credentials are missing, wrong, or do not suffice.
    #[error("access to {what} was denied: {reason}")]
    Denied {
        /// The repository or token server.
        what: String,
        /// What the registry said.
        reason: String,
    },
    /// A login that the registry does not accept; in the words of Docker's daemon.
    #[error("Get \"{url}\": unauthorized: {reason}")]
    Login {
        /// What was asked.
        url: String,
        /// What the registry said.
        reason: String,
    },
    /// A registry's own certificates cannot be used.
    #[error("the registry's certificates {path} cannot be used: {reason}")]
    Certificates {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy on signatures cannot be read, so that nothing is accepted.
    #[error("the policy {path} cannot be used, so no image is accepted: {reason}")]
    Policy {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy on signatures does not accept the image.
    #[error("{name} is refused by the policy {path} (scope `{scope}`): {reason}")]
    Untrusted {
        /// The image or archive.
        name: String,
        /// The policy file.
        path: String,
        /// Which part of it speaks for the image.
        scope: String,
        /// What is missing.
        reason: String,
    },
    /// The reference cannot be used for this.
    #[error("{0}")]
    Reference(String),
    /// A registry outside the loopback would have to be spoken to without TLS.
    #[error(
        "{url} is not encrypted, and {host} is neither a loopback address nor in the list of insecure registries: \
         serve the registry over https, or add it to the insecure registries"
    )]
    Insecure {
        /// The address that was refused.
        url: String,
        /// Its host.
        host: String,
    },
    /// The registry's redirects or upload locations cannot be followed.
    #[error("{action} failed: {reason}")]
    Protocol {
        /// What was being asked for.
        action: String,
        /// What the registry did that it must not.
        reason: String,
    },
    /// A manifest, index or configuration cannot be read or contradicts itself.
    #[error("the {kind} {name} is not valid: {reason}")]
    Document {
        /// `manifest`, `index`, `configuration`, …
        kind: &'static str,
        /// The digest or name of the document.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The content is of a kind that creel does not run.
    #[error("{name} cannot be used: {reason}")]
    Unsupported {
        /// The image or blob.
        name: String,
        /// Why it is refused, and what helps.
        reason: String,
    },
    /// No manifest of the index is for the platform that was asked for.
    #[error("{name} has no image for {wanted}; it has: {available}")]
    Platform {
        /// The image.
        name: String,
        /// The platform that was wanted.
        wanted: String,
        /// The platforms that exist, joined by commas.
        available: String,
    },
    /// Content is not what its digest or size promises.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// The layer, blob or manifest.
        what: String,
        /// What was expected and what came.
        reason: String,
    },
    /// An archive given to load or import cannot be used.
    #[error("the archive cannot be loaded: {0}")]
    Archive(String),
    /// A `--change` instruction cannot be understood.
    #[error("{0}")]
    Change(crate::change::ChangeError),
    /// The store failed.
    #[error("{action}: {error}")]
    Store {
        /// What was being done.
        action: String,
        /// The store's failure, whose text is part of this one's.
        error: Box<creel_store::Error>,
    },
    /// A file or stream of this machine failed.
    #[error("{action}: {reason}")]
    Io {
        /// What was being done.
        action: String,
        /// The system's words.
        reason: String,
    },
    /// There is no room left on this machine (ENOSPC, EDQUOT).
    #[error(
        "{0}: no space left on the device; free some room there (for example with `creel image prune`) and try again"
    )]
    NoSpace(String),
    /// The transfer was abandoned because another part of it failed or the caller went away.
    #[error("{0} was given up because the rest of the transfer failed")]
    Abandoned(String),
}

impl Error {
    /// The error of a document that cannot be used.
    pub(crate) fn document(kind: &'static str, name: impl ToString, reason: impl ToString) -> Self {
        Error::Document { kind, name: name.to_string(), reason: reason.to_string() }
    }

    /// The error of an input or output operation on this machine.
    pub(crate) fn io(action: impl Into<String>, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::NoSpace(action.into())
            }
            _ => Error::Io { action: action.into(), reason: error.to_string() },
        }
    }

    /// The error of an operation of the store.
    pub(crate) fn store(action: impl Into<String>) -> impl FnOnce(creel_store::Error) -> Self {
        let action = action.into();
        move |error| Error::Store { action, error: Box::new(error) }
    }

    /// The error of content whose digest is wrong.
    pub(crate) fn digest(what: impl Into<String>, expected: &Digest, found: &Digest) -> Self {
        Error::Corrupt {
            what: what.into(),
            reason: format!("its digest is {found} where {expected} was promised"),
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Network { .. } | Error::Abandoned(_) => ErrorKind::Unavailable,
            Error::Status { status, .. } => match status {
                401 | 403 => ErrorKind::Unauthorized,
                404 => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Error::UnknownImage { .. } | Error::Platform { .. } => ErrorKind::NotFound,
            Error::Denied { .. } | Error::Login { .. } | Error::Untrusted { .. } => ErrorKind::Unauthorized,
            Error::Reference(_) | Error::Change(_) | Error::Archive(_) | Error::Insecure { .. } => {
                ErrorKind::InvalidArgument
            }
            Error::Protocol { .. } => ErrorKind::Unavailable,
            Error::Document { .. } | Error::Corrupt { .. } => ErrorKind::DataLoss,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Store { error, .. } => error.kind(),
            Error::NoSpace(_) => ErrorKind::Unavailable,
            Error::Io { .. } | Error::Certificates { .. } | Error::Policy { .. } => ErrorKind::Internal,
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
