//! Pseudo-terminals of a given devpts instance (pty(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::{check_int, openat2};

/// A pair of terminal ends.
#[derive(Debug)]
pub struct Pty {
    /// The end that the supervisor holds.
    pub master: OwnedFd,
    /// The end that the program holds.
    pub slave: OwnedFd,
    /// Its number: the slave is `pts/N`.
    pub number: u32,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Opens a new pair from the devpts instance whose root `devpts` is. The slave is opened through the master
/// (`TIOCGPTPEER`, Linux 4.13), never by a path that somebody could have put in its place.
///
/// # Errors
/// The kernel's: ENOSPC when the instance has no more terminals, ENOENT when there is no `ptmx` in it.
pub fn open_in(devpts: impl AsFd) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = openat2::open_strict(devpts, c"ptmx", flags, 0)?;
    pair(master)
}

/// Opens a new pair from the host's own `/dev/ptmx`.
///
/// # Errors
/// The kernel's: ENOSPC, ENOENT.
pub fn open() -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    pair(rustix::fs::open(c"/dev/ptmx", flags, Mode::empty())?)
}

fn pair(master: OwnedFd) -> io::Result<Pty> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    let slave = check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok(Pty { master, slave, number })
}

/// Sets the size of a terminal; the foreground group gets SIGWINCH if it changed.
///
/// # Errors
/// ENOTTY when it is no terminal, EIO when the other end is gone.
pub fn set_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let raw = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check_int(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) })
        .map(drop)
}

/// The size of a terminal.
///
/// # Errors
/// ENOTTY when it is no terminal.
pub fn size(terminal: impl AsFd) -> io::Result<WindowSize> {
    let mut raw = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check_int(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) })?;
    Ok(WindowSize { rows: raw.ws_row, columns: raw.ws_col })
}

/// Makes a terminal the controlling one of the caller's session (which it must lead; setsid(2)).
///
/// # Errors
/// EPERM when the caller leads no session or has a terminal, or the terminal has another session.
pub fn set_controlling(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check_int(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}
