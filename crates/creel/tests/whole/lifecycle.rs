//! The commands that carry a container through its life.

use std::time::Instant;

use crate::support::{Daemon, eventually};

#[test]
fn a_container_goes_through_all_its_states() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let id = daemon.ok(&[
        "create",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; while :; do sleep 0.1; done",
    ]);
    let state = || daemon.inspect("box", "{{.State.Status}}");
    assert_eq!(state(), "created");
    assert_eq!(daemon.ok(&["start", "box"]), "box");
    assert_eq!(state(), "running");
    daemon.ok(&["pause", "box"]);
    assert_eq!(state(), "paused");
    assert!(daemon.ok(&["ps"]).contains("(Paused)"));
    daemon.ok(&["unpause", "box"]);
    daemon.ok(&["rename", "box", "crate"]);
    assert_eq!(daemon.inspect("crate", "{{.Name}} {{.Id}}"), format!("/crate {id}"));
    daemon.ok(&["rename", "crate", "box"]);
    assert_eq!(daemon.ok(&["stop", "box"]), "box");
    assert_eq!(daemon.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    assert!(daemon.ok(&["ps", "-a"]).contains("Exited (7)"));
    daemon.ok(&["restart", "box"]);
    assert_eq!(state(), "running");
    daemon.ok(&["kill", "-s", "KILL", "box"]);
    assert_eq!(daemon.ok(&["wait", "box"]), "137");
    assert_eq!(daemon.ok(&["rm", "box"]), "box");
    assert!(daemon.fails(1, &["inspect", "box"]).contains("o such"), "the container is still known");
    daemon.finish();
}

#[test]
fn stop_waits_no_longer_than_asked() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
    ]);
    let begin = Instant::now();
    daemon.ok(&["stop", "-t", "1", "deaf"]);
    let took = begin.elapsed().as_secs_f64();
    assert!((1.0..8.0).contains(&took), "{took} s");
    assert_eq!(daemon.inspect("deaf", "{{.State.ExitCode}}"), "137");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "usr1",
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "20",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done",
    ]);
    eventually("the trap", || daemon.ok(&["logs", "usr1"]) == "ready");
    daemon.ok(&["stop", "usr1"]);
    assert_eq!(daemon.inspect("usr1", "{{.State.ExitCode}}"), "3");
    daemon.finish();
}

#[test]
fn logs_are_kept_followed_and_cut() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "run",
        "--name",
        "talk",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; done; echo bad >&2",
    ]);
    assert_eq!(daemon.ok(&["logs", "talk"]), "line 1\nline 2\nline 3");
    assert_eq!(daemon.creel(&["logs", "talk"]).stderr, b"bad\n");
    assert!(daemon.ok(&["logs", "--tail", "2", "talk"]).ends_with("line 3"));
    let stamped = daemon.ok(&["logs", "-t", "talk"]);
    assert!(stamped.lines().all(|line| line.starts_with("20") && line.contains("Z line")), "{stamped}");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done",
    ]);
    assert_eq!(daemon.ok(&["logs", "-f", "slow"]), "1\n2\n3\n4\n5");
    daemon.finish();
}

#[test]
fn exec_has_its_own_streams_user_and_exit_code() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "box", "-e", "A=outer", "busybox", "sleep", "1000"]);
    assert_eq!(daemon.fails(5, &["exec", "box", "sh", "-c", "exit 5"]), "");
    assert_eq!(
        daemon.ok(&[
            "exec",
            "-e",
            "B=x",
            "-w",
            "/tmp",
            "-u",
            "adam",
            "box",
            "sh",
            "-c",
            "echo $A $B; pwd; id -un"
        ]),
        "outer x\n/tmp\nadam"
    );
    assert_eq!(daemon.ok(&["exec", "box", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"]), "sleep 1000");
    // Docker sends this text along the exec's own stream, as standard output.
    let missing = daemon.creel(&["exec", "box", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(crate::support::stdout(&missing).contains("executable file not found in $PATH"), "{missing:?}");
    daemon.ok(&["exec", "-d", "box", "touch", "/tmp/detached"]);
    eventually("the detached exec", || {
        daemon.creel(&["exec", "box", "test", "-e", "/tmp/detached"]).status.success()
    });
    daemon.ok(&["stop", "-t", "0", "box"]);
    assert!(daemon.fails(1, &["exec", "box", "true"]).contains("is not running"));
    daemon.finish();
}

#[test]
fn attach_sees_what_comes_and_start_can_attach() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["create", "--name", "box", "busybox", "sh", "-c", "echo hi; exit 4"]);
    let output = daemon.creel(&["start", "-a", "box"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(4), b"hi\n".as_slice()));
    daemon.ok(&["run", "-d", "--name", "ticks", "busybox", "sh", "-c", "sleep 1; echo tick; exit 6"]);
    let output = daemon.creel(&["attach", "ticks"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(6), b"tick\n".as_slice()));
    daemon.finish();
}

#[test]
fn stats_and_events_tell_what_happens() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "box", "--memory", "64m", "busybox", "sleep", "1000"]);
    let stats = daemon.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "box"]);
    assert!(stats.starts_with("box ") && stats.contains("/ 64MiB 1"), "{stats}");
    daemon.ok(&["rm", "-f", "box"]);
    let events =
        daemon.ok(&["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"]);
    for wanted in ["container create", "container start", "container die", "container destroy"] {
        assert!(events.contains(wanted), "`{wanted}` is missing in\n{events}");
    }
    daemon.finish();
}
