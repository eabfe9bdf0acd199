//! The real launcher: a container by creel-runtime, in a cgroup by creel-cgroup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use creel_cgroup::{Cgroup, Hierarchies, OomWatch};
use creel_runtime::{CreateOptions, Created, ExecOptions, Group, Life, Stdio};
use creel_types::spec::{NamespaceKind, Process, Resources, Spec};
use creel_types::{Classify, ErrorKind};

use super::{Launched, Launcher, Pipes};
use crate::failure;
use crate::proto::{Failure, ShimConfig, Timing};

/// One container of this host.
#[derive(Debug)]
pub(crate) struct Container {
    config: ShimConfig,
    spec: Spec,
    cgroup: Option<Cgroup>,
    oom: Option<OomWatch>,
    created: Option<Created>,
    /// The first process, to signal where there is no cgroup.
    init: Option<OwnedFd>,
    /// What the configuration says is to be held.
    held: Vec<OwnedFd>,
}

impl Container {
    /// Nothing exists yet.
    pub(crate) fn new(config: ShimConfig, spec: Spec) -> Self {
        Self { config, spec, cgroup: None, oom: None, created: None, init: None, held: Vec::new() }
    }

    /// Whether the container's processes die with its first one.
    pub(crate) fn has_own_pids(&self) -> bool {
        let namespaces = self.spec.linux.iter().flat_map(|linux| &linux.namespaces);
        namespaces.into_iter().any(|n| n.kind == NamespaceKind::Pid && n.path.is_none())
    }

    /// Opens the mounts that are kept open, under the numbers by which they are found.
    fn hold(&mut self) -> Result<(), Failure> {
        for (number, held) in (ShimConfig::HELD..).zip(&self.config.held) {
            let failed = |why: &dyn std::fmt::Display| {
                failure(ErrorKind::Internal, format!("cannot hold the mount {}: {why}", held.name))
            };
            // The very descriptor, not another one for the same mount: its last copy's closing unmounts it.
            let open = creel_sys::pidfd::open(held.pid)
                .and_then(|process| creel_sys::pidfd::getfd(&process, held.fd))
                .map_err(|e| failed(&e))?;
            let kept = rustix::io::fcntl_dupfd_cloexec(&open, number).map_err(|e| failed(&e))?;
            if kept.as_raw_fd() != number {
                return Err(failed(&format_args!("descriptor {number} is taken")));
            }
            self.held.push(kept);
        }
        Ok(())
    }

    fn make_cgroup(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.config.cgroup_path else { return Ok(()) };
        let none = Resources::default();
        let resources = self.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&none);
        let hierarchies = Hierarchies::detect().map_err(|e| refused(&e))?;
        let cgroup = Cgroup::create(&hierarchies, path, resources).map_err(|e| refused(&e))?;
        // Without a memory controller there is nothing to watch.
        self.oom = cgroup.oom_watch().ok();
        self.cgroup = Some(cgroup);
        Ok(())
    }
}

/// The runtime's own steps and those of the container's init, which it waits for, each under a name that says whose it
/// is; `runtime.rest` is what of the whole is in none of them.
fn parts_of_create(measured: Vec<Timing>) -> Vec<Timing> {
    let (mut parts, mut whole) = (Vec::new(), 0);
    for (name, took) in measured {
        match name.as_str() {
            "create" => whole = took,
            "plan" | "clone" => parts.push((format!("runtime.{name}"), took)),
            "cgroup" => parts.push(("init.join-cgroup".to_owned(), took)),
            _ => parts.push((format!("init.{name}"), took)),
        }
    }
    let known: u64 = parts.iter().map(|(_, took)| took).sum();
    parts.push(("runtime.rest".to_owned(), whole.saturating_sub(known)));
    parts
}

impl Launcher for Container {
    fn create(&mut self, pipes: Pipes) -> Result<Launched, Failure> {
        let begun = Instant::now();
        self.hold()?;
        self.make_cgroup()?;
        let mut timings = vec![("shim.make-cgroup".to_owned(), begun.elapsed().as_micros() as u64)];
        let mut renewed = false;
        let mut again = |pid: i32| {
            renewed = true;
            let resources = self.spec.linux.as_ref().and_then(|linux| linux.resources.clone());
            let admit = |cgroup: &Cgroup| cgroup.admit(&resources.unwrap_or_default(), pid);
            self.cgroup.as_ref().map_or(Ok(()), admit).map_err(|e| e.to_string())
        };
        let cgroup = match &self.cgroup {
            Some(cgroup) => Group::Ready { cgroup, again: &mut again },
            None => Group::None,
        };
        let options = CreateOptions {
            stdio: stdio(pipes),
            cgroup,
            init: self.config.init.clone(),
            ..CreateOptions::new(&self.config.id, &self.spec, &self.config.bundle, &self.config.rootfs)
        };
        let mut created = creel_runtime::create(options).map_err(|e| refused(&e))?;
        if renewed {
            // What was watched is gone.
            self.oom = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_watch().ok());
        }
        let copy = || created.pidfd.try_clone();
        let (pidfd, own) = copy()
            .and_then(|first| Ok((first, copy()?)))
            .map_err(|e| failure(ErrorKind::Unavailable, format!("cannot copy a pidfd: {e}")))?;
        self.init = Some(own);
        timings.append(&mut parts_of_create(std::mem::take(&mut created.timings)));
        let launched = Launched {
            pid: created.pid,
            pidfd,
            console: created.console.take(),
            timings,
            warnings: std::mem::take(&mut created.warnings),
        };
        self.created = Some(created);
        Ok(launched)
    }

    fn start(&mut self) -> Result<(Vec<Timing>, Vec<String>), Failure> {
        let Some(created) = self.created.take() else {
            return Err(failure(
                ErrorKind::Conflict,
                "cannot start: the container does not exist".to_owned(),
            ));
        };
        let started = created.start().map_err(|e| refused(&e))?;
        let exec = started.timings.into_iter().map(|(_, took)| ("runtime.exec".to_owned(), took));
        Ok((exec.collect(), started.warnings))
    }

    fn exec(
        &mut self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        process: &Process,
        pipes: Pipes,
    ) -> Result<Launched, Failure> {
        let options = ExecOptions {
            id: &self.config.id,
            bundle: &self.config.bundle,
            target_pid: pid,
            target_pidfd: pidfd,
            spec: &self.spec,
            filter: None,
            process,
            stdio: stdio(pipes),
            cgroup: self.cgroup.as_ref(),
            doors: None,
            life: Life::WithCreator,
            preserve_fds: Vec::new(),
        };
        let execed = creel_runtime::exec(options).map_err(|e| refused(&e))?;
        Ok(Launched {
            pid: execed.pid,
            pidfd: execed.pidfd,
            console: execed.console,
            timings: execed.timings,
            warnings: execed.warnings,
        })
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        match (&self.cgroup, &self.init) {
            (Some(cgroup), _) if signal == libc::SIGKILL => cgroup.kill_all().map_err(|e| refused(&e)),
            (Some(cgroup), _) => {
                for pid in cgroup.pids().map_err(|e| refused(&e))? {
                    // Who has ended meanwhile needs no signal.
                    let _ = creel_sys::signal::kill(pid, signal);
                }
                Ok(())
            }
            (None, Some(init)) => {
                let _ = creel_sys::pidfd::send_signal(init, signal);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn is_frozen(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false))
    }

    fn oom_fd(&self) -> Option<BorrowedFd<'_>> {
        self.oom.as_ref().map(AsFd::as_fd)
    }

    fn oom_kills(&mut self) -> u64 {
        let Some(watch) = &self.oom else { return 0 };
        if watch.consume().is_err() {
            self.oom = None;
            return self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0);
        }
        watch.oom_kills().unwrap_or(0)
    }

    fn remove(&mut self) -> Result<(), Failure> {
        // A container that was created and never started is killed by this.
        self.created = None;
        self.oom = None;
        match self.cgroup.take() {
            Some(cgroup) => cgroup.remove().map_err(|e| refused(&e)),
            None => Ok(()),
        }
    }
}

fn stdio(pipes: Pipes) -> Stdio {
    Stdio { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr }
}

fn refused(error: &impl Classify) -> Failure {
    failure(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_is_named_twice_and_all_together_are_the_whole() {
        let measured = [("plan", 10), ("clone", 20), ("cgroup", 3), ("mounts", 4), ("create", 40)];
        let parts = parts_of_create(measured.map(|(name, took)| (name.to_owned(), took)).to_vec());
        let names: std::collections::BTreeSet<_> = parts.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), parts.len());
        assert_eq!(parts.iter().map(|(_, took)| took).sum::<u64>(), 40);
        assert_eq!(parts.last(), Some(&("runtime.rest".to_owned(), 3)));
    }
}
