//! What a container has changed: `docker diff`.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::compare;
use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta, Xattrs};
use crate::name::join;
use crate::tar::Timestamp;
use crate::unpack::{lookup, merge, merged_names};

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
    find(upper, lowers, None).map(|found| found.0)
}

/// The same for a container whose root is a copy of the layers, made by [`compose()`](crate::compose()): `made` is a file
/// that was made after it and before the container's first start.
///
/// What the copy and the layers show of a file may be the same although it was written (its time can be set back). So a
/// file that has changed in any way since `made` (its change time, which nobody can set) is compared with its data and
/// all its attributes.
///
/// # Errors
/// A directory cannot be read.
pub fn changes_of_copy(root: &Path, lowers: &[PathBuf], made: &Path) -> Result<Vec<Change>> {
    find(root, lowers, Some(made_at(made)?)).map(|found| found.0)
}

/// When the copy was whole.
pub(crate) fn made_at(made: &Path) -> Result<Timestamp> {
    let failed = |error: Errno| Error::io("look at", made, error);
    let file = rustix::fs::open(made, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    fs::stat(&file, b"").map(|meta| meta.ctime).map_err(failed)
}

/// What a copy's changes mean for hard links: names that are unchanged, and files that are not.
#[derive(Default)]
pub(crate) struct Links {
    /// Unchanged names of files with several, that were looked at closely.
    pub(crate) unchanged: Vec<((u32, u32, u64), Vec<u8>)>,
    /// Files with several names of which one is changed or new.
    pub(crate) changed: HashSet<(u32, u32, u64)>,
}

/// `made`: the upper directory is a whole copy that was made then.
pub(crate) fn find(
    upper: &Path,
    lowers: &[PathBuf],
    made: Option<Timestamp>,
) -> Result<(Vec<Change>, Links)> {
    let root = fs::open_root(upper)?;
    let lowers = lowers.iter().map(|path| fs::open_layer(path)).collect::<Result<Vec<_>>>()?;
    let mut found = Vec::new();
    let mut copy = made.map(|made| Copy { made, links: Links::default() });
    // Not recursive: a container may nest directories deeper than a thread's stack.
    let mut levels = vec![Level::read(root, lowers, Vec::new(), made.is_some(), None)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.next() {
            if let Some(child) = level.compare(&name, &mut found, copy.as_mut())? {
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
    Ok((found, copy.map(|copy| copy.links).unwrap_or_default()))
}

/// That the upper directory is a whole copy.
struct Copy {
    made: Timestamp,
    links: Links,
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
    fn compare(
        &self,
        name: &[u8],
        found: &mut Vec<Change>,
        copy: Option<&mut Copy>,
    ) -> Result<Option<Level>> {
        let path = join(&self.path, name);
        let failed = |error: Errno| Error::io("compare", printable(&path), error);
        let new = fs::stat_if_any(&self.upper, name).map_err(failed)?.filter(|meta| !meta.is_whiteout());
        let old = lookup(&self.lowers, name).map_err(failed)?;
        let kind = match (&new, &old) {
            (None, None) => return Ok(None),
            (None, Some(_)) => Some(ChangeKind::Deleted),
            (Some(_), None) => Some(ChangeKind::Added),
            (Some(new), Some((dir, old))) => {
                let differs = differ(&self.upper, new, dir, old, name).map_err(failed)?
                    || copy.as_ref().is_some_and(|copy| new.ctime >= copy.made)
                        && match differ_within(&self.upper, new, dir, name) {
                            // A running container has just deleted or replaced it.
                            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => true,
                            other => other.map_err(failed)?,
                        };
                differs.then_some(ChangeKind::Modified)
            }
        };
        if let (Some(copy), Some(new)) = (copy, &new)
            && new.links > 1
            && !new.is_dir()
        {
            if kind.is_some() {
                copy.links.changed.insert(new.inode);
            } else if new.ctime >= copy.made {
                copy.links.unchanged.push((new.inode, path.clone()));
            }
        }
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

/// Compares what two files that look the same hold: data, a link's target, all attributes.
fn differ_within(new_dir: &OwnedFd, new: &Meta, old_dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
    let attributes = |dir: &OwnedFd| -> rustix::io::Result<Xattrs> {
        let handle = fs::handle(dir, name)?;
        let mut xattrs = fs::xattrs(&fs::handle_path(&handle))?;
        xattrs.retain(|(name, _)| !fs::is_overlay_xattr(name));
        Ok(xattrs)
    };
    if attributes(new_dir)? != attributes(old_dir)? {
        return Ok(true);
    }
    match new.kind {
        FileType::RegularFile => compare::data_differs(new_dir, old_dir, name, new.size),
        FileType::Symlink => Ok(fs::read_link(new_dir, name)? != fs::read_link(old_dir, name)?),
        _ => Ok(false),
    }
}

pub(crate) fn change(path: &[u8], kind: ChangeKind) -> Change {
    Change { path: PathBuf::from(OsString::from_vec([b"/", path].concat())), kind }
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
