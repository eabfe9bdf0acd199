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

/// Sets the caller's NUMA memory policy: `MPOL_*` mode with `MPOL_F_*` flags, and nodes as words of 64 bits.
///
/// # Errors
/// The kernel's (set_mempolicy(2)): EINVAL for nodes that are not there or not allowed, ENOSYS without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    // The kernel reads one bit less than it is told of, hence a word more (set_mempolicy(2), "BUGS").
    let padded: Vec<u64> = nodes.iter().copied().chain([0]).collect();
    let (mask, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (padded.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the mask has more words than the bits that the kernel reads, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Processors of the calling thread, as words of 64 bits.
///
/// # Errors
/// The kernel's (sched_getaffinity(2)): EINVAL on a machine with more than 8192 processors.
pub fn affinity() -> io::Result<Vec<u64>> {
    let mut words = vec![0u64; 128];
    let bytes = words.len() * 8;
    // SAFETY: pointer and length describe one writable slice.
    let n = check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, bytes, words.as_mut_ptr()) })?;
    words.truncate(usize::try_from(n).unwrap_or(0) / 8);
    Ok(words)
}

/// Puts the calling thread on processors, given as words of 64 bits.
///
/// # Errors
/// The kernel's (sched_setaffinity(2)): EINVAL when none of them is there or allowed.
pub fn set_affinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) })
        .map(drop)
}
