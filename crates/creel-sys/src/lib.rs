//! The only home of unsafe code: the kernel's interfaces that rustix does not wrap.
//!
//! Layer 0. Every function is a thin, safe door to one system call (or a pair that belongs together) and returns
//! [`std::io::Error`] with the kernel's error number; what a failure means is for the caller to say. Nothing here
//! knows what a container is. No module allocates unless its documentation says so, so that all of it may be
//! used between a clone and an execve.
#![allow(unsafe_code)]

pub mod bpf;
mod build_id;
pub mod caps;
pub mod clone;
pub mod close_range;
pub mod dev;
pub mod erofs;
pub mod fdpass;
pub mod image;
pub mod inherited;
pub mod kernelfs;
pub mod keyctl;
pub mod memory;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod ns;
pub mod openat2;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod regex;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod xattr;

pub use build_id::build_id;

use std::io;

/// Turns the kernel's -1 into the thread's `errno`.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// [`check`] for calls that return a C `int`.
pub(crate) fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
