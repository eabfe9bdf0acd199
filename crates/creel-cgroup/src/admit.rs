//! Bringing a process into a group from outside, also one that somebody removes while it is empty.
//!
//! systemd removes what is empty below its own units at a time of its choice (on v1 and in the hybrid layout, when
//! anything near it becomes empty), and so a group may vanish between its making and the moment at which its first process
//! joins. Where that has happened it is made again, and the process is moved at once, one hierarchy after the other.

use std::path::{Path, PathBuf};

use creel_types::spec::Resources;

use crate::apply::{self, Kernel, Real};
use crate::error::{Error, Result};
use crate::files;
use crate::group::Cgroup;
use crate::plan::{Plan, Step};

/// How often a group that vanishes is made again in each hierarchy.
const TRIES: u32 = 200;
const ENODEV: i32 = 19;

impl Cgroup {
    /// Brings a process into the group in every hierarchy in which it is not yet, making the group where somebody has
    /// removed it, and sets the limits everywhere: they may have been cut short by that. For a process that found its doors
    /// ([`Cgroup::entry`]) closed: in v1 the kernel takes about 11 ms for each move of another process.
    ///
    /// # Errors
    /// [`Error::Vanished`] when somebody removes it as fast as it is made; [`Error::Join`] for what the kernel refuses;
    /// otherwise as [`Cgroup::create`]. Groups that this call has made are removed again then, as far as they are empty.
    pub fn admit(&self, r: &Resources, pid: i32) -> Result<()> {
        let plan = Plan::complete(self.hierarchies(), self.path(), r)?;
        admit(&Real, self, &plan, pid)
    }
}

/// The same with a plan whose groups may exist.
pub(crate) fn admit(kernel: &impl Kernel, group: &Cgroup, plan: &Plan, pid: i32) -> Result<()> {
    let mut made = Vec::new();
    for (mount, dir) in group.hierarchies().mount_points().zip(group.dirs()) {
        let here = |step: &&Step| step.place().is_some_and(|place| place.starts_with(mount));
        let (groups, values): (Vec<&Step>, Vec<&Step>) =
            plan.steps.iter().filter(here).partition(|step| step.makes_groups());
        let mut tries = 0;
        loop {
            tries += 1;
            let Err(error) = bring(kernel, &dir, &groups, &values, pid, &mut made) else { break };
            let vanished =
                (error.is_vanished() || error.raw_os_error() == Some(ENODEV)) && !apply::there(kernel, &dir);
            if !vanished || tries == TRIES {
                apply::take_back(kernel, &made);
                return Err(if vanished { Error::Vanished { dir } } else { error });
            }
        }
    }
    Ok(())
}

fn bring(
    kernel: &impl Kernel,
    dir: &Path,
    groups: &[&Step],
    values: &[&Step],
    pid: i32,
    made: &mut Vec<PathBuf>,
) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let inside = kernel.read(&file).ok().map(|text| files::pids(&file, &text)).transpose()?;
    let inside = inside.is_some_and(|pids| pids.contains(&pid));
    groups.iter().try_for_each(|step| apply::apply(kernel, step, made))?;
    if !inside {
        // Right after the making: limits can wait.
        kernel.write(&file, &pid.to_string()).map_err(|cause| Error::Join { pid: Some(pid), file, cause })?;
    }
    values.iter().try_for_each(|step| apply::apply(kernel, step, made))
}
