//! What the layers below have at a path, seen as overlayfs would show them together.
//!
//! Whiteouts are read in both forms in which an unpacked layer may have them: overlayfs's, and the plain one, OCI's own
//! names (`.wh.NAME`, `.wh..wh..opq`), which unpacking falls back to where the file system refuses overlayfs's marks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::fs::{self, Meta};
use crate::name::{hidden_by, opaque_marker, whiteout};

/// The layers below, topmost first.
pub(crate) struct Lowers(Vec<OwnedFd>);

/// What is at a path of the layers below.
pub(crate) enum Found {
    /// Nothing, or it is hidden by a whiteout.
    Nothing,
    /// A directory: the topmost one of those that are merged there.
    Directory(OwnedFd),
    /// Something else: the directory that it is in, and what it is.
    Other(OwnedFd, Meta),
}

impl Lowers {
    pub(crate) fn new(roots: Vec<OwnedFd>) -> Self {
        Self(roots)
    }

    /// Looks up a path in which no part is a link.
    pub(crate) fn find(&self, path: &[u8]) -> rustix::io::Result<Found> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        for dir in self.merged(parent)? {
            match look(&dir, name)? {
                Look::Nothing => {}
                Look::Hidden => break,
                Look::There(meta) if meta.is_dir() => return fs::open_dir(&dir, name).map(Found::Directory),
                Look::There(meta) => return Ok(Found::Other(dir, meta)),
            }
        }
        Ok(Found::Nothing)
    }

    /// All directories that are merged at `path`, topmost first.
    pub(crate) fn merged(&self, path: &[u8]) -> rustix::io::Result<Vec<OwnedFd>> {
        let mut dirs: Vec<OwnedFd> = Vec::new();
        for root in &self.0 {
            dirs.push(fs::open_plain(root, b"")?);
        }
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            dirs = merge(&dirs, part)?;
        }
        Ok(dirs)
    }

    /// The names that the layers below show in their common root.
    pub(crate) fn root_names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        merged_names(self.0.iter().map(AsFd::as_fd))
    }
}

/// What one directory of a layer says of a name.
enum Look {
    Nothing,
    Hidden,
    There(Meta),
}

fn look(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Look> {
    Ok(match fs::stat_if_any(&dir, name)? {
        Some(meta) if meta.is_whiteout() => Look::Hidden,
        Some(meta) => Look::There(meta),
        None if has(&dir, &whiteout(name))? => Look::Hidden,
        None => Look::Nothing,
    })
}

/// Whether there is such a name; one that is longer than any may be is nowhere.
fn has(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<bool> {
    match fs::stat_if_any(dir, name) {
        Err(Errno::NAMETOOLONG) => Ok(false),
        other => other.map(|meta| meta.is_some()),
    }
}

/// What merged directories (topmost first) show under a name, and which of them has it.
pub(crate) fn lookup<'a>(
    dirs: &'a [OwnedFd],
    name: &[u8],
) -> rustix::io::Result<Option<(&'a OwnedFd, Meta)>> {
    for dir in dirs {
        match look(dir, name)? {
            Look::Nothing => {}
            Look::Hidden => break,
            Look::There(meta) => return Ok(Some((dir, meta))),
        }
    }
    Ok(None)
}

/// The directories called `name` that are merged out of those in `dirs`.
pub(crate) fn merge(dirs: &[OwnedFd], name: &[u8]) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for dir in dirs {
        match look(dir, name)? {
            Look::Nothing => continue,
            Look::There(meta) if meta.is_dir() => {}
            Look::There(_) | Look::Hidden => break,
        }
        let child = fs::open_dir(dir, name)?;
        let opaque = fs::is_opaque(&child)? || has(&child, opaque_marker())? || has(dir, &whiteout(name))?;
        found.push(child);
        if opaque {
            break;
        }
    }
    Ok(found)
}

/// The names that merged directories show, sorted.
pub(crate) fn merged_names<'a>(
    dirs: impl Iterator<Item = BorrowedFd<'a>>,
) -> rustix::io::Result<Vec<Vec<u8>>> {
    // Topmost first: what a layer says of a name holds against those below it.
    let mut shown = BTreeMap::new();
    for dir in dirs {
        let (marks, names): (Vec<_>, Vec<_>) =
            fs::names(dir)?.into_iter().partition(|name| hidden_by(name).is_some());
        for name in names {
            if let Entry::Vacant(vacant) = shown.entry(name) {
                let meta = fs::stat_if_any(dir, vacant.key())?;
                vacant.insert(meta.is_some_and(|meta| !meta.is_whiteout()));
            }
        }
        for hidden in marks.iter().filter_map(|mark| hidden_by(mark)) {
            shown.entry(hidden.to_vec()).or_insert(false);
        }
    }
    Ok(shown.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
}
