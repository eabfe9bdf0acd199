//! Why reading, unpacking, comparing or packing failed.

use std::io;
use std::path::PathBuf;

use creel_types::{Classify, ErrorKind};

use crate::tar::TarError;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of this crate. Each text is complete: it contains its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is not a tar archive that can be understood, or it ends early.
    #[error("read the archive: {0}")]
    Tar(TarError),
    /// The stream's compression is known and not one that layers use.
    #[error("the stream is compressed with {0}: layers are plain, gzip or zstd; decompress it first")]
    Compression(&'static str),
    /// The compressed stream is damaged or ends early, or could not be read.
    #[error("decompress the stream: {0}")]
    Decompress(io::Error),
    /// An entry would leave the tree, or is something a layer must not contain. Nothing was written for it.
    #[error("refuse archive entry `{name}`: {why}")]
    Refused {
        /// The entry's name as in the archive, with anything unprintable escaped.
        name: String,
        /// Which rule it breaks.
        why: String,
    },
    /// An entry is legal, and the system refused a step of creating it.
    #[error("unpack `{name}`: {step}: {cause}")]
    Entry {
        /// The entry's name as in the archive, with anything unprintable escaped.
        name: String,
        /// The step that failed, such as `set owner`.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The archive is longer than the caller allows.
    #[error("the archive is larger than the limit of {0} bytes (uncompressed)")]
    TooLarge(u64),
    /// The archive has more entries than the caller allows.
    #[error("the archive has more than {0} entries, which is the limit")]
    TooMany(u64),
    /// An entry needs more directories than are kept in mind until the end.
    #[error(
        "refuse archive entry `{name}`: the archive's directories have names of more than {limit} bytes together"
    )]
    TooDeep {
        /// The entry's name as in the archive, with anything unprintable escaped.
        name: String,
        /// The most bytes that the paths of all directories may have together.
        limit: u64,
    },
    /// The layer cannot be unpacked alone: it takes something from the layers below it.
    #[error("the layer takes something from the layers below it, which are not there yet")]
    NeedsBelow,
    /// A step on the file system failed outside of any one entry.
    #[error("{step} `{path}`: {cause}")]
    Io {
        /// What was tried, such as `open directory`.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The path to copy from or to does not exist in the container.
    #[error("`{0}` does not exist in the container")]
    NotFound(PathBuf),
    /// The path to copy into is not a directory (Docker's PUT archive wants one).
    #[error("`{0}` is not a directory: files can be unpacked into a directory only")]
    NotADirectory(PathBuf),
    /// Writing the archive failed: the reader hung up, or the disk is full.
    #[error("write the archive: {0}")]
    Write(io::Error),
}

impl Error {
    /// An [`Error::Refused`] for the entry called `name`.
    pub(crate) fn refused(name: &[u8], why: impl Into<String>) -> Self {
        Error::Refused { name: printable(name), why: why.into() }
    }

    /// An [`Error::Entry`]: `step` failed on the entry called `name`.
    pub(crate) fn entry(name: &[u8], step: &'static str, cause: impl Into<io::Error>) -> Self {
        Error::Entry { name: printable(name), step, cause: cause.into() }
    }

    /// An [`Error::Io`]: `step` failed on `path`.
    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Self {
        Error::Io { step, path: path.into(), cause: cause.into() }
    }
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        Error::Tar(error)
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Tar(TarError::Truncated) | Error::Decompress(_) => ErrorKind::DataLoss,
            // What a decompressor cannot make sense of has no kind of its own.
            Error::Tar(TarError::Read(cause)) if cause.kind() == io::ErrorKind::Other => ErrorKind::DataLoss,
            Error::Tar(TarError::Read(cause)) => kind_of(cause),
            Error::Tar(_)
            | Error::Compression(_)
            | Error::Refused { .. }
            | Error::TooLarge(_)
            | Error::TooMany(_)
            | Error::NeedsBelow
            | Error::TooDeep { .. } => ErrorKind::InvalidArgument,
            Error::NotFound(_) => ErrorKind::NotFound,
            Error::NotADirectory(_) => ErrorKind::InvalidArgument,
            Error::Entry { cause, .. } | Error::Io { cause, .. } | Error::Write(cause) => kind_of(cause),
        }
    }
}

fn kind_of(cause: &io::Error) -> ErrorKind {
    if cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return ErrorKind::InvalidArgument;
    }
    match cause.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::DataLoss,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::ArgumentListTooLong
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}

/// A name of bytes made fit for a message: control characters and what is not UTF-8 are escaped, length is bounded.
pub(crate) fn printable(name: &[u8]) -> String {
    let mut text: String = name.escape_ascii().take(200).map(char::from).collect();
    if let Ok(utf8) = std::str::from_utf8(name)
        && !utf8.chars().any(char::is_control)
        && utf8.chars().count() <= 200
    {
        text = utf8.to_owned();
    } else if text.len() == 200 {
        text.push('…');
    }
    text
}
