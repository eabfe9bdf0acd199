//! The terminal of a process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::mount as sys;
use creel_sys::openat2;
use creel_sys::pty::{self, Pty, WindowSize};
use creel_types::ErrorKind;
use rustix::fs::OFlags;

use crate::error::Fault;
use crate::mounts::apply;
use crate::path::{self, Make};
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

/// Binds the slave over `/dev/console`.
pub(crate) fn bind(root: BorrowedFd<'_>, slave: &OwnedFd) -> Result<(), Fault> {
    let (target, _) = path::ensure(root, "/dev/console", Make::File)?;
    if path::is_dir(&target)? {
        return Err(Fault::from(rustix::io::Errno::ISDIR).context("/dev/console"));
    }
    Ok(sys::attach(apply::clone_of(slave, false)?, &target)?)
}
