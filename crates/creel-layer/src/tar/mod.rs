//! The tar format as a pure parser and writer: bytes to entries and back, with no file system in sight.
//!
//! Read are ustar and pax (POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Interchange Format"), the v7
//! format, GNU's long names, base-256 numbers and old sparse files, star's prefix, and GNU's pax sparse formats 0.0,
//! 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files"). Written are ustar headers, with a pax header only where
//! ustar cannot say it. Where readers differ on what a header means, this one reads it as Go's `archive/tar` does,
//! because that is what made and checked nearly all layers: an ambiguity is how something is smuggled past a check.
//!
//! Memory is bounded: an extended header may have 1 MiB, a sparse map 2²⁰ segments; file data is streamed.

mod header;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

use std::io;

pub use reader::Reader;
pub use writer::Writer;

/// Length of a header and unit of everything in an archive, in bytes.
pub const BLOCK: usize = 512;
/// The longest extended header (pax records, GNU long name) that is read, in bytes.
pub const MAX_EXTENDED: u64 = 1 << 20;
/// The most segments that a sparse file may have.
pub const MAX_SEGMENTS: usize = 1 << 20;

/// Why bytes are not a tar archive, or an entry cannot be written as one.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below could not be read.
    #[error("{0}")]
    Read(io::Error),
    /// The stream ends inside of a header or of a file's data.
    #[error("the archive is truncated: it ends in the middle of an entry")]
    Truncated,
    /// A header's checksum is wrong: this is no tar archive, or it is damaged.
    #[error("not a tar header at byte {0}: wrong checksum (no tar archive, or a damaged one)")]
    Checksum(u64),
    /// One block of zeros is followed by more entries: neither an end nor a header.
    #[error("a single block of zeros at byte {0} is followed by more data")]
    LoneZeroBlock(u64),
    /// A field holds what it must not.
    #[error("{what} in the header at byte {at} is malformed")]
    Field {
        /// Which field.
        what: &'static str,
        /// Where its header begins, in bytes from the start of the archive.
        at: u64,
    },
    /// A pax record is malformed, or says what it must not.
    #[error("pax header before byte {at}: {why}")]
    Pax {
        /// Where the pax data ends, in bytes from the start of the archive.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A sparse file's map is malformed.
    #[error("sparse map of the entry at byte {at}: {why}")]
    Sparse {
        /// Where the entry's header begins, in bytes from the start of the archive.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An extended header is longer than [`MAX_EXTENDED`].
    #[error("an extended header of {0} bytes is longer than the limit of 1 MiB")]
    ExtendedTooLong(u64),
    /// The type of an entry is unknown, or one that has no meaning in a single archive.
    #[error("entry type `{}` at byte {at} is not supported", char::from(*flag).escape_default())]
    Type {
        /// The type flag of the header.
        flag: u8,
        /// Where the header begins, in bytes from the start of the archive.
        at: u64,
    },
    /// The archive is longer than the reader's limit, in bytes.
    #[error("the archive is longer than {0} bytes")]
    Limit(u64),
}

/// A point in time: seconds since 1970 (negative before it) and the nanoseconds that come on top (below 10⁹).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A piece of a sparse file that holds data; what lies between the pieces is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where the piece begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// What kind of file an entry is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name for an earlier file, given by its name in the archive.
    HardLink(Vec<u8>),
    /// A symbolic link with its target, as it is to be stored.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A character device with its major and minor number.
    CharDevice(u32, u32),
    /// A block device with its major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of an archive, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as stored: any bytes but NUL, directories mostly with a `/` at the end.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner's numeric id.
    pub uid: u64,
    /// Group's numeric id.
    pub gid: u64,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Length of the file in bytes, holes included; 0 for all but regular files.
    pub size: u64,
    /// Extended attributes (`SCHILY.xattr.*`): names and values, in the order of the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The pieces that hold data if the file is sparse, ascending and not overlapping; `None` if it is not.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry of `kind` called `name` with mode 0644 (0755 for a directory), root's, of 1970, empty.
    pub fn new(name: impl Into<Vec<u8>>, kind: Kind) -> Self {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let mtime = Timestamp::default();
        Self {
            name: name.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    /// How many bytes of data follow the header: [`Entry::size`] without the holes.
    pub fn stored(&self) -> u64 {
        match &self.sparse {
            Some(segments) => segments.iter().map(|segment| segment.length).sum(),
            None => self.size,
        }
    }
}

#[cfg(test)]
mod tests;
