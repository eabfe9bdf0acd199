//! Limits that really bite: memory, processor time, number of tasks, files.

use crate::support::{Daemon, stdout};

#[test]
fn the_oom_killer_ends_what_takes_too_much_memory() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let output = daemon.creel(&[
        "run",
        "--name",
        "hungry",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail -c 100m /dev/zero; exit $?",
    ]);
    assert_eq!(output.status.code(), Some(137), "{}", daemon.log());
    assert_eq!(daemon.inspect("hungry", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    daemon.ok(&["run", "--name", "modest", "--memory", "64m", "busybox", "true"]);
    assert_eq!(daemon.inspect("modest", "{{.State.OOMKilled}}"), "false");
    daemon.finish();
}

#[test]
fn the_cpu_quota_throttles() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "spin",
        "--cpus",
        "0.2",
        "busybox",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
    let pid = daemon.inspect("spin", "{{.State.Pid}}");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let times = stat.rsplit_once(')').unwrap().1.split(' ').skip(12).take(2);
        times.map(|n| n.parse::<u32>().unwrap()).sum::<u32>()
    };
    let (begin, before) = (std::time::Instant::now(), ticks());
    std::thread::sleep(std::time::Duration::from_secs(2));
    // A tick is 10 ms; unthrottled the share would be near 1.
    let share = f64::from(ticks() - before) * 0.01 / begin.elapsed().as_secs_f64();
    assert!((0.05..0.5).contains(&share), "{share} of a processor");
    daemon.finish();
}

#[test]
fn fork_fails_at_the_pids_limit() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let output = daemon.creel(&[
        "run",
        "--rm",
        "--pids-limit",
        "6",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 2 & done; wait",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("can't fork"), "{stderr}");
    daemon.finish();
}

#[test]
fn limits_are_seen_in_the_cgroup_and_the_process() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let run = |args: &[&str]| stdout(&daemon.creel(&[&["run", "--rm"], args].concat())).trim().to_owned();
    assert_eq!(
        run(&["--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]),
        "100\n200"
    );
    assert_eq!(run(&["--cpuset-cpus", "0", "busybox", "nproc"]), "1");
    let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null \
                 || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight";
    let limits = run(&["--memory", "32m", "--cpu-shares", "512", "busybox", "sh", "-c", files]);
    assert!(["33554432\n512", "33554432\n59"].contains(&limits.as_str()), "{limits}");
    daemon.finish();
}

/// What creel itself costs: a shim that waits, as it does for most of its life, stays small. The promise is 3 MiB for
/// the program as it is shipped (`bench/run` prints it); one built without optimization is larger.
#[test]
fn a_waiting_shim_is_small() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    let pid = daemon.inspect("box", "{{.State.Pid}}");
    let field = |pid: &str, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim_matches([':', ' ', '\t', 'k', 'B']).to_owned()
    };
    let shim = field(&pid, "PPid");
    let limit = if cfg!(debug_assertions) { 6 } else { 3 } << 10;
    crate::support::eventually("a shim below its limit", || {
        field(&shim, "VmRSS").parse::<u64>().unwrap() < limit
    });
    daemon.finish();
}
