//! One's own process: execve with all prepared, waiting, prctl(2), ids.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use crate::{check, check_int};

/// A program with its arguments and environment, laid out as execve(2) wants it, so that nothing is allocated at the
/// moment of the call.
#[derive(Debug)]
pub struct Exec {
    program: CString,
    argv: Vec<CString>,
    envp: Vec<CString>,
    argv_pointers: Vec<*const libc::c_char>,
    envp_pointers: Vec<*const libc::c_char>,
}

impl Exec {
    /// Prepares a call (allocates).
    pub fn new(program: CString, argv: Vec<CString>, envp: Vec<CString>) -> Exec {
        let pointers = |list: &[CString]| {
            list.iter()
                .map(|text| text.as_ptr())
                .chain([std::ptr::null()])
                .collect::<Vec<*const libc::c_char>>()
        };
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        Exec { program, argv, envp, argv_pointers, envp_pointers }
    }

    /// The program's path.
    pub fn program(&self) -> &CStr {
        &self.program
    }

    /// The arguments, the program's name first.
    pub fn argv(&self) -> &[CString] {
        &self.argv
    }

    /// The environment.
    pub fn envp(&self) -> &[CString] {
        &self.envp
    }

    /// Replaces this process's program (execve(2)); returns only the error.
    pub fn run(&self) -> io::Error {
        // SAFETY: the arrays end in null and point into strings that `self` owns and does not move or change.
        unsafe {
            libc::execve(self.program.as_ptr(), self.argv_pointers.as_ptr(), self.envp_pointers.as_ptr());
        }
        io::Error::last_os_error()
    }

    /// Like [`Exec::run`], but executes the file that `fd` is (execveat(2) with `AT_EMPTY_PATH`).
    pub fn run_fd(&self, fd: impl AsFd) -> io::Error {
        // SAFETY: as for run.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                self.argv_pointers.as_ptr(),
                self.envp_pointers.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        io::Error::last_os_error()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code, 0 to 255.
    Exited(i32),
    /// This signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl Ended {
    /// The code by which shells and Docker report it: the exit code, or 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signaled { signal, .. } => 128 + signal,
        }
    }
}

/// Whom to wait for.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// Any child.
    Any,
    /// The child with this process id.
    Pid(i32),
    /// The child that this pidfd is.
    Pidfd(std::os::fd::BorrowedFd<'a>),
}

/// Waits for a child's end and reaps it (also children whose end sends no SIGCHLD). With `block` false, `None` when
/// none has ended yet.
///
/// # Errors
/// ECHILD when there is no such child.
pub fn wait(whom: Whom<'_>, block: bool) -> io::Result<Option<(i32, Ended)>> {
    const WALL: libc::c_int = 0x4000_0000;
    let (kind, id) = match whom {
        Whom::Any => (libc::P_ALL, 0),
        Whom::Pid(pid) => (libc::P_PID, pid as libc::id_t),
        Whom::Pidfd(fd) => (libc::P_PIDFD, fd.as_raw_fd() as libc::id_t),
    };
    let options = libc::WEXITED | WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the kernel fills the structure or leaves it zero.
        match check_int(unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        // SAFETY: zeroed and then filled by the kernel; every bit pattern is valid. The fields of a SIGCHLD are there
        // whenever the pid is not zero.
        let (pid, code, status) = unsafe {
            let info = info.assume_init();
            (info.si_pid(), info.si_code, info.si_status())
        };
        if pid == 0 {
            return Ok(None);
        }
        let ended = match code {
            libc::CLD_EXITED => Ended::Exited(status),
            _ => Ended::Signaled { signal: status, core: code == libc::CLD_DUMPED },
        };
        return Ok(Some((pid, ended)));
    }
}

/// Ends the process at once: no destructors, no flushing, as a cloned child must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// Ends the process by an instruction that the processor does not have (SIGILL): for one that may make no system call.
pub fn trap() -> ! {
    // SAFETY: does not return; the kernel ends the process, whose signals are at their defaults or kill it anyway.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2", options(noreturn))
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0", options(noreturn))
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    exit_now(1)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: used with options whose argument is a number.
    check_int(unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

/// Becomes the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// The kernel's.
pub fn set_subreaper(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on)).map(drop)
}

/// The signal that the caller gets when its parent thread dies; 0 for none. Cleared by the kernel when a set-id
/// program is executed or the ids change: set it after them.
///
/// # Errors
/// EINVAL for a number that is no signal.
pub fn set_pdeathsig(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong).map(drop)
}

/// Promises that no execve gives more privileges (PR_SET_NO_NEW_PRIVS); cannot be undone.
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// Whether other processes of the same user may trace this one and open its `/proc/PID` entries (PR_SET_DUMPABLE).
///
/// # Errors
/// The kernel's.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on)).map(drop)
}

/// What [`set_dumpable`] set (true) or not; a set-id program's default counts as not.
pub fn is_dumpable() -> bool {
    prctl(libc::PR_GET_DUMPABLE, 0).is_ok_and(|value| value == 1)
}

/// Sets the caller's supplementary groups (setgroups(2), raw: this thread).
///
/// # Errors
/// EPERM without CAP_SETGID, EINVAL for more than 65536 groups.
pub fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets real, effective and saved user id (setresuid(2), raw: this thread).
///
/// # Errors
/// EPERM; EINVAL for an id that the user namespace does not map.
pub fn setresuid(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group id (setresgid(2), raw: this thread).
///
/// # Errors
/// EPERM; EINVAL for an id that the user namespace does not map.
pub fn setresgid(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the file mode creation mask and returns the old one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: always succeeds, touches no memory.
    unsafe { libc::umask(mask) }
}

/// Starts a new session and process group, without a terminal.
///
/// # Errors
/// EPERM when the caller leads a process group already.
pub fn setsid() -> io::Result<()> {
    // SAFETY: takes nothing.
    check_int(unsafe { libc::setsid() }).map(drop)
}

/// Makes `fd` the standard descriptor `target` (0, 1 or 2), kept across execve; also right when it is that already.
///
/// # Errors
/// EINVAL for another target; else the kernel's (dup3(2)).
pub fn dup_to_stdio(fd: impl AsFd, target: i32) -> io::Result<()> {
    if !(0..=2).contains(&target) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let raw = fd.as_fd().as_raw_fd();
    if raw == target {
        // SAFETY: F_SETFD takes a number.
        return check_int(unsafe { libc::fcntl(raw, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: only 0, 1 and 2 can be replaced, which std never owns.
    check_int(unsafe { libc::dup3(raw, target, 0) }).map(drop)
}

/// The caller's process id (not cached: right after a clone too).
pub fn pid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}

/// The process id of the caller's parent; 0 when it is outside the pid namespace.
pub fn parent_pid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::syscall(libc::SYS_getppid) as i32 }
}
