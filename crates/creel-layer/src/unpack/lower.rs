//! What the layers below have at a path, seen as overlayfs would show them together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fs::{self, Meta};

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
            match fs::stat_if_any(&dir, name)? {
                None => {}
                Some(meta) if meta.is_whiteout() => break,
                Some(meta) if meta.is_dir() => return fs::open_dir(&dir, name).map(Found::Directory),
                Some(meta) => return Ok(Found::Other(dir, meta)),
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

/// The directories called `name` that are merged out of those in `dirs`.
pub(crate) fn merge(dirs: &[OwnedFd], name: &[u8]) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for dir in dirs {
        match fs::stat_if_any(dir, name)? {
            None => continue,
            Some(meta) if meta.is_dir() => {}
            Some(_) => break,
        }
        let child = fs::open_dir(dir, name)?;
        let opaque = fs::is_opaque(&child)?;
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
        for name in fs::names(dir)? {
            if let Entry::Vacant(vacant) = shown.entry(name) {
                let meta = fs::stat_if_any(dir, vacant.key())?;
                vacant.insert(meta.is_some_and(|meta| !meta.is_whiteout()));
            }
        }
    }
    Ok(shown.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
}
