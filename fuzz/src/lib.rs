//! What the targets share.

use std::fmt::Debug;
use std::path::{Component, Path};

use creel_cgroup::Hierarchies;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a JSON document and requires that printing and reading it once more gives the same.
pub fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let printed = serde_json::to_value(&value).expect("what was read can be printed");
    // Documents with free parts may hold fractions, which serde_json by default reads only nearly exactly.
    if !has_fraction(&printed) {
        let text = serde_json::to_string(&value).expect("what was read can be printed");
        let again: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again, value, "{text}");
    }
    Some(value)
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        _ => false,
    }
}

/// Whether `path` is absolute and has neither `.` nor `..` in it.
pub fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    path.is_absolute()
        && !bytes.contains(&0)
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !bytes.split(|byte| *byte == b'/').any(|part| part == b".")
}

/// The control groups of a hybrid host and of one with the unified hierarchy only.
pub fn hosts() -> [Hierarchies; 2] {
    let hybrid = "\
31 23 0:28 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:29 / /cg/memory rw - cgroup cgroup rw,memory
33 23 0:30 / /cg/rest rw - cgroup cgroup rw,cpuset,devices,blkio,pids,hugetlb,net_cls,net_prio,rdma
34 23 0:31 / /cg/unified rw - cgroup2 cgroup2 rw
";
    let own = "\
3:cpu,cpuacct:/
2:memory:/
1:cpuset,devices,blkio,pids,hugetlb,net_cls,net_prio,rdma:/
0::/
";
    let unified = "31 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n";
    let offered = "cpuset cpu io memory hugetlb pids rdma misc";
    [
        Hierarchies::from_texts(hybrid, own, "").expect("a well-formed table"),
        Hierarchies::from_texts(unified, "0::/\n", offered).expect("a well-formed table"),
    ]
}
