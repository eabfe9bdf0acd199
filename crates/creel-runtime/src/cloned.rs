//! The creator's side of a clone: the child's birth, what it reports, its end.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use creel_cgroup::Entry;
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{Ended, Whom, exit_now, wait};
use creel_sys::{ns, pidfd, process};

use creel_types::spec::Seccomp;
use rustix::fs::AtFlags;

use crate::error::{Error, Fault, WireKind, plain};
use crate::filter::{self, Compiled, Filter};
use crate::hooks::State;
use crate::idmap;
use crate::report::{self, Ask, Message, Reporter, Timing};

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

/// A user namespace to be born in, and what else has to be joined from there.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The user namespace's file, or a pidfd.
    pub(crate) user: OwnedFd,
    /// The pid namespace's file, or a pidfd.
    pub(crate) pid: Option<OwnedFd>,
}

/// How a child is born.
#[derive(Debug, Default)]
pub(crate) struct Birth<'a> {
    pub(crate) what: Clone<'a>,
    /// An existing user namespace.
    pub(crate) stage: Option<Stage>,
    /// Whether the creator, who has no rights of root, must be able to open the child's files in procfs.
    pub(crate) dumpable: bool,
    /// Whether it asks to be moved into its control group when that is gone at its birth; otherwise this is an error.
    pub(crate) moved: bool,
}

/// Clones a child; true when its control group was gone, and it was born in its creator's instead.
fn clone_into(what: &Clone<'_>, moved: bool) -> std::io::Result<(Cloned, bool)> {
    match clone(what) {
        Err(e) if moved && what.cgroup.is_some() && is_gone(&e) => {
            clone(&Clone { flags: what.flags, cgroup: None }).map(|cloned| (cloned, true))
        }
        other => other.map(|cloned| (cloned, false)),
    }
}

/// Whether a group of the unified hierarchy is another user's than the caller's ("Cgroup ownership" of the
/// specification).
fn is_given_away(group: BorrowedFd<'_>) -> bool {
    rustix::fs::statat(group, "cgroup.procs", AtFlags::empty())
        .is_ok_and(|stat| stat.st_uid != rustix::process::geteuid().as_raw())
}

/// What clone3(2) says of a group that was removed.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

/// Clones a child that runs `body`, which never returns to the caller's own code.
pub(crate) fn spawn(birth: &Birth<'_>, body: impl FnOnce(Reporter) -> i32) -> Result<Child, Error> {
    let (socket, theirs) = report::pair()?;
    match &birth.stage {
        None => spawn_child(birth, socket, theirs, body),
        Some(stage) => spawn_staged(birth, stage, socket, theirs, body),
    }
}

/// Namespaces belong to the user namespace of whoever makes them, and one cannot come back from a user namespace: a
/// process in between joins it, clones the child as its own sibling, hands over what it knows and ends.
fn spawn_staged(
    birth: &Birth<'_>,
    stage: &Stage,
    socket: OwnedFd,
    theirs: OwnedFd,
    body: impl FnOnce(Reporter) -> i32,
) -> Result<Child, Error> {
    let (ours, handover) = report::pair()?;
    // From a user namespace nobody may write to a group that is its own, below one that is the host's: there the process
    // in between is born, and the child with it.
    let with_stage = birth.what.cgroup.is_some_and(is_given_away);
    let (staged, rest) = if with_stage { (birth.what.cgroup, None) } else { (None, birth.what.cgroup) };
    let first = Birth {
        what: Clone { flags: 0, cgroup: staged },
        moved: birth.moved && with_stage,
        ..Birth::default()
    };
    // Only the creator may hold its end: the child takes that end's closing for the creator's death.
    let socket = RefCell::new(Some(socket));
    let mut between = spawn_child(&first, ours, handover, |handover| {
        socket.take();
        let joined = ns::setns(&stage.user, creel_sys::clone::NEWUSER)
            .and_then(|()| stage.pid.as_ref().map_or(Ok(()), |pid| ns::setns(pid, creel_sys::clone::NEWPID)));
        if let Err(e) = joined {
            handover.failed("join the user namespace".into(), e.into());
            return 1;
        }
        let what = Clone { flags: birth.what.flags | creel_sys::clone::PARENT, cgroup: rest };
        match clone_into(&what, birth.moved) {
            Err(e) => {
                handover.failed("clone the container's process".into(), e.into());
                1
            }
            Ok((Cloned::Parent { pid, pidfd }, _)) => {
                handover.send(&Message::Born(pid), &[pidfd.as_fd()]);
                0
            }
            Ok((Cloned::Child, outside)) => {
                let outside = outside || handover.born_outside();
                drop(handover);
                let _ = process::set_pdeathsig(libc::SIGKILL);
                body(Reporter::new(theirs).outside(outside))
            }
        }
    })?;
    match report::receive(&between.socket)? {
        Some((Message::Born(pid), fds)) => Ok(Child::new(pid, fds.into_iter().next(), socket.take())?),
        Some((Message::Failed { step, message, errno, kind }, _)) => {
            Err(report::failure(step, message, errno, kind))
        }
        _ => Err(between.died()),
    }
}

fn spawn_child(
    birth: &Birth<'_>,
    socket: OwnedFd,
    theirs: OwnedFd,
    body: impl FnOnce(Reporter) -> i32,
) -> Result<Child, Error> {
    // Nobody inside a namespace that the child joins may look into it (see the crate's documentation). It inherits
    // this from us, so that there is no moment at which it could be caught.
    let dumpable = process::is_dumpable();
    let _ = process::set_dumpable(birth.dumpable);
    let cloned = clone_into(&birth.what, birth.moved);
    if !matches!(cloned, Ok((Cloned::Child, _))) {
        let _ = process::set_dumpable(dumpable);
    }
    match cloned {
        // The first words are runc's.
        Err(e) if birth.what.cgroup.is_some() && e.raw_os_error() == Some(libc::EBUSY) => {
            let text = format!("{} (it hands controllers down to the groups below it)", plain(&e));
            Err(Error::setup("error adding pid of the new process to cgroups", text))
        }
        Err(e) => Err(Error::setup("cannot clone the container's process", plain(&e))),
        Ok((Cloned::Parent { pid, pidfd }, _)) => Child::new(pid, Some(pidfd), Some(socket)),
        Ok((Cloned::Child, outside)) => {
            // Without the creator's end here, its death shows as the end of the stream.
            drop(socket);
            creel_sys::image::close_kept();
            // Until the ids change this is enough; afterwards it is set again.
            let _ = process::set_pdeathsig(libc::SIGKILL);
            let code =
                std::panic::catch_unwind(AssertUnwindSafe(|| body(Reporter::new(theirs).outside(outside))));
            exit_now(code.unwrap_or(1))
        }
    }
}

/// Has a process of its own open something, whose descriptor it hands back; `step` is the name of that.
pub(crate) fn fetch(step: &str, open: impl FnOnce() -> Result<OwnedFd, Fault>) -> Result<OwnedFd, Error> {
    let (ours, theirs) = report::pair()?;
    let mut between = spawn_child(&Birth::default(), ours, theirs, |reporter| match open() {
        Ok(fd) => {
            reporter.send(&Message::Tree, &[fd.as_fd()]);
            0
        }
        Err(fault) => {
            reporter.failed(step.into(), fault);
            1
        }
    })?;
    match report::receive(&between.socket)? {
        Some((Message::Tree, fds)) => fds
            .into_iter()
            .next()
            .ok_or_else(|| Error::setup(format!("cannot {step}"), "its descriptor was lost")),
        Some((Message::Failed { step, message, errno, kind }, _)) => {
            Err(report::failure(step, message, errno, kind))
        }
        _ => Err(between.died()),
    }
}

/// Opens a gate at the other end of a connection, and listens there until the program runs; returns warnings.
pub(crate) fn go(connection: &OwnedFd) -> Result<Vec<String>, Error> {
    report::go(connection)?;
    let mut warnings = Vec::new();
    loop {
        match report::receive(connection)? {
            None => return Ok(warnings),
            Some((Message::Warning(text), _)) => warnings.push(text),
            Some((Message::Listener { number }, fds)) => filter::serve(number, fds, connection)?,
            Some((Message::Failed { step, message, errno, kind }, _)) => {
                return Err(report::failure(step, message, errno, kind));
            }
            Some(_) => {}
        }
    }
}

/// Does what the child asks its creator to do; gets the child's process id and its pidfd, and returns what the child is
/// to be given.
pub(crate) type Serve<'a> = &'a mut dyn FnMut(Ask, i32, Option<&OwnedFd>) -> Result<Option<OwnedFd>, Error>;

impl Child {
    fn new(pid: i32, pidfd: Option<OwnedFd>, socket: Option<OwnedFd>) -> Result<Child, Error> {
        let (Some(pidfd), Some(socket)) = (pidfd, socket) else {
            return Err(Error::setup("cannot clone the container's process", "its descriptors were lost"));
        };
        let (warnings, timings) = (Vec::new(), Vec::new());
        Ok(Child { pid, pidfd: Some(pidfd), socket, console: None, warnings, timings })
    }

    /// The error for a child that ended without a word.
    fn died(&mut self) -> Error {
        let how = match self.end() {
            Some(Ended::Exited(code)) => format!("exit code {code}"),
            Some(Ended::Signaled { signal, .. }) => format!("signal {signal}"),
            None => "nobody knows how".into(),
        };
        Error::Died { how }
    }

    /// Reads reports until the child is ready, or (after [`Child::go`]) its stream ends because the program runs.
    fn listen(&mut self, started: bool, serve: Serve<'_>) -> Result<(), Error> {
        loop {
            match report::receive(&self.socket)? {
                Some((Message::Warning(text), _)) => self.warnings.push(text),
                Some((Message::Console, fds)) => self.console = fds.into_iter().next(),
                Some((Message::Ask(ask), _)) => {
                    let given = serve(ask, self.pid, self.pidfd.as_ref())?;
                    report::give(&self.socket, given.as_ref())?;
                }
                Some((Message::Listener { number }, fds)) => filter::serve(number, fds, &self.socket)?,
                // Only a process in between says this, and only to its own creator.
                Some((Message::Born(_) | Message::Tree, _)) => {}
                Some((Message::Ready(timings), _)) => {
                    self.timings = timings;
                    return Ok(());
                }
                Some((Message::Failed { step, mut message, errno, kind }, _)) => {
                    self.end();
                    // What was passed over may be why; nobody is told of it otherwise.
                    if !matches!(kind, WireKind::ProgramNotFound | WireKind::ProgramNotExecutable) {
                        for warning in &self.warnings {
                            message = format!("{message} ({warning})");
                        }
                    }
                    return Err(report::failure(step, message, errno, kind));
                }
                None if started => return Ok(()),
                None => return Err(self.died()),
            }
        }
    }

    /// Shows it the doors of its control group.
    pub(crate) fn show_doors(&self, doors: Option<&Entry>) -> Result<(), Error> {
        let doors = doors.map(|entry| entry.tasks().collect::<Vec<_>>());
        report::send_doors(&self.socket, doors.as_deref())
    }

    /// Compiles its system call filter, and gives it to it.
    pub(crate) fn give_filter(
        &self,
        wanted: Option<&Seccomp>,
        state: &State<'_>,
    ) -> Result<Option<Compiled>, Error> {
        let Some(filter) = Filter::compile(wanted, state)? else { return Ok(None) };
        let compiled = filter.to_compiled();
        report::send_filter(&self.socket, &compiled)?;
        Ok(Some(compiled))
    }

    /// Waits until everything but the execve is done.
    pub(crate) fn ready(&mut self, serve: Serve<'_>) -> Result<(), Error> {
        self.listen(false, serve)
    }

    /// Opens the gate and waits for the execve.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        report::go(&self.socket)?;
        // While the kernel makes the child's program ready.
        creel_sys::image::close_kept();
        self.listen(true, &mut |_, _, _| Ok(None))
    }

    /// Sets the OOM score adjustment from outside; that it cannot be had is a warning.
    pub(crate) fn adjust_oom_score(&mut self, score: i32) {
        if let Err(e) = idmap::write_oom_score(self.pid, score) {
            self.warnings.push(format!("the OOM score adjustment {score} was not set: {e}"));
        }
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
