use std::fs;
use std::path::Path;

use expect_test::expect;
use proptest::prelude::*;

use crate::controls;
use crate::hierarchy::Hierarchies;
use crate::{Cgroup, Error};

/// A group in a directory that looks like cgroup v2.
fn v2_tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let root = tempfile::tempdir().unwrap();
    let mounts = format!("28 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
    let h =
        Hierarchies::from_texts(&mounts, "0::/\n", "cpuset cpu io memory hugetlb pids rdma misc").unwrap();
    let group = root.path().join("creel/abc");
    fs::create_dir_all(&group).unwrap();
    for (name, text) in files {
        let file = group.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let cgroup = Cgroup::open(&h, "/creel/abc").unwrap();
    (root, cgroup)
}

#[test]
fn v2_statistics() {
    let (_root, cgroup) = v2_tree(&[
        (
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 9\nnr_throttled 3\nthrottled_usec 77\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.max", "max\n"),
        ("memory.swap.current", "12\n"),
        ("memory.stat", "anon 1\ninactive_file 2048\n"),
        ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n"),
        ("pids.current", "3\n"),
        ("pids.max", "100\n"),
        ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0 rbytes=7\nodd\n"),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.rsvd.current", "4194304\n"),
        ("hugetlb.2MB.events", "max 8\n"),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
    ]);
    let stats = cgroup.stats().unwrap();
    expect![[r#"
        {
          "cpu": {
            "usage_ns": 1500000,
            "user_ns": 1000000,
            "system_ns": 500000,
            "per_cpu_ns": [],
            "periods": 9,
            "throttled_periods": 3,
            "throttled_ns": 77000,
            "per_cpu_user_ns": [],
            "per_cpu_system_ns": [],
            "bursts": 0,
            "burst_ns": 0
          },
          "memory": {
            "usage": 4096,
            "max_usage": 8192,
            "limit": null,
            "inactive_file": 2048,
            "failcnt": 4,
            "swap": 12,
            "oom_kills": 1,
            "stat": {
              "anon": 1,
              "inactive_file": 2048
            },
            "cache": 0,
            "memory": {
              "usage": 4096,
              "max": 8192,
              "failcnt": 0,
              "limit": 18446744073709551615
            },
            "memory_and_swap": {
              "usage": 4108,
              "max": 0,
              "failcnt": 0,
              "limit": 18446744073709551615
            },
            "kernel": null,
            "kernel_tcp": null
          },
          "pids": {
            "current": 3,
            "limit": 100
          },
          "io": [
            {
              "major": 8,
              "minor": 0,
              "read_bytes": 7,
              "write_bytes": 0,
              "discard_bytes": 0,
              "reads": 0,
              "writes": 0,
              "discards": 0
            },
            {
              "major": 8,
              "minor": 16,
              "read_bytes": 1,
              "write_bytes": 2,
              "discard_bytes": 5,
              "reads": 3,
              "writes": 4,
              "discards": 6
            }
          ],
          "blkio": {
            "service_bytes": [
              {
                "major": 8,
                "minor": 0,
                "operation": "Read",
                "value": 7
              },
              {
                "major": 8,
                "minor": 0,
                "operation": "Write",
                "value": 0
              },
              {
                "major": 8,
                "minor": 16,
                "operation": "Read",
                "value": 1
              },
              {
                "major": 8,
                "minor": 16,
                "operation": "Write",
                "value": 2
              }
            ],
            "serviced": [
              {
                "major": 8,
                "minor": 0,
                "operation": "Read",
                "value": 0
              },
              {
                "major": 8,
                "minor": 0,
                "operation": "Write",
                "value": 0
              },
              {
                "major": 8,
                "minor": 16,
                "operation": "Read",
                "value": 3
              },
              {
                "major": 8,
                "minor": 16,
                "operation": "Write",
                "value": 4
              }
            ],
            "queued": [],
            "service_time": [],
            "wait_time": [],
            "merged": [],
            "time": [],
            "sectors": []
          },
          "cpuset": null,
          "rdma": [],
          "rdma_limits": [],
          "misc": {},
          "hugetlb": {
            "2MB": {
              "usage": 4194304,
              "max_usage": 0,
              "failcnt": 8
            }
          },
          "pressure": {
            "cpu": {
              "some": {
                "avg10": 1.5,
                "avg60": 0.0,
                "avg300": 0.0,
                "total_us": 42
              },
              "full": {
                "avg10": 0.0,
                "avg60": 0.0,
                "avg300": 0.0,
                "total_us": 0
              }
            },
            "memory": null,
            "io": null
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&stats).unwrap());
    assert_eq!(cgroup.oom_kills().unwrap(), 1);
}

#[test]
fn v2_members_states_and_doors() {
    let (root, cgroup) = v2_tree(&[
        ("cgroup.procs", "5\n3\n"),
        ("child/cgroup.procs", "7\n0\n"),
        ("cgroup.events", "populated 1\nfrozen 1\n"),
        ("cgroup.freeze", "0\n"),
        ("cgroup.kill", ""),
    ]);
    assert_eq!(cgroup.pids().unwrap(), [3, 5, 7]);
    assert!(cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert_eq!(fs::read_to_string(root.path().join("creel/abc/cgroup.freeze")).unwrap(), "1\n");
    cgroup.kill_all().unwrap();
    assert_eq!(fs::read_to_string(root.path().join("creel/abc/cgroup.kill")).unwrap(), "1");
    let entry = cgroup.entry().unwrap();
    assert!(entry.unified().is_some());
    assert_eq!(entry.tasks().count(), 0);
    entry.join_v1().unwrap();
    assert_eq!(
        controls::pids(&crate::apply::Real, Path::new("/nowhere")).unwrap_err().raw_os_error(),
        Some(2)
    );
}

#[test]
fn a_group_that_is_gone() {
    let (root, cgroup) = v2_tree(&[]);
    fs::remove_dir_all(root.path().join("creel")).unwrap();
    let gone =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
    gone(cgroup.stats().map(drop));
    gone(cgroup.pids().map(drop));
    gone(cgroup.entry().map(drop));
    gone(cgroup.freeze());
    gone(cgroup.update(&Default::default()).map(drop));
    gone(Cgroup::open(cgroup.hierarchies(), "/creel/abc").map(drop));
    cgroup.kill_all().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn check_before_update() {
    let (_root, cgroup) = v2_tree(&[("memory.current", "5000\n"), ("memory.max", "max\n")]);
    let r = serde_json::from_str(r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#).unwrap();
    let error = cgroup.update(&r).unwrap_err().to_string();
    assert!(error.contains("rejecting memory limit 4096") && error.contains("5000 bytes"), "{error}");
    let r = serde_json::from_str(r#"{"memory": {"limit": 4096, "swap": 4999, "checkBeforeUpdate": true}}"#)
        .unwrap();
    let error = cgroup.update(&r).unwrap_err().to_string();
    assert!(error.contains("rejecting memory+swap limit 4999"), "{error}");
    let r = serde_json::from_str(r#"{"memory": {"limit": 8192, "checkBeforeUpdate": true}}"#).unwrap();
    cgroup.update(&r).unwrap();
}

#[test]
fn as_runc_tells_it() {
    let psi =
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let (_root, cgroup) = v2_tree(&[
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
        ("cpu.pressure", psi),
        ("memory.current", "4096\n"),
        ("memory.max", "8192\n"),
        ("memory.swap.current", "12\n"),
        ("memory.swap.max", "max\n"),
        ("memory.stat", "anon 1\nfile 2048\n"),
        ("cgroup.procs", "1\n2\n"),
        ("io.stat", "8:0 rbytes=7 wios=2\n"),
    ]);
    let json = |cgroup: &Cgroup| {
        serde_json::to_string_pretty(&crate::RuncStats::from(&cgroup.stats().unwrap())).unwrap()
    };
    expect![[r#"
        {
          "cpu": {
            "usage": {
              "total": 1500000,
              "kernel": 500000,
              "user": 1000000
            },
            "throttling": {},
            "psi": {
              "some": {
                "avg10": 1.5,
                "avg60": 0.0,
                "avg300": 0.0,
                "total": 42
              },
              "full": {
                "avg10": 0.0,
                "avg60": 0.0,
                "avg300": 0.0,
                "total": 0
              }
            }
          },
          "cpuset": {
            "cpu_exclusive": 0,
            "mem_hardwall": 0,
            "mem_exclusive": 0,
            "memory_migrate": 0,
            "memory_spread_page": 0,
            "memory_spread_slab": 0,
            "memory_pressure": 0,
            "sched_load_balance": 0,
            "sched_relax_domain_level": 0
          },
          "memory": {
            "cache": 2048,
            "usage": {
              "limit": 8192,
              "usage": 4096,
              "failcnt": 0
            },
            "swap": {
              "limit": 18446744073709551615,
              "usage": 4108,
              "failcnt": 0
            },
            "kernel": {
              "limit": 0,
              "failcnt": 0
            },
            "kernelTCP": {
              "limit": 0,
              "failcnt": 0
            },
            "raw": {
              "anon": 1,
              "file": 2048
            }
          },
          "pids": {
            "current": 2
          },
          "blkio": {
            "ioServiceBytesRecursive": [
              {
                "major": 8,
                "op": "Read",
                "value": 7
              },
              {
                "major": 8,
                "op": "Write"
              }
            ],
            "ioServicedRecursive": [
              {
                "major": 8,
                "op": "Read"
              },
              {
                "major": 8,
                "op": "Write",
                "value": 2
              }
            ]
          },
          "hugetlb": {},
          "intel_rdt": {}
        }"#]]
    .assert_eq(&json(&cgroup));

    let root = tempfile::tempdir().unwrap();
    let mounts =
        crate::hierarchy::tests::V1_MOUNTS.replace("/sys/fs/cgroup", &root.path().display().to_string());
    let h = Hierarchies::from_texts(&mounts, crate::hierarchy::tests::V1_SELF, "").unwrap();
    for (name, text) in [
        ("cpu,cpuacct/a/cpuacct.usage", "300\n"),
        ("cpu,cpuacct/a/cpuacct.usage_user", "100\n"),
        ("cpu,cpuacct/a/cpuacct.usage_sys", "200\n"),
        ("cpu,cpuacct/a/cpuacct.usage_percpu", "120 180\n"),
        ("cpu,cpuacct/a/cpuacct.usage_all", "cpu user system\n0 20 100\n1 80 100\n"),
        ("cpu,cpuacct/a/cpu.stat", "nr_periods 3\nnr_throttled 1\nthrottled_time 9\n"),
        ("memory/a/memory.usage_in_bytes", "4096\n"),
        ("memory/a/memory.max_usage_in_bytes", "5000\n"),
        ("memory/a/memory.failcnt", "1\n"),
        ("memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/a/memory.memsw.usage_in_bytes", "4100\n"),
        ("memory/a/memory.kmem.usage_in_bytes", "77\n"),
        ("memory/a/memory.stat", "cache 10\nrss 20\n"),
        ("pids/a/pids.current", "2\n"),
        ("pids/a/pids.max", "100\n"),
        ("cpuset/a/cpuset.cpus", "0-1\n"),
        ("cpuset/a/cpuset.mems", "0\n"),
        ("cpuset/a/cpuset.sched_load_balance", "1\n"),
        ("cpuset/a/cpuset.sched_relax_domain_level", "-1\n"),
        ("blkio/a/blkio.throttle.io_service_bytes_recursive", "8:0 Read 5\n8:0 Total 5\nTotal 5\n"),
        ("blkio/a/blkio.bfq.time_recursive", "8:0 3\n"),
        ("hugetlb/a/hugetlb.2MB.usage_in_bytes", "0\n"),
        ("hugetlb/a/hugetlb.2MB.rsvd.max_usage_in_bytes", "2097152\n"),
    ] {
        let file = root.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let cgroup = Cgroup::open(&h, "/a").unwrap();
    expect![[r#"
        {
          "cpu": {
            "usage": {
              "total": 300,
              "percpu": [
                120,
                180
              ],
              "percpu_kernel": [
                100,
                100
              ],
              "percpu_user": [
                20,
                80
              ],
              "kernel": 200,
              "user": 100
            },
            "throttling": {
              "periods": 3,
              "throttledPeriods": 1,
              "throttledTime": 9
            }
          },
          "cpuset": {
            "cpus": [
              0,
              1
            ],
            "cpu_exclusive": 0,
            "mems": [
              0
            ],
            "mem_hardwall": 0,
            "mem_exclusive": 0,
            "memory_migrate": 0,
            "memory_spread_page": 0,
            "memory_spread_slab": 0,
            "memory_pressure": 0,
            "sched_load_balance": 1,
            "sched_relax_domain_level": -1
          },
          "memory": {
            "cache": 10,
            "usage": {
              "limit": 9223372036854771712,
              "usage": 4096,
              "max": 5000,
              "failcnt": 1
            },
            "swap": {
              "limit": 0,
              "usage": 4100,
              "failcnt": 0
            },
            "kernel": {
              "limit": 0,
              "usage": 77,
              "failcnt": 0
            },
            "kernelTCP": {
              "limit": 0,
              "failcnt": 0
            },
            "raw": {
              "cache": 10,
              "rss": 20
            }
          },
          "pids": {
            "current": 2,
            "limit": 100
          },
          "blkio": {
            "ioServiceBytesRecursive": [
              {
                "major": 8,
                "op": "Read",
                "value": 5
              },
              {
                "major": 8,
                "op": "Total",
                "value": 5
              }
            ],
            "ioTimeRecursive": [
              {
                "major": 8,
                "value": 3
              }
            ]
          },
          "hugetlb": {
            "2MB": {
              "max": 2097152,
              "failcnt": 0
            }
          },
          "intel_rdt": {}
        }"#]]
    .assert_eq(&json(&cgroup));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn statistics_never_panic(
        name in proptest::sample::select(vec![
            "cpu.stat", "memory.current", "memory.stat", "memory.events", "pids.current", "io.stat", "cpu.pressure",
            "cgroup.procs", "hugetlb.2MB.current", "rdma.current", "misc.current", "memory.swap.max", "memory.pressure",
        ]),
        text in "(?s)(some|full|8:0| |=|[0-9]|max|\n|.){0,60}",
    ) {
        let (_root, cgroup) = v2_tree(&[("memory.current", "1"), ("pids.current", "1"), (name, &text)]);
        let _ = (cgroup.stats(), cgroup.pids(), cgroup.oom_kills());
    }
}
