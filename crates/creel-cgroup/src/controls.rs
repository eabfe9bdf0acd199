//! Freezing, killing and listing what runs in a group.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::apply::{self, Kernel, Real};
use crate::error::{Error, Result};
use crate::files;

/// How long freezing may take: a process that waits for a disk cannot be frozen before the disk answers.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// Which freezer a group has.
pub(crate) enum Freezer {
    /// `cgroup.freeze` of the unified hierarchy (Linux 5.2); what is frozen can be killed.
    Unified(PathBuf),
    /// `freezer.state` of v1; what is frozen dies only when it is thawed.
    V1(PathBuf),
}

impl Freezer {
    fn dir(&self) -> &Path {
        match self {
            Freezer::Unified(dir) | Freezer::V1(dir) => dir,
        }
    }

    pub(crate) fn set(&self, frozen: bool) -> Result<()> {
        let (file, value) = match (self, frozen) {
            (Freezer::Unified(dir), true) => (dir.join("cgroup.freeze"), "1"),
            (Freezer::Unified(dir), false) => (dir.join("cgroup.freeze"), "0"),
            (Freezer::V1(dir), true) => (dir.join("freezer.state"), "FROZEN"),
            (Freezer::V1(dir), false) => (dir.join("freezer.state"), "THAWED"),
        };
        let begun = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            // In v1 a task that was just created can escape the first order: it is given again.
            Real.write(&file, value).map_err(|cause| Error::file("write", &file, cause))?;
            if self.is(frozen, &mut pause)? {
                return Ok(());
            }
            if begun.elapsed() > FREEZE_PATIENCE {
                if frozen {
                    let _ = self.set(false);
                }
                let state = if frozen { "frozen" } else { "thawed" };
                return Err(Error::Timeout { dir: self.dir().to_path_buf(), state, waited: begun.elapsed() });
            }
        }
    }

    /// Whether the state is reached, after waiting for a change of it for a moment.
    fn is(&self, frozen: bool, pause: &mut Duration) -> Result<bool> {
        if self.state()? == frozen {
            return Ok(true);
        }
        if let Freezer::Unified(dir) = self {
            let path = dir.join("cgroup.events");
            let events = File::open(&path).map_err(|cause| Error::file("open", &path, cause))?;
            // Only changes after a read through this descriptor wake poll(2).
            let mut text = [0u8; 128];
            rustix::io::read(&events, &mut text).map_err(|cause| Error::file("read", &path, cause.into()))?;
            if self.state()? == frozen {
                return Ok(true);
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            // An interrupted or spurious wait only asks again.
            let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&wait));
        } else {
            std::thread::sleep(*pause);
            *pause = (*pause * 2).min(Duration::from_millis(20));
        }
        Ok(self.state()? == frozen)
    }

    pub(crate) fn state(&self) -> Result<bool> {
        match self {
            Freezer::Unified(dir) => {
                Ok(files::read_keyed(&dir.join("cgroup.events"))?.get("frozen").copied() == Some(1))
            }
            Freezer::V1(dir) => {
                let text = files::read(&dir.join("freezer.state"))?;
                Ok(text.is_some_and(|text| text.trim() == "FROZEN"))
            }
        }
    }
}

/// The processes of a group and of all groups below it.
pub(crate) fn pids(kernel: &impl Kernel, dir: &Path) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for group in apply::tree(kernel, dir).map_err(|cause| Error::file("read", dir, cause))? {
        let file = group.join("cgroup.procs");
        // A threaded group (EOPNOTSUPP) has its processes in the group above; one that vanished has none.
        if let Some(text) = files::read(&file)? {
            found.extend(files::pids(&file, &text)?);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Sends a signal to everything in a group; tells how many processes there were. An id that is given to another process
/// in between hits nobody: who is signalled was held by a pidfd before it was seen in the group for the second time.
pub(crate) fn signal_each(dir: &Path, signal: i32) -> Result<usize> {
    // So many at a time, since each takes a descriptor.
    const BATCH: usize = 256;
    let listed = pids(&Real, dir)?;
    for batch in listed.chunks(BATCH) {
        let held: Vec<_> =
            batch.iter().filter_map(|pid| Some((*pid, creel_sys::pidfd::open(*pid).ok()?))).collect();
        let still = pids(&Real, dir)?;
        for (pid, pidfd) in held {
            if still.binary_search(&pid).is_ok() {
                // ESRCH: it has ended by itself.
                let _ = creel_sys::pidfd::send_signal(&pidfd, signal);
            }
        }
    }
    Ok(listed.len())
}

/// Sends SIGKILL to everything in a group, round after round until nothing new appears, frozen meanwhile if it can be
/// so that no id is given to another process between reading and killing it.
pub(crate) fn kill_each(dir: &Path, freezer: Option<&Freezer>) -> Result<()> {
    const ROUNDS: usize = 50;
    let mut pause = Duration::from_millis(1);
    for _ in 0..ROUNDS {
        // A group that cannot be frozen (in time) is killed all the same.
        let frozen = freezer.is_some_and(|freezer| freezer.set(true).is_ok());
        let listed = signal_each(dir, Signal::KILL.as_raw());
        if let Some(freezer) = freezer
            && (frozen || freezer.state()?)
        {
            freezer.set(false)?;
        }
        if listed? == 0 {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}
