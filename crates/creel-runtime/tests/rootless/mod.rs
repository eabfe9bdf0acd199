//! Containers of an ordinary user: no rights but those that a user namespace gives.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use creel_runtime::{CreateOptions, Rootfs, Stdio};
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process;
use creel_types::spec::*;

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
        "id -u; id -g; touch /made && stat -c %u /made; cat /proc/self/setgroups; echo > /dev/null; hostname; ps -o pid,comm | wc -l",
    );
    let said = as_user(dir.path(), || run_it(&spec, &rootfs));
    assert_eq!(said, "0\n0\n0\ndeny\nbox\n4\n0");
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
            target_pid: started.pid,
            target_pidfd: started.pidfd.as_fd(),
            spec: &wanted,
            process: &process,
            stdio,
            cgroup: None,
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
    assert!(said.contains("cannot map ids with newuidmap"), "{said}");

    let without = shell("true");
    let said = as_user(dir.path(), || {
        let options = CreateOptions::new("test", &without, Path::new("/var/tmp"), &rootfs);
        creel_runtime::create(options).map_or_else(|e| e.to_string(), |_| "made".into())
    });
    assert!(said.contains("needs a user namespace"), "{said}");
}
