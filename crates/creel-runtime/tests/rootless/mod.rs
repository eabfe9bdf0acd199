//! Containers of an ordinary user: no rights but those that a user namespace gives.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use creel_runtime::{CreateOptions, Rootfs, Stdio};
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process;
use creel_types::spec::*;

use crate::notifying::{Agent, notifying};
use crate::support::read;
use crate::support::*;

/// An id that nobody has.
const USER: u32 = 54_321;

/// What `body` says when an ordinary user runs it in a process of his own.
fn as_user(dir: &Path, body: impl FnOnce() -> String) -> String {
    for entry in [dir.to_path_buf(), dir.join("root"), dir.join("upper"), dir.join("work")] {
        let (uid, gid) = (rustix::fs::Uid::from_raw(USER), rustix::fs::Gid::from_raw(USER));
        rustix::fs::chown(entry, Some(uid), Some(gid)).unwrap();
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    match clone(&Clone::default()).unwrap() {
        Cloned::Child => {
            give_subordinate_ids(dir);
            process::setgroups(&[]).unwrap();
            process::setresgid(USER).unwrap();
            process::setresuid(USER).unwrap();
            // As if the program had been executed by that user.
            process::set_dumpable(true).unwrap();
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            let _ = writer.write_all(said.unwrap_or_else(|_| "panicked".into()).as_bytes());
            process::exit_now(0);
        }
        Cloned::Parent { pidfd, .. } => {
            drop(writer);
            let said = read(reader.into());
            finish(&pidfd);
            said
        }
    }
}

/// In this process's own mount namespace alone, the user has a name, and a range of ids.
fn give_subordinate_ids(dir: &Path) {
    use creel_sys::mount as sys;
    creel_sys::ns::unshare(creel_sys::clone::NEWNS).unwrap();
    let private = sys::MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
    sys::mount_setattr(rustix::fs::CWD, c"/", sys::RECURSIVE, &private).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    for (name, text) in [
        ("passwd", format!("{passwd}walter:x:{USER}:{USER}::/:/bin/sh\n")),
        ("subuid", "walter:300000:1000\n".to_string()),
        ("subgid", "walter:400000:1000\n".to_string()),
    ] {
        let (file, place) = (dir.join(name), Path::new("/etc").join(name));
        std::fs::write(&file, text).unwrap();
        if place.exists() {
            let flags = sys::OpenTreeFlags::OPEN_TREE_CLONE | sys::OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = sys::open_tree(rustix::fs::CWD, &file, flags).unwrap();
            let target =
                rustix::fs::open(&place, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            sys::attach(&tree, &target).unwrap();
        }
    }
}

fn spec(script: &str) -> Spec {
    let mut spec = shell(script);
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    let own = vec![IdMapping { container_id: 0, host_id: USER, size: 1 }];
    (linux.uid_mappings, linux.gid_mappings) = (own.clone(), own);
    // The group of terminals is not mapped.
    spec.mounts.iter_mut().for_each(|mount| mount.options.retain(|option| option != "gid=5"));
    spec
}

fn run_it(spec: &Spec, rootfs: &Rootfs) -> String {
    match run_on(spec, rootfs) {
        Ok((text, code)) => format!("{text}{code}"),
        Err(e) => format!("error: {e}"),
    }
}

pub(crate) fn an_ordinary_user_runs_a_container() {
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let spec = spec(
        "id -u; id -g; touch /made && stat -c %u /made; cat /proc/self/setgroups; echo > /dev/null; hostname; echo $$",
    );
    let said = as_user(dir.path(), || run_it(&spec, &rootfs));
    assert_eq!(said, "0\n0\n0\ndeny\nbox\n1\n0");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(path(&dir, "upper/made")).unwrap().uid(), USER);
}

pub(crate) fn an_ordinary_user_execs_into_his_container() {
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let mut wanted = spec("sleep 1000");
    wanted.process.as_mut().unwrap().args = ["sleep", "1000"].map(str::to_string).to_vec();
    let said = as_user(dir.path(), || {
        let started = create(&wanted, &rootfs, Stdio::default()).unwrap().start().unwrap();
        let mut process = wanted.process.clone().unwrap();
        process.args = ["sh", "-c", "id -u; cat /proc/1/comm"].map(str::to_string).to_vec();
        let (stdio, reader) = pipes();
        let execed = creel_runtime::exec(creel_runtime::ExecOptions {
            id: "test",
            bundle: Path::new("/var/tmp"),
            target_pid: started.pid,
            target_pidfd: started.pidfd.as_fd(),
            spec: &wanted,
            filter: None,
            process: &process,
            stdio,
            cgroup: None,
            doors: None,
            life: creel_runtime::Life::WithCreator,
            preserve_fds: Vec::new(),
        });
        match execed {
            Ok(execed) => format!("{}{}", read(reader), finish(&execed.pidfd)),
            Err(e) => format!("error: {e}"),
        }
    });
    assert_eq!(said, "0\nsleep\n0");
}

pub(crate) fn what_an_ordinary_user_cannot_have_is_said() {
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let mut groups = spec("true");
    groups.process.as_mut().unwrap().user.additional_gids = vec![7];
    let said = as_user(dir.path(), || run_it(&groups, &rootfs));
    assert!(said.contains("supplementary groups: operation not permitted"), "{said}");

    let mut foreign = spec("true");
    foreign.linux.as_mut().unwrap().uid_mappings = vec![IdMapping { container_id: 0, host_id: 0, size: 1 }];
    let said = as_user(dir.path(), || run_it(&foreign, &rootfs));
    assert!(said.contains("cannot map ids with newuidmap") && said.contains("/etc/subuid"), "{said}");

    let without = shell("true");
    let said = as_user(dir.path(), || {
        let options = CreateOptions::new("test", &without, Path::new("/var/tmp"), &rootfs);
        creel_runtime::create(options).map_or_else(|e| e.to_string(), |_| "made".into())
    });
    assert!(said.contains("needs a user namespace"), "{said}");
}

pub(crate) fn an_ordinary_user_with_a_range_of_ids() {
    if !Path::new("/usr/bin/newuidmap").exists() {
        assert!(std::env::var_os("CREEL_TEST_TOOLS").is_none(), "newuidmap is missing: install uidmap");
        println!("skipped: needs newuidmap");
        return;
    }
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let mut wanted = spec("id -u; id -G; cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/made");
    let ranges = |first| {
        vec![
            IdMapping { container_id: 0, host_id: USER, size: 1 },
            IdMapping { container_id: 1, host_id: first, size: 1000 },
        ]
    };
    let linux = wanted.linux.as_mut().unwrap();
    (linux.uid_mappings, linux.gid_mappings) = (ranges(300_000), ranges(400_000));
    let user = User { uid: 7, gid: 8, additional_gids: vec![9], umask: None };
    wanted.process.as_mut().unwrap().user = user;
    std::os::unix::fs::chown(path(&dir, "root/tmp"), Some(300_006), Some(400_007)).unwrap();
    let said = as_user(dir.path(), || run_it(&wanted, &rootfs));
    let words: Vec<&str> = said.split_whitespace().collect();
    let number = USER.to_string();
    let maps = ["0", &number, "1", "1", "300000", "1000", "0", &number, "1", "1", "400000", "1000"];
    assert_eq!(words, [&["7", "8", "9"][..], &maps, &["0"]].concat(), "{said}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(path(&dir, "upper/tmp/made")).unwrap().uid(), 300_006);
}

pub(crate) fn an_ordinary_user_has_calls_answered() {
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let socket = path(&dir, "agent.sock");
    let mut agent = Agent::start(&socket);
    std::os::unix::fs::chown(&socket, Some(USER), Some(USER)).unwrap();
    for privileges in [false, true] {
        let mut wanted = spec("mkdir /tmp/x; echo done");
        wanted.process.as_mut().unwrap().no_new_privileges = !privileges;
        wanted.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
        let said = as_user(dir.path(), || run_it(&wanted, &rootfs));
        assert!(said.contains("Invalid cross-device link") && said.ends_with("done\n0"), "{said}");
        assert!(agent.line().contains("\"status\":\"creating\""));
    }
    // In a container that lives its processes could look into the new one, which therefore nobody may.
    let mut wanted = spec("sleep 1000");
    wanted.process.as_mut().unwrap().args = ["sleep", "1000"].map(str::to_string).to_vec();
    let said = as_user(dir.path(), || {
        let started = create(&wanted, &rootfs, Stdio::default()).unwrap().start().unwrap();
        let mut filtered = wanted.clone();
        filtered.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
        let execed = creel_runtime::exec(creel_runtime::ExecOptions {
            id: "test",
            bundle: Path::new("/var/tmp"),
            target_pid: started.pid,
            target_pidfd: started.pidfd.as_fd(),
            spec: &filtered,
            filter: None,
            process: filtered.process.as_ref().unwrap(),
            stdio: Stdio::default(),
            cgroup: None,
            doors: None,
            life: creel_runtime::Life::WithCreator,
            preserve_fds: Vec::new(),
        });
        execed.map_or_else(|e| e.to_string(), |_| "executed".into())
    });
    assert!(said.contains("operation not permitted") && said.contains("new container"), "{said}");
}
