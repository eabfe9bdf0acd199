//! The streams of one process, the container's first or an exec's: outputs to log and attachers, input to stdin.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::attacher::{Attacher, Input};
use crate::log::{Logger, Stream};
use crate::poll::{Interests, Task, Token};
use crate::stdin::Stdin;

/// How long a living process may keep a terminal closed before its master is read again.
const TERMINAL_PAUSE: Duration = Duration::from_millis(100);

/// How long output is awaited after the process's end while somebody else still holds the pipe.
const LINGER: Duration = Duration::from_secs(2);

/// When an attacher's half-close ends stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdinRule {
    /// Never: more attachers may come.
    Keep,
    /// When the attacher shuts its half down.
    EndWithInput,
    /// When the attacher shuts its half down or is gone.
    EndWithAttacher,
}

/// One output of the process.
#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    stream: Stream,
    /// Not to be read before.
    resume: Option<Instant>,
    /// Bytes that were in the pipe at the process's end and have not been read yet.
    owed: u64,
}

/// Outputs, stdin and attachers of one process.
#[derive(Debug)]
pub(crate) struct Streams {
    task: Task,
    terminal: bool,
    outputs: Vec<Output>,
    stdin: Stdin,
    rule: StdinRule,
    attachers: Vec<Attacher>,
    console: Option<OwnedFd>,
    /// Until when output is awaited; set at the process's end.
    deadline: Option<Instant>,
    /// No more output will come, whatever descriptors are open.
    ended: bool,
    lost_input: bool,
}

impl Streams {
    /// No descriptors yet: attachers may come before the process exists.
    pub(crate) fn new(task: Task, terminal: bool, rule: StdinRule) -> Self {
        Self {
            task,
            terminal,
            outputs: Vec::new(),
            stdin: Stdin::default(),
            rule,
            attachers: Vec::new(),
            console: None,
            deadline: None,
            ended: false,
            lost_input: false,
        }
    }

    /// Takes the shim's ends of the pipes. They must not block.
    pub(crate) fn connect_pipes(&mut self, stdin: Option<OwnedFd>, outputs: [(Stream, Option<OwnedFd>); 2]) {
        match stdin {
            Some(fd) => self.stdin.connect(fd),
            None => self.stdin.close(),
        }
        self.outputs.extend(
            outputs
                .into_iter()
                .filter_map(|(stream, fd)| Some(Output { fd: fd?, stream, resume: None, owed: 0 })),
        );
    }

    /// Takes a terminal's master, which must not block.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated (EMFILE).
    pub(crate) fn connect_console(&mut self, master: OwnedFd, open_stdin: bool) -> std::io::Result<()> {
        if open_stdin {
            self.stdin.connect(master.try_clone()?);
        } else {
            self.stdin.close();
        }
        self.console = Some(master.try_clone()?);
        self.outputs.push(Output { fd: master, stream: Stream::Stdout, resume: None, owed: 0 });
        Ok(())
    }

    /// The terminal's master, to set its size.
    pub(crate) fn console(&self) -> Option<&OwnedFd> {
        self.console.as_ref()
    }

    /// Adds somebody who watches; `input` is what was read of its stdin already.
    pub(crate) fn attach(&mut self, attacher: Attacher, input: &[u8]) {
        if attacher.gives_stdin() {
            self.stdin.push(input);
            self.stdin.flush();
        }
        self.attachers.push(attacher);
    }

    /// Ends stdin after what is queued. A terminal has no such end.
    pub(crate) fn end_stdin(&mut self) {
        if !self.terminal {
            self.stdin.end();
            self.stdin.flush();
        }
    }

    /// Tells what to poll for.
    pub(crate) fn interests<'a>(&'a self, interests: &mut Interests<'a>) {
        for output in &self.outputs {
            let held = output.owed == 0 && self.attachers.iter().any(|a| a.holds_back(output.stream));
            match output.resume {
                Some(at) => interests.wake_at(at),
                None if !held => {
                    interests.add(Token::Output(self.task, output.stream), output.fd.as_fd(), PollFlags::IN);
                }
                None => {}
            }
        }
        if let Some(fd) = self.stdin.wants_write() {
            interests.add(Token::Stdin(self.task), fd, PollFlags::OUT);
        }
        for attacher in &self.attachers {
            let (fd, flags) = attacher.interest(self.stdin.has_room());
            interests.add(Token::Attacher(self.task, attacher.id), fd, flags);
        }
        if let Some(deadline) = self.deadline.filter(|_| !self.ended) {
            interests.wake_at(deadline);
        }
    }

    /// Reads one buffer of an output and passes it on. Returns whether there was anything.
    pub(crate) fn read_output(
        &mut self,
        stream: Stream,
        buffer: &mut [u8],
        log: Option<&mut Logger>,
    ) -> bool {
        let Some(at) = self.outputs.iter().position(|o| o.stream == stream) else { return false };
        let output = &mut self.outputs[at];
        match rustix::io::read(&output.fd, &mut *buffer) {
            Ok(0) => drop(self.outputs.remove(at)),
            Ok(n) => {
                output.owed = output.owed.saturating_sub(n as u64);
                let bytes = &buffer[..n];
                if let Some(log) = log {
                    log.write(stream, bytes, Timestamp::now());
                }
                for attacher in &mut self.attachers {
                    attacher.send(stream, bytes, !self.terminal);
                }
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => output.owed = 0,
            // A master says EIO while nobody has the terminal open; a living process may open it again.
            Err(Errno::IO) if self.terminal && self.deadline.is_none() => {
                output.resume = Some(Instant::now() + TERMINAL_PAUSE);
            }
            Err(_) => drop(self.outputs.remove(at)),
        }
        false
    }

    /// The process has ended: what is in the pipes is still to come, from others only for a while.
    pub(crate) fn process_ended(&mut self, now: Instant) {
        self.deadline = Some(now + LINGER);
        self.stdin.close();
        for output in &mut self.outputs {
            output.resume = None;
            output.owed = rustix::io::ioctl_fionread(&output.fd).unwrap_or(0);
        }
    }

    /// Reads all that is there, whatever attachers hold back: what a pipe holds is little.
    pub(crate) fn drain(&mut self, buffer: &mut [u8], mut log: Option<&mut Logger>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            // A writer that survives its container must not keep the shim here.
            let mut left: usize = 4 << 20;
            while left > 0 && self.read_output(stream, buffer, log.as_deref_mut()) {
                left = left.saturating_sub(buffer.len());
            }
        }
    }

    /// Whether the process has ended and no more output is awaited.
    pub(crate) fn is_complete(&self, now: Instant) -> bool {
        match self.deadline {
            None => false,
            Some(_) if self.outputs.is_empty() => true,
            Some(deadline) => now >= deadline && self.outputs.iter().all(|o| o.owed == 0),
        }
    }

    /// Gives the outputs up; attachers go when they have read everything.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.outputs.clear();
        self.stdin.close();
        self.console = None;
    }

    /// Serves one attacher's socket.
    pub(crate) fn serve(&mut self, id: u64, flags: PollFlags, buffer: &mut [u8]) {
        let Some(at) = self.attachers.iter().position(|a| a.id == id) else { return };
        let attacher = &mut self.attachers[at];
        if flags.contains(PollFlags::OUT) {
            attacher.flush();
        }
        let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        let mut end = false;
        if flags.contains(PollFlags::IN) || hung_up {
            loop {
                match attacher.receive(buffer) {
                    Input::Bytes(n) => {
                        if attacher.gives_stdin() {
                            self.stdin.push(&buffer[..n]);
                        }
                        // What a vanished attacher left behind is bounded by its socket's buffer.
                        if hung_up {
                            continue;
                        }
                    }
                    Input::End => end = !hung_up,
                    Input::Nothing => {}
                }
                break;
            }
            self.stdin.flush();
        }
        if hung_up {
            attacher.hang_up();
        }
        let ends = match self.rule {
            StdinRule::Keep => false,
            StdinRule::EndWithInput => end,
            StdinRule::EndWithAttacher => end || hung_up,
        };
        if ends && attacher.gives_stdin() {
            self.end_stdin();
        }
    }

    /// Writes to stdin what it takes.
    pub(crate) fn flush_stdin(&mut self) {
        self.stdin.flush();
    }

    /// Lets terminals be read again whose pause is over, and attachers go that are done.
    pub(crate) fn tidy(&mut self, now: Instant) {
        for output in &mut self.outputs {
            if output.resume.is_some_and(|at| at <= now) {
                output.resume = None;
            }
        }
        let ended = self.ended;
        let rule = self.rule;
        let mut lost_input = false;
        self.attachers.retain(|a| {
            lost_input |= a.is_gone() && a.gives_stdin();
            !(a.is_gone() || ended && a.is_flushed())
        });
        if lost_input && rule == StdinRule::EndWithAttacher {
            self.end_stdin();
        }
        self.lost_input |= lost_input && rule == StdinRule::EndWithInput;
    }

    /// Whether an attacher that gave stdin, and should end it, has vanished since the last call.
    pub(crate) fn take_lost_input(&mut self) -> bool {
        std::mem::take(&mut self.lost_input)
    }

    /// Whether the wait for more output is over.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Bytes that attachers have not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.attachers.iter().map(Attacher::unsent).sum()
    }

    /// Whether anything can still happen to these streams.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.attachers.is_empty()
    }
}

/// Makes a descriptor's reads and writes return at once.
///
/// # Errors
/// The kernel's (fcntl(2)).
pub(crate) fn set_nonblocking(fd: impl AsFd) -> std::io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}
