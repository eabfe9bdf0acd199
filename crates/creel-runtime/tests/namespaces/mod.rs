//! User and time namespaces, namespaces that are joined, and containers that outlive their creator.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use creel_runtime::{CreateOptions, Error, Gate, Group, Life, Rootfs, Stdio};
use creel_types::spec::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::support::read;
use crate::support::*;
use crate::text;

fn map(container: u32, host: u32, size: u32) -> IdMapping {
    IdMapping { container_id: container, host_id: host, size }
}

pub(crate) fn in_user_namespace(spec: &mut Spec) {
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    linux.uid_mappings = vec![map(0, 100_000, 65536)];
    linux.gid_mappings = vec![map(0, 200_000, 65536)];
}

/// A root whose files belong to the mapped root, as an engine would prepare it.
pub(crate) fn mapped_root() -> (tempfile::TempDir, Rootfs) {
    let dir = scratch();
    for name in ["root/tmp", "root/home/web", "upper", "work"] {
        rustix::fs::chown(
            path(&dir, name),
            Some(rustix::fs::Uid::from_raw(100_000)),
            Some(rustix::fs::Gid::from_raw(200_000)),
        )
        .unwrap();
    }
    let rootfs = overlay(dir.path());
    (dir, rootfs)
}

pub(crate) fn user_namespace() {
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; \
                  touch /tmp/mine && stat -c %u:%g /tmp/mine; echo null > /dev/null && cat /dev/zero | head -c 1 | wc -c; \
                  mount -t tmpfs x /tmp 2>&1; grep CapEff /proc/self/status; cat /proc/self/oom_score_adj";
    let (dir, rootfs) = mapped_root();
    let mut spec = shell(script);
    in_user_namespace(&mut spec);
    spec.process.as_mut().unwrap().oom_score_adj = Some(100);
    let said = text(run_on(&spec, &rootfs)).replace([' ', '\t'], "");
    assert_eq!(
        said,
        "0\n0\n010000065536\n020000065536\n0:0\n1\nmount:permissiondenied(areyouroot?)\nCapEff:00000000a80425fb\n100\n"
    );
    let made = std::fs::metadata(path(&dir, "upper/tmp/mine")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((made.uid(), made.gid()), (100_000, 200_000), "on the host it belongs to the mapped ids");
}

pub(crate) fn user_namespace_of_another_user() {
    let (_dir, rootfs) = mapped_root();
    let mut spec = shell("id -u; id -g; id -G; pwd");
    in_user_namespace(&mut spec);
    let process = spec.process.as_mut().unwrap();
    process.user = User { uid: 1000, gid: 1000, additional_gids: vec![50], umask: None };
    process.cwd = "/home/web".into();
    assert_eq!(text(run_on(&spec, &rootfs)), "1000\n1000\n1000 50\n/home/web\n");
}

pub(crate) fn exec_into_a_user_namespace() {
    let (dir, rootfs) = mapped_root();
    let mut spec = docker_like(&["sleep", "1000"]);
    in_user_namespace(&mut spec);
    let started = create(&spec, &rootfs, Stdio::default()).unwrap().start().unwrap();
    let sleeper = Sleeper { spec, started, dir };
    let said = text(
        sleeper.run(&["sh", "-c", "id -u; cat /proc/self/uid_map; ps -o pid,comm | grep sleep"], |_| {}),
    );
    assert_eq!(said.replace([' ', '\t'], ""), "0\n010000065536\n1sleep\n");
    // It may not set its own.
    let score =
        sleeper.run(&["cat", "/proc/self/oom_score_adj"], |process| process.oom_score_adj = Some(123));
    assert_eq!(text(score), "123\n");
}

pub(crate) fn namespaces_are_joined_with_their_user_namespace() {
    let (dir, rootfs) = mapped_root();
    let mut spec = docker_like(&["sleep", "1000"]);
    in_user_namespace(&mut spec);
    spec.hostname = Some("shared".into());
    let started = create(&spec, &rootfs, Stdio::default()).unwrap().start().unwrap();
    let pid = started.pid;
    let sleeper = Sleeper { spec, started, dir };
    let (_second, rootfs) = mapped_root();
    let mut spec = shell("cat /proc/self/uid_map; hostname; ps -o pid,comm | grep -c sleep; id -u");
    spec.hostname = None;
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    for space in &mut linux.namespaces {
        if matches!(
            space.kind,
            NamespaceKind::User
                | NamespaceKind::Pid
                | NamespaceKind::Network
                | NamespaceKind::Uts
                | NamespaceKind::Ipc
        ) {
            space.path = Some(format!("/proc/{pid}/ns/{}", space.kind.proc_name()));
        }
    }
    let said = text(run_on(&spec, &rootfs)).replace([' ', '\t'], "");
    assert_eq!(said, "010000065536\nshared\n1\n0\n");
    drop(sleeper);
}

pub(crate) fn a_namespace_of_another_kind_is_refused() {
    let mut spec = shell("true");
    for space in &mut spec.linux.as_mut().unwrap().namespaces {
        if space.kind == NamespaceKind::Network {
            space.path = Some("/proc/self/ns/uts".into());
        }
    }
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.contains("a namespace of another kind than net"), "{error}");
}

pub(crate) fn clocks() {
    let up = |script: &str, offset: i64| {
        let mut spec = shell(script);
        let linux = spec.linux.as_mut().unwrap();
        linux.namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
        linux.time_offsets.insert("boottime".into(), TimeOffset { secs: offset, nanosecs: 0 });
        linux.time_offsets.insert("monotonic".into(), TimeOffset { secs: 7, nanosecs: 500 });
        text(run(&spec))
    };
    let host: f64 =
        std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let inside: f64 = up("cat /proc/uptime", 1_000_000).split(' ').next().unwrap().parse().unwrap();
    assert!((999_990.0..1_000_100.0).contains(&(inside - host)), "{host} and {inside}");
    let offsets = up("cat /proc/self/timens_offsets", 3);
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "7", "500", "boottime", "3", "0"]);
}

/// A listening gate below `dir`.
fn gate(dir: &Path) -> (OwnedFd, SocketAddrUnix) {
    let address = SocketAddrUnix::new(dir.join("start.sock")).unwrap();
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    (socket, address)
}

fn knock(address: &SocketAddrUnix) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::connect(&socket, address).unwrap();
    socket
}

pub(crate) fn a_gate_that_outlives_the_creator() {
    let dir = scratch();
    let (listener, address) = gate(dir.path());
    let (stdio, reader) = pipes();
    let spec = shell("echo started");
    let rootfs = overlay(dir.path());
    let options = CreateOptions {
        stdio,
        gate: Gate::Socket(listener),
        life: Life::Detached,
        ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
    };
    // The creator is a process of its own, which ends before the container is started.
    creel_sys::process::set_subreaper(true).unwrap();
    let (mut from, mut to) = std::io::pipe().unwrap();
    match creel_sys::clone::clone(&creel_sys::clone::Clone::default()).unwrap() {
        creel_sys::clone::Cloned::Child => {
            let pid =
                creel_runtime::create(options).and_then(|created| created.detach()).map_or(-1, |d| d.pid);
            let _ = to.write_all(&pid.to_le_bytes());
            creel_sys::process::exit_now(0);
        }
        creel_sys::clone::Cloned::Parent { pidfd, .. } => {
            drop((to, options));
            assert_eq!(finish(&pidfd), 0);
            let mut bytes = [0; 4];
            std::io::Read::read_exact(&mut from, &mut bytes).unwrap();
            let pid = i32::from_le_bytes(bytes);
            let init = creel_sys::pidfd::open(pid).unwrap();
            // Whoever hangs up without a word has not started it.
            drop(knock(&address));
            assert!(creel_runtime::open_gate(knock(&address)).unwrap().is_empty());
            assert_eq!(read(reader), "started\n");
            assert_eq!(finish(&init), 0);
        }
    }
    creel_sys::process::set_subreaper(false).unwrap();
}

pub(crate) fn whoever_starts_hears_why_it_failed() {
    for (args, hook, wanted) in [
        (vec!["/missing"], None, "no such file or directory"),
        (vec!["true"], Some("/bin/false"), "error running startContainer hook #0: /bin/false: exit status 1"),
    ] {
        let dir = scratch();
        let (listener, address) = gate(dir.path());
        let mut spec = docker_like(&args);
        if let Some(program) = hook {
            let hook = Hook { path: program.into(), args: vec!["false".into()], ..Hook::default() };
            spec.hooks = Some(Hooks { start_container: vec![hook], ..Hooks::default() });
        }
        let rootfs = overlay(dir.path());
        let created = creel_runtime::create(CreateOptions {
            gate: Gate::Socket(listener),
            ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
        });
        let error = match created {
            Err(e) => e,
            Ok(created) => {
                let detached = created.detach().unwrap();
                let error = creel_runtime::open_gate(knock(&address)).unwrap_err();
                assert_ne!(finish(&detached.pidfd), 0);
                error
            }
        };
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

pub(crate) fn descriptors_are_handed_on() {
    let dir = scratch();
    let file = std::fs::File::create_new(path(&dir, "kept")).unwrap();
    let number = file.as_raw_fd();
    let spec = shell(&format!("echo through >&{number}; ls /proc/self/fd"));
    let rootfs = overlay(dir.path());
    let (stdio, reader) = pipes();
    let started = creel_runtime::create(CreateOptions {
        stdio,
        preserve_fds: vec![number],
        ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
    })
    .unwrap()
    .start()
    .unwrap();
    let listed = read(reader);
    assert_eq!(finish(&started.pidfd), 0);
    assert_eq!(std::fs::read_to_string(path(&dir, "kept")).unwrap(), "through\n");
    // The last one is that of the directory being read.
    let numbers: Vec<i32> = listed.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(numbers.contains(&number) && numbers.len() == 5, "{listed}");
}

pub(crate) fn the_group_is_joined_by_somebody_else() {
    let dir = scratch();
    let spec = shell("true");
    let rootfs = overlay(dir.path());
    let mut asked = 0;
    let mut place = |pid: i32| {
        asked = pid;
        if std::path::Path::new(&format!("/proc/{pid}")).exists() { Ok(()) } else { Err("gone".to_string()) }
    };
    let started = creel_runtime::create(CreateOptions {
        cgroup: Group::ByPid(&mut place),
        ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
    })
    .unwrap()
    .start()
    .unwrap();
    finish(&started.pidfd);
    assert_eq!(asked, started.pid);

    let mut refuse = |_| Err("the manager says no".to_string());
    let error = creel_runtime::create(CreateOptions {
        cgroup: Group::ByPid(&mut refuse),
        ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
    })
    .unwrap_err();
    assert!(matches!(&error, Error::Setup { message, .. } if message == "the manager says no"), "{error}");
}

pub(crate) fn without_pivot_root() {
    let dir = scratch();
    let spec = shell("pwd; ls -d /bin; cat /etc/group | head -n 1");
    let rootfs = overlay(dir.path());
    let (stdio, reader) = pipes();
    let started = creel_runtime::create(CreateOptions {
        stdio,
        pivot: false,
        keyring: false,
        ..CreateOptions::new("test", &spec, Path::new("/var/tmp"), &rootfs)
    })
    .unwrap()
    .start()
    .unwrap();
    assert_eq!(read(reader), "/\n/bin\nroot:x:0:\n");
    finish(&started.pidfd);
}

pub(crate) fn a_mount_namespace_is_joined() {
    let sleeper = Sleeper::new(|_| {});
    let pid = sleeper.started.pid;
    let dir = scratch();
    let mut spec = shell("cat /etc/mark");
    for space in &mut spec.linux.as_mut().unwrap().namespaces {
        if space.kind == NamespaceKind::Mount {
            space.path = Some(format!("/proc/{pid}/ns/mnt"));
        }
    }
    std::fs::write(path(&dir, "root/etc/mark"), "second root\n").unwrap();
    assert_eq!(text(run_on(&spec, &Rootfs::Directory(path(&dir, "root")))), "second root\n");
    let _ = sleeper.started.pidfd.as_fd();
}

pub(crate) fn without_a_mount_namespace() {
    let dir = scratch();
    let root = path(&dir, "root");
    let mut spec =
        shell("readlink /proc/self/ns/mnt; touch /home/x 2>&1; cat /proc/mounts | wc -l; ls /dev/null");
    spec.linux.as_mut().unwrap().namespaces.retain(|space| space.kind != NamespaceKind::Mount);
    spec.root.as_mut().unwrap().readonly = true;
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("an overlay root needs a mount namespace"), "{error}");
    // In a process with a mount namespace of its own, so that nothing happens to this one's.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let cloning = creel_sys::clone::Clone { flags: creel_sys::clone::NEWNS, cgroup: None };
    match creel_sys::clone::clone(&cloning).unwrap() {
        creel_sys::clone::Cloned::Child => {
            let body = || {
                let private =
                    creel_sys::mount::MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
                creel_sys::mount::mount_setattr(rustix::fs::CWD, c"/", creel_sys::mount::RECURSIVE, &private)
                    .unwrap();
                let own = std::fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
                let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
                let (said, code) = run_on(&spec, &Rootfs::Directory(root.clone())).unwrap();
                assert_eq!((said.lines().next().unwrap(), code), (own.as_str(), 0));
                assert!(said.ends_with("/dev/null\n") && said.contains("Read-only file system"), "{said}");
                let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(mounts.contains(&format!(" {} ro,", root.display())), "{mounts}");
                assert_ne!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
                assert_eq!(creel_runtime::rootfs::mounts_on(&root).unwrap(), 1);
                creel_runtime::rootfs::unmount(&root, 1).unwrap();
                assert_eq!(
                    creel_runtime::rootfs::mounts_on(&root).unwrap(),
                    1,
                    "this one is somebody else's"
                );
                creel_runtime::rootfs::unmount(&root, 0).unwrap();
                assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            let _ = writer.write_all(if done { b"done" } else { b"not" });
            creel_sys::process::exit_now(0);
        }
        creel_sys::clone::Cloned::Parent { pidfd, .. } => {
            drop(writer);
            assert_eq!(read(reader.into()), "done");
            finish(&pidfd);
        }
    }
}
