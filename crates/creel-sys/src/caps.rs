//! Capabilities: capget/capset, the bounding and the ambient set (capabilities(7)).
//!
//! Sets are bit masks: bit `n` is capability number `n` of `linux/capability.h`.

use std::io;

use crate::{check, check_int};

/// The three sets that capset(2) handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What is checked.
    pub effective: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What survives execve with file capabilities.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The calling thread's sets.
///
/// # Errors
/// The kernel's (capget(2)).
pub fn get() -> io::Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 has two data elements; both structures outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |f: fn(&Data) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(Sets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// Sets the calling thread's sets.
///
/// # Errors
/// The kernel's (capset(2)): EPERM when a set would grow beyond what is permitted.
pub fn set(sets: &Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 has two data elements; both structures outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Whether the bounding set holds a capability; `None` when the kernel does not know its number.
pub fn bounding_has(cap: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes a number and touches no memory.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap)) } {
        1 => Some(true),
        0 => Some(false),
        _ => None,
    }
}

/// Drops a capability from the bounding set.
///
/// # Errors
/// The kernel's (PR_CAPBSET_DROP): EPERM without CAP_SETPCAP, EINVAL for an unknown number.
pub fn bounding_drop(cap: u32) -> io::Result<()> {
    // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
    check_int(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0) }).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// The kernel's (PR_CAP_AMBIENT_CLEAR_ALL): EINVAL before Linux 4.3.
pub fn ambient_clear() -> io::Result<()> {
    // SAFETY: the call takes numbers and touches no memory.
    check_int(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0)
    })
    .map(drop)
}

/// Adds a capability, permitted and inheritable already, to the ambient set.
///
/// # Errors
/// The kernel's (PR_CAP_AMBIENT_RAISE): EPERM.
pub fn ambient_raise(cap: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers and touches no memory.
    check_int(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            libc::c_ulong::from(cap),
            0,
            0,
        )
    })
    .map(drop)
}

/// Whether the permitted set survives a change of the user id (PR_SET_KEEPCAPS).
///
/// # Errors
/// The kernel's: EPERM when locked by the secure bits.
pub fn set_keepcaps(keep: bool) -> io::Result<()> {
    // SAFETY: the call takes numbers and touches no memory.
    check_int(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }).map(drop)
}

/// The highest capability number that this kernel knows (40, CAP_CHECKPOINT_RESTORE, since Linux 5.9).
pub fn last_cap() -> u32 {
    (0..64).take_while(|&cap| bounding_has(cap).is_some()).last().unwrap_or(0)
}
