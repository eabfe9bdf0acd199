//! A launcher of ordinary processes.

use std::fs;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use creel_types::ErrorKind;
use creel_types::spec::Process;

use crate::failure;
use crate::launch::{Launched, Launcher, Pipes};
use crate::proto::{Failure, Timing};

pub(super) struct Fake {
    dir: PathBuf,
    terminal: bool,
    groups: Vec<i32>,
}

impl Fake {
    pub(super) fn new(dir: &Path, terminal: bool) -> Fake {
        Fake { dir: dir.to_owned(), terminal, groups: Vec::new() }
    }

    fn spawn(&mut self, mut args: Vec<String>, terminal: bool, pipes: Pipes) -> Result<Launched, Failure> {
        let mut console = None;
        let stdio = |fd: Option<OwnedFd>| fd.map_or(Stdio::null(), Stdio::from);
        if terminal {
            args.splice(0..0, ["setsid".to_owned(), "-c".to_owned()]);
        }
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]);
        if terminal {
            let pty = creel_sys::pty::open().unwrap();
            let slave = || Some(pty.slave.try_clone().unwrap());
            command.stdin(stdio(slave())).stdout(stdio(slave())).stderr(stdio(slave()));
            console = Some(pty.master);
        } else {
            command.stdin(stdio(pipes.stdin)).stdout(stdio(pipes.stdout)).stderr(stdio(pipes.stderr));
            command.process_group(0);
        }
        let child = command.spawn().map_err(|e| failure(ErrorKind::ProgramNotFound, e.to_string()))?;
        let pid = child.id() as i32;
        if !terminal {
            self.groups.push(pid);
        }
        let pidfd = creel_sys::pidfd::open(pid).unwrap();
        Ok(Launched { pid, pidfd, console, timings: Vec::new(), warnings: Vec::new() })
    }
}

impl Launcher for Fake {
    fn create(&mut self, pipes: Pipes) -> Result<Launched, Failure> {
        let program: Vec<String> =
            serde_json::from_slice(&fs::read(self.dir.join("program")).unwrap()).unwrap();
        let gate = self.dir.join("gate");
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let script = r#"read _ < "$0" && exec "$@""#;
        let mut args: Vec<String> = ["sh", "-c", script, gate.to_str().unwrap()].map(str::to_owned).to_vec();
        args.extend(program);
        self.spawn(args, self.terminal, pipes)
    }

    fn start(&mut self) -> Result<(Vec<Timing>, Vec<String>), Failure> {
        if self.dir.join("no-program").exists() {
            return Err(failure(ErrorKind::ProgramNotFound, "no such program".to_owned()));
        }
        fs::OpenOptions::new().write(true).open(self.dir.join("gate")).unwrap().write_all(b"\n").unwrap();
        Ok((Vec::new(), Vec::new()))
    }

    fn exec(
        &mut self,
        _: i32,
        _: BorrowedFd<'_>,
        process: &Process,
        pipes: Pipes,
    ) -> Result<Launched, Failure> {
        self.spawn(process.args.clone(), process.terminal, pipes)
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        for group in &self.groups {
            let _ = creel_sys::signal::kill(-group, signal);
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.dir.join("frozen").exists()
    }

    fn oom_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn oom_kills(&mut self) -> u64 {
        u64::from(self.dir.join("oom").exists())
    }

    fn remove(&mut self) -> Result<(), Failure> {
        Err(failure(ErrorKind::Internal, "the fake has no cgroup".to_owned()))
    }
}
