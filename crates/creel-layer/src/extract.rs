//! Copying an archive's files into a container: Docker's `PUT /containers/{id}/archive`.

use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs;
use crate::name::{Clean, wanted};
use crate::resolve::true_path;
use crate::tar::Reader;
use crate::unpack::{Applier, Limits, Manner, explain};

/// How much of the archive is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// How to unpack an archive into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// Docker's `noOverwriteDirNonDir`: refuse to replace a directory by something else, and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Uid and gid that all files get instead of the archive's. Docker's `copyUIDGID` means: those of the container's
    /// configured user, or the archive's (`None`) if it has none.
    pub owner: Option<(u32, u32)>,
    /// Refuse an archive that is longer than this, in bytes of the uncompressed stream. `None`: no limit.
    pub max_bytes: Option<u64>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Bytes of file data written, holes not counted.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Extended attributes left out: `trusted.*`, and what the file system cannot hold.
    pub dropped_xattrs: u64,
}

/// Unpacks an archive (already decompressed) into the directory `path` of the tree whose root is `root`: a container's
/// root directory, which may be in use. All links are followed inside that root, also `path`'s last part.
///
/// Names mean what they say: `.wh.` is nothing special. Directories are merged, anything else is replaced; missing
/// parents are made as root's 0755; the entry `.` leaves `path` itself as it is.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::NotADirectory`] for `path`; otherwise as [`crate::unpack()`]. What was unpacked
/// before an error stays.
pub fn extract<R: Read>(tar: R, root: &OwnedFd, path: &Path, options: &ExtractOptions) -> Result<Extracted> {
    let failed = |error: Errno| match error {
        Errno::NOENT => Error::NotFound(path.to_owned()),
        Errno::NOTDIR => Error::NotADirectory(path.to_owned()),
        error => Error::io("open", path, error),
    };
    let base = true_path(root, &wanted(path.as_os_str().as_bytes()).path, true).map_err(failed)?;
    // Now as a whole: a part that is missing or no directory shows here.
    fs::open_plain(root, &base).map_err(failed)?;
    let root = fs::open_plain(root.as_fd(), b"").map_err(failed)?;
    let manner = Manner::Copy { owner: options.owner, keep_kind: options.no_overwrite_dir_non_dir };
    let mut reader = Reader::with_limit(BufReader::with_capacity(BUFFER, tar), options.max_bytes);
    let mut applier = Applier::new(root, base, manner, Limits::default().paths);
    let mut entries = 0;
    while let Some(entry) = reader.next_entry().map_err(explain)? {
        entries += 1;
        applier.put(&Clean::parse(&entry.name)?, &entry, &mut reader)?;
    }
    let done = applier.finish()?;
    reader.drain().map_err(explain)?;
    Ok(Extracted { bytes: done.bytes, entries, dropped_xattrs: done.dropped_xattrs })
}
