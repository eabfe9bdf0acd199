//! One container's group in all hierarchies.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_sys::kernelfs;
use creel_types::spec::{Memory, Resources};
use serde::{Deserialize, Serialize};

use crate::apply::{self, Kernel, Real};
use crate::controls::{self, Freezer};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::files;
use crate::hierarchy::Hierarchies;
use crate::making::Making;
use crate::oom::{MemoryDir, OomWatch};
use crate::plan::{self, Plan};
use crate::stats::{self, Stats};
use crate::systemd::{self, Unit};

/// How long a group that has just been emptied may stay busy, in all hierarchies together.
const REMOVE_PATIENCE: Duration = Duration::from_secs(1);

/// One container's group: the same path in every hierarchy.
///
/// A plain value (paths, no descriptors): it can be stored, handed to another process and used there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: String,
    /// The unit of systemd's that it is, if that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
}

impl Cgroup {
    /// What [`Cgroup::create`] would do: pure, for tests and for `creel explain`.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::Invalid`] for limits that contradict each other, [`Error::NoController`].
    pub fn plan(h: &Hierarchies, path: &str, r: &Resources) -> Result<Plan> {
        Plan::create(h, path, r)
    }

    /// Makes the group in every hierarchy and sets its limits. `path` is absolute and starts at the root of the
    /// hierarchies, not at the caller's own group. An empty leftover of the same name is made anew.
    ///
    /// # Errors
    /// As [`Cgroup::plan`]; [`Error::Occupied`] when something lives in such a group; [`Error::Step`] or
    /// [`Error::Unsupported`] for the step that failed: what had been made is then removed again.
    pub fn create(h: &Hierarchies, path: &str, r: &Resources) -> Result<Cgroup> {
        let mut making = Cgroup::begin(h, path, r)?;
        making.finish().inspect_err(|_| making.undo())
    }

    /// As [`Cgroup::create`], in two parts: when this returns, the group exists in the unified hierarchy, if there is
    /// one, so that a process can be born there; [`Making::finish`] makes the rest.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; nothing is left behind then.
    pub fn begin(h: &Hierarchies, path: &str, r: &Resources) -> Result<Making> {
        let plan = Plan::create(h, path, r)?;
        check_usage(h, path, r)?;
        Making::begin(Cgroup::of_path(h, path), plan)
    }

    /// An existing group.
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::NotFound`] when no hierarchy has it.
    pub fn open(h: &Hierarchies, path: &str) -> Result<Cgroup> {
        plan::components(path)?;
        let group = Cgroup::of_path(h, path);
        if group.dirs().any(|dir| dir.is_dir()) { Ok(group) } else { Err(group.not_found()) }
    }

    /// The value alone.
    pub(crate) fn of_path(h: &Hierarchies, path: &str) -> Cgroup {
        Cgroup { hierarchies: h.clone(), path: path.to_owned(), unit: None }
    }

    pub(crate) fn of_unit(hierarchies: Hierarchies, path: String, unit: Unit) -> Cgroup {
        Cgroup { hierarchies, path, unit: Some(unit) }
    }

    /// The unit of systemd's that it is; `None` if it was made without systemd.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Its path in the hierarchies, like `/creel/<id>`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The hierarchies in which it is.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Its directory in each hierarchy, the unified one last.
    pub fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.dirs(&self.path)
    }

    fn not_found(&self) -> Error {
        Error::NotFound { path: self.path.clone() }
    }

    fn or_gone(&self, error: Error) -> Error {
        match error {
            Error::File { cause, .. } if files::gone(&cause) => self.not_found(),
            other => other,
        }
    }

    fn unified(&self) -> Option<PathBuf> {
        self.hierarchies.unified().map(|unified| unified.dir(&self.path))
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies.v1_dir(controller, &self.path)
    }

    fn memory(&self) -> Option<MemoryDir> {
        memory_dir(&self.hierarchies, &self.path)
    }

    /// The directory that is asked who is in the group: the unified one, else any that exists (a creation cut short
    /// may have left some).
    fn members(&self) -> Result<PathBuf> {
        let v1 = ["pids", "memory", "cpu"].into_iter().filter_map(|controller| self.v1(controller));
        let mut all = self.unified().into_iter().chain(v1).chain(self.dirs());
        all.find(|dir| dir.is_dir()).ok_or_else(|| self.not_found())
    }

    /// Opens the doors by which a new process joins (see [`Entry`]).
    ///
    /// # Errors
    /// [`Error::NotFound`] when the group is gone, [`Error::File`].
    pub fn entry(&self) -> Result<Entry> {
        Entry::open(self.unified(), self.hierarchies.v1().iter().map(|v1| v1.dir(&self.path)))
            .map_err(|error| self.or_gone(error))
    }

    /// The doors of groups below this one, which a program in the container has made (`exec --cgroup`). Each of `below`
    /// is a path, or controllers and a path (`cpu,cpuacct:sub`; v1). Where none is named it is this group.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that leads out or a controller that is not there; [`Error::Join`] when there is no
    /// such group.
    pub fn entry_below(&self, below: &[String]) -> Result<Entry> {
        let mut unified = self.unified();
        let mut v1: Vec<PathBuf> = self.hierarchies.v1().iter().map(|v1| v1.dir(&self.path)).collect();
        for text in below {
            let (names, path) = match text.split_once(':') {
                Some((names, path)) => (Some(names), path),
                None => (None, text.as_str()),
            };
            if path.split('/').any(|part| part == "..") || path.contains('\0') {
                return Err(Error::Invalid(format!(
                    "the path {path} is not a sub cgroup path: `..` components are not allowed"
                )));
            }
            let sub = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<PathBuf>();
            let dirs = self.hierarchies.v1().iter().map(|v1| v1.dir(&self.path).join(&sub));
            match names {
                None => {
                    unified = self.unified().map(|dir| dir.join(&sub));
                    v1 = dirs.collect();
                }
                Some(names) => {
                    let dirs: Vec<PathBuf> = dirs.collect();
                    for name in names.split(',') {
                        let is = |v1: &crate::V1| {
                            v1.controllers.iter().any(|c| c == name)
                                || name
                                    .strip_prefix("name=")
                                    .is_some_and(|name| v1.name.as_deref() == Some(name))
                        };
                        let at = self.hierarchies.v1().iter().position(is);
                        match at.and_then(|at| Some((v1.get_mut(at)?, dirs.get(at)?))) {
                            Some((slot, dir)) => slot.clone_from(dir),
                            None if name.is_empty() && self.unified().is_some() => {
                                unified = self.unified().map(|dir| dir.join(&sub));
                            }
                            None => {
                                return Err(Error::Invalid(format!(
                                    "unknown controller {name:?} in {text:?}"
                                )));
                            }
                        }
                    }
                }
            }
        }
        Entry::open(unified, v1.into_iter()).map_err(|error| match error {
            Error::File { path, cause, .. } => {
                let dir = if path.ends_with("tasks") { path.parent().unwrap_or(&path) } else { &path };
                Error::Join { pid: None, file: dir.join("cgroup.procs"), cause }
            }
            other => other,
        })
    }

    /// The doors of the groups in which a process of the container is now, for a new one that cannot join the
    /// container's own: in v2 EBUSY, when a program inside has moved everybody into groups below and hands controllers
    /// down. Only groups at or below this one are taken, unless it is gone from the unified hierarchy: a program without a
    /// cgroup namespace may move itself anywhere.
    ///
    /// # Errors
    /// [`Error::File`] when the process is gone, [`Error::Invalid`] when it is elsewhere.
    pub fn entry_beside(&self, pid: i32) -> Result<Entry> {
        let read = |path: &str| {
            kernelfs::read_to_string(path).map_err(|cause| Error::file("read", Path::new(path), cause))
        };
        let mounts = read("/proc/self/mountinfo")?;
        let now = Hierarchies::from_texts(&mounts, &read(&format!("/proc/{pid}/cgroup"))?, "")?;
        let dir = |mount: &Path, own: Option<&String>, base: PathBuf, anywhere: bool| {
            let own = own.map(|own| mount.join(own.trim_matches('/')));
            own.filter(|own| anywhere || own.starts_with(&base)).ok_or_else(|| {
                Error::Invalid(format!("process {pid} is not in the container's group {}", base.display()))
            })
        };
        let unified = match (self.hierarchies.unified(), now.unified()) {
            (Some(unified), Some(now)) => {
                let base = unified.dir(&self.path);
                let gone = self.hierarchies.v1().is_empty() && !base.is_dir();
                Some(dir(&now.mount_point, now.own.as_ref(), base, gone)?)
            }
            _ => None,
        };
        let mut v1 = Vec::new();
        for there in self.hierarchies.v1() {
            if let Some(now) = now.v1().iter().find(|now| now.mount_point == there.mount_point) {
                v1.push(dir(&now.mount_point, now.own.as_ref(), there.dir(&self.path), false)?);
            }
        }
        Entry::open(unified, v1.into_iter())
    }

    /// Lets a user make groups below this one in the unified hierarchy: the directory and the files that
    /// `/sys/kernel/cgroup/delegate` names become his (cgroups(7), "Delegation"). For the root of a container with a
    /// user namespace, a cgroup namespace and a writable mount of it.
    ///
    /// # Errors
    /// [`Error::File`] with the kernel's answer.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        let Some(dir) = self.unified() else { return Ok(()) };
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(uid), None);
        own(&dir).map_err(|cause| Error::file("give away", &dir, cause))?;
        let list = kernelfs::read_to_string("/sys/kernel/cgroup/delegate");
        let list = list.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        for name in list.lines().filter(|name| !name.contains('/')) {
            let file = dir.join(name);
            match own(&file) {
                Err(cause) if !files::gone(&cause) => return Err(Error::file("give away", &file, cause)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Changes limits; what `r` does not mention stays. If one is refused, those changed before it are put back as far
    /// as the kernel shows former values (not device lists). Gives what was passed over, for the log.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; [`Error::NotFound`] when the group is gone.
    pub fn update(&self, r: &Resources) -> Result<Vec<String>> {
        // Before systemd is asked, so that what is refused changes nothing.
        let plan = Plan::update(&self.hierarchies, &self.path, r)?;
        if !self.dirs().all(|dir| dir.is_dir()) {
            return Err(self.not_found());
        }
        check_usage(&self.hierarchies, &self.path, r)?;
        if self.unit.is_none() {
            return apply::update(&Real, &plan).map(|()| Vec::new());
        }
        let mut r = r.clone();
        let notes = systemd::update(self, &mut r)?;
        apply::update(&Real, &Plan::update(&self.hierarchies, &self.path, &r)?)?;
        Ok(notes)
    }

    fn freezer(&self) -> Result<Freezer> {
        if let Some(dir) = self.unified()
            && dir.join("cgroup.freeze").exists()
        {
            return Ok(Freezer::Unified(dir));
        }
        match self.v1("freezer") {
            Some(dir) if dir.is_dir() => Ok(Freezer::V1(dir)),
            _ if !self.dirs().any(|dir| dir.is_dir()) => Err(self.not_found()),
            _ => Err(Error::NoController { what: "freezing".into(), controller: "freezer" }),
        }
    }

    /// Stops all processes of the group, and waits until they have stopped.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Timeout`] when a process did not stop within ten seconds (the group is thawed
    /// then), [`Error::NoController`] when there is no freezer.
    pub fn freeze(&self) -> Result<()> {
        self.freezer()?.set(true)
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.freezer()?.set(false)
    }

    /// Whether the processes are stopped by [`Cgroup::freeze`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::File`].
    pub fn is_frozen(&self) -> Result<bool> {
        self.freezer()?.state()
    }

    /// Kills every process in the group and below it, frozen or not. Does not wait until all have ended.
    ///
    /// # Errors
    /// [`Error::File`]; a group that is gone is no error.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(dir) = self.unified() {
            let file = dir.join("cgroup.kill");
            match Real.write(&file, "1") {
                Ok(()) => {
                    // One that is frozen by a v1 freezer of its own making would not die.
                    if let Some(dir) = self.v1("freezer")
                        && let freezer = Freezer::V1(dir)
                        && freezer.state()?
                    {
                        freezer.set(false)?;
                    }
                    return Ok(());
                }
                Err(cause) if files::gone(&cause) => {}
                Err(cause) => return Err(Error::file("write", &file, cause)),
            }
        }
        match self.members() {
            Ok(dir) => match controls::kill_each(&dir, self.freezer().ok().as_ref()) {
                // Somebody was faster: what is gone holds no process.
                Err(error) if error.is_vanished() => Ok(()),
                other => other,
            },
            Err(_) => Ok(()),
        }
    }

    /// Moves a process of the group's from wherever it was frozen in v1 into this group, thawed: a killed one that somebody
    /// has moved away can end then. Without a freezer of v1, or when the group is gone, nothing is done.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Timeout`].
    pub fn take_back(&self, pid: i32) -> Result<()> {
        let Some(dir) = self.v1("freezer").filter(|dir| dir.is_dir()) else { return Ok(()) };
        let file = dir.join("cgroup.procs");
        Freezer::V1(dir).set(false)?;
        Real.write(&file, &pid.to_string()).map_err(|cause| Error::file("write", &file, cause))
    }

    /// Sends a signal to every process in the group and below it, and to none that has left it; tells how many there
    /// were.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::File`].
    pub fn signal_all(&self, signal: i32) -> Result<usize> {
        controls::signal_each(&self.members()?, signal).map_err(|error| self.or_gone(error))
    }

    /// The processes of the group and of all groups below it, sorted, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::File`].
    pub fn pids(&self) -> Result<Vec<i32>> {
        controls::pids(&Real, &self.members()?).map_err(|error| self.or_gone(error))
    }

    /// What the group uses and has used.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::File`], [`Error::Parse`].
    pub fn stats(&self) -> Result<Stats> {
        self.members()?;
        let unified = self.unified();
        stats::read(&|controller| self.v1(controller), unified.as_deref(), &|controller| {
            self.hierarchies.unified_with(controller).is_some()
        })
    }

    /// Begins to watch for the OOM killer.
    ///
    /// # Errors
    /// [`Error::NoController`] without a memory controller, [`Error::File`].
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let memory = self
            .memory()
            .ok_or_else(|| Error::NoController { what: "the OOM watch".into(), controller: "memory" })?;
        OomWatch::new(memory)
    }

    /// How many processes the OOM killer has ended in the group and below it; 0 without a memory controller.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::File`].
    pub fn oom_kills(&self) -> Result<u64> {
        match self.memory().map(|memory| memory.oom_kills()) {
            None => Ok(0),
            Some(Err(Error::File { cause, .. })) if files::gone(&cause) => Err(self.not_found()),
            Some(result) => result,
        }
    }

    /// Removes the group where [`Cgroup::pids`] looks, if nothing lives in it and no group is below it; says whether. The
    /// other hierarchies are left to [`Cgroup::remove`]. Nearly always nothing lives there when a container has ended, and
    /// the kernel knows that best.
    pub fn remove_if_empty(&self) -> bool {
        // A unit is systemd's to remove.
        self.unit.is_none() && self.members().is_ok_and(|dir| Real.rmdir(&dir).is_ok())
    }

    /// Removes the group and what is below it from every hierarchy; a unit of systemd's is stopped before. A group that is gone already is no error; a group
    /// whose last processes are just ending is tried again for a second.
    ///
    /// # Errors
    /// [`Error::Remove`] with every directory that could not be removed; the others are removed all the same.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Vec::new();
        if let Err(error) = systemd::remove(self) {
            failures.push(error.to_string());
        }
        let begun = Instant::now();
        for dir in self.dirs() {
            // Nearly always there is nothing below it, and looking costs more than trying.
            match Real.rmdir(&dir) {
                Ok(()) => continue,
                Err(cause) if files::gone(&cause) => continue,
                Err(_) => {}
            }
            let tree = match apply::tree(&Real, &dir) {
                Ok(tree) => tree,
                Err(cause) if files::gone(&cause) => continue,
                Err(cause) => {
                    failures.push(format!("{}: {cause}", dir.display()));
                    continue;
                }
            };
            let mut kept: Vec<&PathBuf> = Vec::new();
            for group in tree.iter().rev() {
                if kept.iter().any(|child| child.starts_with(group)) {
                    continue;
                }
                let patience = REMOVE_PATIENCE.saturating_sub(begun.elapsed());
                if let Err(cause) = apply::remove_dir(&Real, group, patience) {
                    failures.push(format!("{}: {cause}", group.display()));
                    kept.push(group);
                }
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::Remove { path: self.path.clone(), failures }) }
    }

    /// Removes the groups above this one as far as they are empty; to be called when no other group is being made
    /// below them. Failures do not matter: what is not empty stays.
    pub fn remove_empty_parents(&self) {
        for (base, dir) in self.hierarchies.dirs("").zip(self.dirs()) {
            for parent in
                dir.ancestors().skip(1).take_while(|parent| *parent != base && parent.starts_with(&base))
            {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
    }
}

fn memory_dir(h: &Hierarchies, path: &str) -> Option<MemoryDir> {
    let v1 = h.v1_dir("memory", path).map(MemoryDir::V1);
    v1.or_else(|| h.unified_dir("memory", path).map(MemoryDir::V2))
}

/// `checkBeforeUpdate`: refuses a limit that is not above what is in use (in v2 the kernel would set it and kill).
pub(crate) fn check_usage(h: &Hierarchies, path: &str, r: &Resources) -> Result<()> {
    let Some(Memory { limit, swap, check_before_update: Some(true), .. }) = &r.memory else {
        return Ok(());
    };
    let file = match memory_dir(h, path) {
        Some(MemoryDir::V1(dir)) => dir.join("memory.usage_in_bytes"),
        Some(MemoryDir::V2(dir)) => dir.join("memory.current"),
        None => return Ok(()),
    };
    let Some(usage) = files::read_number(Path::new(&file))? else { return Ok(()) };
    for (what, asked) in [("memory+swap", swap), ("memory", limit)] {
        let asked = asked.and_then(|asked| u64::try_from(asked).ok()).filter(|asked| *asked > 0);
        if let Some(asked) = asked.filter(|asked| *asked <= usage) {
            // Callers of other runtimes look for the first three words.
            return Err(Error::Invalid(format!(
                "rejecting {what} limit {asked}: {usage} bytes are in use; free some first or set a higher one"
            )));
        }
    }
    Ok(())
}
