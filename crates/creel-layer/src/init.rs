//! The init layer: what an engine needs to find in a container's root, whatever the image has.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta, Xattrs};
use crate::name::join;
use crate::unpack::merge;

/// What a path is to be, unless the image has a directory there.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Directory,
    /// An empty file, which something is mounted over.
    File,
    Link(&'static str),
}

/// By directory (the root first), what is wanted in it.
const WANTED: [(&str, &[(&str, Wanted)]); 3] = [
    ("", &[(".dockerenv", Wanted::File), ("proc", Wanted::Directory), ("sys", Wanted::Directory)]),
    ("dev", &[("console", Wanted::File), ("pts", Wanted::Directory), ("shm", Wanted::Directory)]),
    (
        "etc",
        &[
            ("hostname", Wanted::File),
            ("hosts", Wanted::File),
            ("mtab", Wanted::Link("/proc/mounts")),
            ("resolv.conf", Wanted::File),
        ],
    ),
];

/// Makes an init layer in the empty directory `dest`, to be the topmost of a container's lower directories, above
/// `lowers` (topmost first).
///
/// It holds the mount points of the kernel's file systems and of the three files of the network, `/etc/mtab` and
/// `/.dockerenv`, so that none of them has to be made in the writable layer, where `diff` and `commit` would find it.
/// As Docker's, it hides files and links that the image has at these places, and leaves directories alone. `/etc` and
/// `/dev` look as the image has them: mode, owner, attributes and time; if it has none they are root's 0755.
///
/// Nothing is synced.
///
/// # Errors
/// A lower directory cannot be read, or the system refuses to make something in `dest`.
pub fn make_init_layer(dest: &Path, lowers: &[PathBuf]) -> Result<()> {
    let root = fs::open_root(dest)?;
    let lowers = lowers.iter().map(|path| fs::open_layer(path)).collect::<Result<Vec<_>>>()?;
    for (parent, names) in WANTED {
        let failed = |error: Errno| Error::io("make the init layer's", printable(parent.as_bytes()), error);
        if parent.is_empty() {
            fill(&root, &lowers, parent, names)?;
            continue;
        }
        let below = merge(&lowers, parent.as_bytes()).map_err(failed)?;
        let like = below.first().map(Likeness::of).transpose().map_err(failed)?;
        rustix::fs::mkdirat(&root, parent, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let dir = fs::open_dir(&root, parent.as_bytes()).map_err(failed)?;
        fill(&dir, &below, parent, names)?;
        match like {
            Some(like) => like.apply(&dir).map_err(failed)?,
            None => rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755)).map_err(failed)?,
        }
    }
    Ok(())
}

fn fill(dir: &OwnedFd, lowers: &[OwnedFd], parent: &str, names: &[(&str, Wanted)]) -> Result<()> {
    for (name, wanted) in names {
        let path = join(parent.as_bytes(), name.as_bytes());
        let failed = |error: Errno| Error::io("make the init layer's", printable(&path), error);
        if !merge(lowers, name.as_bytes()).map_err(failed)?.is_empty() {
            continue;
        }
        // Mode 0755 for files too: that is what `docker export` shows of them.
        let mode = Mode::from_raw_mode(0o755);
        match wanted {
            Wanted::Directory => {
                rustix::fs::mkdirat(dir, *name, mode).map_err(failed)?;
                rustix::fs::chmodat(dir, *name, mode, rustix::fs::AtFlags::empty()).map_err(failed)?;
            }
            Wanted::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::openat(dir, *name, flags, mode).map_err(failed)?;
                rustix::fs::fchmod(&file, mode).map_err(failed)?;
            }
            Wanted::Link(target) => rustix::fs::symlinkat(*target, dir, *name).map_err(failed)?,
        }
    }
    Ok(())
}

/// What of a directory the one over it must repeat, because overlayfs shows the topmost one's.
struct Likeness {
    meta: Meta,
    xattrs: Xattrs,
}

impl Likeness {
    fn of(dir: &OwnedFd) -> rustix::io::Result<Self> {
        let mut xattrs = fs::xattrs(&fs::handle_path(dir))?;
        xattrs.retain(|(name, _)| !fs::is_overlay_xattr(name));
        Ok(Self { meta: fs::stat(dir, b"")?, xattrs })
    }

    fn apply(&self, dir: &OwnedFd) -> rustix::io::Result<()> {
        let own = fs::stat(dir, b"")?;
        if (own.uid, own.gid) != (self.meta.uid, self.meta.gid) {
            let (uid, gid) = (Uid::from_raw(self.meta.uid), Gid::from_raw(self.meta.gid));
            rustix::fs::fchown(dir, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(dir, Mode::from_raw_mode(self.meta.mode))?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(dir, &name[..], value, XattrFlags::empty())?;
        }
        let path = fs::handle_path(dir.as_fd());
        rustix::fs::utimensat(CWD, path, &fs::timestamps(self.meta.mtime), rustix::fs::AtFlags::empty())
    }
}
