//! The creator's side of a clone: the child's birth, what it reports, its end.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{Ended, Whom, exit_now, wait};
use creel_sys::{pidfd, process};

use crate::error::{Error, plain};
use crate::report::{self, Message, Reporter, Timing};

/// A child that is being set up, or waits at its gate. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
    pub(crate) timings: Vec<Timing>,
    pidfd: Option<OwnedFd>,
    socket: OwnedFd,
}

/// Clones a child that runs `body`, which never returns to the caller's own code.
pub(crate) fn spawn(what: &Clone<'_>, body: impl FnOnce(Reporter) -> i32) -> Result<Child, Error> {
    let (socket, theirs) = report::pair()?;
    // Nobody inside a namespace that the child joins may look into it (see the crate's documentation). It inherits
    // this from us, so that there is no moment at which it could be caught.
    let dumpable = process::is_dumpable();
    let _ = process::set_dumpable(false);
    let cloned = clone(what);
    if dumpable && !matches!(cloned, Ok(Cloned::Child)) {
        let _ = process::set_dumpable(true);
    }
    match cloned {
        Err(e) => Err(Error::setup("cannot clone the container's process", plain(&e))),
        Ok(Cloned::Parent { pid, pidfd }) => Ok(Child {
            pid,
            pidfd: Some(pidfd),
            socket,
            console: None,
            warnings: Vec::new(),
            timings: Vec::new(),
        }),
        Ok(Cloned::Child) => {
            // Without the creator's end here, its death shows as the end of the stream.
            drop(socket);
            // Until the ids change this is enough; afterwards it is set again.
            let _ = process::set_pdeathsig(libc::SIGKILL);
            let code = std::panic::catch_unwind(AssertUnwindSafe(|| body(Reporter::new(theirs))));
            exit_now(code.unwrap_or(1))
        }
    }
}

impl Child {
    /// Reads reports until the child is ready, or (after [`Child::go`]) its stream ends because the program runs.
    fn listen(&mut self, started: bool, hooks: &dyn Fn(i32) -> Result<(), Error>) -> Result<(), Error> {
        let mut buf = Vec::new();
        loop {
            match report::receive(&self.socket, &mut buf)? {
                Some((Message::Warning(text), _)) => self.warnings.push(text),
                Some((Message::Console, fds)) => self.console = fds.into_iter().next(),
                Some((Message::Hooks, _)) => {
                    hooks(self.pid)?;
                    report::go(&self.socket)?;
                }
                Some((Message::Ready(timings), _)) => {
                    self.timings = timings;
                    return Ok(());
                }
                Some((Message::Failed { step, message, errno, kind }, _)) => {
                    self.end();
                    return Err(report::failure(step, message, errno, kind));
                }
                None if started => return Ok(()),
                None => {
                    let how = match self.end() {
                        Some(Ended::Exited(code)) => format!("exit code {code}"),
                        Some(Ended::Signaled { signal, .. }) => format!("signal {signal}"),
                        None => "nobody knows how".into(),
                    };
                    return Err(Error::Died { how });
                }
            }
        }
    }

    /// Waits until everything but the execve is done; `hooks` gets the process id when it is their turn.
    pub(crate) fn ready(&mut self, hooks: &dyn Fn(i32) -> Result<(), Error>) -> Result<(), Error> {
        self.listen(false, hooks)
    }

    /// Opens the gate and waits for the execve.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        report::go(&self.socket)?;
        self.listen(true, &|_| Ok(()))
    }

    /// The pidfd, while the child is there.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Lets go of the child: it lives on, and is the caller's to wait for.
    pub(crate) fn release(mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    fn end(&mut self) -> Option<Ended> {
        let pidfd = self.pidfd.take()?;
        // One that is exiting by itself is not hurt by this; its own code is what counts if it was first.
        let _ = pidfd::send_signal(&pidfd, libc::SIGKILL);
        wait(Whom::Pidfd(pidfd.as_fd()), true).ok().flatten().map(|(_, ended)| ended)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}
