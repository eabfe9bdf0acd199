//! The terminal of a process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::mount as sys;
use creel_sys::openat2;
use creel_sys::pty::{self, Pty, WindowSize};
use creel_types::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Fault;
use crate::mounts::apply;
use crate::path;
use crate::report::{Message, Reporter};

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Opens a terminal in the container's devpts, found at `/dev/pts` inside `root`, whatever links lead there; what is
/// found must really be a devpts.
fn open(root: impl AsFd) -> Result<Pty, Fault> {
    let pts = openat2::open_in_root(root, "dev/pts", OFlags::PATH | OFlags::DIRECTORY, 0)
        .map_err(|e| Fault::from(e).context("/dev/pts"))?;
    if rustix::fs::fstatfs(&pts)?.f_type as u64 != DEVPTS_MAGIC {
        return Err(Fault::new(
            ErrorKind::InvalidArgument,
            "a terminal needs a devpts file system on /dev/pts",
        ));
    }
    Ok(pty::open_in(pts)?)
}

/// Opens the terminal, sets its size and hands the master to the creator. Returns the slave.
pub(crate) fn prepare(
    root: impl AsFd,
    size: Option<(u16, u16)>,
    reporter: &Reporter,
) -> Result<OwnedFd, Fault> {
    let pty = open(root)?;
    if let Some((rows, columns)) = size {
        pty::set_size(&pty.master, WindowSize { rows, columns })?;
    }
    reporter.send(&Message::Console, &[pty.master.as_fd()]);
    Ok(pty.slave)
}

/// Binds the slave over `/dev/console`, which is made as an empty file if it is missing. A link there would let the image
/// choose what is covered, and what the program then writes to (CVE-2025-52565), so no last link is followed; and what
/// is found must be an ordinary place for a device, not a file of procfs.
pub(crate) fn bind(root: BorrowedFd<'_>, slave: &OwnedFd) -> Result<(), Fault> {
    let wrong = |text: &str| Fault::new(ErrorKind::InvalidArgument, format!("/dev/console {text}"));
    let (dir, name) = path::ensure_parent(root, "/dev/console")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) {
        FileType::RegularFile | FileType::CharacterDevice => {}
        FileType::Symlink => return Err(wrong("is a symbolic link of the image; it must be a file")),
        _ => return Err(wrong("is neither a file nor a character device")),
    }
    if apply::is_procfs(&target)? {
        return Err(wrong("leads into /proc"));
    }
    Ok(sys::attach(apply::clone_of(slave, false)?, &target)?)
}
