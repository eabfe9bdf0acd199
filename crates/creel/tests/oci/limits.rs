//! Limits and what is counted: update, events, pause.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

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
