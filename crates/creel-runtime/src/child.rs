//! The executor: the container's process applies its plan to itself, step by step.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use creel_cgroup::Entry;
use creel_sys::signal::SignalSet;
use creel_sys::{keyctl, mount as sys, ns, process, signal};
use creel_types::ErrorKind;
use creel_types::spec::{Hook, Seccomp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::devices::DeviceNode;
use crate::error::{Error, Fault};
use crate::filter::{self, Compiled, Filter};
use crate::hooks::{self, State};
use crate::mounts::apply::{self, Masks};
use crate::mounts::binding::Manner;
use crate::mounts::{Attributes, MountOptions, MountStep, Propagation};
use crate::plan::{INIT_PATH, InitPlan, Step};
use crate::process::{ProcessPlan, Streams, Surroundings};
use crate::procfs::Procfs;
use crate::report::{Ask, Message, Reporter, Timing};
use crate::sources::Sources;
use crate::{Life, Rootfs, console, namespaces, path, program, rootfs, scheduling};

/// Hooks that run in the container's namespaces, and what they are told.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
    pub(crate) version: String,
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// How the child comes into its control group.
#[derive(Debug)]
pub(crate) enum Joins {
    /// It is where it belongs.
    Nothing,
    /// By these doors.
    Doors(Entry),
    /// By doors that its creator sends.
    Sent,
    /// Its creator moves it, when asked.
    ByPid,
}

/// The child's system call filter.
#[derive(Debug)]
pub(crate) enum Filtered {
    /// It has none.
    Not,
    /// This one.
    By(Filter),
    /// One that its creator sends.
    Later,
}

impl Filtered {
    /// The creator's part before the clone: only a filter with an agent has to be there then, any other is compiled while
    /// the child is at work.
    pub(crate) fn begin(wanted: Option<&Seccomp>, state: &State<'_>) -> Result<Filtered, Error> {
        match wanted {
            None => Ok(Filtered::Not),
            Some(filter) if filter::has_agent(filter) => {
                Ok(Filter::compile(wanted, state)?.map_or(Filtered::Not, Filtered::By))
            }
            Some(_) => Ok(Filtered::Later),
        }
    }

    /// One that was compiled before.
    pub(crate) fn at_hand(compiled: &Compiled) -> Result<Filtered, Error> {
        let damaged = || Error::setup("cannot load the system call filter", "it is damaged");
        compiled.read().map(Filtered::By).ok_or_else(damaged)
    }

    /// Whether it is still to be sent.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self, Filtered::Later)
    }

    /// Waits for one that is sent.
    pub(crate) fn arrive(self, reporter: &Reporter) -> Result<Option<Filter>, Fault> {
        match self {
            Filtered::Not => Ok(None),
            Filtered::By(filter) => Ok(Some(filter)),
            Filtered::Later => reporter.filter().map(Some),
        }
    }
}

/// What the child takes along from its creator.
#[derive(Debug)]
pub(crate) struct Luggage {
    pub(crate) plan: InitPlan,
    pub(crate) filter: Filtered,
    pub(crate) stdio: [OwnedFd; 3],
    pub(crate) hooks: Inside,
    pub(crate) sources: Sources,
    /// The listening socket of [`crate::Gate::Socket`].
    pub(crate) gate: Option<OwnedFd>,
    pub(crate) joins: Joins,
    pub(crate) life: Life,
    pub(crate) preserve_fds: Vec<i32>,
    /// Whether a creator without rights may look into this process: nobody else is in its pid namespace.
    pub(crate) traceable: bool,
}

/// Applies a plan in the calling process; returns only if that fails, with an exit code.
pub(crate) fn run(luggage: Luggage, reporter: Reporter) -> i32 {
    let Luggage { plan, filter, stdio, hooks, sources, gate, joins, life, preserve_fds, traceable } = luggage;
    let mut init = Init {
        reporter,
        joins,
        wanted: filter,
        filter: None,
        streams: Some(Streams::Files(stdio)),
        sources,
        root: None,
        dev: None,
        procfs: None,
        masks: Masks::default(),
        to_seal: Vec::new(),
        exec: None,
        env: Vec::new(),
        hooks,
        gate,
        life,
        preserve_fds,
        traceable,
        timings: Vec::new(),
    };
    process::umask(0);
    for (number, step) in plan.steps.iter().enumerate() {
        // Under the filter no more questions are asked, not even for the time.
        let filtered = matches!(step, Step::Seccomp | Step::StartContainerHooks { .. } | Step::Execute);
        let begun = (!filtered).then(Instant::now);
        if let Err(fault) = init.apply(&plan, number, step) {
            let code = match fault.kind {
                ErrorKind::ProgramNotFound => 127,
                ErrorKind::ProgramNotExecutable => 126,
                _ => 125,
            };
            init.reporter.failed(step.title(), fault);
            return code;
        }
        if let Some(begun) = begun {
            init.count(step.group(), begun);
        }
    }
    125
}

struct Init {
    reporter: Reporter,
    joins: Joins,
    wanted: Filtered,
    filter: Option<Filter>,
    streams: Option<Streams>,
    sources: Sources,
    root: Option<OwnedFd>,
    /// The root's `/dev`, checked.
    dev: Option<Rc<OwnedFd>>,
    procfs: Option<Procfs>,
    masks: Masks,
    /// Mounts that become read-only when everything is in place.
    to_seal: Vec<OwnedFd>,
    exec: Option<creel_sys::process::Exec>,
    /// The environment of the container's program.
    env: Vec<String>,
    hooks: Inside,
    gate: Option<OwnedFd>,
    life: Life,
    preserve_fds: Vec<i32>,
    traceable: bool,
    timings: Vec<Timing>,
}

/// A device is neither executed nor does it give anybody rights.
fn device_options() -> MountOptions {
    MountOptions {
        attributes: Attributes { set: sys::ATTR_NOSUID | sys::ATTR_NOEXEC, clear: 0 },
        ..MountOptions::default()
    }
}

fn read_only() -> MountOptions {
    MountOptions {
        attributes: Attributes { set: sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV, clear: 0 },
        ..MountOptions::default()
    }
}

impl Init {
    fn count(&mut self, group: &str, begun: Instant) {
        let spent = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        match self.timings.iter_mut().find(|(name, _)| name == group) {
            Some((_, sum)) => *sum += spent,
            None => self.timings.push((group.to_string(), spent)),
        }
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Fault> {
        self.root
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or_else(|| Fault::new(ErrorKind::Internal, "there is no root yet"))
    }

    /// The directory for something that the runtime makes by itself, and its name there.
    fn dev_parent<'p>(&mut self, place: &'p str) -> Result<(Rc<OwnedFd>, &'p str), Fault> {
        let Some(name) = place.strip_prefix("/dev/") else {
            let (dir, name) = path::ensure_parent(self.root()?, place)?;
            return Ok((Rc::new(dir), name));
        };
        let dev = match &self.dev {
            Some(dev) => dev.clone(),
            None => self.dev.insert(Rc::new(open_dev(self.root()?)?)).clone(),
        };
        if !name.contains('/') && !matches!(name, "" | "." | "..") {
            return Ok((dev, name));
        }
        let (dir, name) = path::ensure_parent(self.root()?, place)?;
        Ok((Rc::new(dir), name))
    }

    fn procfs(&mut self) -> Result<&Procfs, Fault> {
        if self.procfs.is_none() {
            self.procfs = Some(Procfs::open()?);
        }
        self.procfs.as_ref().ok_or_else(|| Fault::new(ErrorKind::Internal, "there is no procfs"))
    }

    fn apply(&mut self, plan: &InitPlan, number: usize, step: &Step) -> Result<(), Fault> {
        match step {
            Step::UserNamespace { uid_mappings, .. } => {
                if !uid_mappings.is_empty() {
                    self.reporter.ask(Ask::IdMaps)?;
                }
                become_root()
            }
            Step::Cgroup => {
                let doors = match std::mem::replace(&mut self.joins, Joins::Nothing) {
                    Joins::Nothing => {
                        scheduling::run_anywhere();
                        return Ok(());
                    }
                    Joins::Doors(entry) => Some(entry),
                    Joins::Sent => self.reporter.doors()?.map(Entry::from_tasks),
                    Joins::ByPid => None,
                };
                let joined = doors.filter(|_| !self.reporter.born_outside()).map(|doors| doors.join_v1());
                match joined {
                    Some(Ok(())) => {}
                    // Somebody has removed it while it was empty.
                    None | Some(Err(Errno::NODEV)) => self.reporter.ask(Ask::Group)?,
                    Some(Err(e)) => return Err(Fault::new(ErrorKind::Internal, e.to_string())),
                }
                scheduling::run_anywhere();
                Ok(())
            }
            Step::JoinNamespace { kind, .. } => namespaces::join(*kind, &self.sources.take_namespace(*kind)?),
            Step::TimeNamespace { offsets } => {
                ns::unshare(creel_sys::clone::NEWTIME)?;
                if !offsets.is_empty() {
                    self.reporter.ask(Ask::TimeOffsets)?;
                }
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let made = rustix::fs::open("/proc/self/ns/time_for_children", flags, Mode::empty())?;
                Ok(ns::setns(made, creel_sys::clone::NEWTIME)?)
            }
            Step::NewNetworkNamespace => Ok(ns::unshare(creel_sys::clone::NEWNET)?),
            Step::NewCgroupNamespace => Ok(ns::unshare(creel_sys::clone::NEWCGROUP)?),
            Step::Loopback => Ok(creel_sys::net::bring_up_loopback()?),
            Step::Keyring { name, label } => {
                if let Some(label) = label {
                    self.procfs()?.write_own("attr/keycreate", label)?;
                }
                self.keyring(name)
            }
            Step::Hostname { name } => Ok(ns::sethostname(name.as_bytes())?),
            Step::Domainname { name } => Ok(ns::setdomainname(name.as_bytes())?),
            Step::OpenSources { .. } => self.sources.open_tied(plan),
            Step::PrivateTree => apply::private_tree(),
            Step::Root { rootfs, .. } => {
                self.root = Some(rootfs::mount(rootfs, self.sources.root.take())?);
                Ok(())
            }
            Step::HostRoot { path } => {
                self.root = Some(rootfs::mount(&Rootfs::Directory(path.clone()), None)?);
                Ok(())
            }
            Step::Mount { mount } => {
                let source = match mount {
                    MountStep::Bind { .. } => Some(self.sources.tree(number, step, &self.reporter)?),
                    _ => None,
                };
                let locked = plan.steps.iter().any(|step| matches!(step, Step::UserNamespace { .. }));
                let made = apply::mount(self.root()?, mount, source, locked)?;
                if mount.destination() == "/" {
                    self.root = Some(made.try_clone()?);
                }
                if mount.is_sealed_later() {
                    self.to_seal.push(made);
                }
                Ok(())
            }
            Step::Device { device } => {
                let (dir, name) = self.dev_parent(&device.path)?;
                make_device(dir.as_fd(), name, device)
            }
            Step::BindDevice { device } => {
                let tree = self.sources.tree(number, step, &self.reporter)?;
                let (dir, name) = self.dev_parent(&device.path)?;
                may_cover(dir.as_fd(), name, device)?;
                apply::bind(self.root()?, &device.path, tree, &device_options(), Manner::Added).map(drop)
            }
            Step::Link { path, target } => {
                let (dir, name) = self.dev_parent(path)?;
                make_link(dir.as_fd(), path, name, target)
            }
            Step::Console { size } => {
                let slave = console::prepare(self.root()?, *size, &self.reporter)?;
                console::bind(self.root()?, &slave)?;
                self.streams = Some(Streams::Terminal(slave));
                Ok(())
            }
            Step::BindInit { destination, .. } => {
                let tree = self.sources.tree(number, step, &self.reporter)?;
                apply::bind(self.root()?, destination, tree, &read_only(), Manner::Added).map(drop)
            }
            Step::WorkingDirectory { path } => crate::process::make_directory(self.root()?, path),
            Step::Sysctl { path, value } => self.procfs()?.write(&format!("sys/{path}"), value),
            Step::ReadonlyPath { path } => apply::readonly_path(self.root()?, path),
            Step::MaskedPath { path } => {
                let mut masks = std::mem::take(&mut self.masks);
                let result = masks.hide(self.root()?, path);
                self.masks = masks;
                result
            }
            Step::SealMounts { .. } => std::mem::take(&mut self.to_seal)
                .iter()
                .try_for_each(|mount| apply::set_attributes(mount, sys::ATTR_RDONLY, 0, false)),
            Step::ReadonlyRoot => apply::set_attributes(self.root()?, sys::ATTR_RDONLY, 0, false),
            Step::PivotRoot => self.pivot(),
            Step::MoveRoot => {
                rootfs::cover_the_host(self.root()?)?;
                self.chroot()
            }
            Step::Chroot => self.chroot(),
            Step::RootPropagation { mode, recursive } => {
                apply::set_propagation(self.root()?, Propagation { mode: *mode, recursive: *recursive })
            }
            Step::Process { process } => self.process(plan, process),
            Step::Gate => self.gate(),
            Step::Seccomp => match &self.filter {
                Some(filter) => {
                    if self.traceable && filter.is_fetched() {
                        process::set_dumpable(true)?;
                    }
                    filter.load(&self.reporter)
                }
                None => Ok(()),
            },
            Step::Execute => match &self.exec {
                Some(exec) => {
                    let error = exec.run();
                    Err(program::failed(&exec.program().to_string_lossy(), &error))
                }
                None => Err(Fault::new(ErrorKind::InvalidArgument, "the Spec names no process")),
            },
            Step::CreateRuntimeHooks { .. } => self.reporter.ask(Ask::Hooks),
            Step::CreateContainerHooks { .. } => {
                // Their working directory is the root, as runc's have it.
                rustix::process::fchdir(self.root()?)?;
                self.run_hooks(&plan.id, "createContainer", &self.hooks.create_container, "creating")
            }
            Step::StartContainerHooks { .. } => {
                // One without an environment of its own has the program's, as with runc.
                let mut list = self.hooks.start_container.clone();
                for hook in list.iter_mut().filter(|hook| hook.env.is_empty()) {
                    hook.env.clone_from(&self.env);
                }
                self.run_hooks(&plan.id, "startContainer", &list, "created")
            }
        }
    }

    fn keyring(&self, name: &str) -> Result<(), Fault> {
        let name = std::ffi::CString::new(name).map_err(|_| Fault::from(Errno::INVAL))?;
        match keyctl::join_session_keyring(Some(&name)) {
            // A kernel without keys has none to share.
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EDQUOT) => {
                self.reporter
                    .warn("the container has no session keyring of its own: the quota of keys is used up");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn chroot(&self) -> Result<(), Fault> {
        rustix::process::fchdir(self.root()?)?;
        rustix::process::chroot(".")?;
        Ok(rustix::process::chdir("/")?)
    }

    fn pivot(&mut self) -> Result<(), Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::open("/", flags, Mode::empty())?;
        rustix::process::fchdir(self.root()?)?;
        sys::pivot_root_here()?;
        // The old root lies on top of the new one now; through its descriptor there is no doubt which one is detached.
        rustix::process::fchdir(&old)?;
        sys::detach_here()?;
        Ok(rustix::process::chdir("/")?)
    }

    fn process(&mut self, plan: &InitPlan, process: &ProcessPlan) -> Result<(), Fault> {
        // The working directory may be named by way of a descriptor: none is left open that need not be.
        self.dev = None;
        if crate::process::needs_procfs(process) {
            self.procfs()?;
        }
        // Before the gate, at which the creator leaves.
        self.filter = std::mem::replace(&mut self.wanted, Filtered::Not).arrive(&self.reporter)?;
        let Some(streams) = self.streams.take() else {
            return Err(Fault::new(ErrorKind::Internal, "there are no standard descriptors"));
        };
        let around = Surroundings {
            procfs: self.procfs.as_ref(),
            streams: &streams,
            filter_follows: self.filter.is_some(),
            life: self.life,
            preserve_fds: &self.preserve_fds,
            reporter: &self.reporter,
        };
        let env = crate::process::apply(process, &around)?;
        let found = program::find(&process.args[0], &env)?;
        let reaper = plan.steps.iter().any(|step| matches!(step, Step::BindInit { .. }));
        self.exec = Some(if reaper {
            let args: Vec<String> = [INIT_PATH, "--"]
                .into_iter()
                .map(str::to_string)
                .chain(process.args.iter().cloned())
                .collect();
            program::prepare(INIT_PATH, &args, &env)?
        } else {
            program::prepare(&found, &process.args, &env)?
        });
        self.env = env;
        Ok(())
    }

    fn run_hooks(&self, id: &str, kind: &str, list: &[Hook], status: &str) -> Result<(), Fault> {
        let pid = process::pid();
        let state = State {
            oci_version: &self.hooks.version,
            id,
            status,
            pid,
            bundle: &self.hooks.bundle,
            annotations: &self.hooks.annotations,
        };
        hooks::run(kind, list, &state).map_err(|e| Fault::new(ErrorKind::Internal, e.to_string()))
    }

    fn gate(&mut self) -> Result<(), Fault> {
        let ready = Message::Ready(std::mem::take(&mut self.timings));
        let Some(listener) = self.gate.take() else {
            self.reporter.send(&ready, &[]);
            let open = self.reporter.wait();
            let gone = || Fault::new(ErrorKind::Unavailable, "the creator is gone");
            return if open { Ok(()) } else { Err(gone()) };
        };
        if self.exec.is_none() && self.life == Life::Detached {
            // Without a program nothing has let go of the creator yet.
            process::set_pdeathsig(0)?;
        }
        // Who waits here for long must not hold what only the creator needed: the host's directories (which a container
        // could find in its /proc/1/fd), or a pipe at whose other end somebody waits.
        let mut keep = vec![self.reporter.number(), listener.as_raw_fd()];
        keep.extend(&self.preserve_fds);
        creel_sys::close_range::close_all_but(&keep)?;
        // The kernel keeps from process 1 of a pid namespace what it has no handler for; blocked signals come through.
        let quitting = SignalSet::of(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM]);
        let before = signal::set_mask(quitting)?;
        let signals = signal::signalfd(quitting)?;
        self.reporter.send(&ready, &[]);
        self.reporter.accept(&listener, &signals)?;
        signal::set_mask(before)?;
        Ok(())
    }
}

/// Takes on the ids of root in a user namespace; one that does not map them leaves the process nobody with all
/// capabilities, which is enough to set it up.
pub(crate) fn become_root() -> Result<(), Fault> {
    let unmapped = |result: std::io::Result<()>| match result {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    };
    match process::setgroups(&[]) {
        // Denied by whoever mapped the ids (user_namespaces(7)), so that there is nothing to drop.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        other => other?,
    }
    unmapped(process::setresgid(0))?;
    unmapped(process::setresuid(0))?;
    process::set_dumpable(false)?;
    // The change of ids has cleared it.
    Ok(process::set_pdeathsig(libc::SIGKILL)?)
}

/// Moves the calling process into the v1 groups whose `tasks` files these are. A process that writes its own 0 there
/// waits for nobody; a parent that writes the child's number into cgroup.procs waits for a grace period of RCU.
pub(crate) fn join_cgroup(entry: Option<Entry>) -> Result<(), Fault> {
    entry.map_or(Ok(()), |entry| entry.join_v1()).map_err(|e| Fault::new(ErrorKind::Internal, e.to_string()))
}

/// The root's `/dev`, which must be an ordinary directory: what the runtime puts there by itself shall not be put where
/// an image's link leads (CVE-2026-41579).
fn open_dev(root: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let (dev, _) = path::ensure_parent(root, "/dev/x")?;
    let named = rustix::fs::statat(root, "dev", AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(named.st_mode) != FileType::Directory || !path::is_dir(&dev)? {
        let text = "/dev is a symbolic link of the image; it must be an ordinary directory";
        return Err(Fault::new(ErrorKind::InvalidArgument, text));
    }
    Ok(dev)
}

fn make_device(dir: BorrowedFd<'_>, name: &str, device: &DeviceNode) -> Result<(), Fault> {
    let number = creel_sys::dev::makedev(device.major, device.minor);
    let text = std::ffi::CString::new(name).map_err(|_| Fault::from(Errno::INVAL))?;
    match creel_sys::dev::mknodat(dir, &text, device.kind | device.mode, number) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            return if is_device(&stat, device) { Ok(()) } else { Err(taken()) };
        }
        other => other?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn is_device(stat: &rustix::fs::Stat, device: &DeviceNode) -> bool {
    let same_kind = FileType::from_raw_mode(stat.st_mode) == FileType::from_raw_mode(device.kind);
    let number = creel_sys::dev::makedev(device.major, device.minor);
    same_kind && (device.kind == libc::S_IFIFO || stat.st_rdev == number)
}

/// runtime-spec, "Devices": a file that does not match the device is an error.
fn taken() -> Fault {
    Fault::new(ErrorKind::Conflict, "something else has this name already")
}

/// Where a device is bound, there may be that device, or an empty file as a former bind has left it.
fn may_cover(dir: BorrowedFd<'_>, name: &str, device: &DeviceNode) -> Result<(), Fault> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let empty = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0;
    if empty || is_device(&stat, device) { Ok(()) } else { Err(taken()) }
}

fn make_link(dir: BorrowedFd<'_>, place: &str, name: &str, target: &str) -> Result<(), Fault> {
    match rustix::fs::symlinkat(target, dir, name) {
        Err(Errno::EXIST) if place == "/dev/ptmx" => {
            // A ptmx that the image brought would be the host's.
            path::unlink(dir, name)?;
            Ok(rustix::fs::symlinkat(target, dir, name)?)
        }
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}
