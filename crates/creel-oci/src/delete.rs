//! `delete`, and the end of a container however it comes.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use creel_cgroup::Cgroup;
use creel_runtime::hooks::{self, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::{Record, Status};
use crate::store::{Entry, Root};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a container that is to be deleted, and runs, is given to end by itself.
const MOMENT: Duration = Duration::from_millis(200);
/// After how long it is asked what keeps them.
const DOUBT: Duration = Duration::from_millis(300);

/// `delete [--force] ID`.
pub(crate) fn delete(o: &Options, id: &str, force: bool) -> Result<()> {
    crate::id::check(id)?;
    let found = match Root::open(&o.root)? {
        Some(root) => root.entry(id)?.map(|entry| (root, entry)),
        None => None,
    };
    let Some((root, entry)) = found else {
        return if force { Ok(()) } else { Err(Error::NotExist) };
    };
    if force {
        // A CRIU that does not end would keep the lock, and hold the container's processes.
        end_worker(&entry);
    }
    if force && !entry.try_lock() {
        // Whoever is at work on it goes on, and lets go of the lock, when the process is gone.
        if let Ok(record) = entry.record() {
            kill(&record)?;
        }
    }
    entry.lock_within(PATIENCE)?;
    if !entry.is_linked() {
        // Somebody else has deleted it meanwhile.
        return if force { Ok(()) } else { Err(Error::NotExist) };
    }
    let record = match entry.record() {
        Ok(record) => record,
        // Cut off before anything was made.
        Err(Error::NotExist) => {
            root.remove(&entry)?;
            return if force { Ok(()) } else { Err(Error::NotExist) };
        }
        Err(error) => return Err(error),
    };
    let mut status = record.status(&entry);
    if !force && status == Status::Running && is_ending(&record)? {
        status = record.status(&entry);
    }
    match status {
        _ if force => {}
        Status::Stopped | Status::Created => {}
        status => {
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.word()
            )));
        }
    }
    destroy(o, &root, &entry, &record)
}

/// Whether process 1 ends in a moment: who has seen the last that a program does may be here before it has ended.
fn is_ending(record: &Record) -> Result<bool> {
    match creel_sys::pidfd::open(record.pid) {
        Ok(pidfd) => all_ended(&mut vec![pidfd], MOMENT),
        Err(_) => Ok(true),
    }
}

/// Kills what works on the container; what waits for it is told.
fn end_worker(entry: &Entry) {
    if let Some(worker) = entry.worker() {
        // One that has just ended needs no signal.
        let _ = creel_sys::pidfd::send_signal(&worker, libc::SIGKILL);
    }
}

/// `delete --regex [--force] PATTERN`: all whose id matches (regex(7), extended). One that cannot be deleted does not save
/// the others.
pub(crate) fn delete_matching(o: &Options, pattern: &str, force: bool) -> Result<()> {
    let invalid = |e: &dyn std::fmt::Display| Error::Invalid(format!("regular expression {pattern:?}: {e}"));
    let text = CString::new(pattern).map_err(|e| invalid(&e))?;
    let regex = creel_sys::regex::Regex::new(&text).map_err(|e| invalid(&e))?;
    let ids = Root::open(&o.root)?.map(|root| root.ids()).transpose()?.unwrap_or_default();
    let mut result = Ok(());
    for id in ids.iter().filter(|id| CString::new(id.as_str()).is_ok_and(|id| regex.matches(&id))) {
        match delete(o, id, force) {
            // Somebody else was faster.
            Ok(()) | Err(Error::NotExist) => {}
            Err(error) => {
                if let Err(earlier) = result {
                    o.log.warn(&Error::to_string(&earlier));
                }
                result = Err(error.during(id.as_str()));
            }
        }
    }
    result
}

/// Ends what is left of a container, and removes its control group and its directory; then the hooks of kind poststop.
pub(crate) fn destroy(o: &Options, root: &Root, entry: &Entry, record: &Record) -> Result<()> {
    end(record, |cgroup| match cgroup.remove_if_empty() {
        true => Ok(Vec::new()),
        false => kill_group(cgroup),
    })?;
    tidy_host_root(record)?;
    record.group.remove()?;
    creel_runtime::rdt::release(&record.id, record.resctrl.as_ref())?;
    root.remove(entry)?;
    poststop(o, record);
    Ok(())
}

/// Without a mount namespace of its own, a container's mounts were made in its creator's, and outlive it.
pub(crate) fn tidy_host_root(record: &Record) -> Result<()> {
    record
        .host_mounts
        .map_or(Ok(()), |keep| Ok(creel_runtime::rootfs::unmount(record.rootfs.as_ref(), keep)?))
}

/// Runs the hooks; one that fails is told, and the next is run (runtime-spec, "Poststop").
pub(crate) fn poststop(o: &Options, record: &Record) {
    let state = State {
        oci_version: &record.oci_version,
        id: &record.id,
        status: Status::Stopped.word(),
        pid: 0,
        bundle: record.bundle.as_ref(),
        annotations: &record.annotations,
    };
    for (number, hook) in record.poststop.iter().enumerate() {
        if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &state) {
            // Callers of crun look for the last words.
            let text = error.to_string().replace("exit status", "poststop hook failed with exit code");
            o.log.warn(&text.replacen("hook #0", &format!("hook #{number}"), 1));
        }
    }
}

/// Kills every process of the container, frozen or not, and waits until they have ended.
pub(crate) fn kill(record: &Record) -> Result<()> {
    end(record, kill_group)
}

/// Kills process 1 and, by `others`, what else is in the control group; waits until all have ended.
fn end(record: &Record, others: impl FnOnce(&Cgroup) -> Result<Vec<OwnedFd>>) -> Result<()> {
    let mut waiting = Vec::new();
    if record.pid > 0
        && let Ok(pidfd) = creel_sys::pidfd::open(record.pid)
        // With the pidfd in hand the id cannot change its owner any more.
        && record.lives()
    {
        // One that has just ended needs no signal.
        let _ = creel_sys::pidfd::send_signal(&pidfd, libc::SIGKILL);
        waiting.push(pidfd);
    }
    let cgroup = record.group.open()?;
    if let Some(cgroup) = &cgroup {
        waiting.extend(others(cgroup)?);
    }
    if all_ended(&mut waiting, DOUBT)? {
        return Ok(());
    }
    // In v1 somebody may have put it into another group that is frozen, where it does not even die.
    if let Some(cgroup) = cgroup.filter(|_| record.lives()) {
        cgroup.take_back(record.pid)?;
    }
    if !all_ended(&mut waiting, PATIENCE)? {
        return Err(Error::State("container init still running".into()));
    }
    Ok(())
}

/// Kills a group's processes; returns those to wait for.
fn kill_group(cgroup: &Cgroup) -> Result<Vec<OwnedFd>> {
    let pids = match cgroup.pids() {
        Ok(pids) => pids,
        Err(creel_cgroup::Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    let frozen = cgroup.is_frozen().unwrap_or(false);
    let pidfds = pids.into_iter().filter_map(|pid| creel_sys::pidfd::open(pid).ok()).collect();
    cgroup.kill_all()?;
    if frozen {
        // In v1 even SIGKILL waits for the thaw; cgroup.kill of v2 does not.
        let _ = cgroup.thaw();
    }
    Ok(pidfds)
}

/// Waits until all these processes have ended; false when they do not in time, and the list is of those then.
fn all_ended(waiting: &mut Vec<OwnedFd>, patience: Duration) -> Result<bool> {
    let begun = Instant::now();
    while !waiting.is_empty() {
        let Some(left) = patience.checked_sub(begun.elapsed()) else { return Ok(false) };
        let mut fds: Vec<_> = waiting.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::call("poll", e)),
        }
        let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        waiting.retain(|_| !ended.next().unwrap_or(false));
    }
    Ok(true)
}
