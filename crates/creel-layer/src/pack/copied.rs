//! What a container has changed in a root that is a copy of its layers, as a layer.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Packed, Packer, shown};
use crate::changes::{ChangeKind, find, made_at};
use crate::error::{Error, Result};
use crate::fs;
use crate::name::{is_reserved, join, whiteout};
use crate::tar::{Entry, Kind};

/// [`pack_diff`](crate::pack_diff) for a container whose root is a copy of the layers: what differs, found as
/// [`changes_of_copy`](crate::changes_of_copy) does, with the other names of files that have several.
///
/// # Errors
/// A directory or file cannot be read, or `out` fails.
pub fn pack_copy<W: Write>(root: &Path, lowers: &[PathBuf], made: &Path, out: W) -> Result<Packed> {
    let mut packer = Packer::new(out, true, None);
    packer.copy = true;
    let dir = fs::open_root(root)?;
    packer.root_if_changed(&dir, root, lowers.first())?;
    let mut parents = Parents { root: dir, last: None };
    for (path, kind) in wanted(root, lowers, made)? {
        let (parent, name) = split(&path);
        if path.split(|byte| *byte == b'/').any(is_reserved) {
            packer.skip(&path, "names that begin with `.wh.` mean deletion in a layer");
        } else if kind == ChangeKind::Deleted {
            let mark = Entry { mode: 0, ..Entry::new(join(parent, &whiteout(name)), Kind::File) };
            packer.entry(&mark)?;
        } else {
            let failed = |error: Errno| Error::io("read", shown(&path), error);
            let dir = parents.open(parent).map_err(failed)?;
            // Gone since it was listed: a container that is not paused may do that.
            let Some(meta) = fs::stat_if_any(dir, name).map_err(failed)? else { continue };
            packer.file(dir.as_fd(), name, &path, meta)?;
        }
    }
    packer.finish()
}

/// The paths to be written, parents before what is in them.
fn wanted(root: &Path, lowers: &[PathBuf], made: &Path) -> Result<Vec<(Vec<u8>, ChangeKind)>> {
    let (changes, links) = find(root, lowers, Some(made_at(made)?))?;
    // By parts: a slash sorts before every other byte.
    let key = |path: &[u8]| path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect();
    let mut wanted: BTreeMap<Vec<u8>, (Vec<u8>, ChangeKind)> = BTreeMap::new();
    for change in changes {
        let path = change.path.as_os_str().as_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        wanted.insert(key(path), (path.to_vec(), change.kind));
    }
    for (_, path) in links.unchanged.iter().filter(|(inode, _)| links.changed.contains(inode)) {
        let mut path = &path[..];
        while !path.is_empty() {
            wanted.entry(key(path)).or_insert_with(|| (path.to_vec(), ChangeKind::Modified));
            path = split(path).0;
        }
    }
    Ok(wanted.into_values().collect())
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[][..], path),
    }
}

/// Directories by their paths; the last one stays open, since most entries are beside the one before.
struct Parents {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Parents {
    fn open(&mut self, path: &[u8]) -> rustix::io::Result<&OwnedFd> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = Some((path.to_vec(), fs::descend(&self.root, path)?));
        }
        self.last.as_ref().map(|(_, dir)| dir).ok_or(Errno::NOENT)
    }
}
