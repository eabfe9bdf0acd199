//! The rules of the house, checked over what cargo and the sources say: layers, unsafe, file sizes, licences.
//!
//! `ARCHITECTURE.md` tells the reasons; this test makes them hold.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of creel's crates each crate may depend on. A line here is a decision: change it with ARCHITECTURE.md.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("creel-types", &[]),
    ("creel-wire", &["creel-types"]),
    ("creel-sys", &[]),
    ("creel-cgroup", &["creel-types", "creel-sys"]),
    ("creel-layer", &["creel-types", "creel-sys"]),
    ("creel-runtime", &["creel-types", "creel-sys", "creel-cgroup"]),
    ("creel-shim", &["creel-types", "creel-sys", "creel-cgroup", "creel-runtime"]),
    ("creel-oci", &["creel-types", "creel-sys", "creel-cgroup", "creel-runtime"]),
    ("creel-store", &["creel-types", "creel-sys", "creel-layer"]),
    ("creel-net", &["creel-types", "creel-sys"]),
    ("creel-distribution", &["creel-types", "creel-sys", "creel-layer", "creel-store"]),
    ("creel-plugin", &["creel-types"]),
    (
        "creel-engine",
        &[
            "creel-types",
            "creel-wire",
            "creel-sys",
            "creel-cgroup",
            "creel-layer",
            "creel-runtime",
            "creel-shim",
            "creel-store",
            "creel-distribution",
            "creel-plugin",
        ],
    ),
    ("creel-api", &["creel-types", "creel-wire", "creel-engine"]),
    ("creel-client", &["creel-types", "creel-wire"]),
    ("creel-cli", &["creel-types", "creel-wire", "creel-sys", "creel-layer", "creel-client"]),
    (
        "creel",
        &[
            "creel-api",
            "creel-cli",
            "creel-engine",
            "creel-layer",
            "creel-oci",
            "creel-runtime",
            "creel-shim",
            "creel-wire",
        ],
    ),
];

/// Crates in whose processes no async runtime may start: they are cloned from, or must stay tiny.
const WITHOUT_TOKIO: &[&str] = &[
    "creel-types",
    "creel-wire",
    "creel-sys",
    "creel-cgroup",
    "creel-layer",
    "creel-runtime",
    "creel-shim",
    "creel-oci",
    "creel-store",
];

/// Licences that suit a project under Apache-2.0.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "0BSD",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "Apache-2.0 WITH LLVM-exception",
];

/// What must never be linked: C libraries that a static binary cannot have, or a second TLS.
const BANNED: &[&str] = &["openssl-sys", "native-tls", "libdbus-sys", "libseccomp-sys", "aws-lc-sys"];

/// Most lines of a source file.
const MOST_LINES: usize = 800;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![workspace().join("crates")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

#[test]
fn arrows_point_down_only() {
    let metadata = metadata();
    let table: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(package, "name");
        if !name.starts_with("creel") {
            continue;
        }
        seen.insert(name.to_owned());
        let allowed = table.get(name).unwrap_or_else(|| panic!("{name} is not in the table of this test"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = text(dependency, "name");
            if dependency["kind"].is_null() && target.starts_with("creel") {
                assert!(allowed.contains(&target), "{name} must not know {target}");
            }
        }
    }
    assert_eq!(seen.len(), MAY_KNOW.len(), "a crate of the table is gone");
}

#[test]
fn the_lower_layers_have_no_async_runtime() {
    let metadata = metadata();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let normal = node["deps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null()));
        edges.insert(text(node, "id"), normal.map(|dep| text(dep, "pkg")).collect());
    }
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeMap<_, _> = packages.iter().map(|p| (text(p, "id"), text(p, "name"))).collect();
    for (id, name) in names.iter().filter(|(_, name)| WITHOUT_TOKIO.contains(*name)) {
        let (mut left, mut seen) = (vec![*id], BTreeSet::new());
        while let Some(id) = left.pop() {
            if seen.insert(id) {
                assert_ne!(names[id], "tokio", "{name} reaches tokio");
                left.extend(&edges[id]);
            }
        }
    }
}

#[test]
fn dependencies_have_fitting_licences_and_one_source() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let used: BTreeSet<_> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| text(node, "id")).collect();
    assert!(used.len() > 100, "cargo told of too few packages");
    for package in packages.iter().filter(|package| used.contains(text(package, "id"))) {
        let name = text(package, "name");
        assert!(!BANNED.contains(&name), "{name} must not be linked");
        if !name.starts_with("creel") {
            assert!(text(package, "source").contains("crates.io"), "{name} does not come from crates.io");
        }
        let licence = text(package, "license").replace('/', " OR ");
        let fits = licence.split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        assert!(fits, "{name}: the licence `{licence}` is not on the list");
    }
}

#[test]
fn unsafe_lives_in_creel_sys_alone() {
    for path in sources() {
        let source = std::fs::read_to_string(&path).unwrap();
        let in_sys = path.components().any(|c| c.as_os_str() == "creel-sys");
        // Spelt apart so that this file does not find itself.
        let allowance = ["allow(", "unsafe_code"].concat();
        assert!(in_sys || !source.contains(&allowance), "{} allows unsafe code", path.display());
    }
}

#[test]
fn files_stay_small_enough_to_be_read() {
    let too_long: Vec<_> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            (lines > MOST_LINES).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(too_long.is_empty(), "over {MOST_LINES} lines:\n{}", too_long.join("\n"));
}

#[test]
fn the_map_of_the_house_names_every_crate() {
    let map = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    for (name, _) in MAY_KNOW {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not mention {name}");
    }
}
