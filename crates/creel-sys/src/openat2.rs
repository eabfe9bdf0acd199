//! openat2(2): paths that cannot leave a root.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::path::Arg;

/// How often a resolution that raced with a rename (EAGAIN) is tried again.
const RETRIES: u32 = 128;

/// Opens `path` as if `root` were `/`: absolute links and `..` stay inside, magic links of procfs are refused.
///
/// # Errors
/// The kernel's: ELOOP for a magic link, ENOENT, ENOTDIR, …; EAGAIN when the tree kept moving.
pub fn open_in_root(root: impl AsFd, path: impl Arg + Copy, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    open_with(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir`, refusing (EXDEV) whatever would leave it.
///
/// # Errors
/// The kernel's: EXDEV, ELOOP, ENOENT, …
pub fn open_beneath(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    open_with(dir, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir` through no symbolic link and no other mount: for procfs, sysfs and one's own trees.
///
/// # Errors
/// The kernel's: EXDEV, ELOOP, ENOENT, …
pub fn open_strict(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    open_with(
        dir,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_XDEV,
    )
}

/// Opens `path` with the resolution flags given; always close-on-exec.
///
/// # Errors
/// The kernel's (openat2(2)).
pub fn open_with(
    dir: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: u32,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let mut left = RETRIES;
    loop {
        match rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve) {
            Err(rustix::io::Errno::AGAIN) if left > 0 => left -= 1,
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
