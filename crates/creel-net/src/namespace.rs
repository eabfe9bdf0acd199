//! Network namespaces that belong to nobody yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::ns;
use rustix::fs::{Mode, OFlags};

use crate::Links;
use crate::error::{Error, Result};

/// A network namespace by its descriptor: it ends with the last descriptor and process that has it, and everything in it
/// does, too.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Namespace {
    /// Makes a namespace with its loopback interface up. A thread is started for it, and ends: the caller stays where it is.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn create() -> Result<Namespace> {
        in_a_thread("make a network namespace", || {
            ns::unshare(creel_sys::clone::NEWNET).map_err(|e| failed("make a network namespace", &e))?;
            creel_sys::net::bring_up_loopback().map_err(|e| Error::step("bring up lo", e))?;
            Namespace::own()
        })
    }

    /// The calling thread's.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn own() -> Result<Namespace> {
        // Not /proc/self, which is the process's first thread's.
        let path = "/proc/thread-self/ns/net";
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Namespace { fd: fd.map_err(|e| Error::step(format_args!("open {path}"), e))? })
    }

    /// One that is open already, like that of a container that runs.
    pub fn of(fd: OwnedFd) -> Namespace {
        Namespace { fd }
    }

    /// Runs `body` in a thread of its own that is in this namespace: sockets that it opens stay there.
    ///
    /// # Errors
    /// [`Error::Step`], and those of `body`.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_a_thread("enter a network namespace", || {
            ns::setns(&self.fd, creel_sys::clone::NEWNET)
                .map_err(|e| failed("enter a network namespace", &e))?;
            body()
        })
    }

    /// The interfaces in it.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn links(&self) -> Result<Links> {
        self.enter(Links::open)
    }
}

fn failed(step: &str, error: &std::io::Error) -> Error {
    Error::step(step, rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::INVAL))
}

fn in_a_thread<T: Send>(step: &'static str, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("network".into()).spawn_scoped(scope, body);
        let thread = thread.map_err(|e| failed(step, &e))?;
        thread.join().unwrap_or_else(|_| Err(Error::step(step, rustix::io::Errno::INTR)))
    })
}
