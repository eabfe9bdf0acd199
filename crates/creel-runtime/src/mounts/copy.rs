//! `tmpcopyup`: fills a new tmpfs with what it is going to hide.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::error::Fault;

/// How deep a copied tree may be; deeper is refused, since every level holds descriptors.
const MAX_DEPTH: u32 = 64;

/// Copies the tree below `from` into `to`: directories, files and links with owner and mode. Devices, fifos and
/// sockets are passed over.
pub(crate) fn tree(from: impl AsFd, to: impl AsFd) -> Result<(), Fault> {
    level(from, to, 0)
}

fn level(from: impl AsFd, to: impl AsFd, depth: u32) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(&to, name, Mode::from_raw_mode(0o700))?;
                let child = rustix::fs::openat(&to, name, flags, Mode::empty())?;
                let below = rustix::fs::openat(&from, name, flags, Mode::empty())?;
                level(&below, &child, depth + 1)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = rustix::fs::openat(&from, name, read, Mode::empty())?;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let copy: OwnedFd = rustix::fs::openat(&to, name, write, Mode::from_raw_mode(0o600))?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(copy))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(target, &to, name)?;
            }
            _ => continue,
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(&to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        // After the change of owner, which clears set-id bits.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(&to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
