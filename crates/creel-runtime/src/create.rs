//! Creating a container's process, and starting it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use creel_cgroup::Entry;
use creel_sys::clone::Clone;
use creel_sys::ns;
use creel_types::spec::Seccomp;
use rustix::fs::{Mode, OFlags};

use crate::child::{self, Filter, Inside, Luggage};
use crate::cloned::{self, Child};
use crate::error::{Error, plain};
use crate::hooks::{self, State};
use crate::report::Timing;
use crate::{CreateOptions, Facts, Stdio, namespaces, plan, seccomp};

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
    /// What could not be done exactly as asked.
    pub warnings: Vec<String>,
    child: Child,
    poststart: Vec<creel_types::spec::Hook>,
    version: String,
    id: String,
    bundle: std::path::PathBuf,
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
    /// What could not be done exactly as asked, and hooks of kind poststart that failed.
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

/// Compiles a filter.
pub(crate) fn filter(wanted: Option<&Seccomp>) -> Result<Option<Filter>, Error> {
    let Some(wanted) = wanted else { return Ok(None) };
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= match flag.as_str() {
            // There is one thread only.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => creel_sys::seccomp::FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => creel_sys::seccomp::FLAG_SPEC_ALLOW,
            other => {
                return Err(Error::unsupported("linux.seccomp.flags", format!("{other} is not supported")));
            }
        };
    }
    let program = seccomp::compile(wanted).map_err(|e| Error::invalid("linux.seccomp", e.to_string()))?;
    Ok(Some(Filter { program, flags }))
}

/// Opens the way into a control group, and the directory in which the child is born (v2).
pub(crate) fn entry(
    cgroup: Option<&creel_cgroup::Cgroup>,
) -> Result<(Option<Entry>, Option<OwnedFd>), Error> {
    let Some(cgroup) = cgroup else { return Ok((None, None)) };
    let failed = |e: &dyn std::fmt::Display| Error::setup("cannot open the control group", e);
    let entry = cgroup.entry().map_err(|e| failed(&e))?;
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
    let facts = if wants_cgroups { Facts::gather()? } else { Facts::default() };
    let plan = plan(o.id, o.spec, o.bundle, o.rootfs, o.init.as_deref(), &facts)?;
    let linux = o.spec.linux.as_ref();
    let filter = filter(linux.and_then(|linux| linux.seccomp.as_ref()))?;
    let personality = match linux.and_then(|linux| linux.personality.as_ref()).map(|p| p.domain.as_str()) {
        None => None,
        Some("LINUX") => Some(0),
        Some("LINUX32") => Some(8),
        Some(other) => {
            return Err(Error::invalid(
                "linux.personality.domain",
                format!("{other} is no execution domain"),
            ));
        }
    };
    let stdio = streams(o.stdio)?;
    let (cgroup, group) = entry(o.cgroup)?;
    let join_pid = match &plan.join_pid {
        None => None,
        Some(path) => Some(
            rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| Error::setup(format!("cannot open the pid namespace {path}"), e))?,
        ),
    };
    let spec_hooks = o.spec.hooks.clone().unwrap_or_default();
    let inside = Inside {
        create_container: spec_hooks.create_container.clone(),
        start_container: spec_hooks.start_container.clone(),
        version: o.spec.oci_version.clone(),
        bundle: o.bundle.to_path_buf(),
    };
    let flags = namespaces::bits(plan.new_namespaces.iter().copied());
    let mut timings = vec![("plan".to_string(), micros(begun))];

    let cloning = Instant::now();
    let mut child = born_in(join_pid, || {
        let what = Clone { flags, cgroup: group.as_ref().map(AsFd::as_fd) };
        let luggage = Luggage { plan, cgroup, filter, stdio, personality, hooks: inside };
        cloned::spawn(&what, |reporter| child::run(luggage, reporter))
    })?;
    timings.push(("clone".to_string(), micros(cloning)));
    child.ready(&|pid| {
        let state =
            State { oci_version: &o.spec.oci_version, id: o.id, status: "creating", pid, bundle: o.bundle };
        hooks::run("prestart", &spec_hooks.prestart, &state)?;
        hooks::run("createRuntime", &spec_hooks.create_runtime, &state)
    })?;

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
        warnings: std::mem::take(&mut child.warnings),
        child,
        poststart: spec_hooks.poststart,
        version: o.spec.oci_version.clone(),
        id: o.id.to_string(),
        bundle: o.bundle.to_path_buf(),
    })
}

impl Created {
    /// Opens the gate; returns when the kernel has accepted the program.
    ///
    /// # Errors
    /// [`Error::Program`] or [`Error::Step`] when it has not; the process is gone then.
    pub fn start(mut self) -> Result<Started, Error> {
        let begun = Instant::now();
        self.child.go()?;
        let mut warnings = std::mem::take(&mut self.child.warnings);
        let pid = self.pid;
        self.child.release();
        let state =
            State { oci_version: &self.version, id: &self.id, status: "running", pid, bundle: &self.bundle };
        // The specification: a hook of this kind that fails is logged, and the container goes on.
        if let Err(e) = hooks::run("poststart", &self.poststart, &state) {
            warnings.push(e.to_string());
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
