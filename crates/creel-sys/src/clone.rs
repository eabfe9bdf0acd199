//! clone3(2): a child with a pidfd, new namespaces and a cgroup in one call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

/// New mount namespace.
pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
/// New cgroup namespace.
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// New UTS namespace (host and domain name).
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
/// New IPC namespace.
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
/// New user namespace.
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// New pid namespace; the child is its process 1.
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
/// New network namespace.
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
/// New time namespace (only for unshare(2); clone3 takes it for children of the child).
pub const NEWTIME: u64 = 0x80;
/// The child becomes a sibling: its parent is the caller's parent.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

const PIDFD: u64 = 0x1000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// What to clone.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` and [`PARENT`] bits; [`crate::clone`]'s constants.
    pub flags: u64,
    /// Directory of a cgroup v2 group in which the child is born (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller, with what it holds of the child.
    Parent {
        /// The child's process id in the caller's pid namespace.
        pid: i32,
        /// The child's pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
    /// The child. It must end in [`crate::process::Exec::run`] or [`crate::process::exit_now`], never return to
    /// the caller's own loop.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whether the process has one thread and shares its memory with nobody.
///
/// unshare(2) with `CLONE_VM` changes nothing in that case and fails with EINVAL otherwise: the cheapest question
/// that the kernel answers (no procfs needed).
pub fn is_single_threaded() -> bool {
    // SAFETY: CLONE_VM alone has no effect on a single-threaded process and fails on any other (unshare(2)).
    if unsafe { libc::unshare(libc::CLONE_VM) } == 0 {
        return true;
    }
    // A system call filter may refuse the question (EPERM), as Docker's does inside a container.
    io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
        && std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Forks through clone3(2) with a copy of the address space; the child's end is reported by SIGCHLD.
///
/// # Errors
/// [`io::ErrorKind::Other`] when the process has other threads: their locks (of the heap, of stdio) would stay
/// locked for ever in the child, so this is refused rather than left to chance. Otherwise the kernel's: EPERM,
/// ENOSPC (limit of nested namespaces), EAGAIN, EBUSY or EOPNOTSUPP (the cgroup).
pub fn clone(what: &Clone<'_>) -> io::Result<Cloned> {
    if !is_single_threaded() {
        return Err(io::Error::other("a process with more than one thread may not clone a container"));
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: what.flags | PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: if what.flags & PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = what.cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments outlive the call and have the size given; no stack is passed, so the child goes on in a
    // copy of this one. The process has a single thread (checked above), so no lock can be held by a thread that
    // does not exist in the child.
    let cloned = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) });
    let pid = match cloned {
        // Docker's filter hides clone3 in containers because it cannot look into its arguments.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) && args.flags == PIDFD => plain_clone(&mut pidfd)?,
        other => other?,
    };
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just stored a new descriptor here (CLONE_PIDFD); nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// clone(2) as fork(2), with a pidfd: the first three arguments have the same order on all architectures.
fn plain_clone(pidfd: &mut RawFd) -> io::Result<i64> {
    let flags = PIDFD | libc::SIGCHLD as u64;
    // SAFETY: as for clone3 above: no stack, a single thread, and the pidfd's place outlives the call.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0) })
}
