use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use creel_types::spec::{DeviceRule, Resources};
use expect_test::expect;

use crate::admit;
use crate::apply::{self, Kernel};
use crate::hierarchy::Hierarchies;
use crate::hierarchy::tests::{hybrid, v1, v2};
use crate::plan::Plan;
use crate::{Cgroup, Error, Result};

const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENODEV: i32 = 19;

/// A kernel in memory: directories get their files when they are made; some writes fail.
#[derive(Default)]
struct Fake {
    dirs: RefCell<BTreeMap<PathBuf, ()>>,
    files: RefCell<BTreeMap<PathBuf, String>>,
    /// Files whose writing fails, and how.
    broken: BTreeMap<String, i32>,
    /// Files that no directory has.
    lacking: Vec<&'static str>,
    /// Before so many writes somebody removes the group that is written to.
    trims: Cell<u32>,
    log: RefCell<Vec<String>>,
}

const FILES: &[&str] = &[
    "cgroup.procs",
    "cgroup.subtree_control",
    "cgroup.kill",
    "tasks",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.swappiness",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.weight",
    "cpu.max",
    "pids.max",
    "blkio.bfq.weight",
    "io.weight",
    "io.max",
    "devices.allow",
    "devices.deny",
    "devices.list",
    "blkio.throttle.read_bps_device",
];

impl Fake {
    fn new(h: &Hierarchies) -> Fake {
        let fake = Fake::default();
        for mount in h.mount_points() {
            fake.make(mount);
        }
        for file in fake.files.borrow_mut().iter_mut() {
            match file.0.file_name().unwrap().to_str().unwrap() {
                "cpuset.cpus" => *file.1 = "0-3\n".into(),
                "cpuset.mems" => *file.1 = "0\n".into(),
                _ => {}
            }
        }
        fake
    }

    fn make(&self, dir: &Path) {
        self.dirs.borrow_mut().insert(dir.to_path_buf(), ());
        for file in FILES {
            self.files.borrow_mut().insert(dir.join(file), String::new());
        }
    }

    fn groups(&self) -> Vec<String> {
        let dirs = self.dirs.borrow();
        dirs.keys().map(|dir| dir.display().to_string()).filter(|dir| dir.contains("creel")).collect()
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Kernel for Fake {
    fn mkdir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.borrow().contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !self.dirs.borrow().contains_key(dir.parent().unwrap()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.make(dir);
        Ok(())
    }

    fn rmdir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.borrow().keys().any(|other| other.parent() == Some(dir)) {
            return Err(errno(EBUSY));
        }
        self.dirs.borrow_mut().remove(dir).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        self.files.borrow_mut().retain(|file, _| file.parent() != Some(dir));
        self.log.borrow_mut().push(format!("rmdir {}", dir.display()));
        Ok(())
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        self.files.borrow().get(file).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let name = file.file_name().unwrap().to_str().unwrap();
        if let Some(left) =
            self.trims.get().checked_sub(1).filter(|_| file.parent().unwrap().ends_with("abc"))
        {
            self.trims.set(left);
            self.rmdir(file.parent().unwrap()).unwrap();
            // Opened before or after.
            return Err(if left % 2 == 0 { errno(ENODEV) } else { io::ErrorKind::NotFound.into() });
        }
        if let Some(number) = self.broken.get(name) {
            return Err(errno(*number));
        }
        // The kernel's rule: memory and swap together are never less than memory alone.
        let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n >= 0).unwrap_or(i64::MAX);
        let sibling =
            |name: &str| self.files.borrow().get(&file.with_file_name(name)).map(|text| number(text));
        let refused = match name {
            "memory.limit_in_bytes" => {
                sibling("memory.memsw.limit_in_bytes").is_some_and(|both| number(value) > both)
            }
            "memory.memsw.limit_in_bytes" => sibling("memory.limit_in_bytes")
                .is_some_and(|alone| alone != i64::MAX && alone > number(value)),
            _ => false,
        };
        if refused {
            return Err(errno(EINVAL));
        }
        let mut files = self.files.borrow_mut();
        let file_value = match files.get_mut(file) {
            Some(value) if !self.lacking.contains(&name) => value,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        if name == "cgroup.subtree_control" {
            file_value.push_str(&value.replace('+', ""));
        } else {
            *file_value = value.to_owned();
        }
        self.log.borrow_mut().push(format!("{} < {value}", file.display()));
        Ok(())
    }

    fn children(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.dirs.borrow().keys().filter(|other| other.parent() == Some(dir)).cloned().collect())
    }

    fn device_program(&self, dir: &Path, rules: &[DeviceRule]) -> Result<()> {
        self.log.borrow_mut().push(format!("{} program of {} rules", dir.display(), rules.len()));
        Ok(())
    }
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

fn plan(h: &Hierarchies, json: &str) -> Plan {
    Cgroup::plan(h, "/creel/abc", &resources(json)).unwrap()
}

#[test]
fn v2_hands_controllers_down_before_it_writes() {
    let h = v2();
    let fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64}, "devices": [{"allow": false}]}"#).steps)
        .unwrap();
    expect![[r#"
        /sys/fs/cgroup/cgroup.subtree_control < +cpuset +cpu +io +memory +hugetlb +pids +rdma +misc
        /sys/fs/cgroup/creel/cgroup.subtree_control < +cpuset +cpu +io +memory +hugetlb +pids +rdma +misc
        /sys/fs/cgroup/creel/abc/memory.max < 64
        /sys/fs/cgroup/creel/abc program of 1 rules"#]]
    .assert_eq(&fake.log.borrow().join("\n"));
}

#[test]
fn v1_copies_the_cpuset_down() {
    let h = v1();
    let fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, "{}").steps).unwrap();
    expect![[r#"
        /sys/fs/cgroup/cpuset/creel/cpuset.cpus < 0-3
        /sys/fs/cgroup/cpuset/creel/cpuset.mems < 0
        /sys/fs/cgroup/cpuset/creel/abc/cpuset.cpus < 0-3
        /sys/fs/cgroup/cpuset/creel/abc/cpuset.mems < 0"#]]
    .assert_eq(&fake.log.borrow().join("\n"));
    // One directory for the parent and one for the group in each of the ten hierarchies.
    assert_eq!(fake.groups().len(), 20);
}

#[test]
fn a_failure_at_any_write_leaves_nothing() {
    let json = r#"{"memory": {"limit": 64, "swap": 128}, "cpu": {"shares": 3}, "pids": {"limit": 5}}"#;
    for h in [v1(), hybrid(), v2()] {
        let shares = if h.layout() == crate::Layout::V2 { "cpu.weight" } else { "cpu.shares" };
        for file in [shares, "pids.max"] {
            let mut fake = Fake::new(&h);
            fake.broken.insert(file.into(), EINVAL);
            let error = apply::create(&fake, &plan(&h, json).steps).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
            assert!(error.to_string().contains("out of the range"), "{error}");
            assert_eq!(fake.groups(), Vec::<String>::new());
        }
    }
}

#[test]
fn files_that_the_kernel_lacks() {
    let h = hybrid();
    let mut fake = Fake::new(&h);
    fake.lacking = vec!["memory.memsw.limit_in_bytes"];
    let error =
        apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64, "swap": 128}}"#).steps).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(fake.groups(), Vec::<String>::new());
    // Without swap accounting there is no limit to lift.
    apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64, "swap": -1}}"#).steps).unwrap();
    // The second name of the weight.
    let fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, r#"{"blockIO": {"weight": 300}}"#).steps).unwrap();
    let weight = fake.read(Path::new("/sys/fs/cgroup/blkio/creel/abc/blkio.bfq.weight")).unwrap();
    assert_eq!(weight, "300");
}

#[test]
fn limits_of_memory_and_swap_go_up_and_down() {
    let h = hybrid();
    let fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64, "swap": 128}}"#).steps).unwrap();
    let at = Path::new("/sys/fs/cgroup/memory/creel/abc");
    for (limit, swap) in [(256, 512), (32, 32), (1000, 1000), (1, 2)] {
        let r = resources(&format!(r#"{{"memory": {{"limit": {limit}, "swap": {swap}}}}}"#));
        apply::update(&fake, &Plan::update(&h, "/creel/abc", &r).unwrap()).unwrap();
        assert_eq!(fake.read(&at.join("memory.limit_in_bytes")).unwrap(), limit.to_string());
        assert_eq!(fake.read(&at.join("memory.memsw.limit_in_bytes")).unwrap(), swap.to_string());
    }
    // Memory alone above what both may have: refused as the kernel does, and nothing has changed.
    let r = resources(r#"{"memory": {"limit": 3}}"#);
    assert!(apply::update(&fake, &Plan::update(&h, "/creel/abc", &r).unwrap()).is_err());
    assert_eq!(fake.read(&at.join("memory.limit_in_bytes")).unwrap(), "1");
}

#[test]
fn an_update_that_fails_puts_former_values_back() {
    let h = v2();
    let mut fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64, "swap": 128}, "pids": {"limit": 5}}"#).steps)
        .unwrap();
    fake.broken.insert("pids.max".into(), EBUSY);
    let r = resources(r#"{"memory": {"limit": 100, "swap": 300}, "pids": {"limit": 7}}"#);
    let error = apply::update(&fake, &Plan::update(&h, "/creel/abc", &r).unwrap()).unwrap_err();
    assert!(error.to_string().contains("pids.max"), "{error}");
    let at = Path::new("/sys/fs/cgroup/creel/abc");
    assert_eq!(fake.read(&at.join("memory.max")).unwrap(), "64");
    assert_eq!(fake.read(&at.join("memory.swap.max")).unwrap(), "64");
}

#[test]
fn prepared_groups_are_taken_leftovers_made_anew_and_the_living_left_alone() {
    let h = hybrid();
    let fake = Fake::new(&h);
    apply::create(&fake, &plan(&h, r#"{"pids": {"limit": 5}}"#).steps).unwrap();
    let group = Path::new("/sys/fs/cgroup/pids/creel/abc");
    // As somebody may have prepared it: its limits stay.
    apply::create(&fake, &plan(&h, "{}").steps).unwrap();
    assert_eq!(fake.read(&group.join("pids.max")).unwrap(), "5");
    // A failure does not remove what was there before.
    let mut broken = fake;
    broken.broken.insert("cpu.shares".into(), EINVAL);
    apply::create(&broken, &plan(&h, r#"{"cpu": {"shares": 3}}"#).steps).unwrap_err();
    assert_eq!(broken.read(&group.join("pids.max")).unwrap(), "5");
    broken.broken.clear();
    let fake = broken;

    fake.make(&group.join("child"));
    apply::create(&fake, &plan(&h, "{}").steps).unwrap();
    assert_eq!(fake.read(&group.join("pids.max")).unwrap(), "");
    assert!(!fake.groups().iter().any(|dir| dir.contains("child")));

    fake.make(&group.join("child"));
    fake.files.borrow_mut().insert(group.join("child/cgroup.procs"), "77\n".into());
    let error = apply::create(&fake, &plan(&h, "{}").steps).unwrap_err();
    assert!(matches!(error, Error::Occupied { pid: 77, .. }), "{error}");
    assert!(error.to_string().contains("cgroup is not empty"), "{error}");
    assert!(fake.groups().iter().any(|dir| dir.contains("child")));
}

#[test]
fn frozen_groups_are_refused() {
    for (h, file, value) in [
        (v2(), "/sys/fs/cgroup/creel/abc/cgroup.freeze", "1\n"),
        (v1(), "/sys/fs/cgroup/freezer/creel/abc/freezer.state", "FROZEN\n"),
    ] {
        let fake = Fake::new(&h);
        apply::create(&fake, &plan(&h, "{}").steps).unwrap();
        fake.files.borrow_mut().insert(file.into(), value.into());
        let error = apply::create(&fake, &plan(&h, "{}").steps).unwrap_err();
        assert!(error.to_string().contains("unexpectedly frozen"), "{error}");
    }
}

#[test]
fn a_threaded_subtree() {
    let h = v2();
    let fake = Fake::new(&h);
    fake.make(Path::new("/sys/fs/cgroup/creel"));
    fake.make(Path::new("/sys/fs/cgroup/creel/abc"));
    let kind = Path::new("/sys/fs/cgroup/creel/abc/cgroup.type");
    fake.files.borrow_mut().insert(kind.into(), "domain invalid\n".into());
    let error = apply::create(&fake, &plan(&h, r#"{"memory": {"limit": 64}}"#).steps).unwrap_err();
    assert!(error.to_string().contains("memory cannot be had"), "{error}");
    apply::create(&fake, &plan(&h, r#"{"pids": {"limit": 64}}"#).steps).unwrap();
    assert_eq!(fake.read(kind).unwrap(), "threaded");
}

#[test]
fn a_period_alone_keeps_the_quota() {
    let h = v2();
    let fake = Fake::new(&h);
    let file = Path::new("/sys/fs/cgroup/creel/abc/cpu.max");
    for (json, want) in [
        (r#"{"cpu": {"quota": 500000, "period": 1000000}}"#, "500000 1000000"),
        (r#"{"cpu": {"period": 900000}}"#, "500000 900000"),
        (r#"{"cpu": {"quota": -1, "period": 900000}}"#, "max 900000"),
        (r#"{"cpu": {"period": 50000}}"#, "max 50000"),
    ] {
        apply::create(&fake, &plan(&h, json).steps).unwrap();
        assert_eq!(fake.read(file).unwrap(), want);
    }
}

#[test]
fn a_controller_that_cannot_be_had_matters_only_if_it_is_needed() {
    let h = v2();
    let mut fake = Fake::new(&h);
    fake.broken.insert("cgroup.subtree_control".into(), EBUSY);
    apply::create(&fake, &plan(&h, "{}").steps).unwrap();
    let error = apply::create(&fake, &plan(&h, r#"{"pids": {"limit": 5}}"#).steps).unwrap_err();
    assert!(error.to_string().contains("processes of its own"), "{error}");
}

#[test]
fn a_group_that_is_removed_while_it_is_empty_is_made_again() {
    let json = r#"{"memory": {"limit": 64}, "pids": {"limit": 5}, "devices": [{"allow": false}]}"#;
    for h in [v1(), hybrid(), v2()] {
        let limit = h.v1_dir("pids", "/creel/abc").or(h.unified_dir("pids", "/creel/abc")).unwrap();
        let fake = Fake::new(&h);
        fake.trims.set(4);
        apply::create(&fake, &plan(&h, json).steps).unwrap();
        assert_eq!((fake.trims.get(), fake.read(&limit.join("pids.max")).unwrap()), (0, "5".into()));

        // Gone altogether, and again and again while it is made.
        let fake = Fake::new(&h);
        fake.trims.set(150);
        let group = Cgroup::of_path(&h, "/creel/abc");
        let steps = Plan::complete(&h, "/creel/abc", &resources(json)).unwrap();
        admit::admit(&fake, &group, &steps, 77).unwrap();
        assert_eq!(fake.trims.get(), 0);
        assert_eq!(fake.read(&limit.join("pids.max")).unwrap(), "5");
        for dir in group.dirs() {
            assert_eq!(fake.read(&dir.join("cgroup.procs")).unwrap(), "77");
        }
        // Where it is already it is not moved, and limits that are missing are set.
        let before = fake.log.borrow().len();
        fake.write(&limit.join("pids.max"), "max").unwrap();
        admit::admit(&fake, &group, &steps, 77).unwrap();
        assert!(!fake.log.borrow()[before..].iter().any(|line| line.contains("cgroup.procs")));
        assert_eq!(fake.read(&limit.join("pids.max")).unwrap(), "5");

        let fake = Fake::new(&h);
        fake.trims.set(100_000);
        let error = admit::admit(&fake, &group, &steps, 77).unwrap_err();
        assert!(matches!(error, Error::Vanished { .. }) && error.is_vanished(), "{error}");
        assert_eq!(fake.groups(), Vec::<String>::new());
        let error = apply::create(&fake, &plan(&h, json).steps).unwrap_err();
        assert!(error.is_vanished(), "{error}");
        assert_eq!(fake.groups(), Vec::<String>::new());
    }
}

#[test]
fn what_is_wrong_is_told_at_once_when_a_process_is_brought_in() {
    let h = hybrid();
    let mut fake = Fake::new(&h);
    fake.broken.insert("pids.max".into(), EINVAL);
    let json = r#"{"pids": {"limit": 5}}"#;
    let steps = Plan::complete(&h, "/creel/abc", &resources(json)).unwrap();
    let error = admit::admit(&fake, &Cgroup::of_path(&h, "/creel/abc"), &steps, 77).unwrap_err();
    assert!(matches!(&error, Error::Step { .. }) && !error.is_vanished(), "{error}");
    assert_eq!(fake.groups(), Vec::<String>::new());
}
