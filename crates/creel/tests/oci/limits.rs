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

#[test]
fn checkpoint_and_restore_go_through_criu_or_say_so() {
    let Some(place) = Place::new() else { return };
    let script = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done";
    let bundle = place.bundle("c", &["sh", "-c", script], |_| {});
    place.create("c", &bundle);
    let said = place.fails(1, &["checkpoint", "c"]);
    assert_eq!(said, "Container cannot be checkpointed in created state");
    place.start("c");
    let images = place.dir.path().join("images");
    let mut without = place.command(&["checkpoint", "--image-path", images.to_str().unwrap(), "c"]);
    let output = without.env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("CRIU is missing"), "{}", text(&output.stderr));
    let criu = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("criu").exists()));
    if criu {
        let count = || place.ok(&["exec", "c", "cat", "/dev/shm/count"]).parse::<u64>().unwrap();
        while count() < 5 {}
        let before = count();
        place.ok(&["checkpoint", "--image-path", images.to_str().unwrap(), "c"]);
        assert_eq!(place.fails(1, &["state", "c"]), "container does not exist");
        let descriptors = std::fs::read(images.join("descriptors.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<String>>(&descriptors).unwrap().len(), 3);
        place.quiet(&[
            "restore",
            "--detach",
            "--image-path",
            images.to_str().unwrap(),
            "--bundle",
            bundle.to_str().unwrap(),
            "c",
        ]);
        assert_eq!(place.status("c"), "running");
        assert!(count() >= before, "it has begun anew");
    } else {
        eprintln!("skipped: criu is not installed");
    }
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}
