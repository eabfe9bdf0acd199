//! Execs: additional processes in a running container.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use creel_shim::proto::{Answer, Attach, Call, ExecEnd, ExecStart as ShimExec, Opening, Snapshot, files};
use creel_types::spec::{ConsoleSize, Process, Spec, User};
use creel_types::{ContainerId, ErrorKind, ExecId};
use creel_wire::exec::{ExecConfig, ExecInspect, ExecProcess, ExecStart};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::containers::{Container, Running};
use crate::containers::{detach, facts, start as starting};
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::options::AttachEnd;
use crate::record::ContainerRecord;
use crate::{merge, names, session, spec};

/// How many ended execs of one container are remembered.
const REMEMBERED: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Starting,
    Running { pid: i32 },
    Ended { code: i32 },
}

#[derive(Debug)]
struct Exec {
    id: ExecId,
    container: ContainerId,
    config: ExecConfig,
    keys: Vec<u8>,
    state: watch::Sender<State>,
}

/// All execs; they live as long as the daemon.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Arc<Exec>>>);

impl Execs {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>> {
        self.all().get(id).cloned().ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    fn insert(&self, exec: Arc<Exec>) {
        let mut all = self.all();
        let ended: Vec<String> = all
            .values()
            .filter(|other| {
                other.container == exec.container && matches!(*other.state.borrow(), State::Ended { .. })
            })
            .map(|other| other.id.to_string())
            .collect();
        if ended.len() >= REMEMBERED {
            for id in &ended[..ended.len() / 2] {
                all.remove(id);
            }
        }
        all.insert(exec.id.to_string(), exec);
    }

    /// The execs that run in a container, or are to be started.
    pub(crate) fn running_in(&self, container: &ContainerId) -> Vec<String> {
        let all = self.all();
        let live = all.values().filter(|exec| {
            exec.container == *container && !matches!(*exec.state.borrow(), State::Ended { .. })
        });
        live.map(|exec| exec.id.to_string()).collect()
    }

    /// Takes note of the end of one.
    fn ended(&self, end: &ExecEnd) {
        if let Some(exec) = self.all().get(&end.exec_id) {
            exec.state.send_replace(State::Ended { code: end.code });
        }
    }

    /// With a container all its execs end.
    pub(crate) fn container_ended(&self, container: &ContainerId) {
        for exec in self.all().values().filter(|exec| exec.container == *container) {
            exec.state.send_if_modified(|state| {
                let lives = matches!(state, State::Starting | State::Running { .. });
                if lives {
                    *state = State::Ended { code: 137 };
                }
                lives
            });
        }
    }

    /// Forgets those of a container that is removed.
    pub(crate) fn forget(&self, container: &ContainerId) {
        self.all().retain(|_, exec| exec.container != *container);
    }
}

fn running(container: &Container, name: &str) -> Result<Running> {
    let running = container
        .running()
        .ok_or_else(|| Error::conflict(format!("container {} is not running", container.id)))?;
    if running.paused {
        return Err(Error::conflict(format!(
            "Container {name} is paused, unpause the container before exec"
        )));
    }
    Ok(running)
}

/// Makes an exec, to be started later.
pub(crate) fn create(core: &Core, container: &str, config: ExecConfig) -> Result<String> {
    let name = container;
    let container = core.containers.find(name)?;
    running(&container, name)?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    let keys = detach::parse(Some(&config.detach_keys))?;
    let id = ExecId::from_random(names::random_bytes());
    let command = config.cmd.as_deref().unwrap_or_default().join(" ");
    core.tell(&container, &format!("exec_create: {command}"), &[("execID", id.to_string())]);
    core.execs.insert(Arc::new(Exec {
        id: id.clone(),
        container: container.id.clone(),
        config,
        keys,
        state: watch::channel(State::Created).0,
    }));
    Ok(id.to_string())
}

/// An exec that is about to be started.
#[derive(Debug)]
pub struct ExecSession {
    /// Whether it has a terminal: then its output is not framed.
    pub tty: bool,
    core: Arc<Core>,
    exec: Arc<Exec>,
    container: Arc<Container>,
    running: Running,
    process: Process,
}

/// Prepares the start of an exec.
pub(crate) async fn start(core: &Arc<Core>, id: &str, options: ExecStart) -> Result<ExecSession> {
    let exec = core.execs.find(id)?;
    let container = core
        .containers
        .get(&exec.container)
        .ok_or_else(|| Error::not_found(format!("No such container: {}", exec.container)))?;
    let running = running(&container, exec.container.as_str())?;
    let first = exec.state.send_if_modified(|state| {
        let first = *state == State::Created;
        if first {
            *state = State::Starting;
        }
        first
    });
    if !first {
        return Err(match *exec.state.borrow() {
            State::Ended { .. } => Error::conflict(format!("exec {id} has already run")),
            _ => Error::conflict(format!("Error: Exec command {id} is already running")),
        });
    }
    let (this, wanted, pid, record) = (core.clone(), exec.clone(), running.pid, container.record());
    let prepared = blocking(move || {
        let process = process(&this, &wanted, pid, &record, &options)?;
        remember(&this, &wanted);
        Ok(process)
    });
    let prepared = prepared.await;
    let process = prepared.inspect_err(|e| {
        exec.state.send_replace(State::Ended { code: code(e) });
    })?;
    Ok(ExecSession { tty: exec.config.tty, core: core.clone(), exec, container, running, process })
}

/// The exit code of an exec that could not be started.
fn code(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::ProgramNotFound => 127,
        ErrorKind::ProgramNotExecutable => 126,
        _ => 128,
    }
}

/// What follows `exec failed: ` in Docker's words.
fn exec_words(error: &Error) -> String {
    let text = error.to_string();
    if text.starts_with("process.cwd: ") {
        return "Cwd must be an absolute path".to_owned();
    }
    format!("unable to start container process: {text}")
}

/// Where it is kept what an exec is, for a daemon that begins while it runs.
fn memory(core: &Core, container: &ContainerId, exec: &str) -> PathBuf {
    core.run_dir(container).join(format!("exec-{exec}.json"))
}

/// Writes down what an exec is. Without it a later daemon does not know the exec, and nothing else is lost.
fn remember(core: &Core, exec: &Exec) {
    let path = memory(core, &exec.container, exec.id.as_str());
    let written = serde_json::to_vec(&exec.config)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(&path, json));
    if let Err(e) = written {
        tracing::warn!(container = exec.container.short(), "writing {}: {e}", path.display());
    }
}

/// Takes over the execs that a shim has started for an earlier daemon.
pub(crate) fn adopt(core: &Core, container: &ContainerId, snapshot: &Snapshot) {
    let live = snapshot.execs.iter().map(|exec| (&exec.exec_id, State::Running { pid: exec.pid }));
    let ended = snapshot.ended_execs.iter().map(|exec| (&exec.exec_id, State::Ended { code: exec.code }));
    for (id, state) in ended.chain(live) {
        let path = memory(core, container, id);
        let Ok(json) = std::fs::read(&path) else { continue };
        let (Ok(config), Ok(exec_id)) = (serde_json::from_slice::<ExecConfig>(&json), id.parse()) else {
            continue;
        };
        let keys = detach::parse(Some(&config.detach_keys)).unwrap_or_default();
        core.execs.insert(Arc::new(Exec {
            id: exec_id,
            container: container.clone(),
            config,
            keys,
            state: watch::channel(state).0,
        }));
        if matches!(state, State::Ended { .. }) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes note of the end of one.
pub(crate) fn ended(core: &Core, container: &ContainerId, end: &ExecEnd) {
    core.execs.ended(end);
    let _ = std::fs::remove_file(memory(core, container, &end.exec_id));
}

/// The process, out of the container's Spec and what was asked for.
fn process(
    core: &Core,
    exec: &Exec,
    pid: i32,
    record: &ContainerRecord,
    options: &ExecStart,
) -> Result<Process> {
    let path = core.run_dir(&exec.container).join(files::SPEC);
    let json = std::fs::read(&path).map_err(|e| Error::io(format_args!("reading {}", path.display()), e))?;
    let spec: Spec = serde_json::from_slice(&json)
        .map_err(|e| Error::internal(format!("reading {}: {e}", path.display())))?;
    let own = spec.process.unwrap_or_default();
    let config = &exec.config;
    let user = if config.user.is_empty() {
        own.user.clone()
    } else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())
            .map_err(|e| Error::io("opening the container's root", e))?;
        let user = creel_runtime::resolve_user_at(std::os::fd::AsFd::as_fd(&root), &config.user)
            .map_err(|e| facts::user_error(&config.user, &e))?;
        let mut groups = vec![user.gid];
        groups.extend(user.additional_gids.iter().filter(|gid| **gid != user.gid));
        User { uid: user.uid, gid: user.gid, umask: own.user.umask, additional_gids: groups }
    };
    // The home directory, if nobody set it, is the user's: the runtime fills it in.
    let configured = record.config.env.as_deref().unwrap_or_default();
    let mut env = merge::environment(&record.config.hostname, config.tty, None, configured);
    merge::overlay(&mut env, config.env.as_deref().unwrap_or_default());
    let bounding = own.capabilities.as_ref().map(|sets| sets.bounding.clone()).unwrap_or_default();
    let capabilities = if config.privileged { facts::all_capabilities() } else { bounding };
    let size =
        options.console_size.or(config.console_size).filter(|[rows, columns]| *rows > 0 && *columns > 0);
    Ok(Process {
        terminal: config.tty,
        console_size: size
            .filter(|_| config.tty)
            .map(|[height, width]| ConsoleSize { height: height.into(), width: width.into() }),
        capabilities: Some(spec::sets(&capabilities, user.uid)),
        user,
        args: config.cmd.clone().unwrap_or_default(),
        env,
        cwd: if config.working_dir.is_empty() { own.cwd.clone() } else { config.working_dir.clone() },
        ..own
    })
}

impl ExecSession {
    fn shim_exec(&self, attach: Attach) -> ShimExec {
        let open_stdin = self.exec.config.attach_stdin;
        ShimExec { exec_id: self.exec.id.to_string(), process: self.process.clone(), open_stdin, attach }
    }

    fn failed(&self, error: Error) -> Error {
        self.exec.state.send_replace(State::Ended { code: code(&error) });
        let _ = std::fs::remove_file(memory(&self.core, &self.exec.container, self.exec.id.as_str()));
        let kind = match error.kind() {
            kind @ (ErrorKind::ProgramNotFound
            | ErrorKind::ProgramNotExecutable
            | ErrorKind::InvalidArgument
            | ErrorKind::Conflict) => kind,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("OCI runtime exec failed: exec failed: {}", exec_words(&error)))
    }

    fn started(&self, pid: i32) {
        // Its end may have been told already: that is the later state.
        self.exec.state.send_if_modified(|state| {
            let starting = *state == State::Starting;
            if starting {
                *state = State::Running { pid };
            }
            starting
        });
        let command = self.process.args.join(" ");
        self.core.tell(
            &self.container,
            &format!("exec_start: {command}"),
            &[("execID", self.exec.id.to_string())],
        );
    }

    /// Starts it with nobody attached.
    ///
    /// # Errors
    /// ProgramNotFound and ProgramNotExecutable; Conflict when the container does not run any more.
    pub async fn detach(self) -> Result<()> {
        starting::no_empty_program(self.process.args.first()).map_err(|e| self.failed(e))?;
        match self.running.link.call(Call::Exec(self.shim_exec(Attach::default()))).await {
            Ok(Answer::Executed { pid }) => {
                self.started(pid);
                Ok(())
            }
            Ok(other) => Err(self.failed(crate::shim::unexpected(&other))),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Starts it and carries bytes until it ends or the client goes. That it could not be started is said on the
    /// stream, too.
    pub async fn run(self, mut io: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<AttachEnd> {
        let config = &self.exec.config;
        let attach = Attach {
            exec_id: None,
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
        };
        let opening = Opening::Exec(self.shim_exec(attach));
        let opened = match starting::no_empty_program(self.process.args.first()) {
            Ok(()) => self.running.link.open(&opening).await,
            Err(e) => Err(e),
        };
        let (stream, first, pid) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                let e = self.failed(e);
                let text = format!("{e}\r\n");
                if !self.tty {
                    let len = u32::try_from(text.len()).unwrap_or(0);
                    let _ = io.write_all(&creel_wire::stream::header(creel_wire::stream::STDOUT, len)).await;
                }
                let _ = io.write_all(text.as_bytes()).await;
                let _ = io.shutdown().await;
                return Err(e);
            }
        };
        self.started(pid.unwrap_or(0));
        let keys = (config.attach_stdin && self.tty).then(|| self.exec.keys.clone());
        let end = session::run(io, stream, first, config.attach_stdin, keys).await?;
        match end {
            AttachEnd::Detached => {
                self.core.tell(&self.container, "exec_detach", &[("execID", self.exec.id.to_string())]);
            }
            AttachEnd::Ended | AttachEnd::ClientGone => {}
        }
        Ok(end)
    }
}

/// Sets the size of an exec's terminal.
pub(crate) async fn resize(core: &Core, id: &str, height: u16, width: u16) -> Result<()> {
    let exec = core.execs.find(id)?;
    if !exec.config.tty {
        return Err(Error::invalid(format!("exec {id} has no terminal")));
    }
    // A client may be quicker than the start that it asked for.
    let mut state = exec.state.subscribe();
    let live = state.wait_for(|state| !matches!(state, State::Created | State::Starting));
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), live).await;
    let container = core.containers.get(&exec.container).and_then(|container| container.running());
    let Some(running) = container else { return Err(Error::conflict(format!("exec {id} is not running"))) };
    running.link.call(Call::Resize { exec_id: Some(exec.id.to_string()), width, height }).await?;
    Ok(())
}

/// Everything about one exec.
pub(crate) async fn inspect(core: &Core, id: &str) -> Result<ExecInspect> {
    let exec = core.execs.find(id)?;
    let mut state = exec.state.subscribe();
    // The stream of an exec ends a moment before its end is told: who asks then wants the exit code.
    let lives = matches!(*state.borrow(), State::Running { .. });
    if lives {
        let ended = state.wait_for(|state| matches!(state, State::Ended { .. }));
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), ended).await;
    }
    let now = *exec.state.borrow();
    let config = &exec.config;
    let command = config.cmd.clone().unwrap_or_default();
    Ok(ExecInspect {
        id: exec.id.to_string(),
        running: matches!(now, State::Running { .. }),
        exit_code: match now {
            State::Ended { code } => Some(i64::from(code)),
            _ => None,
        },
        process_config: ExecProcess {
            entrypoint: command.first().cloned().unwrap_or_default(),
            arguments: command.get(1..).unwrap_or_default().to_vec(),
            tty: config.tty,
            privileged: config.privileged,
            user: config.user.clone(),
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        can_remove: matches!(now, State::Ended { .. }),
        container_id: exec.container.to_string(),
        detach_keys: config.detach_keys.clone(),
        pid: match now {
            State::Running { pid } => i64::from(pid),
            _ => 0,
        },
    })
}
