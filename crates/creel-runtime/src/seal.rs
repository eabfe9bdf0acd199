//! Keeping the container's hands off our own executable (CVE-2019-5736).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use creel_sys::mount::{ATTR_RDONLY, EMPTY_PATH, MountAttr, OpenTreeFlags, mount_setattr, open_tree};

/// An executable file on a read-only mount that is attached nowhere: to be executed by
/// `creel_sys::process::Exec::run_fd` or as `/proc/self/fd/N`.
///
/// A process that was started from it shows that mount in `/proc/PID/exe`. Whoever opens that link for writing is
/// refused with EROFS, whatever his rights, even after the process has ended (where ETXTBSY would have ended too), and
/// nobody can reach the mount to change it. Nothing is mounted in any namespace; it costs one descriptor.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; else the kernel's (open_tree(2), mount_setattr(2)).
pub fn sealed_executable(executable: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let fd = open_tree(rustix::fs::CWD, executable, flags)?;
    mount_setattr(&fd, c"", EMPTY_PATH, &MountAttr { set: ATTR_RDONLY, ..MountAttr::default() })?;
    Ok(fd)
}
