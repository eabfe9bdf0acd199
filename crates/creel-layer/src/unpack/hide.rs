//! Whiteouts in overlayfs's form: a 0:0 character device for a name, an attribute for a whole directory. Where the file
//! system refuses them (an overlay does, and whatever has no `trusted.*`), OCI's own names take their place: nothing else
//! in a layer can have these. [`super::lower`] reads both.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::apply::{Applier, Implied};
use super::parents::split;
use crate::error::{Error, Result};
use crate::fs::{self, OPAQUE};
use crate::name::{Clean, join, opaque_marker, whiteout};
use crate::tar::Entry;

impl Applier {
    /// Hides `name` of the layers below, but nothing that this layer has put there.
    pub(crate) fn hide(&mut self, name: &Clean, entry: &Entry) -> Result<()> {
        let failed = |error: Errno| Error::entry(&entry.name, "make a whiteout", error);
        let Some((parent, base)) = name.split() else { return Ok(()) };
        let place = self.place(parent, entry)?;
        let path = join(&place.path, base);
        match fs::stat_if_any(&place.fd, base).map_err(failed)? {
            Some(meta) if meta.is_whiteout() => return Ok(()),
            Some(meta) if meta.is_dir() => {
                self.reset_implied(&path, true, entry)?;
                let dir = fs::open_dir(&place.fd, base).map_err(failed)?;
                return self.mark_opaque(&dir, path, entry);
            }
            // Brought up only because a hard link names it: nothing of this layer's own.
            Some(_) if self.implied(&path) == Some(Implied::File) => {
                fs::remove_tree(place.fd.as_fd(), base).map_err(failed)?;
                self.forget(&path);
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let plain = make_whiteout(&place.fd, base).map_err(failed)?;
        self.note_plain(plain);
        Ok(())
    }

    fn note_plain(&mut self, plain: bool) {
        if let Some(layer) = self.layer_mut() {
            layer.plain_marks |= plain;
        }
    }

    /// Hides all that the layers below have in `name`.
    pub(crate) fn hide_all_in(&mut self, name: &Clean, entry: &Entry) -> Result<()> {
        let place = self.place(name.bytes(), entry)?;
        self.reset_implied(&place.path, false, entry)?;
        let dir = fs::open_plain(&place.fd, b"").map_err(|error| Error::entry(&entry.name, "open", error))?;
        self.mark_opaque(&dir, place.path.clone(), entry)
    }

    /// Makes a directory opaque. overlayfs does not look for the mark on a layer's root: there it is spelt out at the
    /// end, see [`Applier::hide_all_in_root`].
    pub(super) fn mark_opaque(&mut self, dir: &OwnedFd, path: Vec<u8>, entry: &Entry) -> Result<()> {
        if !path.is_empty() {
            let plain =
                set_opaque(dir).map_err(|error| Error::entry(&entry.name, "mark as opaque", error))?;
            self.note_plain(plain);
        }
        if let Some(layer) = self.layer_mut() {
            layer.opaque.insert(path, ());
        }
        Ok(())
    }

    /// If the layer hides everything below its root: a whiteout or a mark for each name that is there.
    pub(super) fn hide_all_in_root(&mut self) -> Result<()> {
        let failed = |error: Errno| Error::entry(b"/", "hide the layers below", error);
        let Some(layer) = self.layer_mut() else { return Ok(()) };
        if !layer.opaque.contains_key(&[][..]) {
            return Ok(());
        }
        layer.composed = true;
        if self.alone {
            return Err(failed(Errno::NOENT));
        }
        let Some(layer) = self.layer_mut() else { return Ok(()) };
        for name in layer.lowers.root_names().map_err(failed)? {
            let plain = match fs::stat_if_any(&self.root, &name).map_err(failed)? {
                None => make_whiteout(&self.root, &name).map_err(failed)?,
                Some(meta) if meta.is_dir() => {
                    let dir = fs::open_dir(&self.root, &name).map_err(failed)?;
                    set_opaque(&dir).map_err(failed)?
                }
                Some(_) => false,
            };
            self.note_plain(plain);
        }
        Ok(())
    }

    /// Takes a removed file's name off the books, and says whether it was there because a hard link needed it.
    fn implied(&mut self, path: &[u8]) -> Option<Implied> {
        debug_assert!(!split(path).1.is_empty());
        self.layer_mut().and_then(|layer| layer.implied.get(path).copied())
    }
}

/// Tells whether the mark is a plain one.
fn make_whiteout(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<bool> {
    match rustix::fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => plain_mark(dir, &whiteout(name)),
        done => done.map(|()| false),
    }
}

/// Tells whether the mark is a plain one.
fn set_opaque(dir: impl AsFd) -> rustix::io::Result<bool> {
    match rustix::fs::fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()) {
        Err(Errno::PERM | Errno::NOTSUP) => plain_mark(dir, opaque_marker()),
        done => done.map(|()| false),
    }
}

fn plain_mark(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<bool> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(|_| true)
}
