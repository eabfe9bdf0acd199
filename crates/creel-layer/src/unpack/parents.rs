//! The directory that an entry goes into: found, remembered, or made.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::apply::{Applier, Implied, Layer};
use super::attributes::{Attributes, Late};
use super::lower::Found;
use crate::error::{Error, Result, printable};
use crate::fs;
use crate::name::{below, join};
use crate::resolve::{Step, Walk};
use crate::tar::Entry;

/// A directory of the tree, as an entry's name gives it and as it truly is called.
pub(super) struct Place {
    text: Vec<u8>,
    /// Its path from the root with no link in it.
    pub(super) path: Vec<u8>,
    pub(super) fd: OwnedFd,
}

/// Archives go through a tree depth first, so few directories are in use at a time.
const REMEMBERED: usize = 8;

impl Applier {
    /// The directory that the clean path `text` leads to, made if need be on behalf of `entry`.
    pub(super) fn place(&mut self, text: &[u8], entry: &Entry) -> Result<Rc<Place>> {
        if let Some(index) = self.places.iter().position(|place| place.text == text) {
            let place = self.places.remove(index);
            self.places.push(Rc::clone(&place));
            return Ok(place);
        }
        let path = join_base(&self.base, text);
        let place = match fs::open_plain(&self.root, &path) {
            Ok(fd) => Place { text: text.to_vec(), path, fd },
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                let (path, fd) = self.walk(&path, entry)?;
                Place { text: text.to_vec(), path, fd }
            }
            Err(error) => return Err(Error::entry(&entry.name, "open its directory", error)),
        };
        let place = Rc::new(place);
        if self.places.len() == REMEMBERED {
            self.places.remove(0);
        }
        self.places.push(Rc::clone(&place));
        Ok(place)
    }

    /// Follows a path part by part as the container will see it, lower layers included, and makes what is missing.
    fn walk(&mut self, path: &[u8], entry: &Entry) -> Result<(Vec<u8>, OwnedFd)> {
        let failed = |error: Errno| Error::entry(&entry.name, "find its directory", error);
        let mut walk = Walk::new(path);
        let mut dir = fs::open_plain(&self.root, b"").map_err(failed)?;
        while let Some(step) = walk.next() {
            let Step::Name(name) = step else {
                dir = fs::open_plain(&self.root, &walk.path()).map_err(failed)?;
                continue;
            };
            let link = match fs::stat_if_any(&dir, &name).map_err(failed)? {
                Some(meta) if meta.is_dir() => {
                    dir = fs::open_dir(&dir, &name).map_err(failed)?;
                    walk.enter(name);
                    continue;
                }
                Some(meta) if meta.kind == FileType::Symlink => fs::read_link(&dir, &name).map_err(failed)?,
                Some(meta) if meta.is_whiteout() && self.is_layer() => {
                    // The layer deletes the name and puts something below it: a new directory that hides the old.
                    let child = join(&walk.path(), &name);
                    fs::remove_tree(dir.as_fd(), &name).map_err(failed)?;
                    dir = self.make_implied(&dir, &name, &child, Attributes::implied(entry.mtime), entry)?;
                    self.mark_opaque(&dir, child, entry)?;
                    walk.enter(name);
                    continue;
                }
                Some(_) => {
                    let parent = printable(&join(&walk.path(), &name));
                    return Err(Error::refused(&entry.name, format!("`{parent}` is not a directory")));
                }
                None => {
                    let child = join(&walk.path(), &name);
                    match self.lower(&child).map_err(failed)? {
                        Found::Other(lower, meta) if meta.kind == FileType::Symlink => {
                            fs::read_link(&lower, &name).map_err(failed)?
                        }
                        found => {
                            let wanted = match found {
                                Found::Directory(lower) => {
                                    let meta = fs::stat(&lower, b"").map_err(failed)?;
                                    Attributes::of_file(&meta, &lower).map_err(failed)?
                                }
                                _ => Attributes::implied(entry.mtime),
                            };
                            dir = self.make_implied(&dir, &name, &child, wanted, entry)?;
                            walk.enter(name);
                            continue;
                        }
                    }
                }
            };
            if walk.follow(&link).map_err(failed)? {
                dir = fs::open_plain(&self.root, b"").map_err(failed)?;
            }
        }
        Ok((walk.path(), dir))
    }

    /// What the layers below have at a path, as far as this layer lets it be seen. Asking makes the layer depend on them.
    pub(super) fn lower(&mut self, path: &[u8]) -> rustix::io::Result<Found> {
        let Some(layer) = self.layer_mut() else { return Ok(Found::Nothing) };
        if layer.hider(split(path).0).is_some() {
            return Ok(Found::Nothing);
        }
        layer.composed = true;
        if self.alone {
            return Err(Errno::NOENT);
        }
        self.layer_mut().map_or(Ok(Found::Nothing), |layer| layer.lowers.find(path))
    }

    /// Makes the directory `name`, whose whole path is `path`, which no entry describes.
    fn make_implied(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        wanted: Attributes,
        entry: &Entry,
    ) -> Result<OwnedFd> {
        let failed = |error: Errno| Error::entry(&entry.name, "make its directory", error);
        match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(wanted.mode & 0o777)) {
            // In a running container somebody may have been faster: then it is theirs and stays as it is.
            Err(Errno::EXIST) if !self.is_layer() => return fs::open_dir(dir, name).map_err(failed),
            result => result.map_err(failed)?,
        }
        let made = fs::open_dir(dir, name).map_err(failed)?;
        let late = self.setter.directory(&entry.name, made.as_fd(), &wanted, true)?;
        if self.is_layer() {
            self.remember(path.to_vec(), late, entry)?;
        }
        self.note_implied(path, Implied::Directory);
        Ok(made)
    }

    /// Keeps in mind what is to be set on a directory at the end. One entry can need two thousand directories, and so
    /// megabytes: there is an end to it.
    pub(super) fn remember(&mut self, path: Vec<u8>, late: Late, entry: &Entry) -> Result<()> {
        let length = path.len() as u64;
        if self.late.insert(path, late).is_none() {
            self.late_bytes += length;
        }
        if self.late_bytes > self.max_late_bytes {
            let name = printable(&entry.name);
            return Err(Error::TooDeep { name, limit: self.max_late_bytes });
        }
        Ok(())
    }

    /// Forgets what is known about a path and all below it, because it has been removed.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.places.clear();
        self.late_bytes -= forget_in(&mut self.late, path);
        if let Some(layer) = self.layer_mut() {
            forget_in(&mut layer.opaque, path);
            forget_in(&mut layer.implied, path);
        }
    }

    /// Makes implied directories anonymous again and takes implied files away, in and below `path`: what they were
    /// taken from turned out to be hidden. `itself`: also `path`.
    pub(super) fn reset_implied(&mut self, path: &[u8], itself: bool, entry: &Entry) -> Result<()> {
        let Some(layer) = self.layer_mut() else { return Ok(()) };
        // Where everything below is hidden already nothing was taken from there since, and what was is anonymous: an
        // archive may say the same ten thousand times of ten thousand directories.
        if layer.hider(path).is_some() {
            return Ok(());
        }
        let mut known = layer.implied_below(path);
        if let Some(what) = layer.implied.get(path).filter(|_| itself) {
            known.push((path.to_vec(), *what));
        }
        for (known, what) in known {
            let failed = |error: Errno| Error::entry(&entry.name, "hide what was taken from below", error);
            match what {
                Implied::Directory => {
                    let dir = fs::open_plain(&self.root, &known).map_err(failed)?;
                    super::attributes::clear_xattrs(&dir).map_err(failed)?;
                    let wanted = Attributes::implied(entry.mtime);
                    self.setter.directory(&entry.name, dir.as_fd(), &wanted, false)?;
                    self.remember(known, Late::only(entry.mtime), entry)?;
                }
                Implied::File => {
                    let (parent, name) = split(&known);
                    let dir = fs::open_plain(&self.root, parent).map_err(failed)?;
                    fs::remove_tree(dir.as_fd(), name).map_err(failed)?;
                    self.forget(&known);
                }
            }
        }
        Ok(())
    }
}

impl Layer {
    /// The directory, `path` or one above it, that hides all that the layers below have in it.
    fn hider<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let mut path = path;
        while !path.is_empty() && !self.opaque.contains_key(path) {
            path = split(path).0;
        }
        Some(path).filter(|path| self.opaque.contains_key(*path))
    }

    /// What was taken from the layers below, below `path`, and is not hidden there yet.
    fn implied_below(&self, path: &[u8]) -> Vec<(Vec<u8>, Implied)> {
        let (mut start, end) = match below(path) {
            _ if path.is_empty() => (Bound::Included(Vec::new()), Bound::Unbounded),
            Range { start, end } => (Bound::Included(start), Bound::Excluded(end)),
        };
        let mut found = Vec::new();
        while let Some((known, what)) = self.implied.range((start, end.clone())).next() {
            start = match self.hider(split(known).0) {
                Some(hider) => Bound::Included(below(hider).end),
                None => {
                    found.push((known.clone(), *what));
                    Bound::Excluded(known.clone())
                }
            };
        }
        found
    }
}

/// Takes a path and all below it off a list, and says how long these paths were together. Only these are looked at:
/// archives with very many entries exist.
fn forget_in<T>(list: &mut BTreeMap<Vec<u8>, T>, path: &[u8]) -> u64 {
    let mut gone: Vec<Vec<u8>> = list.range(below(path)).map(|(known, _)| known.clone()).collect();
    gone.push(path.to_vec());
    gone.iter().filter(|known| list.remove(*known).is_some()).map(|known| known.len() as u64).sum()
}

/// Parent and last part of a path that is not the root.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// `base/text`, either of which may be empty.
pub(super) fn join_base(base: &[u8], text: &[u8]) -> Vec<u8> {
    if text.is_empty() { base.to_vec() } else { join(base, text) }
}
