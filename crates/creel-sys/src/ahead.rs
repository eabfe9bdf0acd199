//! A network namespace that is made beside the caller's own work.
//!
//! Making one takes the kernel more than half a millisecond, nearly all that a container's namespaces cost, and needs
//! nothing but to be asked. A helper that shares the caller's memory asks for it while the caller reads and plans.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::UnshareFlags;

use crate::check_int;
use crate::process::{Whom, wait};

/// Bytes of the helper's stack: it calls a handful of functions.
const STACK: usize = 32 << 10;

/// A network namespace in the making.
#[derive(Debug)]
pub struct Ahead {
    helper: OwnedFd,
    /// The namespace's descriptor, when there is one; the helper writes it.
    made: Box<AtomicI32>,
    _stack: Box<[u8]>,
}

/// Begins to make a network namespace whose loopback interface is up. It belongs to the caller's user namespace.
/// Allocates.
///
/// The program's image must stay where it is mapped until this is finished or dropped.
///
/// # Errors
/// The kernel's (clone(2)). What fails in the helper is told by [`Ahead::finish`].
pub fn begin() -> io::Result<Ahead> {
    let made = Box::new(AtomicI32::new(-1));
    let mut stack = vec![0; STACK].into_boxed_slice();
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD;
    // The stack grows down from its end, which the ABI wants aligned.
    let top = stack.as_mut_ptr_range().end.map_addr(|end| end & !15);
    // SAFETY: the stack and the place of the result are the helper's alone until it has ended: both live as long as the
    // returned value, which waits for that before it goes. `make` neither allocates nor uses anything else of this
    // process's: its system calls are made without the thread's errno, which it shares.
    check_int(unsafe {
        libc::clone(make, top.cast(), flags, (&raw const *made).cast_mut().cast(), &raw mut pidfd)
    })?;
    // SAFETY: the kernel has just stored a new descriptor here (CLONE_PIDFD); nobody else owns it.
    let helper = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Ahead { helper, made, _stack: stack })
}

/// The helper.
extern "C" fn make(made: *mut c_void) -> libc::c_int {
    let namespace = || -> rustix::io::Result<OwnedFd> {
        // SAFETY: nothing but the helper's network namespace changes, and it owns no descriptors of the old one.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        crate::net::bring_up_loopback()?;
        rustix::fs::openat(CWD, c"/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    // SAFETY: the caller keeps the atomic until this process has ended.
    let made = unsafe { &*made.cast_const().cast::<AtomicI32>() };
    match namespace() {
        Ok(fd) => {
            made.store(fd.into_raw_fd(), Ordering::Release);
            0
        }
        Err(_) => 1,
    }
}

impl Ahead {
    /// Waits until it is made; `None` when that failed.
    pub fn finish(self) -> Option<OwnedFd> {
        self.take()
    }

    fn take(&self) -> Option<OwnedFd> {
        // There is none but the caller who waits for this child.
        let _ = wait(Whom::Pidfd(self.helper.as_fd()), true);
        let fd = self.made.swap(-1, Ordering::Acquire);
        // SAFETY: the helper has opened it in the table of descriptors that it shared with this process, and has ended.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_with_its_loopback_up() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let own = rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino;
        drop(begin().unwrap());
        let made = begin().unwrap().finish().unwrap();
        assert_ne!(rustix::fs::fstat(&made).unwrap().st_ino, own);
        assert_eq!(
            rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino,
            own,
            "the caller stays where it is"
        );
        let inside = std::thread::spawn(move || {
            crate::ns::setns(&made, crate::clone::NEWNET).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).map(drop)
        });
        inside.join().unwrap().unwrap();
    }
}
