//! From a layer's archive to the directory that overlayfs takes as one of its lower layers.
//!
//! What the OCI image specification says (`layer.md`) decides; where it is silent, safety does:
//! - A whiteout hides what lower layers have, never what the same layer adds, whichever comes first: `.wh.d` together
//!   with `d/` gives an opaque directory, together with a file `d` just the file.
//! - Names are resolved within the layer as the container will see it: an ancestor that is a symbolic link is followed
//!   inside the root, also if only a lower layer has that link.
//! - A directory that an entry needs and the layer lacks is made with the lower layers' mode, owner, attributes and
//!   time, or as root's 0755 with the entry's time if they have none.
//! - A hard link to a file that only a lower layer has brings that file into this layer.
//! - One name twice: the last wins, whatever the types. A directory that replaces something else hides what lower
//!   layers have under its name, as it would when both were made one after the other.
//! - A hard link's own mode, owner and times are those of its file; what its entry says of them is not looked at.
//! - `trusted.*` attributes are left out, as containerd does, and overlayfs's in any namespace: a layer must not speak
//!   overlayfs's language. For the same reason a 0:0 character device is refused. All other attributes are set; one
//!   that the file system cannot hold is left out and counted.

mod apply;
pub(crate) mod attributes;
mod fill;
mod hide;
mod lower;
mod parents;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

pub(crate) use apply::{Applier, Manner};
pub(crate) use lower::{lookup, merge, merged_names};

use crate::error::{Error, Result};
use crate::fs;
use crate::name::{Wish, wish};
use crate::tar::{Reader, TarError};

/// How much of a stream without a buffer is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// How large a layer may be, so that a few kilobytes from a stranger cannot fill a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of the uncompressed stream, whatever stands in them. `None`: no limit.
    pub bytes: Option<u64>,
    /// The most entries, each of which may cost an inode. `None`: no limit.
    pub entries: Option<u64>,
    /// The most bytes that the paths of all directories may have together: they are kept in memory until the end, and
    /// one entry can need two thousand of them. `None`: no limit.
    pub paths: Option<u64>,
}

impl Limits {
    /// No limit at all: for what this machine has made itself.
    pub const NONE: Self = Self { bytes: None, entries: None, paths: None };
}

/// 256 GiB, ten million entries, 128 MiB of directories' paths: more than any layer that is meant to be used has.
impl Default for Limits {
    fn default() -> Self {
        Self { bytes: Some(256 << 30), entries: Some(10_000_000), paths: Some(128 << 20) }
    }
}

/// How to unpack a layer.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// Refuse an archive that is larger than this.
    pub limits: Limits,
    /// The directories of the layers below, topmost first, in overlay form: where parents that the layer lacks, and
    /// targets of its hard links, are looked for.
    pub parents: Vec<PathBuf>,
    /// The layers below are not there yet: stop with [`Error::NeedsBelow`] where something is to be looked for in them.
    /// Most layers never get there, and can so be unpacked beside those below.
    pub alone: bool,
}

/// What unpacking a layer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Bytes of file data written, holes not counted: what `docker images` adds up.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// The directory's content depends on the layers below: something was looked for in them, found or not. Such a
    /// directory is right on top of the same layers only, so it must be kept under its chain, not under its diffID.
    pub composed: bool,
    /// The archive has an entry for its root, so the directory's own mode, owner and attributes are the image's. If
    /// not they are root's 0755, and the container's root should take them from the next layer that has it.
    pub root_entry: bool,
    /// Extended attributes left out: overlayfs's and other `trusted.*`, and what the file system cannot hold.
    pub dropped_xattrs: u64,
    /// The file system refused overlayfs's whiteouts, so that some are files called `.wh.NAME` and `.wh..wh..opq`: this
    /// crate reads them as well, overlayfs does not.
    pub plain_marks: bool,
}

/// Unpacks a layer's archive (already decompressed) into the empty directory `dest`, and reads the stream to its end.
///
/// Needs root (CAP_CHOWN, CAP_MKNOD, CAP_FOWNER, CAP_SYS_ADMIN for `trusted.*`). Nothing outside of `dest` is touched,
/// whatever the archive says. On an error `dest` is left half full: throw it away. Nothing is synced.
///
/// # Errors
/// The archive is malformed, truncated or too large; an entry is refused, see the module's text; the system refuses a
/// step, for example because the disk is full.
pub fn unpack<R: Read>(tar: R, dest: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    unpack_buffered(BufReader::with_capacity(BUFFER, tar), dest, options)
}

/// [`unpack()`] for a stream that has a buffer: files are written straight from it, so it had better hold 64 KiB or more.
///
/// # Errors
/// As [`unpack()`].
pub fn unpack_buffered<R: BufRead>(tar: R, dest: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    let root = fs::open_root(dest)?;
    let lowers = options.parents.iter().map(|path| fs::open_layer(path)).collect::<Result<_>>()?;
    let mut reader = Reader::with_limit(tar, options.limits.bytes);
    let mut applier = Applier::new(root, Vec::new(), Manner::layer(lowers), options.limits.paths);
    applier.alone = options.alone;
    match apply(&mut reader, &mut applier, options) {
        Err(_) if applier.needs_below() => Err(Error::NeedsBelow),
        done => {
            let done = done?;
            reader.drain().map_err(explain)?;
            Ok(done)
        }
    }
}

fn apply<R: BufRead>(
    reader: &mut Reader<R>,
    applier: &mut Applier,
    options: &UnpackOptions,
) -> Result<Unpacked> {
    let mut entries = 0;
    while let Some(entry) = reader.next_entry().map_err(explain)? {
        entries += 1;
        if let Some(limit) = options.limits.entries
            && entries > limit
        {
            return Err(Error::TooMany(limit));
        }
        match wish(&entry.name)? {
            Wish::Put(name) => applier.put(&name, &entry, reader)?,
            Wish::Hide(name) => applier.hide(&name, &entry)?,
            Wish::HideAllIn(name) => applier.hide_all_in(&name, &entry)?,
            Wish::Nothing => {}
        }
    }
    Ok(Unpacked { entries, ..applier.finish()? })
}

/// The limit is the caller's, not the format's.
pub(crate) fn explain(error: TarError) -> Error {
    match error {
        TarError::Limit(limit) => Error::TooLarge(limit),
        error => Error::Tar(error),
    }
}
