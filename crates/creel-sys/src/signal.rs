//! Signals: masks, dispositions, signalfd(2), sending.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{check, check_int};

/// The highest signal number of Linux (`SIGRTMAX` of the kernel).
pub const MAX: i32 = 64;

/// A set of signals: bit `n - 1` is signal `n`, as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: SignalSet = SignalSet(0);
    /// Every signal (the kernel passes over SIGKILL and SIGSTOP).
    pub const ALL: SignalSet = SignalSet(!0);

    /// The set with these signals; numbers out of range are passed over.
    pub fn of(signals: &[i32]) -> SignalSet {
        signals
            .iter()
            .filter(|s| (1..=MAX).contains(*s))
            .fold(SignalSet(0), |set, s| SignalSet(set.0 | 1 << (s - 1)))
    }

    /// Whether a signal is in it.
    pub fn contains(self, signal: i32) -> bool {
        (1..=MAX).contains(&signal) && self.0 & (1 << (signal - 1)) != 0
    }
}

/// Replaces the thread's mask of blocked signals and returns the old one.
///
/// # Errors
/// The kernel's (rt_sigprocmask(2)).
pub fn set_mask(mask: SignalSet) -> io::Result<SignalSet> {
    let mut old = 0u64;
    // SAFETY: the kernel's sigset is 8 bytes; both words outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask.0, &raw mut old, 8usize)
    })?;
    Ok(SignalSet(old))
}

/// Sets every signal's disposition to the default, so that nothing ignored or handled is passed on to a program.
pub fn reset_dispositions() {
    #[repr(C)]
    struct KernelAction {
        handler: usize,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    let action = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in 1..=MAX {
        // SAFETY: the layout is the kernel's struct sigaction; SIG_DFL runs no code of this process. SIGKILL and
        // SIGSTOP fail with EINVAL, which is right.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, std::ptr::null::<u8>(), 8usize);
        }
    }
}

/// Makes a signal ignored.
///
/// # Errors
/// EINVAL for SIGKILL, SIGSTOP and numbers that do not exist.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of this process.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A signalfd(2), close-on-exec and non-blocking, for signals that the caller has blocked.
///
/// # Errors
/// The kernel's: EMFILE, ENFILE, ENOMEM.
pub fn signalfd(signals: SignalSet) -> io::Result<OwnedFd> {
    // SAFETY: the kernel's sigset is 8 bytes and outlives the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &raw const signals.0,
            8usize,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a signalfd tells of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The signal's number.
    pub signal: i32,
    /// Sender's process id, 0 if it is outside the pid namespace.
    pub pid: u32,
    /// Sender's user id.
    pub uid: u32,
}

/// Reads one signal from a signalfd; `None` when none is pending.
///
/// # Errors
/// The kernel's (read(2)).
pub fn read_signalfd(fd: impl AsFd) -> io::Result<Option<Info>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size given.
    let n = unsafe { libc::read(fd.as_fd().as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if n == -1 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: all bit patterns are valid for this structure of integers, and it was zeroed.
    let info = unsafe { info.assume_init() };
    Ok(Some(Info { signal: info.ssi_signo as i32, pid: info.ssi_pid, uid: info.ssi_uid }))
}

/// Sends a signal to a process (pid > 0), a process group (pid < -1) or all (-1); kill(2).
///
/// # Errors
/// The kernel's: ESRCH, EPERM, EINVAL.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers, touches no memory.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal from its number or name, with or without `SIG`, in any case, `RTMIN+n` and `RTMAX-n`
/// included (glibc's SIGRTMIN, 34). `None` for what is no signal of Linux (x86-64, arm64).
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let plain = |digits: &str| {
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i32>().ok()).flatten()
    };
    let number = match name {
        "" => return None,
        "IOT" => 6,
        "CLD" => 17,
        "POLL" => 29,
        "RTMIN" => 34,
        "RTMAX" => 64,
        _ => {
            if let Some(n) = name.strip_prefix("RTMIN+") {
                34 + plain(n).filter(|n| *n <= 30)?
            } else if let Some(n) = name.strip_prefix("RTMAX-") {
                64 - plain(n).filter(|n| *n <= 30)?
            } else {
                NAMES.iter().position(|known| *known == name)? as i32
            }
        }
    };
    Some(number)
}

/// The name of a signal, `SIG` included; `None` for real-time and unknown numbers.
pub fn name(signal: i32) -> Option<String> {
    let name = NAMES.get(usize::try_from(signal).ok()?).filter(|name| !name.is_empty())?;
    Some(format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", Some(9)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("SIG", None),
            ("", None),
            ("RTMIN+31", None),
            ("RTMIN+-1", None),
            ("NOPE", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
        assert_eq!(name(15).as_deref(), Some("SIGTERM"));
        assert_eq!(name(0), None);
    }

    #[test]
    fn sets() {
        let set = SignalSet::of(&[1, 64, 65, 0]);
        assert!(set.contains(1) && set.contains(64) && !set.contains(65) && !set.contains(0));
    }
}
