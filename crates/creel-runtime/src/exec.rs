//! Further processes in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use creel_cgroup::Entry;
use creel_sys::clone::Clone;
use creel_sys::ns;
use creel_types::ErrorKind;
use creel_types::spec::{ConsoleSize, Linux, NamespaceKind};
use rustix::fs::{Mode, OFlags};

use crate::child::{Filtered, become_root, join_cgroup};
use crate::cloned::{self, Birth, Stage};
use crate::create::{born_in, doors, entry, streams};
use crate::error::{Error, Fault};
use crate::hooks::State;
use crate::process::{self, ProcessPlan, Streams, Surroundings};
use crate::procfs::Procfs;
use crate::report::{Message, Reporter, Timing};
use crate::{ExecOptions, Life, console, lsm, namespaces, program, scheduling, validate};

/// A process that was put into a running container. It is a child of the caller, which has to wait for it.
#[derive(Debug)]
pub struct Execed {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when one was asked for.
    pub console: Option<OwnedFd>,
    /// Microseconds from the call to the kernel's accepting the program.
    pub timings: Vec<Timing>,
    /// What could not be done exactly as asked.
    pub warnings: Vec<String>,
}

/// A process of [`prepare_exec`] that is set up and waits. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Waiting {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// Master of the terminal, when one was asked for.
    pub console: Option<OwnedFd>,
    child: cloned::Child,
    begun: Instant,
}

struct Luggage {
    target: OwnedFd,
    namespaces: u64,
    user_namespace: bool,
    cgroup: Option<Entry>,
    plan: ProcessPlan,
    size: Option<(u16, u16)>,
    filter: Filtered,
    stdio: [OwnedFd; 3],
    life: Life,
    preserve_fds: Vec<i32>,
}

/// Runs a process in a container's namespaces, control group and root; returns when the kernel has accepted the
/// program.
///
/// The child is born in the container's pid namespace and joins the others itself by the target's pidfd, so that no
/// process id can be mistaken. A namespace that the container shares with the caller is not joined.
///
/// # Errors
/// [`Error::Program`] with Docker's 127 and 126; [`Error::Setup`] of kind Conflict when the container has ended.
pub fn exec(o: ExecOptions<'_>) -> Result<Execed, Error> {
    prepare_exec(o)?.start()
}

/// As [`exec`], but the process waits for [`Waiting::start`]: its terminal can be made ready before the program sees it.
///
/// # Errors
/// As [`exec`].
pub fn prepare_exec(o: ExecOptions<'_>) -> Result<Waiting, Error> {
    let begun = Instant::now();
    validate::check_process(o.process)?;
    lsm::check(o.process)?;
    let nothing = Linux::default();
    let linux = o.spec.linux.as_ref().unwrap_or(&nothing);
    let kinds = linux
        .namespaces
        .iter()
        .map(|space| space.kind)
        .filter(|kind| !matches!(kind, NamespaceKind::Pid | NamespaceKind::User));
    let user_namespace = namespaces::has(&linux.namespaces, NamespaceKind::User);
    let mut plan = process::plan(o.process, linux)?;
    // In a user namespace the process itself may not.
    let oom_score = if user_namespace { plan.oom_score_adj.take() } else { None };
    let plan_affinity = plan.affinity.clone();
    let state = State {
        oci_version: &o.spec.oci_version,
        id: o.id,
        status: "running",
        pid: 0,
        bundle: o.bundle,
        annotations: &o.spec.annotations,
    };
    let filter = match o.filter {
        Some(compiled) => Filtered::at_hand(compiled)?,
        None => Filtered::begin(linux.seccomp.as_ref(), &state)?,
    };
    let filter_later = filter.is_later();
    let (cgroup, group) = match o.doors {
        Some(other) => doors(other)?,
        None => entry(o.cgroup)?,
    };
    let copy = |e| Error::setup("cannot copy a descriptor", e);
    let luggage = Luggage {
        target: o.target_pidfd.try_clone_to_owned().map_err(copy)?,
        namespaces: namespaces::bits(kinds),
        user_namespace,
        cgroup,
        plan,
        size: o.process.console_size.as_ref().and_then(ConsoleSize::characters),
        filter,
        stdio: streams(o.stdio)?,
        life: o.life,
        preserve_fds: o.preserve_fds,
    };
    if creel_sys::pidfd::send_signal(o.target_pidfd, 0).is_err() {
        return Err(Error::Setup {
            what: "cannot run a process in the container".into(),
            message: "it is not running".into(),
            kind: ErrorKind::Conflict,
        });
    }
    let initial = plan_affinity.as_ref().and_then(|affinity| affinity.initial.as_deref());
    let held = scheduling::Held::begin(initial)?;
    let joins_pid = namespaces::has(&linux.namespaces, NamespaceKind::Pid);
    let what = Clone { flags: 0, cgroup: group.as_ref().map(AsFd::as_fd) };
    let mut child = if user_namespace {
        let target = || o.target_pidfd.try_clone_to_owned().map_err(copy);
        let stage = Stage { user: target()?, pid: joins_pid.then(target).transpose()? };
        let birth = Birth { what, stage: Some(stage), dumpable: false, moved: false };
        let joins: Result<Vec<_>, Error> =
            linux.namespaces.iter().map(|space| Ok((space.kind, target()?))).collect();
        namespaces::inside(&joins?, |joined| {
            let luggage = Luggage { namespaces: luggage.namespaces & !joined, ..luggage };
            cloned::spawn(&birth, |reporter| run(luggage, reporter))
        })?
    } else {
        let birth = Birth { what, stage: None, dumpable: false, moved: false };
        let body = |reporter| run(luggage, reporter);
        born_in(joins_pid.then_some(o.target_pidfd), || cloned::spawn(&birth, body))?
    };
    drop(held);
    // While the child joins what it has to join.
    if filter_later {
        child.give_filter(linux.seccomp.as_ref(), &state)?;
    }
    child.ready(&mut |_, _, _| Ok(None))?;
    if let Some(score) = oom_score {
        child.adjust_oom_score(score);
    }
    Ok(Waiting { pid: child.pid, console: child.console.take(), child, begun })
}

impl Waiting {
    /// Lets the program run; returns when the kernel has accepted it.
    ///
    /// # Errors
    /// As [`exec`].
    pub fn start(self) -> Result<Execed, Error> {
        let Waiting { pid, console, mut child, begun } = self;
        child.go()?;
        let warnings = std::mem::take(&mut child.warnings);
        let mut timings = std::mem::take(&mut child.timings);
        timings.push(("exec".into(), u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)));
        let pidfd = child.release().ok_or_else(|| Error::setup("cannot exec", "the process is gone"))?;
        Ok(Execed { pid, pidfd, console, timings, warnings })
    }
}

fn run(luggage: Luggage, reporter: Reporter) -> i32 {
    let mut step = "join the container's control group";
    let fault = match enter(luggage, &reporter, &mut step) {
        Err(fault) => fault,
        Ok(never) => match never {},
    };
    let code = match fault.kind {
        ErrorKind::ProgramNotFound => 127,
        ErrorKind::ProgramNotExecutable => 126,
        _ => 125,
    };
    reporter.failed(step.to_string(), fault);
    code
}

fn enter(luggage: Luggage, reporter: &Reporter, step: &mut &str) -> Result<std::convert::Infallible, Fault> {
    let Luggage { target, namespaces, user_namespace, cgroup, plan, size, filter, stdio, life, preserve_fds } =
        luggage;
    creel_sys::process::umask(0);
    join_cgroup(cgroup)?;
    match &plan.affinity {
        None => scheduling::run_anywhere(),
        Some(affinity) => {
            affinity.last.as_deref().map_or(Ok(()), |cpus| scheduling::run_on(cpus, "final"))?;
        }
    }
    *step = "join the container's namespaces";
    if user_namespace {
        become_root()?;
    }
    if namespaces != 0 {
        ns::setns(&target, namespaces)?;
    }
    drop(target);
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel has made the container's root this process's root, together with the mount namespace.
    rustix::process::fchdir(&root)?;
    *step = "open the terminal";
    let streams = if plan.terminal {
        Streams::Terminal(console::prepare(&root, size, reporter)?)
    } else {
        Streams::Files(stdio)
    };
    *step = "prepare the process";
    let filter = filter.arrive(reporter)?;
    let procfs = if process::needs_procfs(&plan) { Some(Procfs::open()?) } else { None };
    let around = Surroundings {
        procfs: procfs.as_ref(),
        streams: &streams,
        filter_follows: filter.is_some(),
        life,
        preserve_fds: &preserve_fds,
        reporter,
    };
    let env = process::apply(&plan, &around)?;
    let found = program::find(&plan.args[0], &env)?;
    let exec = program::prepare(&found, &plan.args, &env)?;
    reporter.send(&Message::Ready(Vec::new()), &[]);
    if !reporter.wait() {
        return Err(Fault::new(ErrorKind::Unavailable, "the creator is gone"));
    }
    *step = "load the system call filter";
    if let Some(filter) = &filter {
        filter.load(reporter)?;
    }
    *step = "execute the program";
    let error = exec.run();
    Err(program::failed(&found, &error))
}
