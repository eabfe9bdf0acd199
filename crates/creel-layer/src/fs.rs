//! What the file system offers, by directory descriptor and single name: never a path of more than one part.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, StatxFlags, Timespec, Timestamps,
};
use rustix::io::Errno;

use crate::tar::{Segment, Timestamp};

/// What overlayfs calls its own attributes; the second is for mounts with `userxattr`.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// The attribute that makes an upper directory hide the lower ones of its name (kernel, `overlayfs.rst`).
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What `statx` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: FileType,
    /// Permission bits, `0o7777` at most.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: (u32, u32),
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) links: u32,
    pub(crate) inode: (u32, u32, u64),
    pub(crate) mtime: Timestamp,
    /// When anything of it changed last; nobody can set it.
    pub(crate) ctime: Timestamp,
    pub(crate) mount: u64,
}

impl Meta {
    /// Whether this is overlayfs's mark for a deleted name: a character device 0:0.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.rdev == (0, 0)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The mode with the file's type, as `st_mode` has it.
    pub(crate) fn raw_mode(&self) -> u32 {
        self.kind.as_raw_mode() | self.mode
    }
}

/// `statx` of `name` in `dir`, not following a link; an empty name means `dir` itself.
pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Meta> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    let mode = u32::from(stat.stx_mode);
    Ok(Meta {
        kind: FileType::from_raw_mode(mode),
        mode: mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        links: stat.stx_nlink,
        inode: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
        mtime: Timestamp { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec },
        ctime: Timestamp { seconds: stat.stx_ctime.tv_sec, nanoseconds: stat.stx_ctime.tv_nsec },
        mount: stat.stx_mnt_id,
    })
}

/// The same, `None` if there is no such name.
pub(crate) fn stat_if_any(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Meta>> {
    match stat(dir, name) {
        Ok(meta) => Ok(Some(meta)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the directory `name` in `dir`; a link is not followed.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the directory at `path` below `root`, in which nothing may be a symbolic link; an empty path is `root`.
pub(crate) fn open_plain(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// [`open_plain`] for paths of any length: part by part.
pub(crate) fn descend(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut dir = open_plain(root, b"")?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        dir = open_dir(&dir, part)?;
    }
    Ok(dir)
}

/// Opens a directory of the host by its path: a layer's own, which the caller names.
pub(crate) fn open_root(path: &std::path::Path) -> crate::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|cause| crate::Error::io("open directory", path, cause))
}

/// Opens a layer's root: a directory, or an EROFS image (`*.erofs`), which is mounted nowhere but behind the descriptor.
pub(crate) fn open_layer(path: &std::path::Path) -> crate::Result<OwnedFd> {
    if !creel_sys::erofs::is_image(path) {
        return open_root(path);
    }
    let failed = |cause: io::Error| crate::Error::io("mount the layer", path, cause);
    let tree = creel_sys::erofs::mount(path).map_err(failed)?;
    // The open directory keeps the mount when the descriptor of the mount itself is closed.
    open_dir(&tree, b".").map_err(|error| failed(error.into()))
}

/// A handle on the file `name` in `dir` itself, even if it is a link or a device.
pub(crate) fn handle(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The path by which calls that take none but a path reach the file behind a handle.
pub(crate) fn handle_path(handle: impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

/// The target of the symbolic link `name` in `dir`.
pub(crate) fn read_link(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

/// The names in a directory, sorted by their bytes.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Access and modification time, both set to `time`.
pub(crate) fn timestamps(time: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether `name` is an attribute by which overlayfs speaks to itself.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the directory hides what lies below it (`y`; `x` says only that it holds whiteouts in attribute form).
pub(crate) fn is_opaque(dir: impl AsFd) -> rustix::io::Result<bool> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All attributes of the file behind `path` (see [`handle_path`]), sorted by name.
pub(crate) fn xattrs(path: &str) -> rustix::io::Result<Xattrs> {
    let mut list = vec![0u8; 1024];
    let length = loop {
        match rustix::fs::listxattr(path, &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) => list = vec![0; 64 << 10],
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 256];
        let length = loop {
            match rustix::fs::getxattr(path, name, &mut value[..]) {
                Ok(length) => break Some(length),
                Err(Errno::RANGE) if value.len() < 64 << 10 => value = vec![0; 64 << 10],
                // Gone since the list was made, or not ours to read.
                Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => break None,
                Err(error) => return Err(error),
            }
        };
        if let Some(length) = length {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes `name` from `dir` with all that is below it, following no link. Depth does not matter: what is deeper than
/// the descriptors that may be open is first moved up.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = open_dir(dir, name)?;
    let mut moved = 0u32;
    clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
    // Each round empties what the last one moved up.
    while moved > 0 {
        moved = 0;
        clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

const MAX_DEPTH: usize = 100;

fn clear(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: usize, moved: &mut u32) -> rustix::io::Result<()> {
    for name in names(dir)? {
        match rustix::fs::unlinkat(dir, &name[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth == MAX_DEPTH {
            loop {
                let free = format!(".creel-remove-{moved}");
                *moved += 1;
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(dir, &name[..], top, &free, flags) {
                    Err(Errno::EXIST) => {}
                    result => break result?,
                }
            }
            continue;
        }
        {
            let child = open_dir(dir, &name)?;
            clear(top, child.as_fd(), depth + 1, moved)?;
        }
        rustix::fs::unlinkat(dir, &name[..], AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Writes all of `data` at `offset`.
pub(crate) fn write_at(file: impl AsFd, mut data: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                data = &data[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where a file of `size` bytes holds data. A file system that knows no holes says: everywhere.
pub(crate) fn data_segments(file: impl AsFd, size: u64) -> rustix::io::Result<Vec<Segment>> {
    let (mut segments, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(vec![Segment { offset: 0, length: size }]),
            Err(error) => return Err(error),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        segments.push(Segment { offset: start, length: end - start });
        at = end;
    }
    Ok(segments)
}

/// Opens the regular file `name` in `dir` for reading; never waits for a pipe and follows no link.
pub(crate) fn open_file(dir: impl AsFd, name: &[u8]) -> io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if stat(&fd, b"")?.kind != FileType::RegularFile {
        return Err(io::Error::other("is no longer a regular file"));
    }
    Ok(fd.into())
}
