//! A container that exists: its record, and verbs that are one step: `start`, `state`, `pause`, `resume`.

use std::os::fd::{AsFd, OwnedFd};

use creel_runtime::hooks::{self, State};

use crate::error::{Error, Result};
use crate::notify::Notify;
use crate::options::Options;
use crate::out;
use crate::record::{Record, Status};
use crate::store::{Entry, Root};

/// An existing container.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) entry: Entry,
    pub(crate) record: Record,
}

/// Reads a container's record.
///
/// # Errors
/// [`Error::NotExist`] and what is wrong with the id.
pub(crate) fn load(o: &Options, id: &str) -> Result<Loaded> {
    let entry = open(o, id)?;
    let record = entry.record()?;
    Ok(Loaded { entry, record })
}

/// Reads a container's record and keeps others from changing it meanwhile.
pub(crate) fn load_locked(o: &Options, id: &str) -> Result<Loaded> {
    let entry = open(o, id)?;
    entry.lock()?;
    if !entry.is_linked() {
        return Err(Error::NotExist);
    }
    let record = entry.record()?;
    Ok(Loaded { entry, record })
}

fn open(o: &Options, id: &str) -> Result<Entry> {
    crate::id::check(id)?;
    let root = Root::open(&o.root)?.ok_or(Error::NotExist)?;
    root.entry(id)?.ok_or(Error::NotExist)
}

impl Loaded {
    /// What it is doing.
    pub(crate) fn status(&self) -> Status {
        self.record.status(&self.entry)
    }

    /// The pidfd of process 1.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended, also when its process id belongs to another process by now.
    pub(crate) fn init(&self) -> Result<OwnedFd> {
        if self.record.pid <= 0 {
            return Err(Error::NotRunning);
        }
        let pidfd = creel_sys::pidfd::open(self.record.pid).map_err(|_| Error::NotRunning)?;
        // Only now, with the pidfd in hand, does the comparison hold for good.
        if self.record.lives() { Ok(pidfd) } else { Err(Error::NotRunning) }
    }
}

/// `start ID`.
pub(crate) fn start(o: &Options, id: &str) -> Result<()> {
    let root = Root::open(&o.root)?.ok_or(Error::NotExist)?;
    let loaded = load_locked(o, id)?;
    match loaded.status() {
        Status::Created => {}
        Status::Stopped => return Err(Error::State("cannot start a container that has stopped".into())),
        Status::Running => return Err(Error::State("cannot start an already running container".into())),
        other => {
            return Err(Error::State(format!("cannot start a container in the {} state", other.word())));
        }
    }
    let Some(connection) = loaded.entry.connect_gate()? else {
        return Err(Error::State("cannot start a container that has stopped".into()));
    };
    let notify = match Notify::listen(&o.log, &loaded.entry)? {
        Some(notify) => Some((notify, loaded.init()?)),
        None => None,
    };
    let warnings = match creel_runtime::open_gate(connection) {
        Ok(warnings) => warnings,
        Err(error) if !failed_in_hook(&error) && has_no_program(&loaded) => {
            // It has ended, having nothing to run. The specification wants an error and leaves open who is told of it
            // ("Errors"); crun and the validation suite take the start itself for done.
            loaded.entry.remove_gate();
            o.log.fail(&crate::create::not_started(error).to_string());
            return Ok(());
        }
        Err(error) => {
            let hook_failed = failed_in_hook(&error);
            let error = crate::create::not_started(error);
            if hook_failed {
                end(o, &root, &loaded);
            }
            return Err(error);
        }
    };
    warnings.iter().for_each(|warning| o.log.warn(warning));
    loaded.entry.remove_gate();
    if let Err(error) = poststart(&loaded.record) {
        end(o, &root, &loaded);
        return Err(error);
    }
    loaded.entry.unlock();
    match notify {
        Some((notify, pidfd)) => notify.wait(loaded.record.pid, pidfd.as_fd()),
        None => Ok(()),
    }
}

/// Whether the Spec names no process.
fn has_no_program(loaded: &Loaded) -> bool {
    loaded.entry.spec().is_ok_and(|spec| spec.process.is_none())
}

/// Whether a hook of kind startContainer is what failed.
fn failed_in_hook(error: &creel_runtime::Error) -> bool {
    matches!(error, creel_runtime::Error::Step { step, message, .. }
        if step.contains("startContainer") || message.contains("startContainer"))
}

/// A hook has failed: the container is stopped and deleted (runtime-spec, "Lifecycle", steps 7, 9 and 12).
fn end(o: &Options, root: &Root, loaded: &Loaded) {
    if let Err(error) = crate::delete::destroy(o, root, &loaded.entry, &loaded.record) {
        o.log.warn(&error.to_string());
    }
}

/// Runs the hooks of kind poststart; the first that fails ends it.
pub(crate) fn poststart(record: &Record) -> Result<()> {
    let state = State {
        oci_version: &record.oci_version,
        id: &record.id,
        status: Status::Running.word(),
        pid: record.pid,
        bundle: record.bundle.as_ref(),
        annotations: &record.annotations,
    };
    Ok(hooks::run("poststart", &record.poststart, &state)?)
}

/// `state ID`.
pub(crate) fn state(o: &Options, id: &str) -> Result<()> {
    let loaded = load(o, id)?;
    let status = loaded.status();
    if status == Status::Creating {
        // As with other runtimes: who waits for it to be created asks until it is there.
        return Err(Error::NotExist);
    }
    let shown = loaded.record.shown(status, String::new());
    let text = serde_json::to_string_pretty(&shown).map_err(|e| Error::Invalid(e.to_string()))?;
    out::print(&text)
}

/// `pause ID`.
pub(crate) fn pause(o: &Options, id: &str) -> Result<()> {
    let loaded = load(o, id)?;
    match loaded.status() {
        Status::Running | Status::Created => Ok(loaded.record.group.required("pause")?.freeze()?),
        _ => Err(Error::NotRunning),
    }
}

/// `resume ID`.
pub(crate) fn resume(o: &Options, id: &str) -> Result<()> {
    let loaded = load(o, id)?;
    match loaded.status() {
        Status::Paused => Ok(loaded.record.group.required("resume")?.thaw()?),
        _ => Err(Error::NotPaused),
    }
}
