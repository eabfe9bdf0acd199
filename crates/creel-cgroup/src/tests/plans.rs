use creel_types::spec::Resources;
use expect_test::{Expect, expect};

use crate::hierarchy::Hierarchies;
use crate::hierarchy::tests::{hybrid, v1, v2};
use crate::plan::{Plan, components};
use crate::{Cgroup, Error};

/// What `docker run -m 64m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0-1 --pids-limit 100 --blkio-weight 300` asks for.
fn docker() -> Resources {
    serde_json::from_str(
        r#"{
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"}],
            "memory": {"limit": 67108864, "reservation": 33554432, "swap": 134217728, "swappiness": 10},
            "cpu": {"shares": 512, "period": 100000, "quota": 150000, "cpus": "0-1"},
            "pids": {"limit": 100},
            "blockIO": {"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}]}
        }"#,
    )
    .unwrap()
}

fn check(plan: &Plan, want: Expect) {
    want.assert_eq(&plan.to_string());
}

fn create(h: &Hierarchies, r: &Resources) -> Plan {
    Cgroup::plan(h, "/creel/abc", r).unwrap()
}

#[test]
fn hybrid_layout() {
    check(
        &create(&hybrid(), &docker()),
        expect![[r#"
            make directory /sys/fs/cgroup/cpu/creel
            make new directory /sys/fs/cgroup/cpu/creel/abc
            make directory /sys/fs/cgroup/cpuacct/creel
            make new directory /sys/fs/cgroup/cpuacct/creel/abc
            make directory /sys/fs/cgroup/cpuset/creel
            inherit /sys/fs/cgroup/cpuset/creel/cpuset.cpus
            inherit /sys/fs/cgroup/cpuset/creel/cpuset.mems
            make new directory /sys/fs/cgroup/cpuset/creel/abc
            inherit /sys/fs/cgroup/cpuset/creel/abc/cpuset.cpus
            inherit /sys/fs/cgroup/cpuset/creel/abc/cpuset.mems
            make directory /sys/fs/cgroup/memory/creel
            make new directory /sys/fs/cgroup/memory/creel/abc
            make directory /sys/fs/cgroup/devices/creel
            make new directory /sys/fs/cgroup/devices/creel/abc
            make directory /sys/fs/cgroup/freezer/creel
            make new directory /sys/fs/cgroup/freezer/creel/abc
            make directory /sys/fs/cgroup/blkio/creel
            make new directory /sys/fs/cgroup/blkio/creel/abc
            make directory /sys/fs/cgroup/pids/creel
            make new directory /sys/fs/cgroup/pids/creel/abc
            make directory /sys/fs/cgroup/systemd/creel
            make new directory /sys/fs/cgroup/systemd/creel/abc
            enable hugetlb below /sys/fs/cgroup/unified
            make directory /sys/fs/cgroup/unified/creel
            enable hugetlb below /sys/fs/cgroup/unified/creel
            make new directory /sys/fs/cgroup/unified/creel/abc
            let processes join /sys/fs/cgroup/unified/creel/abc
            write 0-1 to /sys/fs/cgroup/cpuset/creel/abc/cpuset.cpus
            write 67108864 to /sys/fs/cgroup/memory/creel/abc/memory.limit_in_bytes together with write 134217728 to /sys/fs/cgroup/memory/creel/abc/memory.memsw.limit_in_bytes
            write 33554432 to /sys/fs/cgroup/memory/creel/abc/memory.soft_limit_in_bytes
            write 10 to /sys/fs/cgroup/memory/creel/abc/memory.swappiness
            write 512 to /sys/fs/cgroup/cpu/creel/abc/cpu.shares
            write 100000 to /sys/fs/cgroup/cpu/creel/abc/cpu.cfs_period_us together with write 150000 to /sys/fs/cgroup/cpu/creel/abc/cpu.cfs_quota_us
            write 100 to /sys/fs/cgroup/pids/creel/abc/pids.max
            write 300 to /sys/fs/cgroup/blkio/creel/abc/blkio.weight or else write 300 to /sys/fs/cgroup/blkio/creel/abc/blkio.bfq.weight
            write 8:0 1048576 to /sys/fs/cgroup/blkio/creel/abc/blkio.throttle.read_bps_device
            set 2 device rules in /sys/fs/cgroup/devices/creel/abc
        "#]],
    );
}

#[test]
fn v1_layout() {
    let r: Resources = serde_json::from_str(
        r#"{
            "memory": {"limit": -1, "kernel": 5, "disableOOMKiller": true},
            "cpu": {"burst": 1000, "quota": -1, "realtimePeriod": 10, "realtimeRuntime": 5, "idle": 1, "mems": "0"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
            "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 100, "leafWeight": 50}], "leafWeight": 20}
        }"#,
    )
    .unwrap();
    check(
        &create(&v1(), &r),
        expect![[r#"
        make directory /sys/fs/cgroup/systemd/creel
        make new directory /sys/fs/cgroup/systemd/creel/abc
        make directory /sys/fs/cgroup/memory/creel
        make new directory /sys/fs/cgroup/memory/creel/abc
        make directory /sys/fs/cgroup/cpu,cpuacct/creel
        make new directory /sys/fs/cgroup/cpu,cpuacct/creel/abc
        make directory /sys/fs/cgroup/pids/creel
        make new directory /sys/fs/cgroup/pids/creel/abc
        make directory /sys/fs/cgroup/blkio/creel
        make new directory /sys/fs/cgroup/blkio/creel/abc
        make directory /sys/fs/cgroup/devices/creel
        make new directory /sys/fs/cgroup/devices/creel/abc
        make directory /sys/fs/cgroup/net_cls,net_prio/creel
        make new directory /sys/fs/cgroup/net_cls,net_prio/creel/abc
        make directory /sys/fs/cgroup/freezer/creel
        make new directory /sys/fs/cgroup/freezer/creel/abc
        make directory /sys/fs/cgroup/cpuset/creel
        inherit /sys/fs/cgroup/cpuset/creel/cpuset.cpus
        inherit /sys/fs/cgroup/cpuset/creel/cpuset.mems
        make new directory /sys/fs/cgroup/cpuset/creel/abc
        inherit /sys/fs/cgroup/cpuset/creel/abc/cpuset.cpus
        inherit /sys/fs/cgroup/cpuset/creel/abc/cpuset.mems
        make directory /sys/fs/cgroup/hugetlb/creel
        make new directory /sys/fs/cgroup/hugetlb/creel/abc
        write 0 to /sys/fs/cgroup/cpuset/creel/abc/cpuset.mems
        write -1 to /sys/fs/cgroup/memory/creel/abc/memory.limit_in_bytes together with write -1 to /sys/fs/cgroup/memory/creel/abc/memory.memsw.limit_in_bytes if it exists
        write 1 to /sys/fs/cgroup/memory/creel/abc/memory.oom_control
        write -1 to /sys/fs/cgroup/cpu,cpuacct/creel/abc/cpu.cfs_quota_us together with write 1000 to /sys/fs/cgroup/cpu,cpuacct/creel/abc/cpu.cfs_burst_us
        write 10 to /sys/fs/cgroup/cpu,cpuacct/creel/abc/cpu.rt_period_us together with write 5 to /sys/fs/cgroup/cpu,cpuacct/creel/abc/cpu.rt_runtime_us
        write 1 to /sys/fs/cgroup/cpu,cpuacct/creel/abc/cpu.idle
        write 20 to /sys/fs/cgroup/blkio/creel/abc/blkio.leaf_weight
        write 8:0 100 to /sys/fs/cgroup/blkio/creel/abc/blkio.weight_device or else write 8:0 100 to /sys/fs/cgroup/blkio/creel/abc/blkio.bfq.weight_device
        write 8:0 50 to /sys/fs/cgroup/blkio/creel/abc/blkio.leaf_weight_device
        write 4194304 to /sys/fs/cgroup/hugetlb/creel/abc/hugetlb.2MB.limit_in_bytes
        write 4194304 to /sys/fs/cgroup/hugetlb/creel/abc/hugetlb.2MB.rsvd.limit_in_bytes if it exists
        write 1048577 to /sys/fs/cgroup/net_cls,net_prio/creel/abc/net_cls.classid
        write eth0 5 to /sys/fs/cgroup/net_cls,net_prio/creel/abc/net_prio.ifpriomap
        note: the kernel memory limit is passed over: kernels since 5.16 have none
    "#]],
    );
}

#[test]
fn v2_layout() {
    let mut r = docker();
    let memory = r.memory.as_mut().unwrap();
    (memory.swappiness, memory.kernel) = (None, Some(1 << 20));
    r.unified.insert("memory.high".into(), "50000000".into());
    r.unified.insert("io.max".into(), "8:0 wiops=10\n8:16 wiops=20\n".into());
    check(
        &create(&v2(), &r),
        expect![[r#"
            enable cpuset cpu io memory hugetlb pids rdma misc below /sys/fs/cgroup (needed: cpu cpuset io memory pids)
            make directory /sys/fs/cgroup/creel
            enable cpuset cpu io memory hugetlb pids rdma misc below /sys/fs/cgroup/creel (needed: cpu cpuset io memory pids)
            make new directory /sys/fs/cgroup/creel/abc
            let processes join /sys/fs/cgroup/creel/abc (with io memory)
            write 0-1 to /sys/fs/cgroup/creel/abc/cpuset.cpus
            write 67108864 to /sys/fs/cgroup/creel/abc/memory.swap.max
            write 67108864 to /sys/fs/cgroup/creel/abc/memory.max
            write 33554432 to /sys/fs/cgroup/creel/abc/memory.low
            write 59 to /sys/fs/cgroup/creel/abc/cpu.weight
            write 150000 100000 to /sys/fs/cgroup/creel/abc/cpu.max
            write 100 to /sys/fs/cgroup/creel/abc/pids.max
            write 300 to /sys/fs/cgroup/creel/abc/io.bfq.weight or else write 2930 to /sys/fs/cgroup/creel/abc/io.weight
            write 8:0 rbps=1048576 to /sys/fs/cgroup/creel/abc/io.max
            write 8:0 wiops=10 to /sys/fs/cgroup/creel/abc/io.max
            write 8:16 wiops=20 to /sys/fs/cgroup/creel/abc/io.max
            write 50000000 to /sys/fs/cgroup/creel/abc/memory.high
            attach a program of 2 device rules to /sys/fs/cgroup/creel/abc
            note: the kernel memory limit is passed over: cgroup v2 has none
        "#]],
    );
}

#[test]
fn updates_only_write() {
    let r: Resources =
        serde_json::from_str(r#"{"memory": {"limit": 1048576}, "cpu": {"quota": -1}}"#).unwrap();
    for (h, want) in [
        (
            hybrid(),
            expect![[r#"
        write 1048576 to /sys/fs/cgroup/memory/creel/abc/memory.limit_in_bytes
        write -1 to /sys/fs/cgroup/cpu/creel/abc/cpu.cfs_quota_us
    "#]],
        ),
        (
            v2(),
            expect![[r#"
        write 1048576 to /sys/fs/cgroup/creel/abc/memory.max
        write max to /sys/fs/cgroup/creel/abc/cpu.max
    "#]],
        ),
    ] {
        check(&Plan::update(&h, "/creel/abc", &r).unwrap(), want);
    }
}

#[test]
fn nothing_asked_for_is_nothing_written() {
    check(
        &create(&v2(), &Resources::default()),
        expect![[r#"
            enable cpuset cpu io memory hugetlb pids rdma misc below /sys/fs/cgroup
            make directory /sys/fs/cgroup/creel
            enable cpuset cpu io memory hugetlb pids rdma misc below /sys/fs/cgroup/creel
            make new directory /sys/fs/cgroup/creel/abc
            let processes join /sys/fs/cgroup/creel/abc
        "#]],
    );
}

#[test]
fn no_task_limit_and_none_at_all() {
    for (limit, want) in [(-1, "max"), (-5, "max"), (0, "1"), (1, "1"), (32_771, "32771")] {
        let r: Resources = serde_json::from_str(&format!(r#"{{"pids": {{"limit": {limit}}}}}"#)).unwrap();
        for (h, dir) in [(v1(), "pids/"), (v2(), "")] {
            let plan = Plan::update(&h, "/a", &r).unwrap().to_string();
            assert_eq!(plan, format!("write {want} to /sys/fs/cgroup/{dir}a/pids.max\n"));
        }
    }
}

#[test]
fn paths() {
    assert_eq!(components("/creel/abc/").unwrap(), ["creel", "abc"]);
    for path in ["", "creel", "/", "//", "/a/../b", "/a/./b", "/a\nb", "/a\0"] {
        assert!(matches!(components(path), Err(Error::Path { .. })), "{path:?}");
    }
    assert!(components(&format!("/{}", "x".repeat(256))).is_err());
}

#[test]
fn refusals() {
    let only_v1_memory = Hierarchies::from_texts(
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        "4:memory:/\n",
        "",
    )
    .unwrap();
    for (h, json, want) in [
        (&v1(), r#"{"memory": {"limit": 10, "swap": 5}}"#, "must not be below"),
        (&v2(), r#"{"memory": {"limit": 10, "swap": 5}}"#, "must not be below"),
        (&v2(), r#"{"memory": {"swap": 5}}"#, "needs a memory limit"),
        (&v1(), r#"{"memory": {"swappiness": 101}}"#, "swappiness"),
        (&v2(), r#"{"memory": {"swappiness": 0}}"#, "resources.memory.swappiness cannot be set"),
        (&v2(), r#"{"memory": {"kernelTCP": 5}}"#, "resources.memory.kernelTCP cannot be set"),
        (
            &v2(),
            r#"{"memory": {"disableOOMKiller": true}}"#,
            "resources.memory.disableOOMKiller cannot be set",
        ),
        (&v2(), r#"{"cpu": {"realtimeRuntime": 5}}"#, "resources.cpu.realtimeRuntime cannot be set"),
        (&v2(), r#"{"cpu": {"realtimePeriod": 5}}"#, "resources.cpu.realtimePeriod cannot be set"),
        (&v2(), r#"{"blockIO": {"leafWeight": 5}}"#, "resources.blockIO.leafWeight cannot be set"),
        (
            &v2(),
            r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 5}]}}"#,
            "resources.blockIO.leafWeight cannot be set",
        ),
        (
            &v1(),
            r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}"#,
            "neither weight nor leafWeight",
        ),
        (&v2(), r#"{"rdma": {"mlx5_1": {}}}"#, "neither hcaHandles nor hcaObjects"),
        (&v2(), r#"{"devices": [{"allow": true, "type": "x"}]}"#, "device rule with type"),
        (&v2(), r#"{"devices": [{"allow": true, "access": "rx"}]}"#, "device rule with access"),
        (&v1(), r#"{"unified": {"memory.high": "5"}}"#, "invalid configuration"),
        (&hybrid(), r#"{"unified": {"hugetlb.2MB.max": "5"}}"#, "is for cgroup v2 alone"),
        (&v2(), r#"{"unified": {"../x.y": "5"}}"#, "no slashes"),
        (&v2(), r#"{"unified": {"memory": "5"}}"#, "CONTROLLER.PARAMETER"),
        (&v2(), r#"{"unified": {".memory": "5"}}"#, "CONTROLLER.PARAMETER"),
        (&v2(), r#"{"unified": {"perf.max": "5"}}"#, "controller \"perf\" not available"),
        (&v1(), r#"{"cpu": {"shares": 1}}"#, "minimum allowed cpu-shares is 2"),
        (&v1(), r#"{"cpu": {"shares": 262145}}"#, "maximum allowed cpu-shares is 262144"),
        (&v2(), r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#, "huge page size"),
        (&v2(), r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#, "huge page size"),
        (&v2(), r#"{"network": {"classID": 1}}"#, "net_cls"),
        (&only_v1_memory, r#"{"pids": {"limit": 5}}"#, "the pids controller is not available"),
        (&only_v1_memory, r#"{"devices": [{"allow": false}]}"#, "the devices controller is not available"),
        (
            &hybrid(),
            r#"{"devices": [{"allow": true, "type": "c"}, {"allow": false, "type": "c", "major": 1}]}"#,
            "all but one",
        ),
    ] {
        let r: Resources = serde_json::from_str(json).unwrap();
        let error = Cgroup::plan(h, "/creel/abc", &r).unwrap_err().to_string();
        assert!(error.contains(want), "{json}: {error}");
    }
}
