//! Resource limits (prlimit(2)).

use std::io;

use crate::check;

/// The kernel's names and numbers of the limits (x86-64 and arm64 agree).
pub const NAMES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// A soft and a hard limit; `u64::MAX` is infinity.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// What the soft limit may be raised to.
    pub hard: u64,
}

/// The number of a limit from its name, like `RLIMIT_NOFILE`.
pub fn number(name: &str) -> Option<u32> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// A limit of a process (0 for the caller).
///
/// # Errors
/// The kernel's: EINVAL, EPERM, ESRCH.
pub fn get(pid: i32, resource: u32) -> io::Result<Limit> {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: the layout is that of struct rlimit64.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<Limit>(), &raw mut limit)
    })?;
    Ok(limit)
}

/// Sets a limit of a process (0 for the caller).
///
/// # Errors
/// EPERM when the hard limit would rise without CAP_SYS_RESOURCE, EINVAL when soft is above hard.
pub fn set(pid: i32, resource: u32, limit: Limit) -> io::Result<()> {
    // SAFETY: the layout is that of struct rlimit64.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, std::ptr::null::<Limit>())
    })
    .map(drop)
}
