//! Creating a container's process, and starting it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use creel_cgroup::Entry;
use creel_sys::clone::Clone;
use creel_sys::ns;
use creel_types::spec::NamespaceKind;
use rustix::fs::{Mode, OFlags};

use crate::child::{self, Filtered, Inside, Joins, Luggage};
use crate::cloned::{self, Birth, Child, Stage};
use crate::error::{Error, plain};
use crate::filter::{self, Compiled};
use crate::hooks::{self, State};
use crate::plan::{InitPlan, Step};
use crate::report::{Ask, Timing};
use crate::sources::{self, Later, Sources};
use crate::{
    CreateOptions, Facts, Gate, Group, Stdio, Wishes, idmap, lsm, mounts, namespaces, netdev, plan, rdt,
};

/// A container's process that is set up and waits at its gate. Dropped before [`Created::start`], it is killed and
/// reaped.
#[derive(Debug)]
pub struct Created {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when the Spec asks for one.
    pub console: Option<OwnedFd>,
    /// What was spent on which group of steps, in microseconds, in order.
    pub timings: Vec<Timing>,
    /// What the creator spent while the process was at its steps, in microseconds.
    pub beside: u64,
    /// What could not be done exactly as asked.
    pub warnings: Vec<String>,
    /// Its system call filter, for [`crate::ExecOptions::filter`]; `None` when it has none, or one with an agent.
    pub filter: Option<Compiled>,
    child: Child,
    waits_for_creator: bool,
    poststart: Vec<creel_types::spec::Hook>,
    version: String,
    id: String,
    bundle: std::path::PathBuf,
    annotations: BTreeMap<String, String>,
}

/// A container's process that waits at a gate which somebody else opens; it lives on whatever becomes of this value.
#[derive(Debug)]
pub struct Detached {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when the Spec asks for one.
    pub console: Option<OwnedFd>,
    /// What was spent on which group of steps, in microseconds, in order.
    pub timings: Vec<Timing>,
    /// What could not be done exactly as asked.
    pub warnings: Vec<String>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Started {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// The process's pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// Master of the terminal.
    pub console: Option<OwnedFd>,
    /// From the opening of the gate to the kernel's accepting the program, in microseconds.
    pub timings: Vec<Timing>,
    /// What could not be done exactly as asked.
    pub warnings: Vec<String>,
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Opens `/dev/null` for the streams that are not given.
pub(crate) fn streams(stdio: Stdio) -> Result<[OwnedFd; 3], Error> {
    let null = |fd: Option<OwnedFd>| match fd {
        Some(fd) => Ok(fd),
        None => rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::setup("cannot open /dev/null", e)),
    };
    Ok([null(stdio.stdin)?, null(stdio.stdout)?, null(stdio.stderr)?])
}

/// Opens the way into a control group, and the directory in which the child is born (v2).
pub(crate) fn entry(
    cgroup: Option<&creel_cgroup::Cgroup>,
) -> Result<(Option<Entry>, Option<OwnedFd>), Error> {
    let Some(cgroup) = cgroup else { return Ok((None, None)) };
    doors(cgroup.entry().map_err(|e| Error::setup("cannot open the control group", e))?)
}

/// As [`entry`], for doors that are open already.
pub(crate) fn doors(entry: Entry) -> Result<(Option<Entry>, Option<OwnedFd>), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::setup("cannot open the control group", e);
    let unified = entry.unified().map(|fd| fd.try_clone_to_owned()).transpose().map_err(|e| failed(&e))?;
    Ok((Some(entry), unified))
}

/// Runs `body` with the pid namespace of children set to `namespace` (a file or a pidfd), and back.
pub(crate) fn born_in<T>(
    namespace: Option<impl AsFd>,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let Some(namespace) = namespace else { return body() };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/pid", flags, Mode::empty())
        .map_err(|e| Error::setup("cannot open the own pid namespace", e))?;
    ns::setns(namespace, creel_sys::clone::NEWPID)
        .map_err(|e| Error::setup("cannot join the pid namespace", plain(&e)))?;
    let result = body();
    ns::setns(own, creel_sys::clone::NEWPID)
        .map_err(|e| Error::setup("cannot return to the own pid namespace", plain(&e)))?;
    result
}

/// Makes a container's process: when this returns it exists, in its namespaces, control group and root, with all its
/// limits and rights set, and waits for [`Created::start`].
///
/// The caller has one thread (see the crate's documentation). The process is a child of the caller, which has to wait
/// for it; it is killed when the calling thread dies.
///
/// # Errors
/// Those of [`plan()`]; [`Error::Step`] with the step that failed in the child; [`Error::Program`] when the program is
/// missing (127) or cannot be executed (126). Nothing is left behind then: the child is gone, and its mounts with it.
pub fn create(o: CreateOptions<'_>) -> Result<Created, Error> {
    let begun = Instant::now();
    let wants_cgroups = o.spec.mounts.iter().any(|mount| mount.kind.as_deref() == Some("cgroup"));
    let facts = match o.facts {
        Some(facts) => facts,
        None if wants_cgroups => Facts::gather()?,
        None => Facts::default(),
    };
    // Without a process there is none to load it, and only an agent hears of it.
    let given = o.filter.filter(|_| o.spec.process.is_some());
    let wishes =
        Wishes { init: o.init.as_deref(), pivot: o.pivot, keyring: o.keyring, filtered: given.is_some() };
    let mut plan = plan(o.id, o.spec, o.bundle, o.rootfs, wishes, &facts)?;
    let linux = o.spec.linux.as_ref();
    let mut warnings = mounts::warnings(&plan.steps);
    warnings.extend(linux.and_then(lsm::warning));
    o.spec.process.as_ref().map_or(Ok(()), lsm::check)?;
    namespaces::refuse_host_changes(o.spec)?;
    let resctrl = rdt::Plan::find(o.id, linux.and_then(|linux| linux.intel_rdt.as_ref()))?;
    let state = State {
        oci_version: &o.spec.oci_version,
        id: o.id,
        status: "creating",
        pid: 0,
        bundle: o.bundle,
        annotations: &o.spec.annotations,
    };
    let seccomp = linux
        .and_then(|linux| linux.seccomp.as_ref())
        .filter(|wanted| o.spec.process.is_some() || filter::has_agent(wanted));
    let filter = match given {
        Some(compiled) => Filtered::at_hand(compiled)?,
        None => Filtered::begin(seccomp, &state)?,
    };
    let filter_later = filter.is_later();
    let stdio = streams(o.stdio)?;
    let (enters, group, mut by_pid, mut meanwhile) = match o.cgroup {
        Group::None => (Joins::Nothing, None, None, None),
        Group::Ready { cgroup, again } => match cgroup.entry() {
            Ok(entry) => {
                let (doors, group) = doors(entry)?;
                (doors.map_or(Joins::Nothing, Joins::Doors), group, Some(again), None)
            }
            Err(e) if e.is_vanished() => (Joins::ByPid, None, Some(again), None),
            Err(e) => return Err(Error::setup("cannot open the control group", e)),
        },
        Group::Meanwhile { unified, finish, again } => (Joins::Sent, unified, Some(again), Some(finish)),
        Group::ByPid(place) => (Joins::ByPid, None, Some(place), None),
    };
    let (sources, later) = Sources::open(&plan)?;
    let open = |kind, path: &Option<String>| match path {
        None => Ok(None),
        Some(path) => sources::open_namespace(kind, path).map(Some).map_err(|fault| {
            Error::setup(format!("cannot join the {} namespace", kind.proc_name()), fault.message)
        }),
    };
    let join_user = open(NamespaceKind::User, &plan.join_user)?;
    let join_pid = open(NamespaceKind::Pid, &plan.join_pid)?;
    let spec_hooks = o.spec.hooks.clone().unwrap_or_default();
    let inside = Inside {
        create_container: spec_hooks.create_container.clone(),
        start_container: spec_hooks.start_container.clone(),
        version: o.spec.oci_version.clone(),
        bundle: o.bundle.to_path_buf(),
        annotations: o.spec.annotations.clone(),
    };
    let flags = namespaces::bits(plan.new_namespaces.iter().copied());
    let alone = flags != 0 || plan.steps.contains(&Step::NewNetworkNamespace);
    let in_user_namespace =
        linux.is_some_and(|linux| namespaces::has(&linux.namespaces, NamespaceKind::User));
    if alone && !in_user_namespace && !idmap::may_mount() {
        return Err(Error::unsupported(
            "linux.namespaces",
            "whoever is not root needs a user namespace for the others; add one, with uidMappings and gidMappings",
        ));
    }
    let joins = if in_user_namespace { sources.copy_joins()? } else { Vec::new() };
    let oom_score = if in_user_namespace { take_oom_score(&mut plan) } else { None };
    let (gate, waits_for_creator) = match o.gate {
        Gate::Creator => (None, true),
        Gate::Socket(listener) => (Some(listener), false),
    };
    let mut timings = vec![("plan".to_string(), micros(begun))];

    let dumpable = in_user_namespace && !idmap::may_mount();
    let cloning = Instant::now();
    let what = Clone { flags, cgroup: group.as_ref().map(AsFd::as_fd) };
    let luggage = Luggage {
        traceable: dumpable && plan.new_namespaces.contains(&NamespaceKind::Pid),
        plan,
        filter,
        stdio,
        hooks: inside,
        sources,
        gate,
        joins: enters,
        life: o.life,
        preserve_fds: o.preserve_fds,
    };
    let body = |reporter| child::run(luggage, reporter);
    let mut child = namespaces::inside(&joins, |_| match join_user {
        Some(user) => {
            let stage = Some(Stage { user, pid: join_pid });
            cloned::spawn(&Birth { what, stage, dumpable, moved: true }, body)
        }
        None => {
            born_in(join_pid, || cloned::spawn(&Birth { what, stage: None, dumpable, moved: true }, body))
        }
    })?;
    timings.push(("clone".to_string(), micros(cloning)));
    let beside = Instant::now();
    if let Some(finish) = &mut meanwhile {
        // One who does not take them has ended, and is asked why below.
        let show = |doors: Option<&Entry>| drop(child.show_doors(doors));
        finish(child.pid, &show).map_err(|e| Error::setup("cannot make the container's control group", e))?;
    }
    let filter = if filter_later { child.give_filter(seccomp, &state)? } else { given.cloned() };
    if !waits_for_creator {
        // Whoever starts it will be another process.
        creel_sys::image::close_kept();
    }
    let beside = micros(beside);
    let maps = linux.map(|linux| (&linux.uid_mappings, &linux.gid_mappings));
    child.ready(&mut |ask, pid, pidfd| {
        match (ask, maps) {
            (Ask::IdMaps, Some((uids, gids))) => idmap::write_maps(pid, uids, gids),
            (Ask::TimeOffsets, _) => {
                linux.map_or(Ok(()), |linux| idmap::write_offsets(pid, &linux.time_offsets))
            }
            (Ask::Group, _) => match &mut by_pid {
                Some(place) => {
                    place(pid).map_err(|e| Error::setup("cannot move the process into its control group", e))
                }
                None => Err(Error::setup("cannot join the control group", "somebody has removed it")),
            },
            (Ask::Hooks, _) => hooks::run_creators(&spec_hooks, &State { pid, ..state }),
            (Ask::Source(step), _) => {
                let asker =
                    pidfd.ok_or_else(|| Error::setup("cannot open a source", "its process is gone"))?;
                return Later::open(&later, step, asker).map(Some);
            }
            (Ask::IdMaps, None) => Ok(()),
        }
        .map(|()| None)
    })?;
    if let (Some(linux), Some(pidfd)) = (linux, child.pidfd()) {
        netdev::move_all(&linux.net_devices, pidfd)?;
    }
    if let Some(resctrl) = &resctrl {
        resctrl.enter(child.pid)?;
    }
    if let Some(score) = oom_score {
        child.adjust_oom_score(score);
    }

    child.warnings.extend(warnings);
    timings.append(&mut child.timings);
    timings.push(("create".to_string(), micros(begun)));
    let pidfd = child
        .pidfd()
        .map(OwnedFd::try_clone)
        .transpose()
        .map_err(|e| Error::setup("cannot copy a descriptor", e))?
        .ok_or_else(|| Error::setup("cannot create", "the process is gone"))?;
    Ok(Created {
        pid: child.pid,
        pidfd,
        console: child.console.take(),
        timings,
        beside,
        warnings: std::mem::take(&mut child.warnings),
        filter,
        child,
        waits_for_creator,
        poststart: spec_hooks.poststart,
        version: o.spec.oci_version.clone(),
        id: o.id.to_string(),
        bundle: o.bundle.to_path_buf(),
        annotations: o.spec.annotations.clone(),
    })
}

/// The OOM score adjustment, which the creator sets from outside in a user namespace.
fn take_oom_score(plan: &mut InitPlan) -> Option<i32> {
    plan.steps.iter_mut().find_map(|step| match step {
        Step::Process { process } => process.oom_score_adj.take(),
        _ => None,
    })
}

/// Opens the gate of a container that was created with [`Gate::Socket`]: `connection` is connected to that socket.
/// Returns warnings once the kernel has accepted the program. Hooks of kind poststart are the caller's.
///
/// # Errors
/// As [`Created::start`], hooks of kind startContainer included; the process is gone then, and its parent reaps it.
pub fn open_gate(connection: OwnedFd) -> Result<Vec<String>, Error> {
    cloned::go(&connection)
}

impl Created {
    /// Lets go of a process whose gate is a [`Gate::Socket`].
    ///
    /// # Errors
    /// [`Error::Setup`] when its gate is the creator, without whom it could never start; it is killed then.
    pub fn detach(self) -> Result<Detached, Error> {
        if self.waits_for_creator {
            return Err(Error::setup("cannot let go of the container", "only its creator can start it"));
        }
        let Created { pid, pidfd, console, timings, warnings, child, .. } = self;
        child.release();
        Ok(Detached { pid, pidfd, console, timings, warnings })
    }

    /// Opens the gate; returns when the kernel has accepted the program.
    ///
    /// # Errors
    /// [`Error::Program`] or [`Error::Step`] when it has not; the process is gone then. [`Error::Setup`] when the gate
    /// is a socket, or when a hook of kind poststart failed: the process has been killed, and is the caller's to reap.
    pub fn start(mut self) -> Result<Started, Error> {
        let begun = Instant::now();
        if !self.waits_for_creator {
            return Err(Error::setup("cannot start the container", "its gate is a socket"));
        }
        self.child.go()?;
        let warnings = std::mem::take(&mut self.child.warnings);
        let pid = self.pid;
        self.child.release();
        let state = State {
            oci_version: &self.version,
            id: &self.id,
            status: "running",
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        if let Err(e) = hooks::run("poststart", &self.poststart, &state) {
            // runtime-spec, "Lifecycle", step 10: the container is stopped. Its parent, the caller, reaps it.
            let _ = creel_sys::pidfd::send_signal(&self.pidfd, libc::SIGKILL);
            return Err(e);
        }
        Ok(Started {
            pid,
            pidfd: self.pidfd,
            console: self.console,
            timings: vec![("start".to_string(), micros(begun))],
            warnings,
        })
    }
}
