//! What can go wrong in the store, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use creel_types::{Classify, ContainerId, Digest, ErrorKind};

/// The result of the store's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file of the store failed.
    #[error("cannot {what} {}: {why}", path.display())]
    Io {
        /// What was tried, as a verb: "write", "rename", …
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
    /// The stream that content comes from failed.
    #[error("cannot read the content that was to be stored: {why}; nothing was stored")]
    Read {
        /// What the stream says.
        why: io::Error,
    },
    /// The file system has no room (ENOSPC, EDQUOT); nothing was left behind.
    #[error(
        "cannot {what} {}: no space left on the device; free some room there (for example with `creel image prune`) and try again",
        path.display()
    )]
    NoSpace {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Another daemon works on this root directory.
    #[error("{} is in use by {holder}: two daemons cannot share one root directory; stop the other one or choose another with --root", root.display())]
    Locked {
        /// The root directory.
        root: PathBuf,
        /// Who holds it, as far as its lock file tells.
        holder: String,
    },
    /// Content is not what its digest promises.
    #[error("{what}: the content's digest is {actual}, but {expected} was promised; nothing was stored")]
    DigestMismatch {
        /// What was being stored: "blob" or "layer" with its name.
        what: String,
        /// The promised digest.
        expected: Digest,
        /// The digest of what was received.
        actual: Digest,
    },
    /// Content is longer or shorter than was promised.
    #[error("{what}: {actual} bytes were received, but {expected} were promised; nothing was stored")]
    SizeMismatch {
        /// What was being stored.
        what: String,
        /// The promised size in bytes.
        expected: u64,
        /// The size of what was received, in bytes; if it is too long, as far as it was read.
        actual: u64,
    },
    /// A document is larger than the reader allows.
    #[error("blob {digest} has {size} bytes, more than the {limit} that are read of such a document")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A layer's archive could not be unpacked or made.
    #[error("layer {layer}: {why}")]
    Layer {
        /// The layer's name: its diffID, or a directory.
        layer: String,
        /// What creel-layer says.
        why: String,
        /// Of which kind that failure is.
        kind: ErrorKind,
    },
    /// No image answers to this reference or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The text is neither an id nor a reference that could be looked up.
    #[error("{0}")]
    BadReference(creel_types::reference::ReferenceError),
    /// Several images' ids begin with this prefix.
    #[error("image id prefix `{prefix}` is ambiguous: it fits {}; give more digits", list(candidates))]
    Ambiguous {
        /// The prefix as given.
        prefix: String,
        /// The ids that begin with it, the first few.
        candidates: Vec<Digest>,
    },
    /// An image or a container needs a layer that is not there.
    #[error(
        "{user} is not whole: layer {layer} is missing (if it was damaged, `creel image verify` has put it aside); \
         pull the image again"
    )]
    NotWhole {
        /// Who needs it: "image …" or "container …".
        user: String,
        /// The layer.
        layer: Digest,
    },
    /// No such blob is stored.
    #[error(
        "no such blob: {0} (if it was damaged, `creel image verify` has put it aside: pull its image again)"
    )]
    NoSuchBlob(Digest),
    /// No such layer is stored.
    #[error("no such layer: {0}")]
    NoSuchLayer(Digest),
    /// There is no snapshot for this container.
    #[error("container {} has no snapshot", .0.short())]
    NoSuchSnapshot(ContainerId),
    /// There is a snapshot for this container already.
    #[error("container {} has a snapshot already", .0.short())]
    SnapshotExists(ContainerId),
    /// No such record.
    #[error("no such {kind}: {id}")]
    NoSuchRecord {
        /// The record's kind.
        kind: String,
        /// Its id.
        id: String,
    },
    /// Another record of this kind has the name.
    #[error(
        "the {kind} name `{name}` is in use by {kind} {holder}; remove or rename that one, or choose another name"
    )]
    NameInUse {
        /// The records' kind.
        kind: String,
        /// The name that was wanted.
        name: String,
        /// The id of the record that has it.
        holder: String,
    },
    /// A document that was to be stored does not follow its format.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// Which document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The database refused or failed.
    #[error("cannot {what} in the database {}: {}", path.display(), reason(why, *no_space))]
    Database {
        /// What was tried, as a verb.
        what: &'static str,
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
        /// Whether the cause is a full disk.
        no_space: bool,
    },
    /// The database was written by a newer creel.
    #[error("the database {} has schema version {found}, this creel knows up to {known}: run the newer creel, or use another --root", path.display())]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is understood here.
        known: i64,
    },
    /// The writer thread is gone: the store is closing or has failed.
    #[error("the store is closed")]
    Closed,
}

fn reason(why: &str, no_space: bool) -> &str {
    if no_space {
        "no space left on the device; free some room there (for example with `creel image prune`) and try again"
    } else {
        why
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::short).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// An error of a system call, with a full disk told apart.
    pub(crate) fn io(what: &'static str, path: &Path, why: impl Into<io::Error>) -> Self {
        let why = why.into();
        match why.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { what, path: path.to_owned() }
            }
            _ => Error::Io { what, path: path.to_owned(), why },
        }
    }

    /// Whether a full disk is the cause.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. } | Error::Database { no_space: true, .. })
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NoSuchImage(_)
            | Error::NoSuchBlob(_)
            | Error::NoSuchLayer(_)
            | Error::NoSuchSnapshot(_)
            | Error::NoSuchRecord { .. } => ErrorKind::NotFound,
            Error::NameInUse { .. } | Error::SnapshotExists(_) => ErrorKind::Conflict,
            Error::BadReference(_) | Error::Ambiguous { .. } | Error::Invalid { .. } => {
                ErrorKind::InvalidArgument
            }
            Error::NoSpace { .. } | Error::Locked { .. } | Error::Database { no_space: true, .. } => {
                ErrorKind::Unavailable
            }
            Error::DigestMismatch { .. }
            | Error::SizeMismatch { .. }
            | Error::TooLarge { .. }
            | Error::NotWhole { .. } => ErrorKind::DataLoss,
            Error::Layer { kind, .. } => *kind,
            Error::Read { .. } => ErrorKind::Unavailable,
            Error::Io { .. } | Error::Database { .. } | Error::TooNew { .. } | Error::Closed => {
                ErrorKind::Internal
            }
        }
    }
}
