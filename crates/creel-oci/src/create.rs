//! `create` and `run`: from a bundle to a process that waits, or runs.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use creel_runtime::hooks::{self, State};
use creel_runtime::{Compiled, CreateOptions, Created, Facts, Gate, Life, Rootfs};
use creel_types::spec::{Namespace, NamespaceKind, Spec};

use crate::container;
use crate::criu;
use crate::delete;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::foreground::Foreground;
use crate::groups::{self, Made};
use crate::inherited::Inherited;
use crate::notify::{self, Notify};
use crate::options::{self, Options};
use crate::order::{self, Order, Profile};
use crate::procfs;
use crate::profiles::Profiles;
use crate::record::{Group, Record};
use crate::store::{Entry, Root};

/// `create`: the process waits at a socket in the state directory; it is left to whoever adopts orphans here.
pub(crate) fn create(o: &Options, parsed: &Parsed, id: &str, inherited: &Inherited) -> Result<()> {
    let profiles = Profiles::of(&o.root);
    let order = Order::read(parsed, true, inherited, Some(&profiles))?;
    let (root, entry, mut record) = reserve(o, &order, id)?;
    let made = (|| {
        let gate = Gate::Socket(entry.make_gate()?);
        let created = make(o, &order, &entry, &mut record, gate, Life::Detached)?;
        hand_over(o, &order, &entry, &mut record, &created)?;
        entry.announce()?;
        Ok(created)
    })();
    match made {
        Ok(created) => {
            remember(&profiles, &order, created.filter.as_ref());
            created.detach()?;
            Ok(())
        }
        Err(error) => {
            undo(o, &root, &entry, &record);
            Err(error)
        }
    }
}

/// `run`: returns the exit code of the program, or 0 with `--detach`.
pub(crate) fn run(o: &Options, parsed: &Parsed, id: &str, inherited: &Inherited) -> Result<i32> {
    let profiles = Profiles::of(&o.root);
    let order = Order::read(parsed, parsed.on("detach"), inherited, Some(&profiles))?;
    let (root, entry, mut record) = reserve(o, &order, id)?;
    let keep = parsed.on("keep");
    let made = (|| {
        // Signals and the end of children are kept from here on, so that none is missed.
        let foreground =
            if order.detach { None } else { Some(Foreground::prepare(!parsed.on("no-subreaper"))?) };
        let life = if order.detach { Life::Detached } else { Life::WithCreator };
        let mut created = make(o, &order, &entry, &mut record, Gate::Creator, life)?;
        hand_over(o, &order, &entry, &mut record, &created)?;
        let console = match &foreground {
            Some(foreground) => created.console.take().map(|console| foreground.join(console)).transpose()?,
            None => None,
        };
        let notify = Notify::listen(&o.log, &entry)?;
        let filter = created.filter.take();
        let started = created.start().map_err(|error| match error {
            creel_runtime::Error::Program { .. } => Error::Program(error).during(NOT_STARTED),
            _ => not_started(error),
        })?;
        o.log.debug("init: closing the pipe to signal completion: the program runs");
        started.warnings.iter().for_each(|warning| o.log.warn(warning));
        container::poststart(&record)?;
        entry.announce()?;
        entry.unlock();
        remember(&profiles, &order, filter.as_ref());
        Ok((foreground, started, console, notify))
    })();
    let (foreground, started, console, notify) = match made {
        Ok(made) => made,
        Err(error) => {
            give_up(o, &root, &entry, &record);
            return Err(error);
        }
    };
    let Some(foreground) = foreground else {
        if let Some(notify) = notify {
            notify.wait(started.pid, started.pidfd.as_fd())?;
        }
        return Ok(0);
    };
    let code = foreground.wait(started.pid, started.pidfd.as_fd(), console, notify.as_ref())?;
    if !keep {
        tidy_up(o, &root, &entry, &record);
    }
    Ok(code)
}

/// `restore`: as [`run`], but CRIU makes the processes.
pub(crate) fn restore(o: &Options, parsed: &Parsed, id: &str) -> Result<i32> {
    let criu = criu::find()?;
    let images = criu::image_dir(parsed)?;
    let mut parsed = parsed.clone();
    if let Some(work) = parsed.value("work-path").map(Path::new) {
        // The current directory changes to the bundle.
        let work = options::absolute(work)?;
        parsed.set("work-path", work.into_os_string());
    }
    let order = Order::read(&parsed, parsed.on("detach"), &Inherited::default(), None)?;
    let (root, entry, mut record) = reserve(o, &order, id)?;
    let made = (|| {
        let foreground =
            if order.detach { None } else { Some(Foreground::prepare(!parsed.on("no-subreaper"))?) };
        let cgroup = groups::make(o, &record.group, &order.spec)?;
        record.group = cgroup.clone().map_or(Group::None, Group::Made);
        entry.store(&record)?;
        let mut unit = None;
        let mut by_systemd = |pid: i32| {
            unit = Some(groups::make_unit(o, &order.spec, entry.id(), pid)?);
            Ok(())
        };
        let mut by_files =
            |pid: i32| cgroup.as_ref().map_or(Ok(()), |cgroup| groups::admit(o, cgroup, &order.spec, pid));
        let what = criu::Restoring {
            spec: &order.spec,
            rootfs: &order.rootfs,
            groups: groups::places(o, cgroup.as_ref(), &order.spec, entry.id())?,
            place: &entry,
            by_pid: Some(if o.systemd { &mut by_systemd } else { &mut by_files }),
        };
        let mut master = None;
        let mut notified = |script: &str, pid: i32, fd: Option<OwnedFd>| {
            o.log.debug(&format!("CRIU notifies: {script}"));
            match script {
                "orphan-pts-master" => master = fd,
                "setup-namespaces" => run_creators_hooks(&record, &order.spec, pid)?,
                _ => {}
            }
            Ok(())
        };
        let restored = criu::restore(&parsed, what, &criu, &images, &mut notified);
        if let Some(unit) = unit {
            record.group = Group::Made(unit);
        }
        let pid = restored?;
        keep(&order, &entry, &mut record, pid)?;
        // CRIU has put the processes into a time namespace of their own; further ones are to join it.
        let mut spec = order.spec.clone();
        let namespaces = &mut spec.linux.get_or_insert_default().namespaces;
        if namespaces.iter().all(|one| one.kind != NamespaceKind::Time) {
            namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
            entry.store_spec(&spec)?;
        }
        entry.publish()?;
        let pidfd =
            creel_sys::pidfd::open(pid).map_err(|e| Error::call("the restored process is gone", e))?;
        if let Some(path) = &order.pid_file {
            order::write_pid(path, pid)?;
        }
        order.sockets.send(master.as_ref(), pidfd.as_fd())?;
        let relay = match (&foreground, master) {
            (Some(foreground), Some(master)) => Some(foreground.join(master)?),
            _ => None,
        };
        container::poststart(&record)?;
        entry.announce()?;
        entry.unlock();
        Ok((foreground, pidfd, relay))
    })();
    let (foreground, pidfd, relay) = match made {
        Ok(made) => made,
        Err(error) => {
            give_up(o, &root, &entry, &record);
            return Err(error);
        }
    };
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(record.pid, pidfd.as_fd(), relay, None)?;
    tidy_up(o, &root, &entry, &record);
    Ok(code)
}

/// Ends a container whose making failed, and undoes what was made of it; it may run already.
fn give_up(o: &Options, root: &Root, entry: &Entry, record: &Record) {
    if !matches!(record.group, Group::Intended(..))
        && let Err(error) = delete::kill(record)
    {
        o.log.warn(&error.to_string());
    }
    undo(o, root, entry, record);
}

/// Removes a container that ran in the foreground and has ended, unless somebody has deleted it already.
fn tidy_up(o: &Options, root: &Root, entry: &Entry, record: &Record) {
    let gone = entry.lock().is_ok() && !entry.is_linked();
    if !gone && let Err(error) = delete::destroy(o, root, entry, record) {
        o.log.warn(&error.to_string());
    }
}

/// The hooks of the creator, for a container that comes back.
fn run_creators_hooks(record: &Record, spec: &Spec, pid: i32) -> Result<()> {
    let Some(list) = &spec.hooks else { return Ok(()) };
    let state = State {
        oci_version: &record.oci_version,
        id: &record.id,
        status: "creating",
        pid,
        bundle: record.bundle.as_ref(),
        annotations: &record.annotations,
    };
    Ok(hooks::run_creators(list, &state)?)
}

/// An error of the runtime library at the start of a process, with runc's words before it.
pub(crate) fn not_started(error: creel_runtime::Error) -> Error {
    let what = match &error {
        creel_runtime::Error::Step { step, .. } if step.starts_with("mount ") => {
            format!("{NOT_STARTED}: error during container init: error mounting")
        }
        _ => NOT_STARTED.into(),
    };
    Error::Runtime(error).during(what)
}

/// Whether the container is kept to some processors.
fn has_cpus(spec: &Spec) -> bool {
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let cpu = resources.and_then(|resources| resources.cpu.as_ref());
    cpu.and_then(|cpu| cpu.cpus.as_ref()).is_some_and(|cpus| !cpus.is_empty())
}

/// Tells in the log with which flags the filter of system calls is loaded, in runc's words.
pub(crate) fn log_filter(o: &Options, spec: &Spec, compiled: Option<&Compiled>) {
    let wanted = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let flags = compiled.map(Compiled::flags);
    if let Some(flags) = flags.or_else(|| wanted.and_then(creel_runtime::seccomp_flags)) {
        o.log.debug(&format!("seccomp filter flags: {flags}"));
    }
}

/// runc's words before whatever keeps a process from starting.
const NOT_STARTED: &str = "unable to start container process";

/// Takes the id, and writes down where everything will be before any of it is made.
fn reserve(o: &Options, order: &Order, id: &str) -> Result<(Root, Entry, Record)> {
    crate::id::check(id)?;
    creel_runtime::validate(&order.spec)?;
    let mut record = Record::new(id, &order.spec.oci_version);
    record.bundle = utf8(&order.bundle)?;
    record.rootfs = utf8(&order.rootfs)?;
    record.annotations.clone_from(&order.spec.annotations);
    record.own_pids = has_own(&order.spec, NamespaceKind::Pid);
    if namespace(&order.spec, NamespaceKind::Mount).is_none() {
        record.host_mounts = Some(creel_runtime::rootfs::mounts_on(&order.rootfs)?);
    }
    if let Some(hooks) = &order.spec.hooks {
        record.poststart.clone_from(&hooks.poststart);
        record.poststop.clone_from(&hooks.poststop);
    }
    record.rootless = o.rootless;
    if !o.cgroups_optional {
        record.group = groups::intended(o, &order.spec, id, &order.mountinfo)?;
    }
    let root = Root::make(&o.root, !o.root_given && !options::is_root())?;
    let entry = root.create(id)?;
    // From the moment it is written down as ours, everything in the group may be killed.
    if let Err(error) = record.group.refuse_occupied() {
        let _ = root.remove(&entry);
        return Err(error);
    }
    if let Err(error) = entry.store(&record) {
        let _ = root.remove(&entry);
        return Err(error);
    }
    Ok((root, entry, record))
}

fn utf8(path: &std::path::Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Invalid(format!("{} is not UTF-8, which JSON requires", path.display())))
}

fn has_own(spec: &Spec, kind: NamespaceKind) -> bool {
    namespace(spec, kind).is_some_and(|namespace| namespace.path.is_none())
}

fn namespace(spec: &Spec, kind: NamespaceKind) -> Option<&Namespace> {
    spec.linux.iter().flat_map(|linux| &linux.namespaces).find(|namespace| namespace.kind == kind)
}

/// Makes the control group and the process.
fn make(
    o: &Options,
    order: &Order,
    entry: &Entry,
    record: &mut Record,
    gate: Gate,
    life: Life,
) -> Result<Created> {
    record.set_filtered(is_kept_compiled(order));
    let group = groups::begin(o, &record.group, &order.spec)?;
    let (unified, whole) = match &group {
        Made::Begun(making) => (groups::unless_vanished(making.open_unified())?.flatten(), None),
        Made::Whole(cgroup) => (None, Some(cgroup.clone())),
        Made::None => (None, None),
    };
    let begun = matches!(group, Made::Begun(_));
    // For two closures of which only one is called at a time.
    let group = RefCell::new(group);
    let outside = unified.is_none();
    record.group = whole.clone().map_or(Group::None, Group::Made);
    let mut failed = None;
    let mut unit = None;
    let mut by_systemd = |pid: i32| {
        unit = Some(groups::make_unit(o, &order.spec, entry.id(), pid).map_err(|e| e.to_string())?);
        Ok(())
    };
    let rootfs = Rootfs::Directory(order.rootfs.clone());
    // The library only warns of a hook of kind poststart that fails; here it ends the container.
    let mut spec = std::borrow::Cow::Borrowed(&order.spec);
    if order.spec.hooks.as_ref().is_some_and(|hooks| !hooks.poststart.is_empty())
        && let Some(hooks) = &mut spec.to_mut().hooks
    {
        hooks.poststart.clear();
    }
    if notify::is_wanted() {
        notify::offer(entry, &o.root, spec.to_mut())?;
    }
    let mut options = CreateOptions::new(entry.id(), &spec, &order.bundle, &rootfs);
    options.stdio = order::own_stdio();
    // What the creator does while the process is at work: so much less is left to do afterwards.
    let mut meanwhile =
        |pid: i32, doors: &dyn Fn(Option<&creel_cgroup::Entry>)| -> std::result::Result<(), String> {
            let mut work = || {
                if let Made::Begun(making) = &mut *group.borrow_mut() {
                    let unborn = outside && making.group().hierarchies().unified().is_some();
                    let entry = groups::unless_vanished(groups::finish(making, &order.spec))?;
                    doors(entry.as_ref().filter(|_| !unborn));
                    record.group = Group::Made(making.group().clone());
                }
                keep(order, entry, record, pid)
            };
            work().map_err(|error| {
                let text = error.to_string();
                failed = Some(error);
                text
            })
        };
    let mut again = |pid: i32| {
        let group = match &*group.borrow() {
            Made::Begun(making) => Some(making.group().clone()),
            Made::Whole(cgroup) => Some(cgroup.clone()),
            Made::None => None,
        };
        let Some(group) = group else { return Ok(()) };
        o.log.debug("the control group was removed meanwhile: it is made again");
        groups::admit(o, &group, &order.spec, pid).map_err(|e| e.to_string())
    };
    options.cgroup = match &whole {
        _ if begun => creel_runtime::Group::Meanwhile { unified, finish: &mut meanwhile, again: &mut again },
        Some(cgroup) => creel_runtime::Group::Ready { cgroup, again: &mut again },
        None if o.systemd && !o.cgroups_optional => creel_runtime::Group::ByPid(&mut by_systemd),
        None => creel_runtime::Group::None,
    };
    options.gate = gate;
    options.life = life;
    options.pivot = order.pivot;
    options.keyring = order.keyring;
    options.preserve_fds.clone_from(&order.preserve_fds);
    options.filter = order.profile.compiled.as_ref();
    options.facts = Some(Facts::among(&order.mountinfo));
    o.log.debug("nsexec container setup: cloning the process into its namespaces");
    log_filter(o, &spec, options.filter);
    let created = creel_runtime::create(options);
    if let Some(unit) = unit {
        record.group = Group::Made(unit);
    }
    let created = created.map_err(|error| {
        // The process is gone: nothing keeps what was begun.
        if let Made::Begun(making) = &mut *group.borrow_mut() {
            making.undo();
        }
        match (failed, &error) {
            (Some(failed), _) => failed,
            (None, creel_runtime::Error::Step { message, errno: Some(libc::EPERM), .. })
                if message.starts_with("scheduler:") && has_cpus(&spec) =>
            {
                // In runc's words.
                let text = format!("process scheduler can't be used together with AllowedCPUs: {error}");
                Error::Invalid(text).during(NOT_STARTED)
            }
            _ => not_started(error),
        }
    })?;
    record.resctrl = order.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.clone());
    if record.resctrl.is_some() && record.pid != 0 {
        entry.store(record)?;
    }
    let spent =
        created.timings.iter().map(|(what, micros)| format!("{what} {micros} us")).collect::<Vec<_>>();
    o.log.debug(&format!(
        "child process in init(): {} is set up ({}; beside {} us)",
        created.pid,
        spent.join(", "),
        created.beside
    ));
    created.warnings.iter().for_each(|warning| o.log.warn(warning));
    Ok(created)
}

/// Whether further processes get the system call filter as it was compiled; one with an agent is compiled for each.
fn is_kept_compiled(order: &Order) -> bool {
    let wanted = order.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let compiled = || wanted.is_some_and(|wanted| !creel_runtime::seccomp_has_agent(wanted));
    order.spec.process.is_some() && (order.profile.compiled.is_some() || compiled())
}

/// Keeps a filter that was compiled for this container for others that have the same profile.
fn remember(profiles: &Profiles, order: &Order, filter: Option<&Compiled>) {
    let Order { text: Some(text), profile: Profile { place: Some(place), compiled: None }, .. } = order
    else {
        return;
    };
    if let Some(filter) = filter {
        profiles.keep(&text[place.clone()], filter);
    }
}

/// Writes down the process, and the Spec that it was made from.
fn keep(order: &Order, entry: &Entry, record: &mut Record, pid: i32) -> Result<()> {
    match &order.text {
        Some(text) => match order.profile.place.as_ref().filter(|_| record.is_filtered()) {
            // Further processes need not read the filter's profile again: it is most of a Spec.
            Some(place) => entry.store_spec_text(&order::without(text, place))?,
            None => entry.store_spec_text(&[text])?,
        },
        None => entry.store_spec(&order.spec)?,
    }
    if let Some(filter) = order.profile.compiled.as_ref().filter(|_| record.is_filtered()) {
        entry.store_filter(filter)?;
    }
    record.pid = pid;
    record.start_time = procfs::stat(pid).map_or(0, |stat| stat.start_time);
    entry.store(record)
}

/// Writes down the process, and tells the caller of it.
fn hand_over(
    _o: &Options,
    order: &Order,
    entry: &Entry,
    record: &mut Record,
    created: &Created,
) -> Result<()> {
    if record.pid == 0 {
        keep(order, entry, record, created.pid)?;
    }
    if let Some(filter) = created.filter.as_ref().filter(|_| order.profile.compiled.is_none()) {
        entry.store_filter(filter)?;
    }
    entry.publish()?;
    order.sockets.send(created.console.as_ref(), created.pidfd.as_fd())?;
    match &order.pid_file {
        Some(path) => order::write_pid(path, created.pid),
        None => Ok(()),
    }
}

/// Takes back what was made; the process is gone already.
fn undo(o: &Options, root: &Root, entry: &Entry, record: &Record) {
    let made = matches!(record.group, Group::Made(_));
    if let Err(error) = delete::tidy_host_root(record) {
        o.log.warn(&error.to_string());
    }
    // A group that was only intended may be somebody else's: creating it undoes itself.
    if made && let Err(error) = record.group.remove() {
        o.log.warn(&error.to_string());
    }
    if let Err(error) = creel_runtime::rdt::release(&record.id, record.resctrl.as_ref()) {
        o.log.warn(&error.to_string());
    }
    if let Err(error) = root.remove(entry) {
        o.log.warn(&error.to_string());
    }
    // Hooks of kind createRuntime may have run; the specification goes on with poststop then.
    delete::poststop(o, record);
}
