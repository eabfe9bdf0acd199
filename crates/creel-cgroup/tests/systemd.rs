//! The real systemd: scopes that it makes, limits that it and the kernel show, and their end.
//!
//! Needs root and systemd as init, which `tests/vm/run` has; elsewhere nothing is tested.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use creel_cgroup::systemd::{self, Request};
use creel_cgroup::{Cgroup, Error, Hierarchies, Layout};
use creel_types::spec::Resources;

/// The hierarchies of a machine that systemd runs; `None` elsewhere.
fn host() -> Option<Hierarchies> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        assert_ne!(std::env::var("CREEL_TEST_ROOT").as_deref(), Ok("1"), "CREEL_TEST_ROOT=1 and not root");
        return None;
    }
    if !Path::new("/run/systemd/system").is_dir() {
        println!("skipped: systemd does not run this machine");
        return None;
    }
    Some(Hierarchies::detect().unwrap())
}

/// A process that does nothing, killed at the end.
struct Idle(Child);

impl Idle {
    fn new() -> Idle {
        Idle(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn show(unit: &str, property: &str) -> String {
    let out = Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// `/proc/PID/cgroup`, one line for each hierarchy.
fn groups(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
}

fn dir(group: &Cgroup, controller: &str) -> PathBuf {
    let h = group.hierarchies();
    h.v1_dir(controller, group.path()).or_else(|| h.unified_dir(controller, group.path())).unwrap()
}

fn read(group: &Cgroup, controller: &str, v1: &str, v2: &str) -> String {
    let name = if group.hierarchies().v1_with(controller).is_some() { v1 } else { v2 };
    fs::read_to_string(dir(group, controller).join(name)).unwrap().trim().to_owned()
}

fn name(test: &str) -> String {
    format!("system.slice:creeltest:{test}{}", std::process::id())
}

#[test]
fn a_scope_lives_and_ends() {
    let Some(h) = host() else { return };
    let v2 = h.layout() == Layout::V2;
    let asked = resources(
        r#"{"memory": {"limit": 67108864}, "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 20},
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}"#,
    );
    let annotations =
        BTreeMap::from([("org.systemd.property.TimeoutStopSec".to_owned(), "uint64 7".to_owned())]);
    let path = name("life");
    let request = Request {
        cgroups_path: Some(&path),
        id: "life",
        annotations: &annotations,
        resources: &asked,
        rootless: false,
    };
    let process = Idle::new();
    let begun = Instant::now();
    let group = systemd::create(&h, &request, Some(process.pid())).unwrap().group;
    println!("a scope made in {:?}", begun.elapsed());
    let unit = group.unit().unwrap().name.clone();
    assert_eq!(unit, format!("creeltest-life{}.scope", std::process::id()));
    assert_eq!(group.path(), format!("/system.slice/{unit}"));
    for found in groups(process.pid()) {
        assert_eq!(found, group.path());
    }
    assert_eq!(group.pids().unwrap(), [process.pid()]);
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Delegate"), "yes");
    assert_eq!(show(&unit, "Slice"), "system.slice");
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(show(&unit, "TasksMax"), "20");
    assert_eq!(show(&unit, if v2 { "MemoryMax" } else { "MemoryLimit" }), "67108864");
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(show(&unit, if v2 { "CPUWeight" } else { "CPUShares" }), if v2 { "59" } else { "512" });
    assert_eq!(show(&unit, "AllowedCPUs"), "0");
    assert_eq!(show(&unit, "DevicePolicy"), "strict");
    assert!(show(&unit, "DeviceAllow").contains("/dev/char/1:3"), "{}", show(&unit, "DeviceAllow"));
    assert_eq!(read(&group, "pids", "pids.max", "pids.max"), "20");
    assert_eq!(read(&group, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read(&group, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");

    // What joins later is held to the same rules: /dev/null may be written to, /dev/zero not read.
    let inside = |command: &str| {
        let doors: Vec<String> =
            group.dirs().map(|dir| format!("echo $$ > {}/cgroup.procs || exit 9;", dir.display())).collect();
        let script = format!("{} {command}", doors.concat());
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(inside("echo x > /dev/null"), Some(0));
    assert_ne!(inside("exec < /dev/zero"), Some(0));

    // Another process knows the group from its record alone, and changes it.
    let group: Cgroup = serde_json::from_str(&serde_json::to_string(&group).unwrap()).unwrap();
    group
        .update(&resources(
            r#"{"memory": {"limit": 33554432}, "cpu": {"period": 50000}, "pids": {"limit": -1}}"#,
        ))
        .unwrap();
    assert_eq!(show(&unit, if v2 { "MemoryMax" } else { "MemoryLimit" }), "33554432");
    assert_eq!(show(&unit, "TasksMax"), "infinity");
    // The quota of 50 ms that was there is now all of a processor.
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "1s");
    assert_eq!(read(&group, "pids", "pids.max", "pids.max"), "max");
    assert_eq!(read(&group, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    group
        .update(&resources(
            r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}"#,
        ))
        .unwrap();
    assert_eq!(inside("exec < /dev/zero"), Some(0));
    assert_eq!(inside("exec < /dev/null"), Some(0));
    assert_ne!(inside("exec < /dev/full"), Some(0));
    // systemd writes its files again, and nothing is lost.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!(read(&group, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(inside("exec < /dev/zero"), Some(0));
    assert_ne!(inside("exec < /dev/full"), Some(0));

    let error = systemd::create(&h, &request, None).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    group.kill_all().unwrap();
    drop(process);
    group.remove().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
    let begun = Instant::now();
    while show(&unit, "LoadState") != "not-found" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", show(&unit, "ActiveState"));
        std::thread::sleep(Duration::from_millis(50));
    }
    group.remove().unwrap();
}

#[test]
fn removal_ends_what_is_inside() {
    let Some(h) = host() else { return };
    let path = name("stop");
    let request = Request {
        cgroups_path: Some(&path),
        id: "stop",
        annotations: &BTreeMap::new(),
        resources: &Resources::default(),
        rootless: false,
    };
    let mut process = Idle::new();
    let group = systemd::create(&h, &request, Some(process.pid())).unwrap().group;
    // Nobody reaps but us, and a group with a zombie can be removed.
    group.remove().unwrap();
    process.0.wait().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
}

#[test]
fn what_systemd_refuses_is_told() {
    let Some(h) = host() else { return };
    let path = name("refused");
    let annotations = BTreeMap::from([("org.systemd.property.NoSuchThing".to_owned(), "true".to_owned())]);
    let request = Request {
        cgroups_path: Some(&path),
        id: "refused",
        annotations: &annotations,
        resources: &Resources::default(),
        rootless: false,
    };
    let process = Idle::new();
    let error = systemd::create(&h, &request, Some(process.pid())).unwrap_err();
    println!("as it should: {error}");
    assert!(matches!(&error, Error::Systemd { name, .. } if !name.is_empty()), "{error}");
    assert!(groups(process.pid()).iter().all(|group| !group.contains("creeltest-refused")));
}

#[test]
fn slices_with_nobody_in_them() {
    let Some(h) = host() else { return };
    let pod = format!("creeltest-pod{}.slice", std::process::id());
    let path = format!("creeltest.slice::{pod}");
    let request = Request {
        cgroups_path: Some(&path),
        id: "pod",
        annotations: &BTreeMap::new(),
        resources: &resources(r#"{"pids": {"limit": 30}}"#),
        rootless: false,
    };
    let group = systemd::create(&h, &request, None).unwrap().group;
    assert_eq!(group.path(), format!("/creeltest.slice/{pod}"));
    assert_eq!(show(&pod, "ActiveState"), "active");
    assert_eq!(read(&group, "pids", "pids.max", "pids.max"), "30");
    // Once more, as kubelets do.
    systemd::create(&h, &request, None).unwrap();
    group.remove().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
    let _ = Command::new("systemctl").args(["stop", "creeltest.slice"]).status();
}

/// A user who is nobody else's.
const NOBODY: u32 = 65_534;

/// An ordinary user's systemd, started as `pam_systemd` does where it is installed; ended at the end.
struct Manager {
    runtime: PathBuf,
    drop_in: PathBuf,
}

impl Manager {
    fn start() -> Manager {
        let manager = Manager {
            runtime: format!("/run/user/{NOBODY}").into(),
            drop_in: format!("/run/systemd/system/user@{NOBODY}.service.d").into(),
        };
        fs::create_dir_all(&manager.runtime).unwrap();
        fs::set_permissions(&manager.runtime, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&manager.runtime, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::create_dir_all(&manager.drop_in).unwrap();
        let text = format!("[Service]\nEnvironment=XDG_RUNTIME_DIR={}\n", manager.runtime.display());
        fs::write(manager.drop_in.join("creeltest.conf"), text).unwrap();
        manager.systemctl(&["daemon-reload"]);
        manager.systemctl(&["start", &format!("user@{NOBODY}.service")]);
        manager
    }

    fn systemctl(&self, args: &[&str]) -> bool {
        Command::new("systemctl").args(args).status().unwrap().success()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.systemctl(&["stop", &format!("user@{NOBODY}.service")]);
        let _ = fs::remove_dir_all(&self.drop_in);
        let _ = fs::remove_dir_all(&self.runtime);
        self.systemctl(&["daemon-reload"]);
    }
}

#[test]
fn an_ordinary_user_asks_his_own() {
    let Some(h) = host() else { return };
    if h.layout() != Layout::V2 {
        println!("skipped: users have their own groups in cgroup v2 alone");
        return;
    }
    let manager = Manager::start();
    // The very test program, as that user; it may be in a place that he cannot reach.
    let copy = manager.runtime.join("test");
    fs::copy("/proc/self/exe", &copy).unwrap();
    chown(&copy, Some(NOBODY), Some(NOBODY)).unwrap();
    let out = Command::new(&copy)
        .args(["--exact", "part_of_an_ordinary_user", "--ignored", "--nocapture"])
        .env("XDG_RUNTIME_DIR", &manager.runtime)
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    println!("{text}");
}

/// What [`an_ordinary_user_asks_his_own`] runs as that user.
#[test]
#[ignore = "is run by another test, as another user"]
fn part_of_an_ordinary_user() {
    let h = Hierarchies::detect().unwrap();
    let path = format!(":creeltest:mine{}", std::process::id());
    let asked = resources(r#"{"pids": {"limit": 20}, "devices": [{"allow": false, "access": "rwm"}]}"#);
    let request = Request {
        cgroups_path: Some(&path),
        id: "mine",
        annotations: &BTreeMap::new(),
        resources: &asked,
        rootless: true,
    };
    let process = Idle::new();
    let group = systemd::create(&h, &request, Some(process.pid())).unwrap().group;
    let above = format!("/user.slice/user-{NOBODY}.slice/user@{NOBODY}.service/user.slice/");
    assert!(group.path().starts_with(&above), "{}", group.path());
    assert_eq!(groups(process.pid()), [group.path()]);
    assert_eq!(read(&group, "pids", "pids.max", "pids.max"), "20");
    // Each is a connection of its own to the private socket.
    for limit in 30..40 {
        group.update(&resources(&format!(r#"{{"pids": {{"limit": {limit}}}}}"#))).unwrap();
        assert_eq!(read(&group, "pids", "pids.max", "pids.max"), limit.to_string());
    }
    group.kill_all().unwrap();
    drop(process);
    group.remove().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
}
