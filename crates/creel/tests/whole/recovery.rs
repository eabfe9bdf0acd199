//! The daemon may be killed at any moment: containers go on, nothing they say or do is lost.

use std::time::Duration;

use crate::support::{Daemon, eventually};

/// A generator of delays that differ from kill to kill, the same in every run.
struct Delays(u64);

impl Delays {
    fn next(&mut self) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % 120)
    }
}

#[test]
fn a_killed_daemon_finds_its_containers_again() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "long", "busybox", "sleep", "1000"]);
    daemon.ok(&["run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 9"]);
    daemon.ok(&["run", "-d", "--rm", "--name", "gone", "busybox", "sh", "-c", "sleep 1"]);
    let pid = daemon.inspect("long", "{{.State.Pid}}");
    daemon.kill();
    std::thread::sleep(Duration::from_millis(1500));
    daemon.spawn();
    assert_eq!(daemon.inspect("long", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    assert_eq!(daemon.inspect("short", "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
    eventually("--rm after the fact", || !daemon.ok(&["ps", "-a"]).contains("gone"));
    assert_eq!(daemon.ok(&["exec", "long", "echo", "hi"]), "hi");
    daemon.ok(&["stop", "-t", "0", "long"]);
    assert_eq!(daemon.inspect("long", "{{.State.ExitCode}}"), "137");
    daemon.finish();
}

/// Twenty kills while containers with known exit codes write numbered lines and others come and go.
#[test]
fn many_kills_under_load_lose_no_line_and_no_exit_code() {
    const KILLS: usize = 20;
    const LINES: usize = 400;
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    let writer =
        format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit $CODE");
    for code in 11..15 {
        let name = format!("writer{code}");
        daemon.ok(&[
            "run",
            "-d",
            "--name",
            &name,
            "-e",
            &format!("CODE={code}"),
            "busybox",
            "sh",
            "-c",
            &writer,
        ]);
    }
    let mut delays = Delays(7);
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        let name = format!("load{kill}");
        let code = 20 + kill;
        let script = format!("echo begin; usleep 50000; echo end; exit {code}");
        let mut client = daemon
            .command(&["run", "-d", "--name", &name, "busybox", "sh", "-c", &script])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Some kills come right after the answer, the others wherever they hit; on a slow machine that is before.
        if kill % 3 == 0 {
            client.wait().unwrap();
        } else {
            std::thread::sleep(delays.next());
        }
        daemon.kill();
        if client.wait().unwrap().success() {
            acknowledged.push((name, code));
        }
        daemon.spawn();
    }
    for (name, code) in &acknowledged {
        assert_eq!(daemon.ok(&["wait", name]), code.to_string(), "{name}");
        assert_eq!(daemon.ok(&["logs", name]), "begin\nend", "{name}");
    }
    assert!(acknowledged.len() >= KILLS / 4, "only {} starts were acknowledged", acknowledged.len());
    for code in 11..15 {
        let name = format!("writer{code}");
        assert_eq!(daemon.ok(&["wait", &name]), code.to_string(), "{name}");
        let wanted: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
        assert!(daemon.ok(&["logs", &name]) == wanted.join("\n"), "{name} lost lines");
    }
    // What was never acknowledged either is not there or is whole: no name is blocked, no state is half.
    for kill in 0..KILLS {
        let name = format!("load{kill}");
        let state = daemon.creel(&["inspect", "-f", "{{.State.Status}}", &name]);
        if state.status.success() {
            daemon.ok(&["rm", "-f", &name]);
        }
        daemon.ok(&["create", "--name", &name, "busybox"]);
    }
    daemon.finish();
}

#[test]
fn a_container_whose_shim_is_killed_is_ended_and_said_so() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    let id = daemon.ok(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    let pid: i32 = daemon.inspect("box", "{{.State.Pid}}").parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let command = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
    assert!(command.contains("shim") && command.contains(&id), "{command}");
    daemon.kill();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("the container's death", || !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists());
    daemon.spawn();
    daemon.until("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    daemon.ok(&["start", "box"]);
    assert_eq!(daemon.inspect("box", "{{.State.Status}}"), "running");
    daemon.finish();
}
