//! seccomp(2): loading a filter program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::{check, check_int};

/// `SECCOMP_FILTER_FLAG_TSYNC`: all threads of the process.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`: log all but allowed calls.
pub const FLAG_LOG: u32 = 2;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: leave the speculation mitigations off.
pub const FLAG_SPEC_ALLOW: u32 = 4;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a descriptor for user notifications.
pub const FLAG_NEW_LISTENER: u32 = 8;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: only fatal signals interrupt a notified call.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// One classic BPF instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Loads a filter into the calling thread; with [`FLAG_NEW_LISTENER`] returns its listener (close-on-exec).
///
/// # Errors
/// EINVAL for a program that is empty, longer than 4096 instructions or wrong; EACCES without CAP_SYS_ADMIN or
/// no_new_privs.
pub fn load(filter: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { len, filter: filter.as_ptr() };
    // SAFETY: the program describes one slice, in the layout of struct sock_fprog; the kernel copies it.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the result is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// A call that waits for the answer of whoever holds the listener (`struct seccomp_notif`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notification {
    /// Names the call in the answer.
    pub id: u64,
    /// The caller, in the reader's pid namespace; 0 when it is not in there.
    pub pid: u32,
    flags: u32,
    /// The call's number.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where it was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is carried out as if there were no filter (what it points to may have changed since: not a check).
    Continue,
    /// It returns this.
    Value(i64),
    /// It fails with this error number.
    Error(i32),
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Waits for the next call on a listener (`SECCOMP_IOCTL_NOTIF_RECV`).
///
/// # Errors
/// ENOENT when the caller is gone again; EINTR.
pub fn receive(listener: impl AsFd) -> io::Result<Notification> {
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    let mut notification = Notification::default();
    // SAFETY: the structure has the size that the request's number says, and is zero as the kernel wants it.
    check_int(unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), RECEIVE as _, &raw mut notification) })?;
    Ok(notification)
}

/// Answers a call (`SECCOMP_IOCTL_NOTIF_SEND`).
///
/// # Errors
/// ENOENT when the caller is gone.
pub fn respond(listener: impl AsFd, id: u64, answer: Answer) -> io::Result<()> {
    const SEND: libc::c_ulong = 0xc018_2101;
    const CONTINUE: u32 = 1;
    let response = match answer {
        Answer::Continue => Response { id, value: 0, error: 0, flags: CONTINUE },
        Answer::Value(value) => Response { id, value, error: 0, flags: 0 },
        Answer::Error(number) => Response { id, value: 0, error: -number, flags: 0 },
    };
    // SAFETY: the structure has the size that the request's number says; the kernel reads it.
    check_int(unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND as _, &raw const response) }).map(drop)
}
