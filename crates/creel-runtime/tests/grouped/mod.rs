//! The control group that a container, and what is executed in it, is put into.

use std::os::fd::AsFd;
use std::path::Path;

use creel_runtime::{CreateOptions, Group};
use creel_types::spec::*;

use crate::support::read;
use crate::support::*;

pub(crate) fn control_group() {
    let hierarchies = creel_cgroup::Hierarchies::detect().unwrap();
    let resources = Resources { pids: Some(Pids { limit: Some(12) }), ..Resources::default() };
    let name = format!("/creel-runtime-test-{}", std::process::id());
    let group = creel_cgroup::Cgroup::create(&hierarchies, &name, &resources).unwrap();
    let dir = scratch();
    let spec = shell("cat /proc/self/cgroup; sleep 1000");
    let (stdio, reader) = pipes();
    let rootfs = overlay(dir.path());
    let create = |spec, stdio| {
        let options = CreateOptions {
            stdio,
            cgroup: Group::Ready { cgroup: &group, again: &mut |_| Err("it is gone".into()) },
            ..CreateOptions::new("test", spec, Path::new("/var/tmp"), &rootfs)
        };
        creel_runtime::create(options).unwrap().start().unwrap()
    };
    let started = create(&spec, stdio);
    let seen = std::fs::read_to_string(format!("/proc/{}/cgroup", started.pid)).unwrap();
    let with_group = seen.lines().filter(|line| line.ends_with(&name)).count();
    let (stdio, execed) = pipes();
    let mut process = spec.process.clone().unwrap();
    process.args = ["cat", "/proc/self/cgroup", "/sys/fs/cgroup/pids/pids.max"].map(str::to_string).to_vec();
    let second = creel_runtime::exec(creel_runtime::ExecOptions {
        id: "test",
        bundle: Path::new("/var/tmp"),
        target_pid: started.pid,
        target_pidfd: started.pidfd.as_fd(),
        spec: &spec,
        filter: None,
        process: &process,
        stdio,
        cgroup: Some(&group),
        doors: None,
        life: creel_runtime::Life::WithCreator,
        preserve_fds: Vec::new(),
    })
    .unwrap();
    let execed = read(execed);
    finish(&second.pidfd);
    creel_sys::pidfd::send_signal(&started.pidfd, libc::SIGKILL).unwrap();
    finish(&started.pidfd);
    let text = read(reader);
    // Without a cgroup namespace the container's own groups are bound.
    let mut shared = spec.clone();
    shared.linux.as_mut().unwrap().namespaces.retain(|space| space.kind != NamespaceKind::Cgroup);
    shared.process.as_mut().unwrap().args[2] = "cat /sys/fs/cgroup/pids/pids.max".into();
    let (stdio, reader) = pipes();
    let third = create(&shared, stdio);
    let bound = read(reader);
    finish(&third.pidfd);
    group.remove().unwrap();
    for line in text.lines() {
        assert!(line.ends_with(":/"), "the namespace's root is the group: {text}");
    }
    // One line for all of v2; elsewhere one for each hierarchy.
    let least = if hierarchies.layout() == creel_cgroup::Layout::V2 { 1 } else { 2 };
    assert!(with_group >= least, "{seen}");
    if hierarchies.layout() != creel_cgroup::Layout::V2 {
        assert!(execed.ends_with(":/\n12\n"), "{execed}");
        assert_eq!(bound, "12\n");
    }
}
