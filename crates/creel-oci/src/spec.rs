//! `spec`: a configuration to begin with, the same as runc's.

use std::io::Write;
use std::path::Path;

use creel_cgroup::{Hierarchies, Layout};
use creel_types::spec::{
    Capabilities, DeviceRule, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Rlimit,
    Root, Spec,
};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::help::SPEC_VERSION;
use crate::order::CONFIG;

const MOUNTS: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
];

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn options(text: &str) -> Vec<String> {
    text.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect()
}

fn namespaces(kinds: &[NamespaceKind]) -> Vec<Namespace> {
    kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect()
}

/// The configuration for root.
pub(crate) fn example() -> Spec {
    use NamespaceKind::{Ipc, Mount as Mnt, Network, Pid, Uts};
    let caps = texts(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mounts = MOUNTS.map(|(destination, kind, source, list)| Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options(list),
        ..Mount::default()
    });
    Spec {
        oci_version: SPEC_VERSION.into(),
        root: Some(Root { path: "rootfs".into(), readonly: true }),
        mounts: mounts.into(),
        process: Some(Process {
            terminal: true,
            args: texts(&["sh"]),
            env: texts(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: caps.clone(),
                effective: caps.clone(),
                permitted: caps,
                ..Capabilities::default()
            }),
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 1024, hard: 1024 }],
            no_new_privileges: true,
            ..Process::default()
        }),
        hostname: Some("creel".into()),
        linux: Some(Linux {
            resources: Some(Resources {
                devices: vec![DeviceRule { access: Some("rwm".into()), ..DeviceRule::default() }],
                ..Resources::default()
            }),
            namespaces: namespaces(&[Pid, Network, Ipc, Uts, Mnt]),
            masked_paths: texts(&MASKED),
            readonly_paths: texts(&READONLY),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

/// Makes it one for an ordinary user: a user namespace that maps only himself, nothing that takes root's rights.
fn rootless(spec: &mut Spec, uid: u32, gid: u32) {
    use NamespaceKind::{Ipc, Mount as Mnt, Pid, User, Uts};
    for mount in &mut spec.mounts {
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        if mount.destination == "/sys" {
            // sysfs can be mounted only by the owner of a network namespace, which there is none of.
            mount.kind = Some("none".into());
            mount.source = Some("/sys".into());
            mount.options = options("rbind,nosuid,noexec,nodev,ro");
        }
    }
    let linux = spec.linux.get_or_insert_default();
    linux.resources = None;
    linux.namespaces = namespaces(&[Pid, Ipc, Uts, Mnt, User]);
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
}

fn to_json(spec: &Spec) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    spec.serialize(&mut serializer).map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(bytes)
}

/// `spec`: writes `config.json`, and never over one that is there.
pub(crate) fn spec(parsed: &Parsed) -> Result<()> {
    let mut spec = example();
    if Hierarchies::detect().is_ok_and(|h| h.layout() == Layout::V2) {
        let linux = spec.linux.get_or_insert_default();
        linux.namespaces.extend(namespaces(&[NamespaceKind::Cgroup]));
    }
    if parsed.on("rootless") {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rootless(&mut spec, uid.as_raw(), gid.as_raw());
    }
    let bundle = parsed.value("bundle").map_or(Path::new("."), Path::new);
    if let Err(e) = std::fs::metadata(bundle) {
        return Err(Error::on("chdir", bundle, e));
    }
    let path = bundle.join(CONFIG);
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::State(format!("File {CONFIG} exists. Remove it first")));
        }
        Err(e) => return Err(Error::on("open", &path, e)),
    };
    file.write_all(&to_json(&spec)?).map_err(|e| Error::on("write", &path, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::expect_file;

    #[test]
    fn the_examples() {
        let spec = example();
        creel_runtime::validate(&spec).unwrap();
        expect_file!["../tests/expected/spec.json"]
            .assert_eq(std::str::from_utf8(&to_json(&spec).unwrap()).unwrap());
        let mut spec = example();
        rootless(&mut spec, 1000, 100);
        creel_runtime::validate(&spec).unwrap();
        expect_file!["../tests/expected/spec-rootless.json"]
            .assert_eq(std::str::from_utf8(&to_json(&spec).unwrap()).unwrap());
    }
}
