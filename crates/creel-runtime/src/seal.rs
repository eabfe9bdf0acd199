//! Keeping the container's hands off our own executable (CVE-2019-5736).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use creel_sys::process::Exec;
use rustix::fs::{Access, MemfdFlags, Mode, OFlags, SealFlags};

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

/// The program that this process runs.
const OWN: &str = "/proc/self/exe";

/// Puts the file of this program out of reach of whatever this process or its children execute. Where the kernel can do
/// that, the process lets go of it ([`creel_sys::image`]); else the program is started anew, with the same arguments,
/// environment and descriptors, from where nobody can write to it. Nothing is done where nobody can write to it anyway.
///
/// A program that joins containers by itself needs this: what it executes there may lead back to `/proc/self/exe`, and
/// then it is the container's process, which others in there may look into. To be called before anything is opened.
///
/// # Errors
/// The kernel's, for a mount and for a copy in memory, or for the execve.
pub fn put_out_of_reach() -> io::Result<()> {
    let own = rustix::fs::open(OWN, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if is_sealed(&own)? {
        return Ok(());
    }
    let sealed = match sealed_executable(Path::new(OWN)) {
        Ok(sealed) => match let_go(&sealed) {
            Ok(()) => {
                creel_sys::image::keep(sealed);
                return Ok(());
            }
            Err(_) => sealed,
        },
        // An ordinary user, who can change what is his own, and nothing else, whatever namespaces he makes.
        Err(_) if !may_change(&own)? => return Ok(()),
        Err(_) => copy_in_memory()?,
    };
    let text = |text: std::ffi::OsString| CString::new(text.into_vec()).map_err(io::Error::other);
    let args = std::env::args_os().map(text).collect::<io::Result<_>>()?;
    let join = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        text(OsStringExt::from_vec([name.into_vec(), value.into_vec()].join(&b'=')))
    };
    let env = std::env::vars_os().map(join).collect::<io::Result<_>>()?;
    Err(Exec::new(c"creel".into(), args, env).run_fd(sealed))
}

/// `sealed` is the program's file on a mount of its own.
fn let_go(sealed: &OwnedFd) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    creel_sys::image::let_go(file.as_fd(), creel_sys::image::nothing()?.as_fd())
}

/// Whether a program lies where nobody can write to it: on a read-only mount, or sealed in memory.
fn is_sealed(program: impl AsFd) -> io::Result<bool> {
    if rustix::fs::fstatvfs(&program)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // A descriptor of the path alone tells of no seals; only files in memory have no name.
    if rustix::fs::fstat(&program)?.st_nlink > 0 {
        return Ok(false);
    }
    let file = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Whether the file is this user's to write to, now or after a chmod(1).
fn may_change(program: impl AsFd) -> io::Result<bool> {
    let owner = rustix::fs::fstat(program)?.st_uid;
    Ok(owner == rustix::process::geteuid().as_raw() || rustix::fs::access(OWN, Access::WRITE_OK).is_ok())
}

fn copy_in_memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("creel", flags)?);
    io::copy(&mut File::open(OWN)?, &mut copy)?;
    copy.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
