//! Making a group in two parts.
//!
//! A process can be born in a group of the unified hierarchy (clone3(2), CLONE_INTO_CGROUP), so that part has to be there
//! first. Those of v1 are joined later by the process itself: what takes the time there, a directory in each of a dozen
//! hierarchies, is made while the process makes its namespaces and mounts.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::apply::{self, Real};
use crate::error::{Error, Result};
use crate::group::Cgroup;
use crate::plan::{Plan, Step};

/// A group that exists in the unified hierarchy and not yet in the others; or that somebody removed as often as it was made
/// there, which [`Making::finish`] tells.
#[derive(Debug)]
pub struct Making {
    group: Cgroup,
    later: Vec<Step>,
    made: Vec<PathBuf>,
    vanished: Option<Error>,
}

impl Making {
    pub(crate) fn begin(group: Cgroup, plan: Plan) -> Result<Making> {
        let unified = group.hierarchies().unified().map(|unified| unified.mount_point.clone());
        let first = |step: &Step| {
            unified.as_ref().zip(step.place()).is_some_and(|(mount, place)| place.starts_with(mount))
        };
        let (now, later): (Vec<Step>, Vec<Step>) = plan.steps.into_iter().partition(first);
        let (made, vanished) = match apply::create(&Real, &now) {
            Ok(made) => (made, None),
            Err(error) if error.is_vanished() => (Vec::new(), Some(error)),
            Err(error) => return Err(error),
        };
        Ok(Making { group, later, made, vanished })
    }

    /// The group, as it will be.
    pub fn group(&self) -> &Cgroup {
        &self.group
    }

    /// Opens its directory in the unified hierarchy; `None` in the v1 layout.
    ///
    /// # Errors
    /// [`Error::File`] when somebody has removed it.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>> {
        let Some(unified) = self.group.hierarchies().unified() else { return Ok(None) };
        let dir = unified.dir(self.group.path());
        match File::open(&dir) {
            Ok(file) => Ok(Some(file.into())),
            Err(cause) => Err(Error::file("open", &dir, cause)),
        }
    }

    /// Makes the rest.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; what this call made is then removed again, [`Making::undo`] removes what was there before.
    /// After one that [is of a vanished group](Error::is_vanished) [`Cgroup::admit`] makes it and brings the process in.
    pub fn finish(&mut self) -> Result<Cgroup> {
        if let Some(error) = self.vanished.take() {
            return Err(error);
        }
        let made = apply::create(&Real, &std::mem::take(&mut self.later))?;
        self.made.extend(made);
        Ok(self.group.clone())
    }

    /// Removes what was made, as far as it is empty: a process that was born there has to be gone.
    pub fn undo(&mut self) {
        apply::take_back(&Real, &std::mem::take(&mut self.made));
    }
}
