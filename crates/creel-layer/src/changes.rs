//! What a container has changed: `docker diff`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta};
use crate::name::join;
use crate::tar::Timestamp;
use crate::unpack::{merge, merged_names};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 1000;

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// `C`, 0 in Docker's API: it is there in both and differs, or something in the directory does.
    Modified,
    /// `A`, 1 in Docker's API: the image does not have it.
    Added,
    /// `D`, 2 in Docker's API: only the image has it.
    Deleted,
}

impl ChangeKind {
    /// The letter in `docker diff`'s output.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The absolute path in the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Compares overlayfs's upper directory with the layers below it (topmost first) and lists what differs, parents
/// before what is in them, names in the order of their bytes.
///
/// Files differ, as for Docker, in mode, owner, device number, capabilities, length or time; directories in mode and
/// owner, and they are listed when anything in them is. What overlayfs copied up without a change stays out. Of what
/// was deleted only the top is listed, of what was added everything.
///
/// # Errors
/// A directory cannot be read.
pub fn changes(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>> {
    let root = fs::open_root(upper)?;
    let lowers = lowers.iter().map(|path| fs::open_root(path)).collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    // Not recursive: a container may nest directories deeper than a thread's stack.
    let mut levels = vec![Level::read(root, lowers, Vec::new(), false, None)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.next() {
            if let Some(child) = level.compare(&name, &mut found)? {
                if levels.len() == MAX_DEPTH {
                    return Err(Error::io("compare", printable(&child.path), Errno::NAMETOOLONG));
                }
                levels.push(child);
            }
        } else if let Some(Level { path, unlisted: Some(before), .. }) = levels.pop()
            && found.len() > before
        {
            found.insert(before, change(&path, ChangeKind::Modified));
        }
    }
    Ok(found)
}

/// A directory that is being compared.
struct Level {
    upper: OwnedFd,
    lowers: Vec<OwnedFd>,
    path: Vec<u8>,
    /// What the lower directories have and the upper one lacks is gone.
    hides: bool,
    /// The directory itself is not in the list; if anything in it is, it belongs at this place.
    unlisted: Option<usize>,
    /// What is still to come of it.
    names: std::collections::btree_set::IntoIter<Vec<u8>>,
}

impl Level {
    fn read(
        upper: OwnedFd,
        lowers: Vec<OwnedFd>,
        path: Vec<u8>,
        hides: bool,
        unlisted: Option<usize>,
    ) -> Result<Self> {
        let failed = |error: Errno| Error::io("compare", printable(&path), error);
        let mut names: BTreeSet<Vec<u8>> = fs::names(&upper).map_err(failed)?.into_iter().collect();
        if hides {
            names.extend(merged_names(lowers.iter().map(AsFd::as_fd)).map_err(failed)?);
        }
        Ok(Self { upper, lowers, path, hides, unlisted, names: names.into_iter() })
    }

    /// Lists one name, and returns the directory that it is, to be compared next.
    fn compare(&self, name: &[u8], found: &mut Vec<Change>) -> Result<Option<Level>> {
        let path = join(&self.path, name);
        let failed = |error: Errno| Error::io("compare", printable(&path), error);
        let new = fs::stat_if_any(&self.upper, name).map_err(failed)?.filter(|meta| !meta.is_whiteout());
        let old = lookup(&self.lowers, name).map_err(failed)?;
        let kind = match (&new, &old) {
            (None, None) => return Ok(None),
            (None, Some(_)) => Some(ChangeKind::Deleted),
            (Some(_), None) => Some(ChangeKind::Added),
            (Some(new), Some((dir, old))) => {
                let differ = differ(&self.upper, new, dir, old, name).map_err(failed)?;
                differ.then_some(ChangeKind::Modified)
            }
        };
        let unlisted = kind.is_none().then_some(found.len());
        found.extend(kind.map(|kind| change(&path, kind)));
        if !new.is_some_and(|meta| meta.is_dir()) {
            return Ok(None);
        }
        let dir = match fs::open_dir(&self.upper, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let lowers = if old.is_some_and(|(_, meta)| meta.is_dir()) {
            merge(&self.lowers, name).map_err(failed)?
        } else {
            Vec::new()
        };
        let hides = self.hides || fs::is_opaque(&dir).map_err(failed)?;
        Level::read(dir, lowers, path, hides, unlisted).map(Some)
    }
}

fn change(path: &[u8], kind: ChangeKind) -> Change {
    Change { path: PathBuf::from(OsString::from_vec([b"/", path].concat())), kind }
}

/// What the lower directories show under a name, and which of them has it.
fn lookup<'a>(lowers: &'a [OwnedFd], name: &[u8]) -> rustix::io::Result<Option<(&'a OwnedFd, Meta)>> {
    for dir in lowers {
        match fs::stat_if_any(dir, name)? {
            None => {}
            Some(meta) if meta.is_whiteout() => break,
            Some(meta) => return Ok(Some((dir, meta))),
        }
    }
    Ok(None)
}

fn differ(
    new_dir: &OwnedFd,
    new: &Meta,
    old_dir: &OwnedFd,
    old: &Meta,
    name: &[u8],
) -> rustix::io::Result<bool> {
    if (new.kind, new.mode, new.uid, new.gid, new.rdev) != (old.kind, old.mode, old.uid, old.gid, old.rdev) {
        return Ok(true);
    }
    if new.is_dir() {
        return Ok(false);
    }
    if new.size != old.size || !same_time(new.mtime, old.mtime) {
        return Ok(true);
    }
    let capability = |dir: &OwnedFd| -> rustix::io::Result<Option<Vec<u8>>> {
        let handle = fs::handle(dir, name)?;
        let mut value = [0; 64];
        match rustix::fs::getxattr(fs::handle_path(&handle), "security.capability", &mut value[..]) {
            Ok(length) => Ok(Some(value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(error) => Err(error),
        }
    };
    Ok(capability(new_dir)? != capability(old_dir)?)
}

/// Equal, or equal to the second if one of them was kept in seconds only.
fn same_time(one: Timestamp, other: Timestamp) -> bool {
    one.seconds == other.seconds
        && (one.nanoseconds == other.nanoseconds || one.nanoseconds == 0 || other.nanoseconds == 0)
}
