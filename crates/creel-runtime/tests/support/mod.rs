//! A Docker-like Spec, a busybox root, and a way to run both.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_runtime::{CreateOptions, Created, Error, ExecOptions, Execed, Rootfs, Started, Stdio};
use creel_sys::process::{Ended, Whom, wait};
use creel_types::spec::*;

/// Makes a directory below /var/tmp with a busybox root in `root`.
pub fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("creel-runtime-").tempdir_in("/var/tmp").unwrap();
    let root = dir.path().join("root");
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "home/web", "data"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in
        "sh cat echo ls id hostname mount grep readlink stat touch sleep true false env pwd test tty mkdir wc head ps kill ip nproc dd mkfifo ln umask printf tr sed cut sysctl"
            .split(' ')
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1000:\nextra:x:50:web\n").unwrap();
    for name in ["upper", "work"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    dir
}

pub fn overlay(dir: &Path) -> Rootfs {
    Rootfs::Overlay { lower: vec![dir.join("root")], upper: dir.join("upper"), work: dir.join("work") }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

pub fn mount(destination: &str, kind: &str, source: &str, options: &str) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect(),
        ..Mount::default()
    }
}

/// What Docker would write for `docker run --network none IMAGE sh -c SCRIPT`.
pub fn docker_like(args: &[&str]) -> Spec {
    let capabilities: Vec<String> =
        creel_runtime::caps::DOCKER_DEFAULT.iter().map(|c| c.to_string()).collect();
    let namespace = |kind| Namespace { kind, path: None };
    Spec {
        oci_version: "1.2.0".into(),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        hostname: Some("box".into()),
        mounts: vec![
            mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        ],
        process: Some(Process {
            args: args.iter().map(|a| a.to_string()).collect(),
            env: words("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..Capabilities::default()
            }),
            oom_score_adj: Some(0),
            ..Process::default()
        }),
        linux: Some(Linux {
            namespaces: [
                NamespaceKind::Mount,
                NamespaceKind::Network,
                NamespaceKind::Uts,
                NamespaceKind::Pid,
                NamespaceKind::Ipc,
                NamespaceKind::Cgroup,
            ]
            .map(namespace)
            .to_vec(),
            masked_paths: words(
                "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list \
                 /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap",
            ),
            readonly_paths: words("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

pub fn shell(script: &str) -> Spec {
    docker_like(&["sh", "-c", script])
}

pub fn pipes() -> (Stdio, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    let error = OwnedFd::from(writer.try_clone().unwrap());
    (Stdio { stdin: None, stdout: Some(writer.into()), stderr: Some(error) }, reader.into())
}

pub fn create(spec: &Spec, rootfs: &Rootfs, stdio: Stdio) -> Result<Created, Error> {
    creel_runtime::create(CreateOptions {
        stdio,
        ..CreateOptions::new("test", spec, Path::new("/var/tmp"), rootfs)
    })
}

pub fn finish(pidfd: &OwnedFd) -> i32 {
    match wait(Whom::Pidfd(pidfd.as_fd()), true).unwrap() {
        Some((_, ended)) => match ended {
            Ended::Exited(code) => code,
            Ended::Signaled { signal, .. } => 128 + signal,
        },
        None => -1,
    }
}

pub fn read(reader: OwnedFd) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    // A terminal whose slave is gone reads EIO.
    let _ = std::fs::File::from(reader).read_to_end(&mut bytes);
    text.push_str(&String::from_utf8_lossy(&bytes));
    text
}

/// Runs to the end: output of both streams, and exit code.
pub fn run_on(spec: &Spec, rootfs: &Rootfs) -> Result<(String, i32), Error> {
    let (stdio, reader) = pipes();
    let started = create(spec, rootfs, stdio)?.start()?;
    let text = read(reader);
    Ok((text, finish(&started.pidfd)))
}

pub fn run(spec: &Spec) -> Result<(String, i32), Error> {
    let dir = scratch();
    run_on(spec, &overlay(dir.path()))
}

/// A container that sleeps, for tests that exec into it. Killed when dropped.
pub struct Sleeper {
    pub spec: Spec,
    pub started: Started,
    pub dir: tempfile::TempDir,
}

impl Sleeper {
    pub fn new(change: impl FnOnce(&mut Spec)) -> Sleeper {
        let dir = scratch();
        let mut spec = docker_like(&["sleep", "1000"]);
        change(&mut spec);
        let started = create(&spec, &overlay(dir.path()), Stdio::default()).unwrap().start().unwrap();
        Sleeper { spec, started, dir }
    }

    pub fn exec(&self, process: &Process, stdio: Stdio) -> Result<Execed, Error> {
        creel_runtime::exec(ExecOptions {
            id: "test",
            bundle: Path::new("/var/tmp"),
            target_pid: self.started.pid,
            target_pidfd: self.started.pidfd.as_fd(),
            spec: &self.spec,
            filter: None,
            process,
            stdio,
            cgroup: None,
            doors: None,
            life: creel_runtime::Life::WithCreator,
            preserve_fds: Vec::new(),
        })
    }

    pub fn run(&self, args: &[&str], change: impl FnOnce(&mut Process)) -> Result<(String, i32), Error> {
        let mut process = self.spec.process.clone().unwrap();
        process.args = args.iter().map(|a| a.to_string()).collect();
        change(&mut process);
        let (stdio, reader) = pipes();
        let execed = self.exec(&process, stdio)?;
        let text = read(reader);
        Ok((text, finish(&execed.pidfd)))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = creel_sys::pidfd::send_signal(&self.started.pidfd, libc::SIGKILL);
        finish(&self.started.pidfd);
    }
}

pub fn path(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}
