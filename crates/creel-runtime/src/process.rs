//! What makes the process that the Spec describes: limits, ids, capabilities, directory, descriptors.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::caps::Sets;
use creel_sys::rlimit::Limit;
use creel_sys::signal::SignalSet;
use creel_sys::{close_range, process as sys, rlimit, sched, signal};
use creel_types::ErrorKind;
use creel_types::spec::{Linux, Personality, Process, Scheduler};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use serde::Serialize;

use crate::error::{Fault, plain};
use crate::procfs::Procfs;
use crate::report::Reporter;
use crate::scheduling::{self, Affinity, NodePolicy};
use crate::{Error, Life, caps, path, user};

const SYS_ADMIN: u64 = 1 << 21;

/// The five capability sets as bit masks (bit = number in `linux/capability.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CapabilityMasks {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitPlan {
    /// Its name, like `RLIMIT_NOFILE`.
    pub name: String,
    /// The kernel's number.
    pub number: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A process, ready to be applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessPlan {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment; `HOME` is added from the image's passwd file if it is missing or empty.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether the creator's supplementary groups stay, too (crun's annotation `run.oci.keep_original_groups`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_groups: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets.
    pub capabilities: CapabilityMasks,
    /// Resource limits.
    pub limits: Vec<LimitPlan>,
    /// Whether execve may never give more privileges.
    pub no_new_privileges: bool,
    /// OOM killer score adjustment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// SELinux label of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// I/O priority: class and level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<(u32, u32)>,
    /// Scheduling, kept as the Spec says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Processors of an exec; not for a container's first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// NUMA policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<NodePolicy>,
    /// Execution domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// What of the Spec is passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The path below `/proc/sys` of a kernel parameter, whose name may be written with dots or slashes (sysctl(8): the
/// first separator decides, the other one is then part of a name).
pub(crate) fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_string(),
    }
}

/// Plans a process: names become numbers.
///
/// # Errors
/// [`Error::Invalid`] for unknown names.
pub(crate) fn plan(process: &Process, linux: &Linux) -> Result<ProcessPlan, Error> {
    let mut warnings = Vec::new();
    let mut capabilities = CapabilityMasks::default();
    if let Some(sets) = &process.capabilities {
        let mut unknown: Vec<String> = Vec::new();
        let mut mask = |names: &[String]| {
            names.iter().fold(0, |all, name| match caps::number(name) {
                Some(number) => all | 1u64 << number,
                None => {
                    if !unknown.contains(name) {
                        unknown.push(name.clone());
                    }
                    all
                }
            })
        };
        capabilities = CapabilityMasks {
            bounding: mask(&sets.bounding),
            effective: mask(&sets.effective),
            inheritable: mask(&sets.inheritable),
            permitted: mask(&sets.permitted),
            ambient: mask(&sets.ambient),
        };
        if !unknown.is_empty() {
            warnings.push(left_out(&unknown));
        }
        // The kernel gives no others (capset(2)). Inheritable ones beyond the bounding set it refuses, and the container
        // with them, as callers of other runtimes expect.
        let CapabilityMasks { effective, permitted, .. } = &mut capabilities;
        let beyond = *effective & !*permitted;
        if beyond != 0 {
            warnings.push(left_out(&caps::names(beyond)));
        }
        *effective &= *permitted;
    }
    let limits = process
        .rlimits
        .iter()
        .filter_map(|limit| {
            let number = rlimit::number(&limit.kind)?;
            Some(LimitPlan { name: limit.kind.clone(), number, soft: limit.soft, hard: limit.hard })
        })
        .collect();
    let io_priority = process.io_priority.as_ref().map(scheduling::io_priority).transpose()?;
    let affinity = process.exec_cpu_affinity.as_ref().map(scheduling::affinity).transpose()?;
    let memory_policy = linux.memory_policy.as_ref().map(scheduling::memory_policy).transpose()?;
    let personality = linux.personality.as_ref().map(personality).transpose()?;
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(ProcessPlan {
        args: process.args.clone(),
        env: environment(&process.env),
        cwd: process.cwd.clone(),
        terminal: process.terminal,
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        keep_groups: false,
        umask: process.user.umask.unwrap_or(0o022) & 0o777,
        capabilities,
        limits,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        apparmor: given(&process.apparmor_profile),
        selinux: given(&process.selinux_label),
        io_priority,
        scheduler: process.scheduler.clone(),
        affinity,
        memory_policy,
        personality,
        warnings,
    })
}

/// The execution domain's number (personality(2)).
pub(crate) fn personality(wanted: &Personality) -> Result<u32, Error> {
    if !wanted.flags.is_empty() {
        return Err(Error::invalid("linux.personality.flags", "none are defined"));
    }
    match wanted.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Error::invalid("linux.personality.domain", format!("{other} is no execution domain"))),
    }
}

/// The warning in runc's words, which tests and tools look for.
fn left_out<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))
}

/// Of a name that is given twice the last value counts, at the place of the first.
fn environment(entries: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_string();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut list: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        match places.get(&name(entry)) {
            Some(at) => list[*at].clone_from(entry),
            None => {
                places.insert(name(entry), list.len());
                list.push(entry.clone());
            }
        }
    }
    list
}

/// The descriptors that a process starts with.
#[derive(Debug)]
pub(crate) enum Streams {
    /// The slave of its terminal.
    Terminal(OwnedFd),
    /// Standard input, output and error.
    Files([OwnedFd; 3]),
}

/// The steps that need procfs or the host's rights and come before the change of user.
fn limits(plan: &ProcessPlan, procfs: Option<&Procfs>, reporter: &Reporter) -> Result<(), Fault> {
    if let Some(score) = plan.oom_score_adj
        && let Some(procfs) = procfs
    {
        match procfs.write_own("oom_score_adj", &score.to_string()) {
            Err(fault) if matches!(fault.errno, Some(libc::EACCES | libc::EPERM)) => reporter.warn(format!(
                "the OOM score adjustment {score} was not set: lowering it needs CAP_SYS_RESOURCE"
            )),
            other => other.map_err(|fault| fault.context("oomScoreAdj"))?,
        }
    }
    for limit in &plan.limits {
        let wanted = Limit { soft: limit.soft, hard: limit.hard };
        match rlimit::set(0, limit.number, wanted) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                let most = rlimit::get(0, limit.number)?.hard;
                let given = Limit { soft: limit.soft.min(most), hard: limit.hard.min(most) };
                rlimit::set(0, limit.number, given).map_err(|e| Fault::from(e).context(&limit.name))?;
                reporter.warn(format!(
                    "{} was limited to {} instead of {}: raising it needs CAP_SYS_RESOURCE",
                    limit.name, given.hard, limit.hard
                ));
            }
            other => other.map_err(|e| Fault::from(e).context(&limit.name))?,
        }
    }
    scheduling::apply(plan.scheduler.as_ref(), plan.io_priority, plan.memory_policy.as_ref())?;
    if let Some(domain) = plan.personality {
        sched::set_personality(domain).map_err(|e| Fault::from(e).context("personality"))?;
    }
    if let Some(profile) = &plan.apparmor
        && let Some(procfs) = procfs
    {
        let text = format!("exec {profile}");
        let written = match procfs.write_own("attr/apparmor/exec", &text) {
            Err(fault) if fault.errno == Some(libc::ENOENT) => procfs.write_own("attr/exec", &text),
            other => other,
        };
        match written {
            // What is left of the interface where AppArmor is not the one behind it.
            Err(fault) if fault.errno == Some(libc::EINVAL) => reporter.warn(format!(
                "the AppArmor profile {profile} was not set: AppArmor is disabled or not supported here"
            )),
            Err(mut fault) if fault.errno == Some(libc::ENOENT) => {
                fault.message = "no such profile is loaded; load it with apparmor_parser(8)".into();
                return Err(fault.context(format!("AppArmor profile {profile}")));
            }
            other => other.map_err(|fault| fault.context(format!("AppArmor profile {profile}")))?,
        }
    }
    if let Some(label) = &plan.selinux
        && let Some(procfs) = procfs
    {
        let written = procfs.write_own("attr/exec", label);
        written.map_err(|fault| fault.context(format!("SELinux label {label}")))?;
    }
    Ok(())
}

/// Whether [`apply`] needs a procfs.
pub(crate) fn needs_procfs(plan: &ProcessPlan) -> bool {
    plan.oom_score_adj.is_some() || plan.apparmor.is_some() || plan.selinux.is_some()
}

/// Whether this is the null device.
fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == creel_sys::dev::makedev(1, 3)
}

/// The container's own null device, if its root has one.
fn own_null() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/dev/null", flags, Mode::empty()).ok()?;
    // Opened for blocking use, as whoever gets it expects.
    rustix::fs::fcntl_setfl(&fd, OFlags::empty()).ok()?;
    rustix::fs::fstat(&fd).is_ok_and(|stat| is_null(&stat)).then_some(fd)
}

/// Makes the descriptors 0, 1 and 2, and lets nothing else through the execve.
fn streams(streams: &Streams, (uid, gid): (u32, u32), preserve: &[i32]) -> Result<(), Fault> {
    match streams {
        Streams::Terminal(slave) => {
            // The program's user must be able to open its own terminal again.
            rustix::fs::fchown(slave, Some(Uid::from_raw(uid)), None)?;
            creel_sys::pty::set_controlling(slave)?;
            for target in 0..=2 {
                sys::dup_to_stdio(slave, target)?;
            }
        }
        Streams::Files(files) => {
            for (target, file) in (0..=2).zip(files) {
                let stat = rustix::fs::fstat(file)?;
                if is_null(&stat)
                    && let Some(own) = own_null()
                {
                    // The host's would be a file from outside: one that CRIU cannot save, and a way out.
                    sys::dup_to_stdio(own, target)?;
                    continue;
                }
                sys::dup_to_stdio(file, target)?;
                // Through /dev/stdout a program opens its pipe anew, with its own rights.
                if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != uid {
                    let _ = rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                }
            }
        }
    }
    close_range::cloexec_from(3)?;
    for fd in preserve {
        close_range::inherit(*fd).map_err(|e| Fault::from(e).context(format!("descriptor {fd}")))?;
    }
    Ok(())
}

/// Changes groups, user and capabilities. With `hold_admin`, CAP_SYS_ADMIN stays usable until the execve, which
/// computes all sets anew and loses it: without no_new_privs the kernel wants it for loading a system call filter.
fn identity(plan: &ProcessPlan, hold_admin: bool, reporter: &Reporter) -> Result<(), Fault> {
    let wanted = plan.capabilities;
    let have = creel_sys::caps::get()?.permitted;
    let named = wanted.bounding | wanted.permitted | wanted.effective | wanted.inheritable | wanted.ambient;
    let missing = named & !have;
    if missing != 0 {
        reporter.warn(left_out(&caps::names(missing)));
    }
    let keeps = wanted.permitted | wanted.effective | wanted.ambient | wanted.inheritable;
    let groups = if plan.keep_groups { Ok(()) } else { sys::setgroups(&plan.groups) };
    match groups {
        // A user namespace may deny it (user_namespaces(7)): then there are no groups to drop either.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && plan.groups.is_empty() => {}
        other => other.map_err(|e| Fault::from(e).context("supplementary groups"))?,
    }
    for cap in (0..64).filter(|cap| wanted.bounding & 1 << cap == 0) {
        match creel_sys::caps::bounding_drop(cap) {
            // One that this kernel does not know is the first of many.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.map_err(|e| Fault::from(e).context("capability bounding set"))?,
        }
    }
    if plan.uid != 0 && (keeps != 0 || hold_admin) {
        creel_sys::caps::set_keepcaps(true)?;
    }
    sys::setresgid(plan.gid).map_err(|e| Fault::from(e).context(format!("group id {}", plan.gid)))?;
    sys::setresuid(plan.uid).map_err(|e| Fault::from(e).context(format!("user id {}", plan.uid)))?;
    let admin = if hold_admin { SYS_ADMIN & have } else { 0 };
    let permitted = (wanted.permitted & have) | admin;
    let sets = Sets {
        effective: (wanted.effective & permitted) | admin,
        permitted,
        inheritable: wanted.inheritable & have,
    };
    creel_sys::caps::set(&sets).map_err(|e| Fault::from(e).context("capability sets"))?;
    creel_sys::caps::ambient_clear()?;
    for cap in (0..64).filter(|cap| wanted.ambient & have & 1 << cap != 0) {
        if let Err(e) = creel_sys::caps::ambient_raise(cap) {
            let name = caps::name(cap).unwrap_or("?");
            reporter.warn(format!("can't raise ambient capability {name}: {}", plain(&e)));
        }
    }
    Ok(())
}

/// Whether the working directory is still inside the root: a descriptor of the host that had been entered instead
/// (CVE-2024-21626) has no path here.
fn directory_is_inside() -> Result<(), Fault> {
    let cwd = rustix::process::getcwd(Vec::new())?;
    match cwd.to_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(Fault::new(
            ErrorKind::InvalidArgument,
            "the working directory lies outside the container's root",
        )),
    }
}

fn enter(cwd: &str) -> Result<(), Fault> {
    rustix::process::chdir(cwd).map_err(|e| {
        let kind = match e {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => ErrorKind::ProgramNotFound,
            rustix::io::Errno::ACCESS => ErrorKind::ProgramNotExecutable,
            _ => ErrorKind::Internal,
        };
        Fault {
            message: format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", plain(&e.into())),
            errno: Some(e.raw_os_error()),
            kind,
        }
    })
}

/// Everything else that [`apply`] needs.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// A fresh procfs, if [`needs_procfs`].
    pub(crate) procfs: Option<&'a Procfs>,
    /// The process's descriptors.
    pub(crate) streams: &'a Streams,
    /// Whether a system call filter follows.
    pub(crate) filter_follows: bool,
    /// How long the process lives.
    pub(crate) life: Life,
    /// Descriptors that the program inherits besides the first three.
    pub(crate) preserve_fds: &'a [i32],
    /// Where warnings go.
    pub(crate) reporter: &'a Reporter,
}

/// Makes the calling process what the plan says, inside the container's root; only the filter and the execve are left
/// to do. Returns the environment.
pub(crate) fn apply(plan: &ProcessPlan, around: &Surroundings<'_>) -> Result<Vec<String>, Fault> {
    plan.warnings.iter().for_each(|text| around.reporter.warn(text.as_str()));
    limits(plan, around.procfs, around.reporter)?;
    // A child just cloned leads no process group, so this cannot fail for that reason.
    sys::setsid()?;
    streams(around.streams, (plan.uid, plan.gid), around.preserve_fds)
        .map_err(|fault| fault.context("standard descriptors"))?;
    let mut env = plan.env.clone();
    // An empty one is none (runc).
    if !env.iter().any(|entry| entry.starts_with("HOME=") && entry != "HOME=") {
        env.retain(|entry| entry != "HOME=");
        let root = open_root()?;
        let home = user::home_of(root.as_fd(), plan.uid).unwrap_or_else(|| "/".to_string());
        env.push(format!("HOME={home}"));
    }
    // With the rights of root first, as Docker does: a directory that only root may enter can be the working
    // directory of another user. Where root has no rights (a network file system), the user may.
    let entered = enter(&plan.cwd);
    identity(plan, around.filter_follows && !plan.no_new_privileges, around.reporter)?;
    match entered {
        Err(fault) if matches!(fault.errno, Some(libc::EACCES | libc::EPERM)) => enter(&plan.cwd)?,
        other => other?,
    }
    directory_is_inside()?;
    sys::umask(plan.umask);
    // Changing the ids cleared the one set at birth.
    sys::set_pdeathsig(if around.life == Life::WithCreator { libc::SIGKILL } else { 0 })?;
    if plan.no_new_privileges {
        sys::set_no_new_privs()?;
    }
    signal::reset_dispositions();
    signal::set_mask(SignalSet::EMPTY)?;
    Ok(env)
}

fn open_root() -> Result<OwnedFd, Fault> {
    Ok(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes the working directory inside `root` if it is missing.
pub(crate) fn make_directory(root: BorrowedFd<'_>, cwd: &str) -> Result<(), Fault> {
    match path::ensure(root, cwd, path::Make::Directory) {
        // A link into procfs, say: entering it will show whether that is allowed.
        Err(fault) if matches!(fault.errno, Some(libc::ELOOP | libc::EROFS)) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        assert_eq!(environment(&words("A=1 B=2 A=3=4 C= A=5")), words("A=5 B=2 C="));
    }

    #[test]
    fn names_of_kernel_parameters() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(sysctl_path(name), path);
        }
    }
}
