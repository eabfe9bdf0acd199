//! The files of a group, as a kernel of another version might write them: they are read or refused, and what is read
//! is told in JSON that is JSON.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use creel_cgroup::{Cgroup, Hierarchies, RuncStats, Stats};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 52] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.current",
    "memory.stat",
    "memory.events",
    "memory.max",
    "memory.swap.current",
    "pids.current",
    "pids.max",
    "io.stat",
    "hugetlb.2MB.current",
    "hugetlb.2MB.events",
    "rdma.current",
    "misc.current",
    "cgroup.procs",
    "cgroup.events",
    "cpuacct.usage",
    "cpuacct.usage_all",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.usage_in_bytes",
    "memory.oom_control",
    "blkio.throttle.io_service_bytes",
    "devices.list",
    "cpu.max",
    "io.pressure",
    "memory.pressure",
    "memory.peak",
    "memory.swap.max",
    "memory.memsw.usage_in_bytes",
    "memory.kmem.usage_in_bytes",
    "memory.kmem.tcp.failcnt",
    "memory.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "misc.events",
    "rdma.max",
    "hugetlb.2MB.usage_in_bytes",
    "hugetlb.2MB.rsvd.current",
    "hugetlb.2MB.failcnt",
    "freezer.state",
    "cgroup.freeze",
    "cgroup.type",
    "cpuset.cpus.effective",
    "cpuset.memory_pressure",
    "cpuacct.usage_percpu",
    "cpuacct.usage_user",
    "cpuacct.usage_sys",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "blkio.throttle.io_serviced_recursive",
    "blkio.bfq.io_service_bytes_recursive",
    "blkio.time_recursive",
];

/// A group of v1 and one of v2 that share their directory.
static GROUPS: LazyLock<(PathBuf, [Cgroup; 2])> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("creel-fuzz-{}", std::process::id()));
    fs::create_dir_all(root.join("a")).expect("a directory");
    let groups =
        ["cgroup cgroup rw,cpu,cpuacct,cpuset,memory,pids,blkio,hugetlb,rdma,freezer", "cgroup2 cgroup2 rw"]
            .map(|kind| {
                let mounts = format!("31 23 0:28 / {} rw - {kind}\n", root.display());
                let own = "2:cpu,cpuacct,cpuset,memory,pids,blkio,hugetlb,rdma,freezer:/\n0::/\n";
                let offered = "cpuset cpu io memory hugetlb pids rdma misc";
                let h = Hierarchies::from_texts(&mounts, own, offered).expect("a well-formed table");
                Cgroup::open(&h, "/a").expect("a group")
            });
    (root.join("a"), groups)
});

// The number of a file and its text, then the next, with a NUL between them.
fuzz_target!(|text: &str| {
    let (dir, groups) = &*GROUPS;
    let mut written = Vec::new();
    for part in text.split('\0').take(6) {
        let Some(first) = part.chars().next() else { continue };
        let file = dir.join(FILES[first as usize % FILES.len()]);
        fs::write(&file, &part[first.len_utf8()..]).expect("a file");
        written.push(file);
    }
    for group in groups {
        if let Ok(stats) = group.stats() {
            let printed = serde_json::to_string(&stats).expect("what was read can be printed");
            let _: Stats =
                serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
            serde_json::to_string(&RuncStats::from(&stats)).expect("what was read can be printed");
        }
        let _ = (group.pids(), group.oom_kills(), group.is_frozen());
    }
    for file in written {
        // The same file may have been written twice.
        let _ = fs::remove_file(file);
    }
});
