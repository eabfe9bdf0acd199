//! Plans as snapshots: no root needed.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

mod support;

use std::path::Path;

use creel_runtime::{Facts, Rootfs, Step, Wishes, plan, validate};
use creel_types::spec::*;
use expect_test::{Expect, expect};
use support::{docker_like, mount};

fn facts() -> Facts {
    let text = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    Facts { cgroups: creel_runtime::mounts::cgroup_hierarchies(text) }
}

fn rootfs() -> Rootfs {
    Rootfs::Overlay {
        lower: vec!["/l/2".into(), "/l/1".into()],
        upper: "/c/upper".into(),
        work: "/c/work".into(),
    }
}

fn titles(spec: &Spec, init: Option<&Path>, expected: &Expect) {
    let text = match plan(
        "abc",
        spec,
        Path::new("/bundle"),
        &rootfs(),
        Wishes { init, ..Wishes::default() },
        &facts(),
    ) {
        Ok(plan) => plan.steps.iter().map(|step| format!("{}: {}\n", step.group(), step.title())).collect(),
        Err(e) => format!("{e}\n"),
    };
    expected.assert_eq(&text);
}

#[test]
fn docker_like_order() {
    let mut spec = docker_like(&["sh"]);
    spec.root.as_mut().unwrap().readonly = true;
    spec.process.as_mut().unwrap().terminal = true;
    spec.mounts.push(mount("/data", "bind", "relative", "rbind,ro"));
    let linux = spec.linux.as_mut().unwrap();
    linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    linux.seccomp = Some(Seccomp { default_action: "SCMP_ACT_ALLOW".into(), ..Seccomp::default() });
    linux.masked_paths.truncate(2);
    linux.readonly_paths.truncate(2);
    titles(
        &spec,
        Some(Path::new("/usr/bin/creel")),
        &expect![[r#"
            namespaces: make a network namespace
            namespaces: bring up the loopback interface
            namespaces: make a session keyring
            namespaces: set the host name box
            root: cut the mounts off from the host's
            root: mount the overlay root
            mounts: mount proc on /proc
            mounts: mount tmpfs on /dev
            mounts: mount devpts on /dev/pts
            mounts: mount sysfs on /sys
            cgroup: join the control group
            namespaces: make a cgroup namespace
            mounts: mount cgroup on /sys/fs/cgroup
            mounts: mount mqueue on /dev/mqueue
            mounts: mount tmpfs on /dev/shm
            mounts: mount /bundle/relative on /data
            devices: make the device /dev/null
            devices: make the device /dev/zero
            devices: make the device /dev/full
            devices: make the device /dev/random
            devices: make the device /dev/urandom
            devices: make the device /dev/tty
            devices: link /dev/fd to /proc/self/fd
            devices: link /dev/stdin to /proc/self/fd/0
            devices: link /dev/stdout to /proc/self/fd/1
            devices: link /dev/stderr to /proc/self/fd/2
            devices: link /dev/ptmx to pts/ptmx
            devices: open the terminal
            mounts: bind /usr/bin/creel on /sbin/docker-init
            paths: make the working directory /
            paths: write the kernel parameter net/ipv4/ip_forward
            paths: make /proc/bus read-only
            paths: make /proc/fs read-only
            paths: mask /proc/asound
            paths: mask /proc/acpi
            paths: make the root read-only
            pivot: change the root
            process: prepare the process
            process: wait for the start
            process: load the system call filter
            process: execute the program
        "#]],
    );
}

#[test]
fn one_mount_in_full() {
    let mut spec = docker_like(&["sh"]);
    spec.mounts = vec![
        mount("/sys//fs/./cgroup/", "cgroup", "cgroup", "ro,nosuid"),
        mount("/data", "", "relative", "rbind,rro,noatime,rslave"),
        mount("/tmp", "tmpfs", "tmpfs", "size=1m,nodev,sync"),
    ];
    let plan = plan("abc", &spec, Path::new("/bundle"), &rootfs(), Wishes::default(), &facts()).unwrap();
    let mounts: Vec<&Step> = plan.steps.iter().filter(|step| matches!(step, Step::Mount { .. })).collect();
    expect![[r#"
        [
          {
            "step": "mount",
            "mount": {
              "kind": "cgroup",
              "destination": "/sys/fs/cgroup",
              "hierarchies": [
                {
                  "name": "cpu,cpuacct",
                  "mountpoint": "/sys/fs/cgroup/cpu,cpuacct",
                  "controllers": [
                    "cpu",
                    "cpuacct"
                  ]
                },
                {
                  "name": "systemd",
                  "mountpoint": "/sys/fs/cgroup/systemd",
                  "controllers": [
                    "name=systemd"
                  ]
                }
              ],
              "namespaced": true,
              "options": {
                "bind": false,
                "recursive": false,
                "attributes": {
                  "set": 3,
                  "clear": 0
                },
                "tree_attributes": {
                  "set": 0,
                  "clear": 0
                }
              }
            }
          },
          {
            "step": "mount",
            "mount": {
              "kind": "bind",
              "destination": "/data",
              "source": "/bundle/relative",
              "options": {
                "bind": true,
                "recursive": true,
                "attributes": {
                  "set": 16,
                  "clear": 112
                },
                "tree_attributes": {
                  "set": 1,
                  "clear": 0
                },
                "propagation": {
                  "mode": 524288,
                  "recursive": true
                }
              }
            }
          },
          {
            "step": "mount",
            "mount": {
              "kind": "new",
              "destination": "/tmp",
              "filesystem": "tmpfs",
              "source": "tmpfs",
              "options": {
                "bind": false,
                "recursive": false,
                "attributes": {
                  "set": 4,
                  "clear": 0
                },
                "tree_attributes": {
                  "set": 0,
                  "clear": 0
                },
                "superblock": [
                  "sync"
                ],
                "data": [
                  [
                    "size",
                    "1m"
                  ]
                ]
              }
            }
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&mounts).unwrap());
}

#[test]
fn refusals() {
    let mut spec = docker_like(&["sh"]);
    spec.linux.as_mut().unwrap().namespaces.clear();
    titles(
        &spec,
        None,
        &expect![[r#"
            hostname: without a UTS namespace the host would be renamed
        "#]],
    );
    let mut spec = docker_like(&["sh"]);
    spec.mounts.push(mount("/", "tmpfs", "tmpfs", "tmpcopyup"));
    titles(
        &spec,
        None,
        &expect![[r#"
        mounts[7]: nothing of that kind can be mounted over the root itself
    "#]],
    );
    let mut spec = docker_like(&["sh"]);
    spec.process.as_mut().unwrap().capabilities.as_mut().unwrap().bounding.push("CAP_FLY".into());
    let planned = plan("abc", &spec, Path::new("/bundle"), &rootfs(), Wishes::default(), &facts()).unwrap();
    let warnings = planned.steps.iter().find_map(|step| match step {
        Step::Process { process } => Some(process.warnings.clone()),
        _ => None,
    });
    assert_eq!(warnings.unwrap(), ["ignoring unknown or unavailable capabilities: [CAP_FLY]"]);
    let sets = spec.process.as_mut().unwrap().capabilities.as_mut().unwrap();
    sets.bounding.pop();
    sets.effective.push("CAP_BPF".into());
    let planned = plan("abc", &spec, Path::new("/bundle"), &rootfs(), Wishes::default(), &facts()).unwrap();
    let process = planned.steps.iter().find_map(|step| match step {
        Step::Process { process } => Some(process.clone()),
        _ => None,
    });
    let process = process.unwrap();
    assert_eq!(process.warnings, ["ignoring unknown or unavailable capabilities: [CAP_BPF]"]);
    assert_eq!(process.capabilities.effective, process.capabilities.permitted);
    let mut spec = docker_like(&["sh"]);
    spec.linux.as_mut().unwrap().sysctl.insert("vm.swappiness".into(), "1".into());
    titles(
        &spec,
        None,
        &expect![[r#"
        linux.sysctl.vm.swappiness: this parameter belongs to no namespace: it would change the host
    "#]],
    );
    let mut spec = docker_like(&["sh"]);
    spec.process.as_mut().unwrap().user.uid = u32::MAX;
    titles(
        &spec,
        None,
        &expect![[r#"
        process.user.uid: 4294967295 is no id: the kernel reads it as "unchanged"
    "#]],
    );
}

/// config.md, "Valid values": what is invalid is an error.
#[test]
fn values_that_the_specification_rules_out() {
    let wrong = |field: &str, change: &dyn Fn(&mut Spec)| {
        let mut spec = docker_like(&["sh"]);
        change(&mut spec);
        let error = validate(&spec).expect_err(field).to_string();
        assert!(error.starts_with(&format!("{field}: ")), "{field}: {error}");
    };
    for version in [
        "",
        "1",
        "1.2",
        "1.a.b",
        "1.2.3.4",
        "01.2.3",
        "1.02.3",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3-a_b",
        "v1.2.3",
        "0.2.0",
        "2.0.0",
        " 1.2.3",
        "1.2.3\n",
    ] {
        wrong("ociVersion", &|spec| spec.oci_version = version.into());
    }
    for version in ["1.0.0", "1.0.0-rc5-dev", "1.2.1+dev", "1.3.0-rc.1+a.001", "1.99.0"] {
        let spec = Spec { oci_version: version.into(), ..docker_like(&["sh"]) };
        assert!(validate(&spec).is_ok(), "{version}");
    }
    wrong("root.path", &|spec| spec.root.as_mut().unwrap().path.clear());
    wrong("annotations", &|spec| drop(spec.annotations.insert(String::new(), "x".into())));
    let hook = |path: &str, timeout| Hook { path: path.into(), timeout, ..Hook::default() };
    wrong("hooks.poststop[0].path", &|spec| {
        spec.hooks.get_or_insert_default().poststop = vec![hook("x", None)]
    });
    wrong("hooks.prestart[1].timeout", &|spec| {
        spec.hooks.get_or_insert_default().prestart = vec![hook("/x", Some(1)), hook("/x", Some(0))];
    });
    let process = |spec: &mut Spec| spec.process.take().unwrap();
    wrong("process.scheduler.policy", &|spec| {
        spec.process = Some(Process { scheduler: Some(Scheduler::default()), ..process(spec) });
    });
    wrong("process.ioPriority", &|spec| {
        spec.process = Some(Process { io_priority: Some(IoPriority::default()), ..process(spec) });
    });
    let size = || Some(ConsoleSize { height: 70_000, width: 1 });
    wrong("process.consoleSize", &|spec| {
        spec.process = Some(Process { terminal: true, console_size: size(), ..process(spec) });
    });
    // Without a terminal it is ignored, says the specification.
    let mut spec = docker_like(&["sh"]);
    spec.process.as_mut().unwrap().console_size = size();
    assert!(validate(&spec).is_ok());
    let personality = |domain: &str, flags: &[&str]| Personality {
        domain: domain.into(),
        flags: flags.iter().map(ToString::to_string).collect(),
    };
    wrong("linux.personality.domain", &|spec| {
        spec.linux.as_mut().unwrap().personality = Some(personality("UNIX", &[]));
    });
    wrong("linux.personality.flags", &|spec| {
        spec.linux.as_mut().unwrap().personality = Some(personality("LINUX", &["X"]));
    });
    wrong("linux.memoryPolicy.mode", &|spec| {
        spec.linux.as_mut().unwrap().memory_policy = Some(MemoryPolicy::default());
    });
}
