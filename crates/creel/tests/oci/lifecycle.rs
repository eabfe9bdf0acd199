//! From create to delete, in order and in each other's way.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{CREEL, Place, eventually, lives};

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| spec["annotations"] = json!({ "a.b": "c" }));
    let pid_file = place.dir.path().join("pid");
    place.quiet(&[
        "create",
        "--bundle",
        bundle.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "c",
    ]);
    let state = place.state("c");
    let pid = place.pid("c");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    assert_eq!(
        (&state["status"], &state["id"], &state["ociVersion"], &state["annotations"]["a.b"]),
        (&json!("created"), &json!("c"), &json!("1.3.0"), &json!("c"))
    );
    assert_eq!(state["bundle"], json!(bundle));
    // The program does not run yet.
    assert_ne!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sleep\n");
    assert_eq!(place.ok(&["list", "-q"]), "c");
    let listed: serde_json::Value = serde_json::from_str(&place.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((&listed[0]["status"], &listed[0]["owner"]), (&json!("created"), &json!("root")));
    assert!(!place.cgroups().is_empty());

    place.start("c");
    assert_eq!(place.status("c"), "running");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sleep\n");
    assert_eq!(place.ok(&["ps", "--format", "json", "c"]), format!("[{pid}]"));
    assert!(place.ok(&["ps", "c"]).contains("sleep 1000"));

    place.ok(&["kill", "c", "KILL"]);
    place.until("c", "stopped");
    assert_eq!(place.pid("c"), 0);
    assert!(place.ok(&["ps", "c"]).lines().count() == 1);
    place.ok(&["delete", "c"]);
    assert_eq!(place.fails(1, &["state", "c"]), "container does not exist");
    place.finish();
}

#[test]
fn a_created_process_holds_nothing_of_its_creator_s() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |_| {});
    place.create("c", &bundle);
    let pid = place.pid("c");
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let allowed =
            target == "/dev/null" || target.starts_with("socket:") || target == "anon_inode:[signalfd]";
        assert!(allowed, "descriptor {:?} is {target}", entry.file_name());
    }
    // A caller that waits for the end of a pipe does not wait for the container.
    let piped = place.bundle("p", &["sleep", "1000"], |_| {});
    let script = format!(
        "exec 9>&1; {CREEL} oci --root {} create --bundle {} p >/dev/null 2>&1 </dev/null",
        place.root().display(),
        piped.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success());
    for id in ["c", "p"] {
        place.ok(&["delete", "--force", id]);
    }
    place.finish();
}

#[test]
fn a_created_process_ends_by_a_signal() {
    let Some(place) = Place::new() else { return };
    for signal in ["TERM", "INT", "HUP", "QUIT", "KILL"] {
        let bundle = place.bundle("c", &["sleep", "1000"], |_| {});
        place.create("c", &bundle);
        // What no process would die of does not keep it from starting.
        place.ok(&["kill", "c", "WINCH"]);
        place.ok(&["kill", "c", signal]);
        place.until("c", "stopped");
        place.ok(&["delete", "c"]);
    }
    place.finish();
}

#[test]
fn delete_force_ends_whatever_runs_and_does_not_dawdle() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let pid = place.pid("c");
    let begun = Instant::now();
    place.ok(&["delete", "--force", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(!lives(pid));
    place.ok(&["delete", "--force", "c"]);

    // A frozen one.
    place.running("f");
    place.ok(&["pause", "f"]);
    place.ok(&["delete", "-f", "f"]);

    // One whose processes outlive its first, for it has no pid namespace of its own.
    let shared = place.bundle("s", &["sleep", "1001"], |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    place.create("s", &shared);
    place.start("s");
    place.quiet(&["exec", "-d", "s", "sleep", "1002"]);
    place.ok(&["kill", "s", "TERM"]);
    let first = place.pid("s");
    if first != 0 {
        place.ok(&["kill", "--all", "s", "KILL"]);
    }
    place.until("s", "stopped");
    place.ok(&["delete", "s"]);
    place.finish();
}

#[test]
fn containers_are_deleted_by_a_pattern() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    for id in ["test-1", "test-2", "other"] {
        place.create(id, &bundle);
    }
    place.start("test-2");
    let error = place.fails(1, &["delete", "--regex", "^test-[0-9]+$"]);
    assert!(error.starts_with("test-2: cannot delete container test-2 that is not stopped"), "{error}");
    assert_eq!(place.ok(&["list", "-q"]), "other\ntest-2");
    place.ok(&["delete", "-f", "--regex", "test-*"]);
    assert_eq!(place.ok(&["list", "-q"]), "other");
    let error = place.fails(1, &["delete", "--regex", "a("]);
    assert!(error.contains("regular expression"), "{error}");
    place.ok(&["delete", "-f", "--regex", "."]);
    assert_eq!(place.ok(&["list", "-q"]), "");
    place.finish();
}

#[test]
fn a_container_without_a_program_waits_and_ends() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &[], |spec| {
        spec.as_object_mut().unwrap().remove("process");
    });
    place.create("c", &bundle);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(place.status("c"), "created", "it does not end with its creator");
    let output = place.call(&["start", "c"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("level=error"), "{said}");
    assert!(said.contains("the Spec names no process"), "{said}");
    place.until("c", "stopped");
    place.ok(&["delete", "c"]);
    place.finish();
}

/// Without a mount namespace the root is mounted over itself in the caller's, and is no more after the delete; another's
/// mount there stays.
#[test]
fn containers_without_a_mount_namespace_leave_no_mounts() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["true"], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|space| space["type"] != "mount");
        for list in ["maskedPaths", "readonlyPaths"] {
            spec["linux"][list] = json!([]);
        }
    });
    let spec: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let wrong = bundle.join("wrong.json");
    let mut other = spec.clone();
    other["process"]["args"] = json!(["/no/such/program"]);
    fs::write(&wrong, serde_json::to_vec(&other).unwrap()).unwrap();
    let script = format!(
        "r={root}; count() {{ grep -c \" $r[/ ]\" /proc/self/mountinfo; }}\n\
         mount --bind $r $r && count\n\
         {CREEL} oci --root {state} create --bundle {bundle} c </dev/null >/dev/null 2>&1; test $(count) -gt 2 && echo more\n\
         {CREEL} oci --root {state} delete --force c; count\n\
         {CREEL} oci --root {state} create --config {wrong} --bundle {bundle} c >/dev/null 2>&1 </dev/null || count\n",
        root = spec["root"]["path"].as_str().unwrap(),
        state = place.root().display(),
        bundle = bundle.display(),
        wrong = wrong.display(),
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "1\nmore\n1\n1\n", "{}", String::from_utf8_lossy(&output.stderr));
    place.finish();
}

#[test]
fn processes_without_a_pid_namespace_end_with_a_kill() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("s", &["sleep", "1000"], |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    place.create("s", &bundle);
    place.start("s");
    let pid_file = place.dir.path().join("exec-pid");
    place.quiet(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), "s", "sleep", "1000"]);
    let other: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(lives(other));
    place.ok(&["kill", "s", "KILL"]);
    eventually("the end of both", || place.status("s") == "stopped" && !lives(other));
    place.ok(&["delete", "s"]);
    place.finish();
}

#[test]
fn hooks_run_in_order_and_know_the_state() {
    let Some(place) = Place::new() else { return };
    let log = place.dir.path().join("hooks");
    let hook = |kind: &str| {
        let script = format!("read -r state; echo {kind} $state >> {}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    let bundle = place.bundle("h", &["sleep", "1000"], |spec| {
        spec["hooks"] = json!({
            "prestart": hook("prestart"),
            "createRuntime": hook("createRuntime"),
            "poststart": hook("poststart"),
            "poststop": hook("poststop"),
        });
    });
    let lines = || -> Vec<(String, serde_json::Value)> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines()
            .map(|line| {
                let (kind, state) = line.split_once(' ').unwrap();
                (kind.to_owned(), serde_json::from_str(state).unwrap())
            })
            .collect()
    };
    let kinds = || lines().into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    place.create("h", &bundle);
    let pid = place.pid("h");
    assert_eq!(kinds(), ["prestart", "createRuntime"]);
    place.start("h");
    assert_eq!(kinds(), ["prestart", "createRuntime", "poststart"]);
    place.ok(&["delete", "--force", "h"]);
    let all = lines();
    assert_eq!(kinds(), ["prestart", "createRuntime", "poststart", "poststop"]);
    for (kind, state) in &all {
        assert_eq!((&state["id"], &state["bundle"]), (&json!("h"), &json!(bundle)), "{kind}");
    }
    assert_eq!((&all[2].1["status"], &all[2].1["pid"]), (&json!("running"), &json!(pid)));
    assert_eq!(all[3].1["status"], json!("stopped"));
    place.finish();
}

#[test]
fn a_hook_that_fails_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let stopped = place.dir.path().join("stopped");
    let bundle = place.bundle("h", &["sleep", "1000"], |spec| {
        spec["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/false" }],
            "poststop": [{ "path": "/usr/bin/touch", "args": ["touch", stopped] }],
        });
    });
    let said = place.fails(1, &["create", "--bundle", bundle.to_str().unwrap(), "h"]);
    assert!(said.contains("runc create failed") && said.contains("/bin/false"), "{said}");
    assert!(stopped.exists(), "poststop has not run");
    place.finish();
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("h", &["sleep", "1000"], |spec| {
        spec["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] });
    });
    place.create("h", &bundle);
    let pid = place.pid("h");
    assert!(place.fails(1, &["start", "h"]).contains("poststart"));
    assert!(!lives(pid));
    assert_eq!(place.fails(1, &["state", "h"]), "container does not exist");
    assert!(place.fails(1, &["run", "--bundle", bundle.to_str().unwrap(), "h"]).contains("poststart"));
    place.finish();
}

fn spawn(place: &Place, args: &[&str]) -> Child {
    place.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn successes(children: Vec<Child>) -> usize {
    children.into_iter().filter_map(|mut child| child.wait().ok()).filter(|status| status.success()).count()
}

#[test]
fn of_many_at_once_one_wins() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |_| {});
    let bundle = bundle.to_str().unwrap();
    for _ in 0..3 {
        let creates = (0..6).map(|_| spawn(&place, &["create", "--bundle", bundle, "c"])).collect();
        assert_eq!(successes(creates), 1, "creates");
        assert_eq!(place.status("c"), "created");
        let starts = (0..6).map(|_| spawn(&place, &["start", "c"])).collect();
        assert_eq!(successes(starts), 1, "starts");
        assert_eq!(place.status("c"), "running");
        let deletes = (0..6).map(|_| spawn(&place, &["delete", "--force", "c"])).collect();
        assert_eq!(successes(deletes), 6, "deletes");
        assert_eq!(place.cgroups(), Vec::<std::path::PathBuf>::new());
    }
    // All against each other: whatever happens, a last delete finds and ends everything.
    for round in 0..6u64 {
        place.create("c", bundle.as_ref());
        let start = spawn(&place, &["start", "c"]);
        std::thread::sleep(Duration::from_millis(round));
        let others: Vec<_> = [["kill", "c"], ["delete", "c"], ["delete", "c"], ["state", "c"]]
            .iter()
            .map(|args| spawn(&place, args))
            .collect();
        successes(others.into_iter().chain([start]).collect());
        place.ok(&["delete", "--force", "c"]);
    }
    place.finish();
}

#[test]
fn what_a_killed_create_leaves_is_found() {
    let Some(place) = Place::new() else { return };
    let here = place.dir.path().join("in-hook");
    let script = format!("touch {}; while :; do sleep 0.05; done", here.display());
    let bundle = place.bundle("k", &["sleep", "1000"], |spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    for at in 0..12u64 {
        let _ = fs::remove_file(&here);
        let mut create = spawn(&place, &["create", "--bundle", bundle.to_str().unwrap(), "k"]);
        if at < 6 {
            // Anywhere on the way: a few hundred microseconds apart.
            std::thread::sleep(Duration::from_micros(at * 700));
        } else {
            eventually("the hook", || here.exists());
            assert_eq!(place.fails(1, &["state", "k"]), "container does not exist");
            assert!(place.ok(&["list", "--format", "json"]).contains("\"status\":\"creating\""));
        }
        create.kill().unwrap();
        create.wait().unwrap();
        // The hook itself is the caller's to end: it belongs to the host.
        place.ok(&["delete", "--force", "k"]);
        assert_eq!(place.cgroups(), Vec::<std::path::PathBuf>::new(), "killed at {at}");
        assert!(fs::read_dir(place.root()).into_iter().flatten().next().is_none(), "killed at {at}");
        end_of(&format!("sh -c touch {}", here.display()));
    }
    place.finish();
}

/// Ends the hooks of this test by process id.
fn end_of(line: &str) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(found) = fs::read(entry.path().join("cmdline")) else { continue };
        let found = String::from_utf8_lossy(&found).replace('\0', " ");
        if found.starts_with(line)
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn a_create_that_hangs_can_be_deleted() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("k", &["sleep", "1000"], |spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "2"] }] });
    });
    let create = spawn(&place, &["create", "--bundle", bundle.to_str().unwrap(), "k"]);
    let listed = || String::from_utf8_lossy(&place.call(&["list"]).stdout).contains("creating");
    eventually("the record", listed);
    place.ok(&["delete", "--force", "k"]);
    successes(vec![create]);
    place.ok(&["delete", "--force", "k"]);
    place.finish();
}

#[test]
fn another_process_with_the_same_id_is_not_touched() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let before = place.pid("c");
    let file = place.root().join("c/state.json");
    // Start times are counted in hundredths of a second.
    std::thread::sleep(Duration::from_millis(50));
    let mut innocent = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(record["pid"], json!(before));
    record["pid"] = json!(innocent.id());
    fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(place.status("c"), "stopped");
    assert_eq!(place.fails(1, &["kill", "c", "KILL"]), "container not running");
    place.ok(&["delete", "--force", "c"]);
    assert!(innocent.try_wait().unwrap().is_none(), "an innocent process was killed");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    // What was really in the container has gone with its control group.
    eventually("the end of the container", || !lives(before));
    place.finish();
}

#[test]
fn a_foreground_run_cleans_up_and_keeps_when_asked() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("r", &["sh", "-c", "echo out; echo err >&2; exit 7"], |_| {});
    let bundle = bundle.to_str().unwrap();
    let output = place.call(&["run", "--bundle", bundle, "r"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(place.fails(1, &["state", "r"]), "container does not exist");
    let output = place.call(&["run", "--keep", "--bundle", bundle, "r"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(place.status("r"), "stopped");
    place.ok(&["delete", "r"]);

    let short = place.bundle("t", &["true"], |_| {});
    for _ in 0..20 {
        place.ok(&["run", "-b", short.to_str().unwrap(), "t"]);
    }
    let detached = place.bundle("d", &["sleep", "1000"], |_| {});
    place.quiet(&["run", "--detach", "--bundle", detached.to_str().unwrap(), "d"]);
    assert_eq!(place.status("d"), "running");
    place.ok(&["delete", "--force", "d"]);
    place.finish();
}
