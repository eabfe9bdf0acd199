//! A container's root without overlayfs: the layers' files copied into one directory, as they show together.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::clone::Cloner;
use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta};
use crate::name::join;
use crate::unpack::attributes::{Attributes, Late, Setter};
use crate::unpack::{lookup, merge, merged_names};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 1000;

/// What [`compose`] has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Composed {
    /// Bytes of file data, holes not counted.
    pub bytes: u64,
    /// Files, directories and everything else, the root not counted.
    pub entries: u64,
}

/// Copies what the layers `lowers` (topmost first, whiteouts in either form) show together into the empty directory
/// `dest`: modes, owners, extended attributes, times, device numbers, holes, and hard links within a layer as they are.
/// `dest` itself gets the mode, owner and attributes of the directory `like`.
///
/// Where the file system can, files share their blocks with the layers'. Nothing is synced. Needs root.
///
/// # Errors
/// A layer cannot be read, the system refuses a step, or directories are nested more than 1000 deep. What was made so
/// far stays in `dest`.
pub fn compose(lowers: &[PathBuf], like: &Path, dest: &Path) -> Result<Composed> {
    let dirs = lowers.iter().map(|path| fs::open_layer(path)).collect::<Result<Vec<_>>>()?;
    let root = fs::open_root(dest)?;
    let like = fs::open_layer(like)?;
    let mut composing = Composing {
        root: fs::open_root(dest)?,
        setter: Setter::new(false),
        cloner: Cloner::default(),
        links: HashMap::new(),
        done: Composed::default(),
    };
    let failed = |error: Errno| Error::io("copy the root", dest, error);
    let wanted = fs::stat(&like, b"").and_then(|meta| Attributes::of_file(&meta, &like)).map_err(failed)?;
    let late = composing.setter.directory(b"/", root.as_fd(), &wanted, false)?;
    // Not recursive: an image may nest directories deeper than a thread's stack.
    let mut levels = vec![Level::read(dirs, root, Vec::new(), late)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            if let Some(level) = levels.pop() {
                composing.setter.late(&level.path, level.to.as_fd(), &level.late)?;
            }
            continue;
        };
        if let Some(child) = composing.entry(level, &name)? {
            if levels.len() == MAX_DEPTH {
                return Err(Error::io("copy", printable(&child.path), Errno::NAMETOOLONG));
            }
            levels.push(child);
        }
    }
    Ok(composing.done)
}

/// A directory that is being copied.
struct Level {
    /// The layers' directories that are merged there, topmost first.
    from: Vec<OwnedFd>,
    to: OwnedFd,
    path: Vec<u8>,
    late: Late,
    /// What is still to come of it.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Level {
    fn read(from: Vec<OwnedFd>, to: OwnedFd, path: Vec<u8>, late: Late) -> Result<Self> {
        let names = merged_names(from.iter().map(AsFd::as_fd))
            .map_err(|error| Error::io("read", printable(&path), error))?
            .into_iter();
        Ok(Self { from, to, path, late, names })
    }
}

struct Composing {
    root: OwnedFd,
    setter: Setter,
    cloner: Cloner,
    /// The copies of files that have several names in their layer.
    links: HashMap<(u32, u32, u64), Vec<u8>>,
    done: Composed,
}

impl Composing {
    /// Copies one name; a directory comes back to be filled.
    fn entry(&mut self, level: &Level, name: &[u8]) -> Result<Option<Level>> {
        let path = join(&level.path, name);
        let failed = |error: Errno| Error::io("copy", printable(&path), error);
        let Some((dir, meta)) = lookup(&level.from, name).map_err(failed)? else { return Ok(None) };
        self.done.entries += 1;
        if meta.is_dir() {
            let from = merge(&level.from, name).map_err(failed)?;
            let wanted = match from.first() {
                Some(top) => Attributes::of_file(&meta, top).map_err(failed)?,
                None => return Ok(None),
            };
            let mode = Mode::from_raw_mode(wanted.mode & 0o777);
            rustix::fs::mkdirat(&level.to, name, mode).map_err(failed)?;
            let to = fs::open_dir(&level.to, name).map_err(failed)?;
            let late = self.setter.directory(&path, to.as_fd(), &wanted, true)?;
            return Level::read(from, to, path, late).map(Some);
        }
        if meta.links > 1 {
            if let Some(first) = self.links.get(&meta.inode) {
                self.link(first, &level.to, name).map_err(failed)?;
                return Ok(None);
            }
            self.links.insert(meta.inode, path.clone());
        }
        self.file(dir, &level.to, name, &path, &meta)?;
        Ok(None)
    }

    fn link(&self, first: &[u8], to: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
        let (parent, base) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&[][..], first),
        };
        let parent = fs::descend(&self.root, parent)?;
        rustix::fs::linkat(&parent, base, to, name, AtFlags::empty())
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], path: &[u8], meta: &Meta) -> Result<()> {
        let failed = |error: Errno| Error::io("copy", printable(path), error);
        match meta.kind {
            FileType::RegularFile => {
                let from =
                    fs::open_file(from, name).map_err(|error| Error::io("copy", printable(path), error))?;
                let wanted = Attributes::of_file(meta, &from).map_err(failed)?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(wanted.mode & 0o777);
                let to = rustix::fs::openat(to, name, flags, mode).map_err(failed)?;
                self.done.bytes += self.cloner.copy(&from, &to, meta.size, meta.blocks).map_err(failed)?;
                self.setter.file(path, to.as_fd(), &wanted)
            }
            FileType::Symlink => {
                let target = fs::read_link(from, name).map_err(failed)?;
                let handle = fs::handle(from, name).map_err(failed)?;
                let wanted = Attributes::of_file(meta, &handle).map_err(failed)?;
                rustix::fs::symlinkat(&target[..], to, name).map_err(failed)?;
                self.setter.node(path, to.as_fd(), name, &wanted, true)
            }
            kind => {
                let handle = fs::handle(from, name).map_err(failed)?;
                let wanted = Attributes::of_file(meta, &handle).map_err(failed)?;
                let mode = Mode::from_raw_mode(wanted.mode & 0o777);
                let device = rustix::fs::makedev(meta.rdev.0, meta.rdev.1);
                rustix::fs::mknodat(to, name, kind, mode, device).map_err(failed)?;
                self.setter.node(path, to.as_fd(), name, &wanted, false)
            }
        }
    }
}
