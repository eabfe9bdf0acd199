use creel_types::ContainerId;
use creel_wire::container::Config;
use creel_wire::host::HostConfig;
use expect_test::{Expect, expect};

use super::*;
use crate::containers::tests::record;
use crate::containers::{host, mounts as parse};

fn built(config: &str, host_config: &str) -> Spec {
    let config: Config = serde_json::from_str(config).unwrap();
    let mut host_config: HostConfig = serde_json::from_str(host_config).unwrap();
    host::complete(&mut host_config, &host::Machine::default());
    let mut record = record(ContainerId::from_random([0xab; 32]).as_str(), "x");
    record.mounts = parse::all(&config, &host_config, Vec::new()).unwrap();
    record.config = config;
    record.config.hostname = "abababababab".into();
    record.host_config = host_config;
    let facts = Facts {
        identity: Identity { uid: 0, gid: 0, groups: vec![0, 10], home: Some("/root".into()) },
        dir: "/var/lib/creel/containers/ab".into(),
        cgroup_path: "/creel/ab".into(),
        all_capabilities: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()],
        ..Facts::default()
    };
    build(&record, &facts).unwrap()
}

/// The Spec without the filter, which has its own tests.
fn check(config: &str, host_config: &str, expected: Expect) {
    let mut spec = built(config, host_config);
    spec.linux.as_mut().unwrap().seccomp = None;
    expected.assert_eq(&serde_json::to_string_pretty(&spec).unwrap());
}

/// Only the lines that the plainest container's Spec does not have (`+`), and those that only it has (`-`).
fn differs(config: &str, host_config: &str, expected: Expect) {
    let text = |mut spec: Spec| {
        spec.linux.as_mut().unwrap().seccomp = None;
        serde_json::to_string_pretty(&spec).unwrap()
    };
    let (plain, this) = (text(built(r#"{"Cmd":["true"]}"#, "{}")), text(built(config, host_config)));
    let lines =
        |text: &str| text.lines().map(|l| l.trim().trim_end_matches(',').to_owned()).collect::<Vec<_>>();
    let (plain, this) = (lines(&plain), lines(&this));
    let mut out = String::new();
    for (sign, ours, theirs) in [('-', &plain, &this), ('+', &this, &plain)] {
        let mut seen = std::collections::HashSet::new();
        for line in ours.iter().filter(|line| !theirs.contains(line)) {
            if seen.insert(line) {
                out.push_str(&format!("{sign} {line}\n"));
            }
        }
    }
    expected.assert_eq(&out);
}

#[test]
fn the_plainest_container() {
    check(
        r#"{"Cmd":["true"]}"#,
        "{}",
        expect![[r#"
        {
          "ociVersion": "1.2.0",
          "root": {
            "path": "rootfs"
          },
          "mounts": [
            {
              "destination": "/proc",
              "type": "proc",
              "source": "proc",
              "options": [
                "nosuid",
                "noexec",
                "nodev"
              ]
            },
            {
              "destination": "/dev",
              "type": "tmpfs",
              "source": "tmpfs",
              "options": [
                "nosuid",
                "strictatime",
                "mode=755",
                "size=65536k"
              ]
            },
            {
              "destination": "/dev/pts",
              "type": "devpts",
              "source": "devpts",
              "options": [
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
              ]
            },
            {
              "destination": "/sys",
              "type": "sysfs",
              "source": "sysfs",
              "options": [
                "nosuid",
                "noexec",
                "nodev",
                "ro"
              ]
            },
            {
              "destination": "/sys/fs/cgroup",
              "type": "cgroup",
              "source": "cgroup",
              "options": [
                "nosuid",
                "noexec",
                "nodev",
                "ro"
              ]
            },
            {
              "destination": "/dev/mqueue",
              "type": "mqueue",
              "source": "mqueue",
              "options": [
                "nosuid",
                "noexec",
                "nodev"
              ]
            },
            {
              "destination": "/dev/shm",
              "type": "tmpfs",
              "source": "shm",
              "options": [
                "nosuid",
                "noexec",
                "nodev",
                "mode=1777",
                "size=67108864"
              ]
            },
            {
              "destination": "/etc/resolv.conf",
              "type": "bind",
              "source": "/var/lib/creel/containers/ab/resolv.conf",
              "options": [
                "rbind",
                "rprivate"
              ]
            },
            {
              "destination": "/etc/hostname",
              "type": "bind",
              "source": "/var/lib/creel/containers/ab/hostname",
              "options": [
                "rbind",
                "rprivate"
              ]
            },
            {
              "destination": "/etc/hosts",
              "type": "bind",
              "source": "/var/lib/creel/containers/ab/hosts",
              "options": [
                "rbind",
                "rprivate"
              ]
            }
          ],
          "process": {
            "user": {
              "uid": 0,
              "gid": 0,
              "additionalGids": [
                0,
                10
              ]
            },
            "args": [
              "true"
            ],
            "env": [
              "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
              "HOSTNAME=abababababab",
              "HOME=/root"
            ],
            "cwd": "/",
            "capabilities": {
              "bounding": [
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_FSETID",
                "CAP_KILL",
                "CAP_SETGID",
                "CAP_SETUID",
                "CAP_SETPCAP",
                "CAP_NET_BIND_SERVICE",
                "CAP_NET_RAW",
                "CAP_SYS_CHROOT",
                "CAP_MKNOD",
                "CAP_AUDIT_WRITE",
                "CAP_SETFCAP"
              ],
              "effective": [
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_FSETID",
                "CAP_KILL",
                "CAP_SETGID",
                "CAP_SETUID",
                "CAP_SETPCAP",
                "CAP_NET_BIND_SERVICE",
                "CAP_NET_RAW",
                "CAP_SYS_CHROOT",
                "CAP_MKNOD",
                "CAP_AUDIT_WRITE",
                "CAP_SETFCAP"
              ],
              "permitted": [
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_FSETID",
                "CAP_KILL",
                "CAP_SETGID",
                "CAP_SETUID",
                "CAP_SETPCAP",
                "CAP_NET_BIND_SERVICE",
                "CAP_NET_RAW",
                "CAP_SYS_CHROOT",
                "CAP_MKNOD",
                "CAP_AUDIT_WRITE",
                "CAP_SETFCAP"
              ]
            },
            "oomScoreAdj": 0
          },
          "hostname": "abababababab",
          "linux": {
            "resources": {
              "devices": [
                {
                  "allow": false,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "access": "m"
                },
                {
                  "allow": true,
                  "type": "b",
                  "access": "m"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 1,
                  "minor": 3,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 1,
                  "minor": 5,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 1,
                  "minor": 7,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 1,
                  "minor": 8,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 1,
                  "minor": 9,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 5,
                  "minor": 0,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 5,
                  "minor": 1,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 5,
                  "minor": 2,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 136,
                  "access": "rwm"
                },
                {
                  "allow": true,
                  "type": "c",
                  "major": 10,
                  "minor": 200,
                  "access": "rwm"
                }
              ]
            },
            "cgroupsPath": "/creel/ab",
            "namespaces": [
              {
                "type": "mount"
              },
              {
                "type": "network"
              },
              {
                "type": "uts"
              },
              {
                "type": "pid"
              },
              {
                "type": "ipc"
              },
              {
                "type": "cgroup"
              }
            ],
            "maskedPaths": [
              "/proc/asound",
              "/proc/acpi",
              "/proc/interrupts",
              "/proc/kcore",
              "/proc/keys",
              "/proc/latency_stats",
              "/proc/timer_list",
              "/proc/timer_stats",
              "/proc/sched_debug",
              "/proc/scsi",
              "/sys/firmware",
              "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": [
              "/proc/bus",
              "/proc/fs",
              "/proc/irq",
              "/proc/sys",
              "/proc/sysrq-trigger"
            ]
          }
        }"#]],
    );
}

#[test]
fn resources_and_limits() {
    differs(
        r#"{"Cmd":["true"]}"#,
        r#"{"Memory":67108864,"NanoCpus":500000000,"CpuShares":512,"CpusetCpus":"0-1","PidsLimit":50,"OomScoreAdj":100,
            "Ulimits":[{"Name":"nofile","Soft":100,"Hard":-1}],"ShmSize":1048576,"DeviceCgroupRules":["c 42:* rm"]}"#,
        expect![[r#"
            - "size=67108864"
            - "oomScoreAdj": 0
            + "size=1048576"
            + "rlimits": [
            + "type": "RLIMIT_NOFILE"
            + "soft": 100
            + "hard": 18446744073709551615
            + "oomScoreAdj": 100
            + "major": 42
            + "access": "rm"
            + "memory": {
            + "limit": 67108864
            + "swap": 134217728
            + "cpu": {
            + "shares": 512
            + "quota": 50000
            + "period": 100000
            + "cpus": "0-1"
            + "pids": {
            + "limit": 50
        "#]],
    );
}

#[test]
fn privileges() {
    differs(
        r#"{"Cmd":["true"]}"#,
        r#"{"Privileged":true}"#,
        expect![[r#"
            - "ro"
            - "CAP_DAC_OVERRIDE"
            - "CAP_FOWNER"
            - "CAP_FSETID"
            - "CAP_KILL"
            - "CAP_SETGID"
            - "CAP_SETUID"
            - "CAP_SETPCAP"
            - "CAP_NET_BIND_SERVICE"
            - "CAP_NET_RAW"
            - "CAP_SYS_CHROOT"
            - "CAP_MKNOD"
            - "CAP_AUDIT_WRITE"
            - "CAP_SETFCAP"
            - "allow": false
            - "type": "c"
            - "access": "m"
            - "type": "b"
            - "major": 1
            - "minor": 3
            - "minor": 5
            - "minor": 7
            - "minor": 8
            - "minor": 9
            - "major": 5
            - "minor": 0
            - "minor": 1
            - "minor": 2
            - "major": 136
            - "major": 10
            - "minor": 200
            - "maskedPaths": [
            - "/proc/asound"
            - "/proc/acpi"
            - "/proc/interrupts"
            - "/proc/kcore"
            - "/proc/keys"
            - "/proc/latency_stats"
            - "/proc/timer_list"
            - "/proc/timer_stats"
            - "/proc/sched_debug"
            - "/proc/scsi"
            - "/sys/firmware"
            - "/sys/devices/virtual/powercap"
            - "readonlyPaths": [
            - "/proc/bus"
            - "/proc/fs"
            - "/proc/irq"
            - "/proc/sys"
            - "/proc/sysrq-trigger"
            + "CAP_SYS_ADMIN"
        "#]],
    );
    differs(
        r#"{"Cmd":["true"]}"#,
        r#"{"CapAdd":["net_admin"],"CapDrop":["CAP_MKNOD"],"SecurityOpt":["no-new-privileges"]}"#,
        expect![[r#"
            - "CAP_MKNOD"
            + "CAP_NET_ADMIN"
            + "noNewPrivileges": true
        "#]],
    );
}

#[test]
fn namespaces_of_the_host() {
    let spec = built(
        r#"{"Cmd":["true"]}"#,
        r#"{"NetworkMode":"host","PidMode":"host","IpcMode":"host","UTSMode":"host","CgroupnsMode":"host"}"#,
    );
    let kinds: Vec<_> = spec.linux.unwrap().namespaces.into_iter().map(|n| n.kind).collect();
    assert_eq!(kinds, [NamespaceKind::Mount]);
    assert_eq!(spec.hostname, None);
}

#[test]
fn mounts_and_read_only_root() {
    differs(
        r#"{"Cmd":["true"],"Tty":true,"WorkingDir":"/w"}"#,
        r#"{"ReadonlyRootfs":true,"Binds":["/a:/b:ro","/h:/etc/hosts"],"Tmpfs":{"/run":""},"IpcMode":"none","ConsoleSize":[24,80],
            "Mounts":[{"Type":"bind","Source":"/s","Target":"/dev/shm","BindOptions":{"Propagation":"rshared"}}]}"#,
        expect![[r#"
            - "source": "shm"
            - "mode=1777"
            - "size=67108864"
            - "source": "/var/lib/creel/containers/ab/hosts"
            - "cwd": "/"
            + "readonly": true
            + "destination": "/b"
            + "source": "/a"
            + "rro"
            + "destination": "/run"
            + "source": "/h"
            + "source": "/s"
            + "rshared"
            + "terminal": true
            + "consoleSize": {
            + "height": 24
            + "width": 80
            + "TERM=xterm"
            + "cwd": "/w"
            + "rootfsPropagation": "shared"
        "#]],
    );
}

#[test]
fn seccomp_follows_privilege_and_wish() {
    let filter = |host: &str| built(r#"{"Cmd":["true"]}"#, host).linux.unwrap().seccomp.is_some();
    assert!(filter("{}"));
    assert!(!filter(r#"{"Privileged":true}"#));
    assert!(!filter(r#"{"SecurityOpt":["seccomp=unconfined"]}"#));
}
