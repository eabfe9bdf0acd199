//! The mount API: rustix's safe calls, re-exported, and those that it lacks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

pub use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
    MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, mount, mount_bind_recursive,
    mount_change, move_mount, open_tree, unmount,
};

use crate::check;

/// `MOUNT_ATTR_RDONLY`.
pub const ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const ATTR_NOEXEC: u64 = 0x8;
/// Mask of the three access time modes.
pub const ATTR_ATIME_MASK: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME`: the absence of the other two.
pub const ATTR_RELATIME: u64 = 0x0;
/// `MOUNT_ATTR_NOATIME`.
pub const ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const ATTR_IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
/// `AT_RECURSIVE`: the whole tree of mounts.
pub const RECURSIVE: u32 = 0x8000;
/// `AT_EMPTY_PATH`: the mount that the descriptor itself is.
pub const EMPTY_PATH: u32 = 0x1000;

/// What mount_setattr(2) changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr<'a> {
    /// `ATTR_*` bits to set.
    pub set: u64,
    /// `ATTR_*` bits to clear; to set an access time mode, clear [`ATTR_ATIME_MASK`].
    pub clear: u64,
    /// New propagation: one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to keep it.
    pub propagation: u64,
    /// User namespace for [`ATTR_IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
}

#[repr(C)]
struct RawMountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of a mount (kernel 5.12).
///
/// # Errors
/// The kernel's (mount_setattr(2)).
pub fn mount_setattr(dir: impl AsFd, path: &CStr, flags: u32, attr: &MountAttr<'_>) -> io::Result<()> {
    let raw = RawMountAttr {
        set: attr.set,
        clear: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: the path ends in NUL, the structure has the size given, both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    })
    .map(drop)
}

/// Makes the working directory the root mount and puts the old root on top of it: `pivot_root(".", ".")`; the old
/// root is then unmounted by [`detach_here`] (pivot_root(2), "NOTES").
///
/// # Errors
/// The kernel's (pivot_root(2)).
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: both paths are constants that end in NUL.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Detaches the mount on top at the working directory (`umount2(".", MNT_DETACH)`).
///
/// # Errors
/// The kernel's (umount2(2)).
pub fn detach_here() -> io::Result<()> {
    Ok(unmount(c".", UnmountFlags::DETACH)?)
}

/// Attaches the mount that `tree` holds (of fsmount or open_tree) at the very object that `target` (an `O_PATH`
/// descriptor) is: no path is walked.
///
/// # Errors
/// The kernel's (move_mount(2)).
pub fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    Ok(move_mount(
        tree,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Reads the next message that a file system left in its configuration descriptor (fsopen(2)) into `buf`: the
/// kernel's own words why a mount failed, led by `e `, `w ` or `i `. `None` when there is none.
pub fn fs_message(fs: impl AsFd, buf: &mut [u8]) -> Option<&str> {
    let fd: RawFd = fs.as_fd().as_raw_fd();
    // SAFETY: pointer and length describe one writable slice.
    let n = unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) };
    let bytes = buf.get(..usize::try_from(n).ok()?)?;
    std::str::from_utf8(bytes).ok().map(str::trim_end)
}
