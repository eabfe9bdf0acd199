//! The shim's loop and the container's life: idle, created, running, ending, exited.

mod calls;
mod connections;
mod ending;
pub(crate) mod setup;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use creel_sys::process::Ended;
use creel_sys::signal;
use jiff::Timestamp;
use rustix::event::PollFlags;

use crate::control::Connection;
use crate::launch::Launcher;
use crate::log::Logger;
use crate::poll::{Interests, Task, Token};
use crate::proto::{Event, ExecEnd, ExitRecord, Failure, ShimConfig, Status};
use crate::streams::{StdinRule, Streams};
use crate::trouble::Troubles;

/// How long a shim whose container was never started lives without a control connection.
const ABANDONED: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How long after an attacher vanished the daemon's own connection shows whether the daemon went with it.
const DOUBT: Duration = Duration::from_millis(200);

/// How long the loop pauses what failed for lack of something: room for the log, descriptors for connections.
const RETRY: Duration = Duration::from_secs(1);

/// How long, and how often, the count of OOM kills is awaited after the kernel's word of an OOM.
const OOM_PAUSE: Duration = Duration::from_millis(20);
const OOM_RETRIES: u32 = 10;

/// Bytes read at once from a pipe or socket.
const READ: usize = 32 * 1024;

/// How long after the last event memory is given back.
const IDLE: Duration = Duration::from_secs(1);
/// How many ended execs are remembered for a daemon that was away.
const REMEMBERED: usize = 64;

/// The container's streams among [`Task`]s.
const MAIN: Task = 0;

/// A process that the shim signals and waits for.
#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

/// An exec: running, or ended and still delivering.
#[derive(Debug)]
struct Exec {
    task: Task,
    exec_id: String,
    process: Process,
    streams: Streams,
    code: Option<i32>,
    reported: bool,
}

/// One container's supervisor.
pub(crate) struct Shim<L> {
    dir: PathBuf,
    config: ShimConfig,
    launcher: L,
    /// Whether the container's processes die with its first one: it has a pid namespace of its own.
    own_pids: bool,
    status: Status,
    init: Option<Process>,
    started_at: Option<Timestamp>,
    /// How often the OOM killer has struck, as far as it was told.
    oom_kills: u64,
    /// When to look again after a word of an OOM that has killed nobody yet, and how often still.
    oom_retry: Option<(Instant, u32)>,
    ended: Option<(Ended, Timestamp)>,
    failed: Option<Failure>,
    record: Option<ExitRecord>,
    main: Streams,
    execs: Vec<Exec>,
    ended_execs: VecDeque<ExecEnd>,
    connections: Vec<Connection>,
    next_id: u64,
    signals: OwnedFd,
    listener: setup::Listener,
    listener_pause: Option<Instant>,
    log: Option<Logger>,
    log_retry: Option<Instant>,
    troubles: Troubles,
    buffer: Box<[u8]>,
    /// When to decide whether a vanished attacher's stdin ends.
    stdin_doubt: Option<Instant>,
    /// Since when nobody has cared about a container that was not started.
    abandoned_since: Option<Instant>,
    /// When an exited container's streams and events last moved, and how much was unsent then.
    linger: Option<(Instant, usize)>,
    /// When to give back the memory that the last bustle needed.
    idle_at: Option<Instant>,
    stop: bool,
}

impl<L: Launcher> Shim<L> {
    /// Serves until the container has ended and everything was told; then removes the socket.
    pub(crate) fn run(&mut self) {
        let mut ready = Vec::new();
        while !self.stop {
            if let Err(error) = self.wait(&mut ready) {
                // Nothing can be waited for without poll: better a slow loop than a lost container.
                self.troubles.note(&format!("poll failed: {error}"));
                std::thread::sleep(RETRY);
            }
            self.rest(ready.is_empty());
            for (token, flags) in ready.drain(..) {
                self.serve(token, flags);
            }
            self.advance();
        }
        self.listener.remove();
    }

    /// A second after the last event the code that served it is let go: a shim waits for most of its life.
    fn rest(&mut self, idle: bool) {
        let now = Instant::now();
        if !idle {
            self.idle_at = Some(now + IDLE);
        } else if self.idle_at.is_some_and(|at| at <= now) {
            self.idle_at = None;
            if let Err(error) = creel_sys::memory::release_code() {
                self.troubles.note(&format!("cannot give memory back: {error}"));
            }
        }
    }

    fn wait(&mut self, ready: &mut Vec<(Token, PollFlags)>) -> std::io::Result<()> {
        let mut interests = Interests::default();
        interests.add(Token::Signals, self.signals.as_fd(), PollFlags::IN);
        match self.listener_pause {
            None => interests.add(Token::Listener, self.listener.fd.as_fd(), PollFlags::IN),
            Some(at) => interests.wake_at(at),
        }
        if let Some(fd) = self.launcher.oom_fd().filter(|_| self.init.is_some()) {
            interests.add(Token::Oom, fd, PollFlags::IN | PollFlags::PRI);
        }
        for connection in &self.connections {
            let (fd, flags) = connection.interest();
            interests.add(Token::Control(connection.id), fd, flags);
        }
        self.main.interests(&mut interests);
        if let Some(init) = self.init.as_ref().filter(|_| self.ended.is_none()) {
            interests.add(Token::Process(MAIN), init.pidfd.as_fd(), PollFlags::IN);
        }
        for exec in &self.execs {
            if exec.code.is_none() {
                interests.add(Token::Process(exec.task), exec.process.pidfd.as_fd(), PollFlags::IN);
            }
            exec.streams.interests(&mut interests);
        }
        let timers = [
            self.log_retry,
            self.stdin_doubt,
            self.oom_retry.map(|(at, _)| at),
            self.abandoned_since.map(|since| since + ABANDONED),
            self.linger.map(|(since, _)| since + ending::LINGER),
            self.idle_at,
        ];
        for at in timers.into_iter().flatten() {
            interests.wake_at(at);
        }
        interests.wait(ready)
    }

    fn serve(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => self.serve_signals(),
            Token::Process(_) => self.reap(),
            Token::Listener => self.accept(),
            Token::Oom => self.check_oom(OOM_RETRIES),
            Token::Control(id) => self.serve_connection(id, flags),
            Token::Output(task, stream) => {
                let Self { main, execs, log, buffer, .. } = self;
                if task == MAIN {
                    main.read_output(stream, buffer, log.as_mut());
                } else if let Some(exec) = execs.iter_mut().find(|e| e.task == task) {
                    exec.streams.read_output(stream, buffer, None);
                }
            }
            Token::Stdin(task) => {
                if let Some((streams, _)) = self.streams(task) {
                    streams.flush_stdin();
                }
            }
            Token::Attacher(task, id) => {
                if let Some((streams, buffer)) = self.streams(task) {
                    streams.serve(id, flags, buffer);
                }
            }
        }
    }

    fn streams(&mut self, task: Task) -> Option<(&mut Streams, &mut [u8])> {
        let Self { main, execs, buffer, .. } = self;
        if task == MAIN {
            return Some((main, buffer));
        }
        execs.iter_mut().find(|e| e.task == task).map(|e| (&mut e.streams, &mut **buffer))
    }

    fn serve_signals(&mut self) {
        while let Ok(Some(info)) = signal::read_signalfd(&self.signals) {
            if info.signal == libc::SIGTERM {
                self.terminate();
            }
        }
        self.reap();
    }

    /// Signals of one kind are merged while they are pending: looks for all that ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, ended))) = creel_sys::process::wait(creel_sys::process::Whom::Any, false) {
            self.process_ended(pid, ended);
        }
    }

    /// Asked to go: passes it on to the container's program, whose end is the shim's.
    fn terminate(&mut self) {
        match &self.init {
            Some(init) => {
                let signal = if self.status == Status::Created { libc::SIGKILL } else { libc::SIGTERM };
                let _ = creel_sys::pidfd::send_signal(&init.pidfd, signal);
            }
            None => self.stop |= self.status == Status::Idle,
        }
    }

    /// Tells of OOM kills since the last time. The kernel gives the word before it kills: then it is asked again soon.
    fn check_oom(&mut self, retries: u32) {
        let kills = self.launcher.oom_kills();
        self.oom_retry = None;
        if kills > self.oom_kills {
            self.oom_kills = kills;
            self.tell(&Event::Oom);
        } else if retries > 0 {
            self.oom_retry = Some((Instant::now() + OOM_PAUSE, retries - 1));
        }
    }

    fn tell(&mut self, event: &Event) {
        for connection in &mut self.connections {
            connection.tell(event);
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn main_rule(config: &ShimConfig) -> StdinRule {
        if config.stdin_once && !config.terminal { StdinRule::EndWithInput } else { StdinRule::Keep }
    }
}

#[cfg(test)]
mod tests;
