//! Texts that callers written for runc look for.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Place, text};

#[test]
fn states_that_forbid_a_verb() {
    let Some(place) = Place::new() else { return };
    for args in [&["state", "x"][..], &["start", "x"], &["kill", "x"], &["delete", "x"], &["pause", "x"]] {
        assert_eq!(place.fails(1, args), "container does not exist", "{args:?}");
    }
    assert_eq!(place.fails(255, &["exec", "x", "true"]), "exec failed: container does not exist");
    let bundle = place.bundle("c", &["sleep", "1000"], |_| {});
    let bundle = bundle.to_str().unwrap();
    place.create("c", bundle.as_ref());
    assert_eq!(
        place.fails(1, &["create", "--bundle", bundle, "c"]),
        "runc create failed: container with given ID already exists"
    );
    assert_eq!(
        place.fails(1, &["run", "--bundle", bundle, "c"]),
        "runc run failed: container with given ID already exists"
    );
    place.start("c");
    assert_eq!(place.fails(1, &["start", "c"]), "cannot start an already running container");
    assert_eq!(place.fails(1, &["delete", "c"]), "cannot delete container c that is not stopped: running");
    assert_eq!(place.fails(1, &["resume", "c"]), "container not paused");
    assert_eq!(place.fails(1, &["kill", "c", "nosig"]), "unknown signal \"nosig\"");
    assert_eq!(place.fails(1, &["kill", "c", "99"]), "unable to signal init: invalid argument");
    place.ok(&["kill", "c", "0"]);
    place.ok(&["pause", "c"]);
    assert_eq!(place.status("c"), "paused");
    assert_eq!(place.fails(1, &["start", "c"]), "cannot start a container in the paused state");
    assert_eq!(place.fails(1, &["pause", "c"]), "container not running");
    assert_eq!(place.fails(1, &["delete", "c"]), "cannot delete container c that is not stopped: paused");
    assert_eq!(
        place.fails(255, &["exec", "c", "true"]),
        "exec failed: cannot exec in a paused container (use --ignore-paused to override)"
    );
    place.ok(&["resume", "c"]);
    place.ok(&["kill", "c", "SIGKILL"]);
    place.until("c", "stopped");
    assert_eq!(place.fails(1, &["start", "c"]), "cannot start a container that has stopped");
    assert_eq!(place.fails(1, &["kill", "c"]), "container not running");
    place.ok(&["kill", "--all", "c"]);
    assert_eq!(place.fails(1, &["pause", "c"]), "container not running");
    assert_eq!(place.fails(1, &["update", "--memory", "40m", "c"]), "container not running");
    assert_eq!(place.fails(1, &["events", "c"]), "container with id c is not running");
    assert_eq!(place.fails(255, &["exec", "c", "true"]), "exec failed: cannot exec in a stopped container");
    place.ok(&["delete", "c"]);
    place.finish();
}

#[test]
fn programs_that_cannot_be_run() {
    let Some(place) = Place::new() else { return };
    let start = "unable to start container process: ";
    let missing = place.bundle("m", &["nope"], |_| {});
    let missing = missing.to_str().unwrap();
    for verb in ["run", "create"] {
        let said = place.fails(1, &[verb, "--bundle", missing, "m"]);
        assert!(said.starts_with(&format!("runc {verb} failed: {start}")), "{said}");
        assert!(said.ends_with("exec: \"nope\": executable file not found in $PATH"), "{said}");
    }
    let directory = place.bundle("d", &["/etc"], |_| {});
    let said = place.fails(1, &["run", "--bundle", directory.to_str().unwrap(), "d"]);
    assert!(said.ends_with("exec: \"/etc\": is a directory"), "{said}");
    // What only the kernel finds out: the container's process says so itself, as with runc.
    let here = place.dir.path();
    let script = here.join("script");
    fs::write(&script, "#!/nope\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bound = place.bundle("b", &["/tmp/script"], |spec| {
        let mount = json!({ "destination": "/tmp", "type": "bind", "source": here, "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let output = place.call(&["run", "--bundle", bound.to_str().unwrap(), "b"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "exec /tmp/script: no such file or directory\n");
    place.running("c");
    let said = place.fails(255, &["exec", "c", "nope"]);
    assert_eq!(said, format!("exec failed: {start}exec: \"nope\": executable file not found in $PATH"));
    let said = place.fails(255, &["exec", "c", "/etc/passwd"]);
    assert!(said.ends_with("exec: \"/etc/passwd\": permission denied"), "{said}");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn what_keeps_a_container_from_starting() {
    let Some(place) = Place::new() else { return };
    let refused = |change: &dyn Fn(&mut Value)| {
        let bundle = place.bundle("c", &["true"], change);
        place.fails(1, &["run", "--bundle", bundle.to_str().unwrap(), "c"])
    };
    let said = refused(&|spec| {
        let bind = json!({"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]});
        spec["mounts"].as_array_mut().unwrap().push(bind);
    });
    let start =
        "runc run failed: unable to start container process: error during container init: error mounting";
    assert!(said.starts_with(start) && said.ends_with("no such file or directory"), "{said}");
    for (policy, words) in [
        (json!({}), "invalid memory policy mode"),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "mode requires 0 nodes but got 8"),
    ] {
        let said = refused(&|spec| spec["linux"]["memoryPolicy"] = policy.clone());
        assert!(said.contains(words), "{said}");
    }
    place.finish();
}

#[test]
fn the_debug_log_tells_what_is_given_to_the_kernel() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
        spec["process"]["execCPUAffinity"] = json!({"initial": "0"});
    });
    place.create("c", &bundle);
    place.start("c");
    let output = place.call(&["--debug", "exec", "c", "true"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for line in ["msg=\"seccomp filter flags: 2\"", "msg=\"nsexec: affinity: 0x1\""] {
        assert_eq!(said.matches(line).count(), 1, "{said}");
    }
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn the_log_is_where_and_how_it_was_asked() {
    let Some(place) = Place::new() else { return };
    let log = place.dir.path().join("log");
    let path = log.to_str().unwrap();
    let output = place.call(&["--log", path, "--log-format", "json", "state", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "container does not exist\n");
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!("container does not exist")));
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    place.call(&["--log", path, "state", "x"]);
    let second = fs::read_to_string(&log).unwrap().lines().nth(1).unwrap().to_owned();
    assert!(
        second.starts_with("time=\"") && second.ends_with("level=error msg=\"container does not exist\"")
    );
}

#[test]
fn what_the_program_tells_of_itself() {
    let Some(place) = Place::new() else { return };
    let version = place.ok(&["--version"]);
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("runc version 1.3.0+creel."), "{version}");
    assert!(lines[1].starts_with("commit: ") && lines[2] == "spec: 1.3.0", "{version}");
    let features: Value = serde_json::from_str(&place.ok(&["features"])).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    for verb in [
        "checkpoint",
        "create",
        "delete",
        "events",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
    ] {
        for flag in ["--help", "-h"] {
            let help = place.ok(&[verb, flag]);
            assert!(help.starts_with(&format!("NAME:\n   creel oci {verb} - ")), "{help}");
        }
    }
    assert_eq!(place.fails(3, &["bogus"]), "No help topic for 'bogus'");
    assert_eq!(place.fails(1, &["state", "--bogus", "x"]), "flag provided but not defined: -bogus");
    assert_eq!(place.fails(1, &["--bogus", "list"]), "flag provided but not defined: -bogus");
    assert_eq!(place.fails(1, &["state"]), "creel oci: \"state\" requires exactly 1 argument(s)");
    assert_eq!(place.fails(1, &["features", "x"]), "creel oci: \"features\" requires exactly 0 argument(s)");
    let here = place.dir.path().to_str().unwrap();
    place.ok(&["spec", "--rootless", "--bundle", here]);
    assert_eq!(place.fails(1, &["spec", "-b", here]), "File config.json exists. Remove it first");
}
