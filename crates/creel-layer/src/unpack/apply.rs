//! One entry at a time: making the file that it describes.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Unpacked;
use super::attributes::{Attributes, Late, Setter, clear_xattrs};
use super::fill::{Filler, SMALL};
use super::lower::{Found, Lowers};
use super::parents::{Place, join_base};
use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta};
use crate::name::{Clean, is_reserved, join};
use crate::tar::{Entry, Kind, Reader, Segment, TarError};

/// For copies from lower layers: large enough that a call's cost does not matter, small enough for the cache.
const BUFFER: usize = 256 << 10;

/// The two ways in which archives are unpacked.
pub(crate) enum Manner {
    /// As a layer: whiteouts mean something, the layers below are looked at.
    Layer(Box<Layer>),
    /// As files into a container's tree: names mean what they say.
    Copy {
        /// Whose the files become; `None`: as the archive says.
        owner: Option<(u32, u32)>,
        /// Refuse to replace a directory by something else, and the other way round.
        keep_kind: bool,
    },
}

/// What is known of a layer while it is unpacked.
pub(crate) struct Layer {
    pub(super) lowers: Lowers,
    /// Directories of this layer that hide the lower ones.
    pub(super) opaque: BTreeMap<Vec<u8>, ()>,
    /// What no entry has described, but an entry needed.
    pub(super) implied: BTreeMap<Vec<u8>, Implied>,
    pub(super) composed: bool,
    pub(super) root_entry: bool,
    /// Some whiteouts are in the plain form.
    pub(super) plain_marks: bool,
}

/// What was made without an entry for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Implied {
    /// A directory on the way to an entry.
    Directory,
    /// A lower layer's file that a hard link names.
    File,
}

impl Manner {
    /// A layer on top of these, topmost first.
    pub(crate) fn layer(lowers: Vec<OwnedFd>) -> Self {
        let (opaque, implied) = (BTreeMap::new(), BTreeMap::new());
        let lowers = Lowers::new(lowers);
        let layer = Layer { lowers, opaque, implied, composed: false, root_entry: false, plain_marks: false };
        Manner::Layer(Box::new(layer))
    }
}

/// Makes files below a root, entry by entry.
pub(crate) struct Applier {
    pub(super) root: OwnedFd,
    /// Where in the root the archive's names begin: a path with no link in it.
    pub(super) base: Vec<u8>,
    manner: Manner,
    pub(super) places: Vec<Rc<Place>>,
    pub(super) setter: Setter,
    /// Directories by their paths, with what is set on them at the end.
    pub(super) late: BTreeMap<Vec<u8>, Late>,
    /// Bytes of those paths.
    pub(super) late_bytes: u64,
    pub(super) max_late_bytes: u64,
    /// Whether the layers below are not there yet.
    pub(crate) alone: bool,
    filler: Filler,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Applier {
    pub(crate) fn new(root: OwnedFd, base: Vec<u8>, manner: Manner, max_late_bytes: Option<u64>) -> Self {
        let max_late_bytes = max_late_bytes.unwrap_or(u64::MAX);
        let setter = Setter::new(matches!(manner, Manner::Copy { .. }));
        let (places, late, buffer) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self {
            root,
            base,
            manner,
            places,
            setter,
            late,
            late_bytes: 0,
            max_late_bytes,
            alone: false,
            filler: Filler::default(),
            buffer,
            bytes: 0,
        }
    }

    pub(super) fn is_layer(&self) -> bool {
        matches!(self.manner, Manner::Layer(_))
    }

    pub(super) fn layer_mut(&mut self) -> Option<&mut Layer> {
        match &mut self.manner {
            Manner::Layer(layer) => Some(layer),
            Manner::Copy { .. } => None,
        }
    }

    pub(super) fn note_implied(&mut self, path: &[u8], what: Implied) {
        if let Some(layer) = self.layer_mut() {
            layer.implied.insert(path.to_vec(), what);
        }
    }

    /// Creates or changes the file `name` as `entry` says, with the data that `archive` has for it.
    pub(crate) fn put<R: BufRead>(
        &mut self,
        name: &Clean,
        entry: &Entry,
        archive: &mut Reader<R>,
    ) -> Result<()> {
        let owner = match self.manner {
            Manner::Copy { owner, .. } => owner,
            Manner::Layer(_) => None,
        };
        let (wanted, dropped) = Attributes::of_entry(entry, owner)?;
        self.setter.dropped += dropped;
        let Some((parent, base)) = name.split() else { return self.put_root(entry, &wanted) };
        if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = entry.kind {
            check_device(entry, major, minor)?;
        }
        let place = self.place(parent, entry)?;
        match &entry.kind {
            Kind::File => self.put_file(&place, base, entry, &wanted, archive)?,
            Kind::Directory => return self.put_directory(&place, base, entry, &wanted),
            Kind::HardLink(target) => self.put_hard_link(&place, base, entry, target)?,
            Kind::Symlink(target) => {
                self.create(&place, base, entry, |dir| rustix::fs::symlinkat(&target[..], dir, base))?;
                self.setter.node(&entry.name, place.fd.as_fd(), base, &wanted, true)?;
            }
            Kind::CharDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.put_node(&place, base, entry, &wanted, FileType::CharacterDevice, device)?;
            }
            Kind::BlockDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.put_node(&place, base, entry, &wanted, FileType::BlockDevice, device)?;
            }
            Kind::Fifo => self.put_node(&place, base, entry, &wanted, FileType::Fifo, 0)?,
        }
        Ok(())
    }

    /// Whether something was looked for in layers below that are not there yet.
    pub(crate) fn needs_below(&mut self) -> bool {
        self.alone && self.layer_mut().is_some_and(|layer| layer.composed)
    }

    /// Sets what had to wait for the end, and sums up. Nothing can be put after that.
    pub(crate) fn finish(&mut self) -> Result<Unpacked> {
        self.hide_all_in_root()?;
        self.filler.end(&mut self.setter)?;
        for (path, late) in std::mem::take(&mut self.late) {
            match fs::open_plain(&self.root, &path) {
                Ok(dir) => self.setter.late(&path, dir.as_fd(), &late)?,
                // In a running container it may have gone again.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !self.is_layer() => {}
                Err(error) => return Err(Error::entry(&path, "open the directory again", error)),
            }
        }
        let (composed, root_entry, plain_marks) = match &self.manner {
            Manner::Layer(layer) => (layer.composed, layer.root_entry, layer.plain_marks),
            Manner::Copy { .. } => (false, false, false),
        };
        let dropped_xattrs = self.setter.dropped;
        Ok(Unpacked { bytes: self.bytes, entries: 0, composed, root_entry, dropped_xattrs, plain_marks })
    }

    fn put_root(&mut self, entry: &Entry, wanted: &Attributes) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::refused(&entry.name, "the root can be a directory only"));
        }
        // Docker leaves the directory that it copies into as it is.
        let Some(layer) = self.layer_mut() else { return Ok(()) };
        layer.root_entry = true;
        let root =
            fs::open_plain(&self.root, b"").map_err(|error| Error::entry(&entry.name, "open", error))?;
        self.change_directory(&root, &[], entry, wanted)
    }

    fn put_file<R: BufRead>(
        &mut self,
        place: &Place,
        base: &[u8],
        entry: &Entry,
        wanted: &Attributes,
        archive: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(wanted.mode & 0o777);
        let file = self.create(place, base, entry, |dir| rustix::fs::openat(dir, base, flags, mode))?;
        match &entry.sparse {
            None if entry.size <= SMALL && self.is_layer() => {
                self.bytes += entry.size;
                return self.filler.add(file, entry, wanted, archive, &mut self.setter);
            }
            None => self.fill(&file, entry, archive, Segment { offset: 0, length: entry.size })?,
            Some(segments) => {
                rustix::fs::ftruncate(&file, entry.size)
                    .map_err(|error| Error::entry(&entry.name, "set the file's length", error))?;
                for segment in segments {
                    self.fill(&file, entry, archive, *segment)?;
                }
            }
        }
        self.setter.file(&entry.name, file.as_fd(), wanted)
    }

    /// Writes the next `segment.length` bytes of the archive to the file.
    fn fill<R: BufRead>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        archive: &mut Reader<R>,
        segment: Segment,
    ) -> Result<()> {
        let (mut at, end) = (segment.offset, segment.offset.saturating_add(segment.length));
        while at < end {
            let piece = archive.data().map_err(|error| data_error(error, entry))?;
            if piece.is_empty() {
                return Err(Error::Tar(TarError::Truncated));
            }
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            fs::write_at(file, &piece[..count], at)
                .map_err(|error| Error::entry(&entry.name, "write", error))?;
            archive.used(count).map_err(|error| data_error(error, entry))?;
            at += count as u64;
        }
        self.bytes += segment.length;
        Ok(())
    }

    fn put_directory(
        &mut self,
        place: &Place,
        base: &[u8],
        entry: &Entry,
        wanted: &Attributes,
    ) -> Result<()> {
        let failed = |step| move |error: Errno| Error::entry(&entry.name, step, error);
        let path = join(&place.path, base);
        let mode = Mode::from_raw_mode(wanted.mode & 0o777);
        match rustix::fs::mkdirat(&place.fd, base, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = fs::stat_if_any(&place.fd, base).map_err(failed("look at what is there"))?;
                if found.is_some_and(|meta| meta.is_dir()) {
                    let dir = fs::open_dir(&place.fd, base).map_err(failed("open"))?;
                    return self.change_directory(&dir, &path, entry, wanted);
                }
                self.make_room(place, base, entry)?;
                rustix::fs::mkdirat(&place.fd, base, mode).map_err(failed("make directory"))?;
                if self.is_layer() {
                    let dir = fs::open_dir(&place.fd, base).map_err(failed("open"))?;
                    self.mark_opaque(&dir, path.clone(), entry)?;
                }
            }
            Err(error) => return Err(failed("make directory")(error)),
        }
        let late = if self.setter.is_plain(wanted) {
            Late::only(wanted.mtime)
        } else {
            let dir = fs::open_dir(&place.fd, base).map_err(failed("open"))?;
            self.setter.directory(&entry.name, dir.as_fd(), wanted, true)?
        };
        self.remember(path, late, entry)
    }

    /// Gives a directory that is there already what the entry says.
    fn change_directory(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        wanted: &Attributes,
    ) -> Result<()> {
        if let Some(layer) = self.layer_mut() {
            layer.implied.remove(path);
            clear_xattrs(dir)
                .map_err(|error| Error::entry(&entry.name, "clear extended attributes", error))?;
        }
        let late = self.setter.directory(&entry.name, dir.as_fd(), wanted, false)?;
        self.remember(path.to_vec(), late, entry)
    }

    fn put_node(
        &mut self,
        place: &Place,
        base: &[u8],
        entry: &Entry,
        wanted: &Attributes,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let mode = Mode::from_raw_mode(wanted.mode & 0o777);
        self.create(place, base, entry, |dir| rustix::fs::mknodat(dir, base, kind, mode, device))?;
        self.setter.node(&entry.name, place.fd.as_fd(), base, wanted, false)
    }

    fn put_hard_link(&mut self, place: &Place, base: &[u8], entry: &Entry, target: &[u8]) -> Result<()> {
        let refused =
            |why: &str| Error::refused(&entry.name, format!("hard link to `{}`: {why}", printable(target)));
        let failed = |error: Errno| Error::entry(&entry.name, "link", error);
        let clean = Clean::parse(target).map_err(|_| refused("its target lies outside of the root"))?;
        let Some((parent, name)) = clean.split() else { return Err(refused("its target is a directory")) };
        if self.is_layer() && is_reserved(name) {
            return Err(refused("its target is a whiteout"));
        }
        let source = self.place(parent, entry)?;
        let found = match fs::stat_if_any(&source.fd, name).map_err(failed)? {
            Some(meta) => Some(meta),
            None => self.bring_up(&source, name, entry)?,
        };
        let Some(meta) = found else { return Err(refused("there is no such file before it or below it")) };
        if meta.is_dir() {
            return Err(refused("its target is a directory"));
        }
        if meta.is_whiteout() {
            return Err(refused("its target is deleted by the same layer"));
        }
        let link = |dir: BorrowedFd<'_>| rustix::fs::linkat(&source.fd, name, dir, base, AtFlags::empty());
        match link(place.fd.as_fd()) {
            Err(Errno::EXIST) => {
                let there = fs::stat_if_any(&place.fd, base).map_err(failed)?;
                if there.is_some_and(|there| there.inode == meta.inode) {
                    return Ok(());
                }
                self.create(place, base, entry, link)
            }
            Err(error) => Err(failed(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Copies a lower layer's file into this layer, so that it can be linked to.
    fn bring_up(&mut self, place: &Place, name: &[u8], entry: &Entry) -> Result<Option<Meta>> {
        let failed = |error: Errno| Error::entry(&entry.name, "bring up its target", error);
        let path = join(&place.path, name);
        let Found::Other(lower, meta) = self.lower(&path).map_err(failed)? else { return Ok(None) };
        let handle = fs::handle(&lower, name).map_err(failed)?;
        let wanted = Attributes::of_file(&meta, &handle).map_err(failed)?;
        let dir = place.fd.as_fd();
        let mode = Mode::from_raw_mode(wanted.mode & 0o777);
        match meta.kind {
            FileType::RegularFile => {
                let from = fs::open_file(&lower, name)
                    .map_err(|error| Error::entry(&entry.name, "bring up its target", error))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rustix::fs::openat(dir, name, flags, mode).map_err(failed)?;
                rustix::fs::ftruncate(&to, meta.size).map_err(failed)?;
                self.buffer.resize(BUFFER, 0);
                for segment in fs::data_segments(&from, meta.size).map_err(failed)? {
                    self.bytes += copy_segment(&from, &to, segment, &mut self.buffer).map_err(failed)?;
                }
                self.setter.file(&entry.name, to.as_fd(), &wanted)?;
            }
            FileType::Symlink => {
                let target = fs::read_link(&lower, name).map_err(failed)?;
                rustix::fs::symlinkat(&target[..], dir, name).map_err(failed)?;
                self.setter.node(&entry.name, dir, name, &wanted, true)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let device = rustix::fs::makedev(meta.rdev.0, meta.rdev.1);
                rustix::fs::mknodat(dir, name, meta.kind, mode, device).map_err(failed)?;
                self.setter.node(&entry.name, dir, name, &wanted, false)?;
            }
            _ => return Ok(None),
        }
        self.note_implied(&path, Implied::File);
        fs::stat_if_any(dir, name).map_err(failed)
    }

    /// Makes something under a name, after removing what stands there.
    fn create<T>(
        &mut self,
        place: &Place,
        base: &[u8],
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let mut result = make(place.fd.as_fd());
        if matches!(result, Err(Errno::EXIST)) {
            self.make_room(place, base, entry)?;
            result = make(place.fd.as_fd());
        }
        result.map_err(|error| Error::entry(&entry.name, "create", error))
    }

    /// Removes what stands in the way of an entry.
    fn make_room(&mut self, place: &Place, base: &[u8], entry: &Entry) -> Result<()> {
        let failed = |error: Errno| Error::entry(&entry.name, "replace what is there", error);
        let Some(there) = fs::stat_if_any(&place.fd, base).map_err(failed)? else { return Ok(()) };
        let is_dir = entry.kind == Kind::Directory;
        if let Manner::Copy { keep_kind: true, .. } = self.manner
            && there.is_dir() != is_dir
        {
            let why = if is_dir {
                "cannot overwrite non-directory with directory"
            } else {
                "cannot overwrite directory with non-directory"
            };
            return Err(Error::refused(&entry.name, why));
        }
        fs::remove_tree(place.fd.as_fd(), base).map_err(failed)?;
        let path = join_base(&place.path, base);
        match there.kind {
            // Names may have been resolved through it.
            FileType::Directory | FileType::Symlink => self.forget(&path),
            _ => {
                if let Some(layer) = self.layer_mut() {
                    layer.implied.remove(&path);
                }
            }
        }
        Ok(())
    }
}

/// A device that overlayfs would take for a whiteout is refused, and so are numbers that mknod(2) would cut to fit.
fn check_device(entry: &Entry, major: u32, minor: u32) -> Result<()> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::refused(&entry.name, format!("there is no device {major}:{minor}")));
    }
    if (major, minor) == (0, 0) && matches!(entry.kind, Kind::CharDevice(..)) {
        return Err(Error::refused(
            &entry.name,
            "a 0:0 character device is overlayfs's own mark for a deleted file",
        ));
    }
    Ok(())
}

fn copy_segment(
    from: &std::fs::File,
    to: &OwnedFd,
    segment: Segment,
    buffer: &mut [u8],
) -> rustix::io::Result<u64> {
    let (mut at, end) = (segment.offset, segment.offset + segment.length);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
        let count = rustix::io::pread(from, &mut buffer[..want], at)?;
        if count == 0 {
            break;
        }
        fs::write_at(to, &buffer[..count], at)?;
        at += count as u64;
    }
    Ok(at - segment.offset)
}

/// A failure to read an entry's data is the archive's, not the file's.
pub(super) fn data_error(error: std::io::Error, entry: &Entry) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TarError>()) {
        Some(TarError::Limit(limit)) => Error::TooLarge(*limit),
        Some(TarError::Truncated) => Error::Tar(TarError::Truncated),
        _ => Error::entry(&entry.name, "read its data from the archive", error),
    }
}
