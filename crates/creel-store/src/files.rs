//! Files below the root directory: temporary names, syncing, sizes, and deleting trees without following links.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use creel_types::Digest;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::layers::finish;

/// The names in `tmp/` that are in use; everything else there is rubbish.
#[derive(Debug)]
pub(crate) struct Temps {
    directory: PathBuf,
    /// Tells this process's names from those of an earlier one that could not be deleted.
    seed: String,
    next: AtomicU64,
    active: Mutex<HashSet<String>>,
}

impl Temps {
    pub(crate) fn new(directory: PathBuf) -> Arc<Self> {
        let seed = format!("{:x}", jiff::Timestamp::now().as_microsecond());
        Arc::new(Self { directory, seed, next: AtomicU64::new(0), active: Mutex::new(HashSet::new()) })
    }

    /// A new name, kept from the sweep as long as the value lives; nothing is created yet.
    pub(crate) fn name(self: &Arc<Self>, what: &str) -> Temp {
        let name = format!("{what}-{}-{}", self.seed, self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.join(&name);
        self.active.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Temp { temps: self.clone(), name, path, gone: false }
    }

    /// Whether somebody is at work under this name.
    pub(crate) fn is_active(&self, name: &str) -> bool {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

/// A name in `tmp/`. Whatever lies there is deleted when it is dropped.
#[derive(Debug)]
pub(crate) struct Temp {
    temps: Arc<Temps>,
    name: String,
    path: PathBuf,
    gone: bool,
}

impl Temp {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves what lies here to its place.
    pub(crate) fn rename_to(mut self, to: &Path) -> Result<()> {
        std::fs::rename(&self.path, to).map_err(|why| Error::io("rename a temporary file to", to, why))?;
        self.gone = true;
        Ok(())
    }

    /// Deletes what lies here and says whether that worked.
    pub(crate) fn delete(mut self) -> Result<()> {
        self.gone = true;
        remove_tree(&self.path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.gone
            && let Err(why) = remove_tree(&self.path)
        {
            tracing::warn!("{why}");
        }
        self.temps.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Makes a directory with exactly this mode, whatever the umask; one that is there stays as it is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            .map_err(|why| Error::io("change the mode of", path, why)),
        Err(rustix::io::Errno::EXIST) if path.is_dir() => Ok(()),
        Err(why) => Err(Error::io("create the directory", path, why)),
    }
}

/// Whether a file in this directory cannot grow because the disk, or somebody's part of it, is full.
pub(crate) fn is_full(directory: &Path) -> bool {
    let path = directory.join(format!(".room-{}", std::process::id()));
    let tried = std::fs::write(&path, [1; 64 << 10]);
    let _ = std::fs::remove_file(&path);
    tried.is_err_and(|why| matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|why| Error::io("sync", path, why))
}

/// A file system that is to be made durable. It is opened before what matters is written: the kernel tells a descriptor
/// of each failure since it was opened, and of none that another one has been told of before that (`errseq.rst`).
#[derive(Debug)]
pub(crate) struct Synced {
    dir: File,
    path: PathBuf,
}

impl Synced {
    /// The file system that a directory is on.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let dir = File::open(path).map_err(|why| Error::io("open", path, why))?;
        Ok(Self { dir, path: path.to_owned() })
    }

    /// Makes everything on it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.dir).map_err(|why| Error::io("sync the file system of", &self.path, why))
    }
}

/// The digest and length of a file's content.
pub(crate) fn hash_file(mut file: File) -> io::Result<(Digest, u64)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((finish(context), length)),
            count => {
                context.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn entries(dir: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// How many directories deep a deletion holds descriptors; deeper trees are cut off and laid at the top.
const DEPTH: usize = 48;

/// Deletes a file or a tree. Follows no link, needs no permission bits of what it deletes (they are set where
/// the kernel asks for them), and does not mind how deep the tree is. What is not there is deleted already.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let error = |why| Error::io("delete", path, why);
    let name =
        CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| error(rustix::io::Errno::INVAL))?;
    remove_at(CWD, &name, None).map_err(error)
}

fn remove_at(
    at: BorrowedFd<'_>,
    name: &CStr,
    top: Option<(BorrowedFd<'_>, usize)>,
) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(why) => return Err(why),
    }
    match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
        Err(why) => return Err(why),
    }
    let depth = top.map_or(0, |(_, depth)| depth);
    if let Some((top, _)) = top
        && depth >= DEPTH
    {
        return cut_off(at, name, top);
    }
    let dir = match open_dir(at, name) {
        Err(Errno::ACCESS) => {
            // not root: the owner may give himself the permission
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(at, name)?
        }
        other => other?,
    };
    // Cut-off parts of the tree land in this directory while it is being emptied, hence the loop.
    loop {
        let found = entries(&dir)?;
        if found.is_empty() {
            break;
        }
        for (entry, _) in found {
            let below = (top.map_or(dir.as_fd(), |(top, _)| top), depth + 1);
            match remove_at(dir.as_fd(), &entry, Some(below)) {
                Err(Errno::ACCESS) => {
                    rustix::fs::fchmod(&dir, Mode::RWXU)?;
                    remove_at(dir.as_fd(), &entry, Some(below))?;
                }
                other => other?,
            }
        }
    }
    match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Moves a directory that lies too deep into the top one, under a name that is free there.
fn cut_off(at: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> rustix::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let to = format!(".cut-off-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        match rustix::fs::renameat_with(at, name, top, to.as_str(), rustix::fs::RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => continue,
            other => return other,
        }
    }
}

/// The bytes of all regular files below a directory, hard links counted once; links are not followed.
pub(crate) fn tree_size(path: &Path) -> Result<u64> {
    let error = |why| Error::io("measure", path, why);
    let mut seen = HashSet::new();
    let mut total = 0;
    let top = rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(error)?;
    size_at(&top, &mut seen, &mut total, 0).map_err(error)?;
    Ok(total)
}

/// The bytes of the regular files at these absolute paths of a tree, hard links counted once; what is gone has none.
pub(crate) fn sizes_of<'a>(root: &Path, paths: impl Iterator<Item = &'a Path>) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = HashSet::new();
    let mut total = 0;
    for path in paths {
        // by its letters: what leads here is no link, or the walk would not have found it
        let Ok(meta) = std::fs::symlink_metadata(root.join(path.strip_prefix("/").unwrap_or(path))) else {
            continue;
        };
        if meta.is_file() && (meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino()))) {
            total += meta.len();
        }
    }
    total
}

fn size_at(
    dir: &OwnedFd,
    seen: &mut HashSet<(u64, u64)>,
    total: &mut u64,
    depth: usize,
) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    for (name, _) in entries(dir)? {
        // a container may be changing the tree meanwhile
        let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) => {
                *total += stat.st_size.max(0) as u64;
            }
            // deeper than any sane tree: descriptors are finite, and a size is only information
            FileType::Directory if depth < 400 => match open_dir(dir.as_fd(), &name) {
                Ok(below) => size_at(&below, seen, total, depth + 1)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
                Err(why) => return Err(why),
            },
            _ => {}
        }
    }
    Ok(())
}
