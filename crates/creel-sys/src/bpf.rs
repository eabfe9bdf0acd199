//! bpf(2): device programs of cgroup v2 groups, raw.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::check;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, the attach type.
pub const CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of the same group add up.
pub const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`: takes the place of another program, given by its descriptor.
pub const REPLACE: u32 = 4;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub registers: u8,
    /// Signed offset of a jump or an access.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads (Linux 4.15's, the first with device programs).
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, up to the name (Linux 4.15).
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    before: [u64; 8],
    name: [u8; 16],
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: only called below, with the structure that the command reads (or writes), whose pointers refer to
    // buffers that outlive the call and have the lengths named beside them.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })
}

/// Loads a device program. `log` gets the verifier's words (it may be empty for none).
///
/// # Errors
/// EINVAL or EACCES when the verifier refuses, EPERM without CAP_BPF or CAP_SYS_ADMIN, E2BIG.
pub fn load_device_program(program: &[Instruction], name: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    if !log.is_empty() {
        attr.log_level = 1;
        attr.log_size = log.len() as u32;
        attr.log_buf = log.as_mut_ptr() as u64;
    }
    for (to, from) in attr.prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let fd = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: a new descriptor (the kernel makes them close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a program to a cgroup v2 directory; with `replace` it takes that program's place in one step (Linux 5.6).
///
/// # Errors
/// The kernel's: EPERM when a group above allows no more programs, EBADF, ENOENT (nothing to replace).
pub fn attach_device(
    cgroup: impl AsFd,
    program: impl AsFd,
    replace: Option<std::os::fd::BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(old) = replace {
        attr.attach_flags |= REPLACE;
        attr.replace_bpf_fd = old.as_raw_fd() as u32;
    }
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a program from a cgroup v2 directory.
///
/// # Errors
/// ENOENT when it is not attached there.
pub fn detach_device(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the device programs attached to a cgroup v2 directory itself (allocates).
///
/// # Errors
/// The kernel's; ENOSPC when there are more than 64.
pub fn query_device(cgroup: impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = Query {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(ids.into_iter().take(attr.prog_cnt as usize).collect())
}

/// Opens a program by its id.
///
/// # Errors
/// ENOENT when it is gone, EPERM without CAP_SYS_ADMIN.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    let fd = bpf(PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The name with which a program was loaded (at most 15 bytes).
///
/// # Errors
/// EBADF, EINVAL when the descriptor is not a program's.
pub fn program_name(program: impl AsFd) -> io::Result<String> {
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        bpf_fd: program.as_fd().as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
