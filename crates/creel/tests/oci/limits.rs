//! Limits and what is counted: update, events, pause.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Place, text};

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

fn value(place: &Place, id: &str, names: &[&str]) -> String {
    fs::read_to_string(place.cgroup_file(id, names)).unwrap().trim().to_owned()
}

#[test]
fn limits_are_changed_by_flags_and_documents() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    });
    place.create("c", &bundle);
    place.start("c");
    assert_eq!(value(&place, "c", &MEMORY), (64 << 20).to_string());
    place.ok(&["update", "--memory", "48m", "--pids-limit", "30", "c"]);
    assert_eq!(value(&place, "c", &MEMORY), (48 << 20).to_string());
    assert_eq!(value(&place, "c", &["pids.max"]), "30");

    let mut update = place.command(&["update", "-r", "-", "c"]);
    let mut child = update.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let document = json!({ "memory": { "limit": 40 << 20 }, "pids": { "limit": 20 } }).to_string();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(value(&place, "c", &MEMORY), (40 << 20).to_string());
    // What was not mentioned stays.
    place.ok(&["update", "--memory", "44m", "c"]);
    assert_eq!(value(&place, "c", &["pids.max"]), "20");

    let said = place.fails(1, &["update", "--cpu-quota", "abc", "c"]);
    assert_eq!(said, "invalid value for cpu-quota: strconv.ParseInt: parsing \"abc\": invalid syntax");
    let said = place.fails(1, &["update", "--l3-cache-schema", "L3:0=f", "c"]);
    assert!(said.contains("Intel RDT"), "{said}");
    // A device list is not touched by an update: the container's rules still hold.
    assert_eq!(place.ok(&["exec", "c", "sh", "-c", "echo x > /dev/null && echo fine"]), "fine");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn statistics_have_the_shape_that_others_read() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    place.ok(&["exec", "c", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
    let event: Value = serde_json::from_str(&place.ok(&["events", "--stats", "c"])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("c")));
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["pids"]["current"], json!(1));
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert!(data["memory"]["usage"]["limit"].is_u64() && data["memory"]["raw"].is_object(), "{data}");
    for key in ["cpuset", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[key].is_object(), "{key}: {data}");
    }
    assert!(place.fails(1, &["events", "--interval", "0s", "c"]).contains("greater than 0"));
    assert!(place.fails(1, &["events", "--interval", "soon", "c"]).contains("parse error"));
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn events_come_until_the_container_ends_and_tell_of_oom() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 24 << 20, "swap": 24 << 20 });
    });
    place.create("c", &bundle);
    place.start("c");
    let mut command = place.command(&["events", "--interval", "30ms", "c"]);
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("{\"type\":\"stats\",\"id\":\"c\",\"data\":{"), "{first}");
    let hog = place.call(&["exec", "c", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60"]);
    assert_eq!(hog.status.code(), Some(137), "{}", text(&hog.stderr));
    let oom = lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains("oom\""));
    assert_eq!(oom.as_deref(), Some("{\"type\":\"oom\",\"id\":\"c\"}"));
    place.ok(&["delete", "--force", "c"]);
    assert!(lines.all(|line| line.is_ok()));
    assert!(events.wait().unwrap().success());
    place.finish();
}

/// A call of the runtime that believes a directory to be resctrl's, which no machine here has: its own mountinfo names
/// it so, in a mount namespace of its own.
fn with_resctrl(place: &Place, resctrl: &Path, args: &[&str]) -> Output {
    let told = place.dir.path().join("mountinfo");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = resctrl.to_str().unwrap().replace(' ', "\\040");
    fs::write(&told, format!("{mounts}9999 1 0:999 / {name} rw - resctrl resctrl rw\n")).unwrap();
    let script = "mount --bind \"$TOLD\" /proc/$$/mountinfo && exec \"$@\"";
    let command = place.command(args);
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    inside.env("TOLD", told).stdin(Stdio::null());
    let log = fs::File::create(place.dir.path().join("resctrl.log")).unwrap();
    inside.stdout(Stdio::null()).stderr(log);
    let status = inside.status().unwrap();
    let stderr = fs::read(place.dir.path().join("resctrl.log")).unwrap();
    Output { status, stdout: Vec::new(), stderr }
}

#[test]
fn a_class_of_cache_goes_with_its_container() {
    let Some(place) = Place::new() else { return };
    let resctrl = place.dir.path().join("a resctrl");
    fs::create_dir(&resctrl).unwrap();
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"]["intelRdt"] = json!({ "l3CacheSchema": "L3:0=f" });
    });
    let create = ["create", "--bundle", bundle.to_str().unwrap(), "c"];
    let made = with_resctrl(&place, &resctrl, &create);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let class = resctrl.join("c");
    let read = |name: &str| fs::read_to_string(class.join(name)).unwrap();
    assert_eq!(read("tasks"), format!("{}\n", place.pid("c")));
    assert_eq!(read("schemata"), "L3:0=f\n");
    // The kernel's directories go with the files in them; these do not.
    let empty = || ["tasks", "schemata"].iter().for_each(|name| fs::remove_file(class.join(name)).unwrap());
    empty();
    let gone = with_resctrl(&place, &resctrl, &["delete", "--force", "c"]);
    assert!(gone.status.success() && !class.exists(), "{}", text(&gone.stderr));

    // Somebody else's of the same name is neither taken nor removed.
    fs::create_dir(&class).unwrap();
    let made = with_resctrl(&place, &resctrl, &create);
    assert!(text(&made.stderr).contains("not this container's"), "{}", text(&made.stderr));
    assert!(class.exists());
    place.finish();
}
