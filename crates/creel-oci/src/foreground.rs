//! Waiting for a program in the foreground: signals go on to it, its terminal is joined to the caller's, orphans are
//! reaped, and its exit code becomes this process's.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::process::{self, Ended, Whom};
use creel_sys::pty;
use creel_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios};

use crate::error::{Error, Result};
use crate::notify::Notify;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// How long a program may be expected to end soon, so that what its end takes had better stay in memory.
const RESTLESS: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Signals are kept for [`Foreground::wait`] from here on.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: OwnedFd,
}

impl Foreground {
    /// To be called before the process is cloned: a child may end before its creator looks.
    pub(crate) fn prepare(subreaper: bool) -> Result<Foreground> {
        if subreaper {
            process::set_subreaper(true).map_err(|e| Error::call("cannot become a subreaper", e))?;
        }
        let failed = |e| Error::call("cannot take over signals", e);
        signal::set_mask(SignalSet::ALL).map_err(failed)?;
        Ok(Foreground { signals: signal::signalfd(SignalSet::ALL).map_err(failed)? })
    }

    /// Joins a process's terminal to the caller's; to be done before the program runs, so that it sees a terminal of the
    /// right size from the beginning.
    pub(crate) fn join(&self, master: OwnedFd) -> Result<Relay> {
        Relay::begin(master)
    }

    /// Waits for the end of a child; returns its exit code, or 128 + the signal that ended it. When it is ready, the
    /// host is told to look after this process, which ends with it.
    pub(crate) fn wait(
        self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        mut relay: Option<Relay>,
        notify: Option<&Notify>,
    ) -> Result<i32> {
        let mut patience = Some(RESTLESS);
        loop {
            let ended = self.turn(pid, pidfd, relay.as_mut(), notify, patience.as_ref())?;
            if ended.is_none() && patience.take().is_some() {
                // It may wait for months.
                let _ = creel_sys::memory::release_code();
            }
            if let Some(ended) = ended {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                return Ok(ended.code());
            }
        }
    }

    /// Waits until something happens, and sees to it.
    fn turn(
        &self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        relay: Option<&mut Relay>,
        notify: Option<&Notify>,
        patience: Option<&Timespec>,
    ) -> Result<Option<Ended>> {
        let mut fds =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        let stdin = rustix::stdio::stdin();
        let wanted = relay.as_ref().map(|relay| relay.wanted());
        if let (Some(relay), Some((master, input))) = (relay.as_ref(), wanted) {
            fds.push(PollFd::new(&relay.master, master));
            fds.push(PollFd::from_borrowed_fd(stdin, input));
        }
        if let Some(notify) = notify {
            fds.push(PollFd::new(notify, PollFlags::IN));
        }
        match poll(&mut fds, patience) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::call("poll", e)),
        }
        let got: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if let Some(relay) = relay {
            relay.move_bytes(got[2], got[3]);
            self.take_signals(pidfd, Some(relay))?;
        } else {
            self.take_signals(pidfd, None)?;
        }
        if let Some(notify) = notify {
            // A service manager that is gone is no reason to end the container.
            let _ = notify.pass_on(process::pid());
        }
        let ended = reap(pid);
        if ended.is_none() && !got[1].is_empty() && !is_child(pidfd) {
            // Somebody else has reaped it: there is no code to be had, and nothing to wait for.
            return Ok(Some(Ended::Exited(255)));
        }
        Ok(ended)
    }

    fn take_signals(&self, pidfd: BorrowedFd<'_>, mut relay: Option<&mut Relay>) -> Result<()> {
        let failed = |e| Error::call("cannot read signals", e);
        while let Some(info) = signal::read_signalfd(&self.signals).map_err(failed)? {
            match info.signal {
                libc::SIGCHLD => {}
                libc::SIGWINCH if relay.is_some() => {
                    if let Some(relay) = relay.as_mut() {
                        relay.resize();
                    }
                }
                // One that has ended needs no signal any more.
                other => drop(creel_sys::pidfd::send_signal(pidfd, other)),
            }
        }
        Ok(())
    }
}

/// Whether a process that has ended can still be waited for here.
fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    let options = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), options).is_ok()
}

/// Reaps every child that has ended; tells how `pid` did.
fn reap(pid: i32) -> Option<Ended> {
    let mut found = None;
    while let Ok(Some((child, ended))) = process::wait(Whom::Any, false) {
        if child == pid {
            found = Some(ended);
        }
    }
    found
}

/// Between a container's terminal and the caller's streams. Dropped, it gives the caller's terminal back as it was.
pub(crate) struct Relay {
    master: OwnedFd,
    /// The caller's own terminal, and how it was before.
    host: Option<(OwnedFd, Termios)>,
    /// What was typed and not taken yet.
    pending: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
}

impl Relay {
    fn begin(master: OwnedFd) -> Result<Relay> {
        let failed = |e| Error::call("cannot set up the terminal", e);
        // The caller's terminal adds carriage returns; a file or a pipe must not get any.
        let mut modes = rustix::termios::tcgetattr(&master).map_err(failed)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes).map_err(failed)?;
        let flags = rustix::fs::fcntl_getfl(&master).map_err(failed)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(failed)?;
        let host = host_terminal().and_then(|terminal| {
            let before = rustix::termios::tcgetattr(&terminal).ok()?;
            let mut raw = before.clone();
            raw.make_raw();
            raw.output_modes.insert(OutputModes::OPOST);
            rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &raw).ok()?;
            Some((terminal, before))
        });
        let relay = Relay { master, host, pending: Vec::new(), stdin_open: true, master_open: true };
        relay.resize();
        Ok(relay)
    }

    fn resize(&self) {
        if let Some((host, _)) = &self.host
            && let Ok(size) = pty::size(host)
            && (size.rows, size.columns) != (0, 0)
        {
            let _ = pty::set_size(&self.master, size);
        }
    }

    /// What to wait for: at the master, at standard input.
    fn wanted(&self) -> (PollFlags, PollFlags) {
        let mut master = PollFlags::empty();
        if self.master_open {
            master |= PollFlags::IN;
            if !self.pending.is_empty() {
                master |= PollFlags::OUT;
            }
        }
        let reads = self.stdin_open && self.master_open && self.pending.is_empty();
        (master, if reads { PollFlags::IN } else { PollFlags::empty() })
    }

    fn move_bytes(&mut self, master: PollFlags, stdin: PollFlags) {
        let gone = PollFlags::HUP | PollFlags::ERR;
        if stdin.intersects(PollFlags::IN | gone) && self.stdin_open && self.pending.is_empty() {
            let mut buf = [0u8; CHUNK];
            match rustix::io::read(rustix::stdio::stdin(), &mut buf) {
                Ok(0) => self.stdin_open = false,
                Ok(n) => self.pending.extend_from_slice(&buf[..n]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => self.stdin_open = false,
            }
        }
        if !self.pending.is_empty()
            && let Ok(n) = rustix::io::write(&self.master, &self.pending)
        {
            self.pending.drain(..n);
        }
        if master.intersects(PollFlags::IN | gone) && self.master_open {
            self.master_open = self.forward();
        }
    }

    /// Copies what there is to standard output; false when the other end is closed.
    fn forward(&mut self) -> bool {
        let mut buf = [0u8; CHUNK];
        match rustix::io::read(&self.master, &mut buf) {
            Ok(0) => false,
            Ok(n) => {
                // Who does not listen does not stop the program.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(&buf[..n]).and_then(|()| out.flush());
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            // EIO: nobody has the terminal open.
            Err(_) => false,
        }
    }

    /// What the program has said before its end.
    fn drain(&mut self) {
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, Some(&none)) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => return,
            }
            if !self.forward() {
                return;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some((host, before)) = &self.host {
            let _ = rustix::termios::tcsetattr(host, OptionalActions::Now, before);
        }
    }
}

/// The caller's terminal: usually all three streams are, but any may be redirected.
fn host_terminal() -> Option<OwnedFd> {
    let streams = [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()];
    let stream = streams.into_iter().find(|fd| rustix::termios::isatty(fd.as_fd()));
    if let Some(stream) = stream {
        return stream.try_clone_to_owned().ok();
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()
}
