//! Real groups on this machine: limits that bite, freezing, killing, removal.
//!
//! No libtest: its threads would forbid clone3(2) without execve(2), by which the runtime enters groups. Every group is
//! `/creel-test-<pid>/<test>`, and each test fails if anything of it is left. Needs root; without it nothing is
//! tested, unless CREEL_TEST_ROOT=1 asks for a failure.
// clippy.toml's leave for tests knows only libtest's; here too an unwrap is an assertion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_cgroup::{Cgroup, Error, Hierarchies, Layout};
use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{self, Ended, Whom};
use creel_types::spec::Resources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

type Test = fn(&Hierarchies, &str);

const TESTS: &[(&str, Test)] = &[
    ("membership", membership),
    ("memory_limit", memory_limit),
    ("pids_limit", pids_limit),
    ("cpu_quota", cpu_quota),
    ("device_list", device_list),
    ("device_program", device_program),
    ("freeze_and_thaw", freeze_and_thaw),
    ("kill_all", kill_all),
    ("v1_alone", v1_alone),
    ("removal_of_children", removal_of_children),
    ("failures_leave_nothing", failures_leave_nothing),
    ("updates", updates),
    ("delegated", delegated),
    ("groups_below", groups_below),
];

fn main() {
    // `cargo test -- --list` and the like are libtest's.
    let filter: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        std::process::exit(i32::from(std::env::var("CREEL_TEST_ROOT").is_ok_and(|v| v == "1")));
    }
    let h = match Hierarchies::detect() {
        Ok(h) => h,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    println!("layout: {:?}", h.layout());
    let parent = format!("/creel-test-{}", process::pid());
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !filter.is_empty() && !filter.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let path = format!("{parent}/{name}");
        let begun = Instant::now();
        let mut good = catch_unwind(AssertUnwindSafe(|| test(&h, &path))).is_ok();
        let left: Vec<PathBuf> = dirs(&h, &path).into_iter().filter(|dir| dir.exists()).collect();
        if !left.is_empty() {
            println!("left behind: {left:?}");
            good = false;
            if let Ok(group) = Cgroup::open(&h, &path) {
                let _ = group.kill_all();
                reap_all();
                let _ = group.remove();
            }
        }
        let word = if good { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", begun.elapsed().as_millis());
        if !good {
            failed.push(*name);
        }
    }
    for dir in dirs(&h, &parent) {
        if fs::remove_dir(&dir).is_err() && dir.exists() {
            println!("left behind: {}", dir.display());
            failed.push("parent");
        }
    }
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(1);
    }
}

fn dirs(h: &Hierarchies, path: &str) -> Vec<PathBuf> {
    h.mount_points().map(|mount| mount.join(&path[1..])).collect()
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// Runs `body` in a process of its own, born in the group; its result is the exit code.
fn spawn(group: &Cgroup, body: impl FnOnce() -> i32) -> i32 {
    let entry = group.entry().unwrap();
    io::stdout().flush().unwrap();
    match clone(&Clone { flags: 0, cgroup: entry.unified() }).unwrap() {
        Cloned::Parent { pid, .. } => pid,
        Cloned::Child => {
            let code = match entry.join_v1() {
                Ok(()) => body(),
                Err(errno) => 200 + errno.raw_os_error() % 50,
            };
            process::exit_now(code)
        }
    }
}

fn wait(pid: i32) -> Ended {
    process::wait(Whom::Pid(pid), true).unwrap().unwrap().1
}

fn reap_all() {
    while let Ok(Some(_)) = process::wait(Whom::Any, true) {}
}

fn run(group: &Cgroup, body: impl FnOnce() -> i32) -> Ended {
    wait(spawn(group, body))
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn membership(h: &Hierarchies, path: &str) {
    let begun = Instant::now();
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    let created = begun.elapsed();
    // Where the time of entering goes.
    let timed = |body: &dyn Fn()| {
        let begun = Instant::now();
        body();
        begun.elapsed()
    };
    let plain = timed(&|| match clone(&Clone::default()).unwrap() {
        Cloned::Parent { pid, .. } => drop(wait(pid)),
        Cloned::Child => process::exit_now(0),
    });
    let entry = group.entry().unwrap();
    let born = timed(&|| match clone(&Clone { flags: 0, cgroup: entry.unified() }).unwrap() {
        Cloned::Parent { pid, .. } => drop(wait(pid)),
        Cloned::Child => process::exit_now(0),
    });
    println!("a clone {plain:?}, one born in the unified group {born:?}");
    let begun = Instant::now();
    let file = tempfile::NamedTempFile::new().unwrap();
    let ended = run(&group, || {
        i32::from(fs::read("/proc/self/cgroup").and_then(|text| fs::write(file.path(), text)).is_err())
    });
    let ran = begun.elapsed();
    assert_eq!(ended, Ended::Exited(0));
    let text = fs::read_to_string(file.path()).unwrap();
    for line in text.lines() {
        assert!(line.ends_with(path), "{line}");
    }
    assert_eq!(text.lines().count(), h.v1().len() + usize::from(h.unified().is_some()));
    // It is the same through its record, as another process would have it.
    let copy: Cgroup = serde_json::from_str(&serde_json::to_string(&group).unwrap()).unwrap();
    assert_eq!(copy, group);
    assert!(copy.pids().unwrap().is_empty());
    let begun = Instant::now();
    copy.remove().unwrap();
    println!("create {created:?}, a process in and out {ran:?}, remove {:?}", begun.elapsed());
    assert!(matches!(Cgroup::open(h, path), Err(Error::NotFound { .. })));
}

/// Touches this many MiB.
fn eat(mib: usize) -> i32 {
    let mut all = Vec::new();
    for i in 0..mib {
        let mut block = vec![0u8; 1 << 20];
        for page in block.chunks_mut(4096) {
            page[0] = i as u8 + 1;
        }
        all.push(std::hint::black_box(block));
    }
    0
}

fn memory_limit(h: &Hierarchies, path: &str) {
    let r = resources(r#"{"memory": {"limit": 16777216, "swap": 16777216}}"#);
    let group = Cgroup::create(h, path, &r).unwrap();
    let watch = group.oom_watch().unwrap();
    let readable = || {
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 })).unwrap() > 0
    };
    // v2 also tells of reclaim at the limit, and of what came close together only once, some time later.
    let quiet = || {
        (0..20).any(|_| {
            let silent = !readable();
            watch.consume().unwrap();
            silent
        })
    };
    assert_eq!(run(&group, || eat(4)), Ended::Exited(0));
    assert_eq!(group.oom_kills().unwrap(), 0);
    assert!(quiet(), "it does not cease to tell of nothing");
    assert_eq!(watch.oom_kills().unwrap(), 0);
    assert!(matches!(run(&group, || eat(64)), Ended::Signaled { signal: 9, .. }));
    assert!(readable(), "nothing tells of the killed process");
    watch.consume().unwrap();
    assert!(quiet(), "it does not cease to tell");
    assert_eq!(group.oom_kills().unwrap(), 1);
    assert_eq!(watch.oom_kills().unwrap(), 1);
    let memory = group.stats().unwrap().memory.unwrap();
    assert_eq!(memory.limit, Some(16 << 20));
    assert_eq!(memory.oom_kills, 1);
    assert!(memory.max_usage.unwrap() > 8 << 20, "{memory:?}");
    group.remove().unwrap();
    assert_eq!(watch.oom_kills().unwrap(), 0);
}

fn pids_limit(h: &Hierarchies, path: &str) {
    let group = Cgroup::create(h, path, &resources(r#"{"pids": {"limit": 4}}"#)).unwrap();
    // The first process and three more.
    let ended = run(&group, || {
        for made in 1.. {
            match clone(&Clone::default()) {
                Ok(Cloned::Parent { .. }) => {}
                Ok(Cloned::Child) => {
                    sleep_ms(60_000);
                    return 100;
                }
                Err(e) => return if e.raw_os_error() == Some(11) { made } else { 99 },
            }
        }
        98
    });
    assert_eq!(ended, Ended::Exited(4));
    assert_eq!(group.pids().unwrap().len(), 3);
    let pids = group.stats().unwrap().pids.unwrap();
    assert_eq!((pids.current, pids.limit), (3, Some(4)));
    group.kill_all().unwrap();
    group.remove().unwrap();
}

fn spin(ms: u64) -> i32 {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
    0
}

fn cpu_quota(h: &Hierarchies, path: &str) {
    let r = resources(r#"{"cpu": {"quota": 10000, "period": 50000, "shares": 512}}"#);
    let group = Cgroup::create(h, path, &r).unwrap();
    assert_eq!(run(&group, || spin(600)), Ended::Exited(0));
    let cpu = group.stats().unwrap().cpu.unwrap();
    assert!(cpu.throttled_periods >= 3, "{cpu:?}");
    assert!(cpu.throttled_ns > 0);
    // A fifth of 600 ms, and some slack.
    assert!(cpu.usage_ns < 300_000_000, "{cpu:?}");
    assert!(cpu.usage_ns > 20_000_000 && cpu.user_ns + cpu.system_ns > 0, "{cpu:?}");
    // Lifting it on the way.
    group.update(&resources(r#"{"cpu": {"quota": -1}}"#)).unwrap();
    let before = group.stats().unwrap().cpu.unwrap();
    assert_eq!(run(&group, || spin(100)), Ended::Exited(0));
    assert_eq!(group.stats().unwrap().cpu.unwrap().throttled_periods, before.throttled_periods);
    group.remove().unwrap();
}

/// 0 when the device can be opened for reading and writing, 1 for EPERM, 2 for anything else.
fn open(device: &str) -> i32 {
    match fs::File::options().read(true).write(true).open(device) {
        Ok(_) => 0,
        Err(e) if e.raw_os_error() == Some(1) => 1,
        Err(_) => 2,
    }
}

fn check_devices(h: &Hierarchies, path: &str) {
    let r = resources(
        r#"{"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}
        ]}"#,
    );
    let group = Cgroup::create(h, path, &r).unwrap();
    assert_eq!(run(&group, || open("/dev/null")), Ended::Exited(0));
    assert_eq!(run(&group, || open("/dev/zero")), Ended::Exited(1));
    assert_eq!(run(&group, || i32::from(fs::File::open("/dev/zero").is_err())), Ended::Exited(1));
    // Nodes of character devices may be made, those of block devices not.
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let make = |kind: rustix::fs::FileType| {
        let node = scratch.path().join("node");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(1, 5));
        let _ = fs::remove_file(&node);
        i32::from(made == Err(rustix::io::Errno::PERM))
    };
    assert_eq!(run(&group, || make(rustix::fs::FileType::CharacterDevice)), Ended::Exited(0));
    assert_eq!(run(&group, || make(rustix::fs::FileType::BlockDevice)), Ended::Exited(1));
    // More and less, without losing what stays.
    let rules = |minor: u32| {
        resources(&format!(
            r#"{{"devices": [{{"allow": false}}, {{"allow": true, "type": "c", "major": 1, "minor": {minor}}}]}}"#
        ))
    };
    group.update(&rules(5)).unwrap();
    assert_eq!(run(&group, || open("/dev/zero")), Ended::Exited(0));
    assert_eq!(run(&group, || open("/dev/null")), Ended::Exited(1));
    group.update(&rules(3)).unwrap();
    assert_eq!(run(&group, || open("/dev/null")), Ended::Exited(0));
    assert_eq!(run(&group, || open("/dev/zero")), Ended::Exited(1));
    group.remove().unwrap();
    // All but one.
    let r =
        resources(r#"{"devices": [{"allow": true}, {"allow": false, "type": "c", "major": 1, "minor": 5}]}"#);
    let group = Cgroup::create(h, path, &r).unwrap();
    assert_eq!(run(&group, || open("/dev/null")), Ended::Exited(0));
    assert_eq!(run(&group, || open("/dev/zero")), Ended::Exited(1));
    group.remove().unwrap();
}

fn device_list(h: &Hierarchies, path: &str) {
    check_devices(h, path);
}

/// The hierarchies without one of them, as if it were not mounted.
fn without(h: &Hierarchies, hidden: impl Fn(&str) -> bool) -> Hierarchies {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = text.lines().filter(|line| !hidden(line)).map(|line| format!("{line}\n"));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let controllers = h.unified().map(|unified| unified.controllers.join(" ")).unwrap_or_default();
    Hierarchies::from_texts(&lines.collect::<String>(), &own, &controllers).unwrap()
}

/// The unified hierarchy's program, also where a v1 list would be taken.
fn device_program(h: &Hierarchies, path: &str) {
    if h.unified().is_none() {
        println!("skipped: no unified hierarchy");
        return;
    }
    let h = without(h, |line| line.ends_with(" rw,devices"));
    assert_eq!(h.v1_with("devices"), None);
    check_devices(&h, path);
}

/// A process that writes a byte into a pipe every millisecond; the pipe's other end.
fn ticker(group: &Cgroup) -> (i32, fs::File) {
    let (mut reader, writer) = io::pipe().unwrap();
    let pid = spawn(group, move || {
        let mut writer = writer;
        loop {
            if writer.write_all(b".").is_err() {
                return 1;
            }
            sleep_ms(1);
        }
    });
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    (pid, fs::File::from(std::os::fd::OwnedFd::from(reader)))
}

/// Whether something can be read from the pipe within this time; it is read.
fn ticks(pipe: &mut fs::File, ms: i64) -> bool {
    let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    let ready = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout)).unwrap() > 0;
    ready && pipe.read(&mut [0u8; 65_536]).unwrap() > 0
}

fn goes_on(pipe: &mut fs::File) -> bool {
    (0..5).all(|_| ticks(pipe, 10_000))
}

fn stands_still(pipe: &mut fs::File) -> bool {
    // What it wrote before may still be there.
    ticks(pipe, 0);
    !ticks(pipe, 100)
}

fn check_freezing(h: &Hierarchies, path: &str) {
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    let (pid, mut pipe) = ticker(&group);
    assert!(!group.is_frozen().unwrap());
    assert!(goes_on(&mut pipe));
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    assert!(stands_still(&mut pipe));
    group.freeze().unwrap();
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    assert!(goes_on(&mut pipe));
    // What is frozen can be killed.
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert!(matches!(wait(pid), Ended::Signaled { signal: 9, .. }));
    group.remove().unwrap();
}

fn freeze_and_thaw(h: &Hierarchies, path: &str) {
    check_freezing(h, path);
}

fn check_killing(h: &Hierarchies, path: &str) {
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    let child = below(&group, "child");
    let mut pids: Vec<i32> = [&group, &child, &child]
        .iter()
        .map(|group| {
            spawn(group, || {
                sleep_ms(60_000);
                0
            })
        })
        .collect();
    pids.sort_unstable();
    // They enter the v1 groups by themselves.
    let begun = Instant::now();
    while group.pids().unwrap() != pids {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?} {pids:?}", group.pids());
        sleep_ms(1);
    }
    group.kill_all().unwrap();
    for pid in pids {
        assert!(matches!(wait(pid), Ended::Signaled { signal: 9, .. }));
    }
    assert!(group.pids().unwrap().is_empty());
    group.kill_all().unwrap();
    group.remove().unwrap();
    group.kill_all().unwrap();
}

fn kill_all(h: &Hierarchies, path: &str) {
    check_killing(h, path);
}

/// The ways of a machine without the unified hierarchy.
fn v1_alone(h: &Hierarchies, path: &str) {
    if h.v1_with("freezer").is_none() {
        println!("skipped: no v1 freezer");
        return;
    }
    let h = without(h, |line| line.contains(" - cgroup2 "));
    assert_eq!(h.layout(), Layout::V1);
    check_freezing(&h, path);
    check_killing(&h, path);
}

/// A group below another, as a program inside a container would make it: no controllers handed down in the unified
/// hierarchy, where a group that does so can have no processes of its own.
fn below(group: &Cgroup, name: &str) -> Cgroup {
    for dir in group.dirs() {
        let child = dir.join(name);
        fs::create_dir(&child).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(dir.join(file))
                && child.join(file).exists()
            {
                fs::write(child.join(file), value.trim_ascii()).unwrap();
            }
        }
    }
    Cgroup::open(group.hierarchies(), &format!("{}/{name}", group.path())).unwrap()
}

fn removal_of_children(h: &Hierarchies, path: &str) {
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    below(&group, "c");
    // Something lives in it: all that can go goes, and the error names the rest.
    let child = below(&below(&group, "a"), "b");
    let (pid, _pipe) = ticker(&child);
    let error = group.remove().unwrap_err();
    assert!(matches!(&error, Error::Remove { failures, .. } if !failures.is_empty()), "{error}");
    assert!(error.to_string().contains("/a/b: "), "{error}");
    child.kill_all().unwrap();
    wait(pid);
    group.remove().unwrap();
    group.remove().unwrap();
}

fn failures_leave_nothing(h: &Hierarchies, path: &str) {
    let inner = format!("{path}/inner");
    // A v1 list cannot say this; a program of v2 can, so there another thing is refused.
    let last = match h.v1_with("devices") {
        Some(_) => {
            r#"{"devices": [{"allow": true, "type": "c"}, {"allow": false, "type": "c", "major": 1}]}"#
        }
        None => r#"{"memory": {"limit": 4096000}, "unified": {"memory.high": "nonsense"}}"#,
    };
    for json in [
        r#"{"cpu": {"cpus": "9999"}}"#,
        r#"{"cpu": {"quota": 1, "period": 100000}}"#,
        r#"{"memory": {"limit": 4096000}, "blockIO": {"throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 5}]}}"#,
        last,
    ] {
        let error = Cgroup::create(h, &inner, &resources(json)).unwrap_err();
        println!("as it should: {error}");
        for dir in dirs(h, path) {
            assert!(!dir.exists(), "{}", dir.display());
        }
    }
    // A living group is not taken over; an empty one is made anew.
    let group = Cgroup::create(h, path, &resources(r#"{"pids": {"limit": 7}}"#)).unwrap();
    let (pid, mut pipe) = ticker(&group);
    let error = Cgroup::create(h, path, &Resources::default()).unwrap_err();
    assert!(matches!(&error, Error::Occupied { pid: who, .. } if *who == pid), "{error}");
    assert!(goes_on(&mut pipe));
    group.kill_all().unwrap();
    wait(pid);
    // What is empty is taken with its limits, unless it has groups below it.
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    assert_eq!(group.stats().unwrap().pids.unwrap().limit, Some(7));
    below(&group, "old");
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    assert_eq!(group.stats().unwrap().pids.unwrap().limit, None);
    group.freeze().unwrap();
    let error = Cgroup::create(h, path, &Resources::default()).unwrap_err();
    assert!(matches!(&error, Error::Frozen { .. }), "{error}");
    group.thaw().unwrap();
    group.remove().unwrap();
}

fn updates(h: &Hierarchies, path: &str) {
    let mib = 1u64 << 20;
    let limits = |limit: u64, swap: u64| {
        resources(&format!(r#"{{"memory": {{"limit": {}, "swap": {}}}}}"#, limit * mib, swap * mib))
    };
    let group = Cgroup::create(h, path, &limits(64, 128)).unwrap();
    for (limit, swap) in [(256, 512), (32, 32), (64, 64), (16, 48)] {
        group.update(&limits(limit, swap)).unwrap();
        assert_eq!(group.stats().unwrap().memory.unwrap().limit, Some(limit * mib));
    }
    if h.v1_with("memory").is_some() {
        // As Docker: memory alone cannot go above both together; nothing of the update remains.
        let r =
            resources(r#"{"cpu": {"shares": 77}, "pids": {"limit": 9}, "memory": {"limit": 1073741824}}"#);
        assert!(group.update(&r).is_err());
        let stats = group.stats().unwrap();
        assert_eq!(stats.memory.unwrap().limit, Some(16 * mib));
        assert_eq!(stats.pids.unwrap().limit, None);
    }
    group.update(&resources(r#"{"memory": {"limit": -1}, "pids": {"limit": 9}}"#)).unwrap();
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.unwrap().limit, None);
    assert_eq!(stats.pids.unwrap().limit, Some(9));
    if let Some(dir) = h.v1_with("cpu") {
        group.update(&resources(r#"{"cpu": {"quota": 20000, "burst": 15000, "period": 40000}}"#)).unwrap();
        let read = |file: &str| fs::read_to_string(dir.join(&path[1..]).join(file)).unwrap();
        assert_eq!(read("cpu.cfs_quota_us"), "20000\n");
        assert_eq!(read("cpu.cfs_burst_us"), "15000\n");
        assert_eq!(read("cpu.cfs_period_us"), "40000\n");
    }
    assert!(Path::new("/proc/self").exists());
    group.remove().unwrap();
    assert!(matches!(group.update(&limits(1, 1)), Err(Error::NotFound { .. })));
}

/// A user who owns nothing else.
const NOBODY: u32 = 65_534;

/// What an ordinary user gets: in a subtree that was given to him, and elsewhere.
fn delegated(h: &Hierarchies, path: &str) {
    let home = Cgroup::create(h, path, &Resources::default()).unwrap();
    let own = below(&home, "own");
    let doors = ["cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"];
    for dir in home.dirs() {
        for file in [dir.clone()].into_iter().chain(doors.map(|name| dir.join(name))) {
            if file.exists() {
                std::os::unix::fs::chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
    }
    // What systemd does for a user's manager: without it the user could hand nothing down.
    home.give_to(NOBODY).unwrap();
    let (v1, unified) = (h.v1().len(), usize::from(h.unified().is_some()));
    let nowhere = format!("{path}-nowhere");
    let ended = run(&own, || {
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let h = Hierarchies::detect().unwrap();
        // Without a place that was asked for: beside the own group in the unified hierarchy, below it in v1.
        let (place, beside) = h.locate(None, "mine").unwrap();
        println!("below {:?}", place.dirs(&beside).collect::<Vec<_>>());
        // v1 lets him make groups where the directory is his, and that is `path`, not `path/own`.
        let asked = resources(r#"{"devices": [{"allow": false}]}"#);
        let made = Cgroup::create_delegated(&place, &beside, &asked, false).unwrap();
        assert_eq!(made.skipped.len(), v1);
        assert_eq!(made.group.as_ref().map_or(0, |group| group.dirs().count()), unified);
        if let Some(group) = made.group {
            assert_eq!(group.dirs().next().unwrap().parent().unwrap(), home.dirs().last().unwrap());
            // He can put processes there.
            let entry = group.entry().unwrap();
            match clone(&Clone { flags: 0, cgroup: entry.unified() }).unwrap() {
                Cloned::Parent { pid, .. } => assert_eq!(wait(pid), Ended::Exited(0)),
                Cloned::Child => process::exit_now(0),
            }
            group.remove().unwrap();
        }
        // A place of his own, with a limit.
        let asked_for = format!("{path}/mine");
        let made =
            Cgroup::create_delegated(&h, &asked_for, &resources(r#"{"pids": {"limit": 7}}"#), true).unwrap();
        assert!(made.skipped.is_empty());
        let group = made.group.unwrap();
        assert_eq!(group.stats().unwrap().pids.unwrap().limit, Some(7));
        group.remove().unwrap();
        // A place that is not his: an error if it was asked for, or if a limit was; else no group at all.
        let error = Cgroup::create_delegated(&h, &nowhere, &Resources::default(), true).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        let limit = resources(r#"{"pids": {"limit": 7}}"#);
        let error = Cgroup::create_delegated(&h, &nowhere, &limit, false).unwrap_err();
        assert!(
            error.to_string().contains("cannot set pids limit: container could not join or create cgroup")
        );
        let made = Cgroup::create_delegated(&h, &nowhere, &Resources::default(), false).unwrap();
        assert_eq!(made.group, None);
        assert_eq!(made.skipped.len(), v1 + unified);
        0
    });
    assert_eq!(ended, Ended::Exited(0));
    home.remove().unwrap();
}

/// Where `exec` finds its way into groups that a program inside has made.
fn groups_below(h: &Hierarchies, path: &str) {
    let group = Cgroup::create(h, path, &Resources::default()).unwrap();
    let child = below(&group, "sub");
    let (pid, mut pipe) = ticker(&child);
    goes_on(&mut pipe);
    let joins = |entry: creel_cgroup::Entry| {
        let file = tempfile::NamedTempFile::new().unwrap();
        io::stdout().flush().unwrap();
        match clone(&Clone { flags: 0, cgroup: entry.unified() }).unwrap() {
            Cloned::Parent { pid, .. } => assert_eq!(wait(pid), Ended::Exited(0)),
            Cloned::Child => {
                let joined = entry.join_v1().is_ok();
                let told = fs::read("/proc/self/cgroup").and_then(|text| fs::write(file.path(), text));
                process::exit_now(i32::from(!joined || told.is_err()));
            }
        }
        fs::read_to_string(file.path()).unwrap()
    };
    let all_in = |text: &str, path: &str| text.lines().all(|line| line.ends_with(path));
    assert!(all_in(&joins(group.entry_below(&[]).unwrap()), path));
    assert!(all_in(&joins(group.entry_below(&["/".into()]).unwrap()), path));
    assert!(all_in(&joins(group.entry_below(&["sub".into()]).unwrap()), &format!("{path}/sub")));
    assert!(all_in(&joins(group.entry_beside(pid).unwrap()), &format!("{path}/sub")));
    if h.v1_with("memory").is_some() {
        let text = joins(group.entry_below(&["memory,pids:sub".into()]).unwrap());
        let below: Vec<&str> = text.lines().filter(|line| line.ends_with("/sub")).collect();
        assert_eq!(below.len(), 2, "{text}");
        assert!(below.iter().all(|line| line.contains(":memory:") || line.contains(":pids:")), "{text}");
    }
    for (text, want) in [
        ("..", "path .. is not a sub cgroup path"),
        ("whaaat:/", "unknown controller"),
        ("nonexistent", "/nonexistent/cgroup.procs: no such file "),
    ] {
        let error = group.entry_below(&[text.into()]).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    // A process that is elsewhere is no guide.
    assert!(matches!(group.entry_beside(process::pid()), Err(Error::Invalid(_))));
    child.kill_all().unwrap();
    wait(pid);
    group.remove().unwrap();
}
