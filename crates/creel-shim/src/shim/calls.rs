//! What control connections ask.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use creel_sys::pty::{WindowSize, set_size};
use creel_types::ErrorKind;
use jiff::Timestamp;

use super::{Exec, Process, Shim};
use crate::failure;
use crate::launch::{Launcher, Pipes};
use crate::log::Stream;
use crate::proto::{
    Answer, Call, ExecStart, ExecState, Failure, Snapshot, StateRecord, Status, Timing, VERSION, files,
};
use crate::streams::{StdinRule, Streams, set_nonblocking};

impl<L: Launcher> Shim<L> {
    pub(super) fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        match call {
            Call::Create => self.create(),
            Call::Start => self.start(),
            Call::Signal { signal, all } => self.signal(signal, all),
            Call::Resize { exec_id, width, height } => self.resize(exec_id.as_deref(), width, height),
            Call::State | Call::Subscribe => Ok(Answer::State(self.snapshot())),
            Call::Exec(start) => self.exec(&start, false).map(|pid| Answer::Executed { pid }),
            Call::CloseStdin { exec_id } => {
                self.streams_of(exec_id.as_deref())?.end_stdin();
                Ok(Answer::Done)
            }
            Call::Shutdown { force } => self.shutdown(force),
            Call::Unknown => Err(failure(
                ErrorKind::Unsupported,
                format!("this shim speaks protocol version {VERSION} and does not know that call"),
            )),
        }
    }

    fn create(&mut self) -> Result<Answer, Failure> {
        if self.status != Status::Idle || self.failed.is_some() {
            return Err(self.conflict("create"));
        }
        let result = self.try_create();
        if let Err(failure) = &result {
            self.failed = Some(failure.clone());
        }
        result
    }

    fn try_create(&mut self) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let terminal = self.config.terminal;
        let (pipes, ours) = pipes(self.config.open_stdin && !terminal, !terminal, !terminal)?;
        let launched = self.launcher.create(pipes)?;
        let process = Process { pid: launched.pid, pidfd: launched.pidfd };
        let connected = connect(&mut self.main, ours, launched.console, self.config.open_stdin);
        self.init = Some(process);
        if let Err(failure) = connected {
            self.kill_init();
            return Err(failure);
        }
        if let Some(log) = &mut self.log {
            log.file().open();
        }
        self.status = Status::Created;
        self.note_all(launched.warnings);
        let mut timings = launched.timings;
        rest_of(&mut timings, "shim.create", begun);
        Ok(Answer::Created { pid: launched.pid, timings })
    }

    fn start(&mut self) -> Result<Answer, Failure> {
        let pid = match &self.init {
            Some(init) if self.status == Status::Created => init.pid,
            _ => return Err(self.conflict("start")),
        };
        let begun = Instant::now();
        let (mut timings, warnings) = match self.launcher.start() {
            Ok(result) => result,
            Err(failure) => {
                self.failed = Some(failure.clone());
                return Err(failure);
            }
        };
        let started_at = Timestamp::now();
        self.status = Status::Running;
        self.started_at = Some(started_at);
        let record = StateRecord { pid, started_at, shim_pid: creel_sys::process::pid(), version: VERSION };
        if let Err(error) = super::setup::write_json(&self.dir, files::STATE, &record) {
            self.troubles.note(&format!("cannot write {}: {error}", files::STATE));
        }
        self.note_all(warnings);
        rest_of(&mut timings, "shim.start", begun);
        Ok(Answer::Started { pid, started_at, timings })
    }

    fn signal(&mut self, signal: i32, all: bool) -> Result<Answer, Failure> {
        if !(1..=creel_sys::signal::MAX).contains(&signal) {
            return Err(failure(
                ErrorKind::InvalidArgument,
                format!("{signal} is no signal of Linux (1 to 64)"),
            ));
        }
        let Some(init) = self.init.as_ref().filter(|_| self.ended.is_none()) else {
            return Err(self.conflict("signal"));
        };
        if all {
            self.launcher.signal_all(signal)?;
        } else if let Err(error) = creel_sys::pidfd::send_signal(&init.pidfd, signal) {
            let kind = match error.raw_os_error() {
                Some(libc::ESRCH) => ErrorKind::Conflict,
                _ => ErrorKind::Internal,
            };
            return Err(failure(
                kind,
                format!("cannot send signal {signal} to process {}: {error}", init.pid),
            ));
        }
        Ok(Answer::Done)
    }

    fn resize(&mut self, exec_id: Option<&str>, width: u16, height: u16) -> Result<Answer, Failure> {
        let Some(console) = self.streams_of(exec_id)?.console() else {
            return Err(failure(
                ErrorKind::Conflict,
                "cannot resize: the process has no terminal".to_owned(),
            ));
        };
        set_size(console, WindowSize { rows: height, columns: width })
            .map_err(|e| failure(ErrorKind::Internal, format!("cannot resize the terminal: {e}")))?;
        Ok(Answer::Done)
    }

    /// Runs an exec; with `attached`, the streams that its connection wants are pipes.
    pub(super) fn exec(&mut self, start: &ExecStart, attached: bool) -> Result<i32, Failure> {
        let Some(init) = self.init.as_ref().filter(|_| self.status == Status::Running) else {
            return Err(self.conflict("exec"));
        };
        if self.execs.iter().any(|e| e.exec_id == start.exec_id && !e.reported) {
            return Err(failure(ErrorKind::Conflict, format!("an exec {} runs already", start.exec_id)));
        }
        if self.launcher.is_frozen() {
            // A process that joins a frozen cgroup stops before it can say how it went.
            let message = "cannot exec: the container is paused; unpause it first".to_owned();
            return Err(failure(ErrorKind::Conflict, message));
        }
        let terminal = start.process.terminal;
        let (pipes, ours) = pipes(
            start.open_stdin && !terminal,
            attached && start.attach.stdout && !terminal,
            attached && start.attach.stderr && !terminal,
        )?;
        let launched = self.launcher.exec(init.pid, init.pidfd.as_fd(), &start.process, pipes)?;
        let task = self.new_id();
        let mut streams = Streams::new(task, terminal, StdinRule::EndWithAttacher);
        if let Err(failure) = connect(&mut streams, ours, launched.console, start.open_stdin) {
            let _ = creel_sys::pidfd::send_signal(&launched.pidfd, libc::SIGKILL);
            return Err(failure);
        }
        let pid = launched.pid;
        self.execs.push(Exec {
            task,
            exec_id: start.exec_id.clone(),
            process: Process { pid, pidfd: launched.pidfd },
            streams,
            code: None,
            reported: false,
        });
        self.note_all(launched.warnings);
        Ok(pid)
    }

    fn note_all(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            self.troubles.note(&warning);
        }
    }

    fn shutdown(&mut self, force: bool) -> Result<Answer, Failure> {
        match self.status {
            Status::Idle | Status::Exited => self.stop = true,
            Status::Created => self.kill_init(),
            Status::Running | Status::Ending if !force => return Err(self.conflict("shut the shim down")),
            Status::Running => self.kill_init(),
            Status::Ending => {}
        }
        Ok(Answer::Done)
    }

    pub(super) fn kill_init(&mut self) {
        if let Some(init) = &self.init {
            let _ = creel_sys::pidfd::send_signal(&init.pidfd, libc::SIGKILL);
        }
    }

    fn streams_of(&mut self, exec_id: Option<&str>) -> Result<&mut Streams, Failure> {
        match exec_id {
            None => Ok(&mut self.main),
            Some(id) => match self.execs.iter_mut().find(|e| e.exec_id == id && !e.reported) {
                Some(exec) => Ok(&mut exec.streams),
                None => Err(failure(ErrorKind::NotFound, format!("no exec {id} runs in the container"))),
            },
        }
    }

    fn conflict(&self, verb: &str) -> Failure {
        let state = match self.status {
            Status::Idle => "does not exist yet",
            Status::Created => "is created and not started",
            Status::Running => "is running",
            Status::Ending | Status::Exited => "has ended",
        };
        failure(ErrorKind::Conflict, format!("cannot {verb}: the container {state}"))
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: VERSION,
            shim_pid: creel_sys::process::pid(),
            status: self.status,
            pid: self.init.as_ref().filter(|_| self.ended.is_none()).map(|init| init.pid),
            started_at: self.started_at,
            oom_killed: self.oom_kills > 0,
            record: self.record.clone(),
            execs: self
                .execs
                .iter()
                .filter(|e| !e.reported)
                .map(|e| ExecState { exec_id: e.exec_id.clone(), pid: e.process.pid })
                .collect(),
            ended_execs: self.ended_execs.iter().cloned().collect(),
        }
    }
}

/// The shim's ends of a process's pipes.
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn pipes(stdin: bool, stdout: bool, stderr: bool) -> Result<(Pipes, Ours), Failure> {
    let pipe = |wanted: bool| -> std::io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        if !wanted {
            return Ok((None, None));
        }
        let (reader, writer) = std::io::pipe()?;
        Ok((Some(reader.into()), Some(writer.into())))
    };
    let make = || -> std::io::Result<(Pipes, Ours)> {
        let (stdin, our_stdin) = pipe(stdin)?;
        let (our_stdout, stdout) = pipe(stdout)?;
        let (our_stderr, stderr) = pipe(stderr)?;
        for fd in [&our_stdin, &our_stdout, &our_stderr].into_iter().flatten() {
            // The other end has its own file description: the process sees ordinary pipes.
            set_nonblocking(fd)?;
        }
        Ok((
            Pipes { stdin, stdout, stderr },
            Ours { stdin: our_stdin, stdout: our_stdout, stderr: our_stderr },
        ))
    };
    make().map_err(|e| failure(ErrorKind::Unavailable, format!("cannot make the process's pipes: {e}")))
}

fn connect(
    streams: &mut Streams,
    ours: Ours,
    console: Option<OwnedFd>,
    open_stdin: bool,
) -> Result<(), Failure> {
    let Some(master) = console else {
        streams.connect_pipes(ours.stdin, [(Stream::Stdout, ours.stdout), (Stream::Stderr, ours.stderr)]);
        return Ok(());
    };
    set_nonblocking(&master)
        .and_then(|()| streams.connect_console(master, open_stdin))
        .map_err(|e| failure(ErrorKind::Unavailable, format!("cannot use the process's terminal: {e}")))
}

/// Adds a step for what of the time since then is in none of the steps so far.
fn rest_of(timings: &mut Vec<Timing>, step: &str, since: Instant) {
    let known: u64 = timings.iter().map(|(_, took)| took).sum();
    timings.push((step.to_owned(), (since.elapsed().as_micros() as u64).saturating_sub(known)));
}
