//! `creel run` and its flags, seen from inside the container.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Daemon, scratch, stdout};

#[test]
fn hello_needs_no_network_and_explains_itself() {
    let Some(daemon) = Daemon::start() else { return };
    let text = daemon.ok(&["run", "--rm", "hello"]);
    for word in
        ["PID 1", "hostname", "overlay", "cgroup", "pid:4", "capabilities", "14 of", "user", "seccomp"]
    {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "`{word}` is missing in:\n{text}");
    }
    daemon.finish();
}

#[test]
fn the_programs_output_and_exit_code_come_back() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let output = daemon.creel(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    let killed = daemon.creel(&["run", "--rm", "busybox", "sh", "-c", "kill -9 $$; sleep 9"]);
    // Process 1 does not see signals of its own namespace that it does not handle.
    assert_ne!(killed.status.code(), None);
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    daemon.finish();
}

#[test]
fn binary_output_and_input_pass_byte_for_byte() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut child = daemon
        .command(&["run", "--rm", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == data, "{} bytes of {} came back", output.stdout.len(), data.len());
    daemon.finish();
}

#[test]
fn standard_input_closes_where_it_should() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    // Without -i there is nothing to read.
    assert_eq!(daemon.ok(&["run", "--rm", "busybox", "wc", "-c"]), "0");
    let mut child = daemon
        .command(&["run", "--rm", "-i", "busybox", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"12345").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).trim(), "5");
    daemon.finish();
}

#[test]
fn environment_user_directory_and_names_are_as_asked() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let file = daemon.dir.path().join("env");
    std::fs::write(&file, "# a comment\nFROM_FILE=yes\n").unwrap();
    let run = |args: &[&str]| daemon.ok(&[&["run", "--rm"], args].concat());
    let env =
        run(&["-e", "A=1 2", "--env-file", file.to_str().unwrap(), "--hostname", "box", "busybox", "env"]);
    assert!(env.contains("A=1 2") && env.contains("FROM_FILE=yes") && env.contains("HOSTNAME=box"), "{env}");
    assert!(env.contains("HOME=/root") && env.contains("PATH=/usr/local/sbin:"), "{env}");
    assert_eq!(run(&["--hostname", "box", "busybox", "hostname"]), "box");
    assert_eq!(
        run(&["-u", "adam", "busybox", "sh", "-c", "id -u; id -G; echo $HOME"]),
        "1000\n1000 10\n/home/adam"
    );
    assert_eq!(run(&["-u", "7:8", "busybox", "sh", "-c", "id -u; id -g"]), "7\n8");
    assert_eq!(run(&["-w", "/new/dir", "busybox", "pwd"]), "/new/dir");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    assert_eq!(
        run(&["--init", "busybox", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f1"]),
        "/sbin/docker-init"
    );
    assert!(run(&["busybox", "cat", "/etc/hosts"]).contains("localhost"));
    daemon.finish();
}

#[test]
fn mounts_are_as_asked() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let host = scratch();
    std::fs::write(host.path().join("file"), "from the host").unwrap();
    let source = host.path().to_str().unwrap();
    let run = |args: &[&str]| daemon.creel(&[&["run", "--rm"], args].concat());
    let bind = format!("{source}:/data");
    assert_eq!(stdout(&run(&["-v", &bind, "busybox", "cat", "/data/file"])), "from the host");
    assert!(run(&["-v", &bind, "busybox", "touch", "/data/made"]).status.success());
    assert!(host.path().join("made").exists());
    let read_only = run(&["-v", &format!("{bind}:ro"), "busybox", "touch", "/data/no"]);
    assert!(!read_only.status.success() && !host.path().join("no").exists());
    let mount = format!("type=bind,src={source},dst=/data,readonly");
    assert!(!run(&["--mount", &mount, "busybox", "touch", "/data/no"]).status.success());
    let missing = format!("type=bind,src={source}/none,dst=/data");
    let missing = run(&["--mount", &missing, "busybox", "true"]);
    assert_eq!(missing.status.code(), Some(125), "{}", String::from_utf8_lossy(&missing.stderr));
    let tmpfs =
        stdout(&run(&["--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", "grep /scratch /proc/mounts"]));
    assert!(tmpfs.contains("tmpfs") && tmpfs.contains("size=1024k") && tmpfs.contains("noexec"), "{tmpfs}");
    let shm = stdout(&run(&["--shm-size", "8m", "busybox", "grep", "/dev/shm", "/proc/mounts"]));
    assert!(shm.contains("size=8192k"), "{shm}");
    let root = run(&[
        "--read-only",
        "busybox",
        "sh",
        "-c",
        "touch /x || echo refused; touch /dev/shm/ok && echo ok",
    ]);
    assert_eq!(stdout(&root), "refused\nok\n");
    daemon.finish();
}

#[test]
fn detached_containers_run_on_and_are_listed() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let cid = daemon.dir.path().join("cid");
    let id = daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--label",
        "a=b",
        "--cidfile",
        cid.to_str().unwrap(),
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(id.len(), 64);
    assert_eq!(std::fs::read_to_string(cid).unwrap(), id);
    assert_eq!(daemon.ok(&["ps", "--format", "{{.Names}} {{.Image}} {{.State}}"]), "web busybox running");
    assert_eq!(daemon.ok(&["ps", "-q", "--filter", "label=a=b", "--no-trunc"]), id);
    assert_eq!(daemon.ok(&["exec", "web", "echo", "hi"]), "hi");
    assert_eq!(daemon.fails(1, &["run", "--rm", "-i", "busybox", "false"]), "");
    let (pid, top) = (daemon.inspect("web", "{{.State.Pid}}"), daemon.ok(&["top", "web"]));
    assert!(top.contains(&pid) && top.contains("sleep 1000"), "{top}");
    daemon.finish();
}
