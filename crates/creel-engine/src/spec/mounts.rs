//! What is mounted over the root: the kernel's file systems, the three files of the network, and what was wished for.

use creel_types::spec::Mount;

use super::Facts;
use crate::record::{ContainerRecord, MountKind, MountRecord};

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn bind(destination: &str, source: &str, options: &[&str]) -> Mount {
    mount(destination, "bind", source, options)
}

/// All mounts in the order in which they are to be made.
pub(super) fn all(record: &ContainerRecord, facts: &Facts) -> Vec<Mount> {
    let host = &record.host_config;
    let given = |path: &str| record.mounts.iter().any(|mount| mount.destination == path);
    // A privileged container may change the kernel's settings.
    let system: &[&str] =
        if host.privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", system),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", system),
    ];
    // Shows the queues of whatever IPC namespace the container is in, the host's too.
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    let shm_size = format!("size={}", host.shm_size);
    match host.ipc_mode.as_str() {
        "none" => {}
        "host" => mounts.push(bind("/dev/shm", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"])),
        _ => mounts.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
        )),
    }
    // What the user put at one of these places takes its place.
    mounts.retain(|mount| {
        mount.destination == "/proc" || mount.destination == "/dev" || !given(&mount.destination)
    });
    for name in ["resolv.conf", "hostname", "hosts"] {
        let destination = format!("/etc/{name}");
        if !given(&destination) {
            let source = facts.dir.join(name);
            let mut options = vec!["rbind", "rprivate"];
            if host.readonly_rootfs {
                options.push("ro");
            }
            mounts.push(bind(&destination, &source.display().to_string(), &options));
        }
    }
    mounts.extend(record.mounts.iter().map(|mount| wished(mount, facts)));
    mounts
}

fn wished(record: &MountRecord, facts: &Facts) -> Mount {
    match record.kind {
        MountKind::Tmpfs => Mount {
            destination: record.destination.clone(),
            kind: Some("tmpfs".to_owned()),
            source: Some("tmpfs".to_owned()),
            options: record.options.clone(),
            ..Mount::default()
        },
        MountKind::Bind | MountKind::Volume | MountKind::Image => Mount {
            destination: record.destination.clone(),
            kind: Some("bind".to_owned()),
            source: Some(facts.trees.get(&record.destination).unwrap_or(&record.source).clone()),
            options: record.options.clone(),
            ..Mount::default()
        },
    }
}
