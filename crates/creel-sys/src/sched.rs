//! Scheduling: policy, I/O priority, affinity, execution domain.

use std::io;

use crate::check;

/// What sched_setattr(2) sets, for the caller.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedAttr {
    size: u32,
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` bits.
    pub flags: u64,
    /// Nice value of `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority of `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Runtime of `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// Deadline of `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// Period of `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

/// Sets the caller's scheduling policy.
///
/// # Errors
/// The kernel's (sched_setattr(2)): EPERM, EINVAL.
pub fn set_attr(attr: &SchedAttr) -> io::Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the structure is version 0 of struct sched_attr (48 bytes) and says so.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets the caller's I/O priority: class 1 real time, 2 best effort, 3 idle; level 0 (first) to 7.
///
/// # Errors
/// The kernel's (ioprio_set(2)): EPERM, EINVAL.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: takes numbers, touches no memory.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, (class << CLASS_SHIFT) | level) })
        .map(drop)
}

/// Sets the caller's execution domain; 0 is `PER_LINUX`, 8 `PER_LINUX32`.
///
/// # Errors
/// EINVAL when the kernel cannot.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: changes how uname(2) answers this process; no flag that moves memory is set by the domains above.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}
