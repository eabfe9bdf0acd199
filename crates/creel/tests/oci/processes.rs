//! Processes of a container: exec, terminals and descriptors that are sent and kept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use crate::support::{CREEL, Place, eventually, lives, text};

#[test]
fn exec_gives_the_program_s_code_and_streams() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    assert_eq!(
        place.ok(&["exec", "c", "echo", "-n", "--flags", "are the program's"]),
        "--flags are the program's"
    );
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(place.call(&["exec", "c", "sh", "-c", script]).status.code(), Some(code), "{script}");
    }
    let mut cat = place.command(&["exec", "c", "cat"]);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through and back").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "through and back");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn exec_s_flags_and_process_files() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let said = place.ok(&[
        "exec",
        "--cwd",
        "/tmp",
        "-e",
        "A=b c",
        "--user",
        "1000:100",
        "-g",
        "7",
        "--additional-gids=8",
        "c",
        "sh",
        "-c",
        "pwd; echo $A $HOME; id -u; id -G; grep NoNewPrivs /proc/self/status",
    ]);
    assert_eq!(said, "/tmp\nb c /\n1000\n100 7 8\nNoNewPrivs:\t1");
    let file = place.dir.path().join("process.json");
    let process = json!({
        "args": ["sh", "-c", "pwd; echo $X; ulimit -n; umask"],
        "cwd": "/etc",
        "env": ["PATH=/bin", "X=y"],
        "user": { "uid": 0, "gid": 0, "umask": 0o27 },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }],
    });
    fs::write(&file, serde_json::to_vec(&process).unwrap()).unwrap();
    let said = place.ok(&["exec", "--process", file.to_str().unwrap(), "c"]);
    assert_eq!(said, "/etc\ny\n100\n0027");
    let pid_file = place.dir.path().join("pid");
    place.quiet(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "c", "sleep", "1000"]);
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(lives(pid) && place.ok(&["ps", "--format", "json", "c"]).contains(&pid.to_string()));
    for (flag, value) in [("--user", "4294967296"), ("--user", "-1"), ("--user", "root"), ("-g", "-1")] {
        let said = place.fails(255, &["exec", flag, value, "c", "id"]);
        assert!(said.contains("is not a number from 0 to"), "{said}");
    }
    place.ok(&["delete", "--force", "c"]);
    assert!(!lives(pid));
    place.finish();
}

#[test]
fn exec_is_under_the_container_s_filter_or_refused() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
        });
    });
    place.create("c", &bundle);
    place.start("c");
    let under_filter = || {
        let output = place.call(&["exec", "c", "mkdir", "/tmp/x"]);
        assert!(text(&output.stderr).contains("not supported"), "{}", text(&output.stderr));
        assert_eq!(place.ok(&["exec", "c", "grep", "-c", "Seccomp:.*2", "/proc/self/status"]), "1");
    };
    under_filter();
    // What the Spec says is kept through an update, too.
    place.ok(&["update", "--pids-limit", "50", "c"]);
    under_filter();
    let filter = place.root().join("c/filter");
    let whole = fs::read(&filter).unwrap();
    for damaged in [&whole[..whole.len() - 1], &[]] {
        fs::write(&filter, damaged).unwrap();
        let said = place.fails(255, &["exec", "c", "true"]);
        assert!(said.contains("filter of container c: missing or damaged"), "{said}");
    }
    fs::remove_file(&filter).unwrap();
    assert!(place.fails(255, &["exec", "c", "true"]).contains("missing or damaged"));
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn an_exec_that_cannot_tell_its_id_ends() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let said = place.fails(255, &["exec", "-d", "--pid-file", "/nonexistent/pid", "c", "sleep", "1000"]);
    assert!(said.contains("/nonexistent/pid"), "{said}");
    eventually("the end of the process", || !place.ok(&["ps", "--format", "json", "c"]).contains(','));
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

/// Receives one descriptor, and the bytes that came along.
fn receive(listener: &UnixListener) -> (OwnedFd, Vec<u8>) {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 64];
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let got =
        rustix::net::recvmsg(&stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (fd.unwrap(), bytes[..got].to_vec())
}

fn read_until(master: &OwnedFd, wanted: &str) -> String {
    let mut file = File::from(master.try_clone().unwrap());
    let mut seen = String::new();
    let mut buf = [0u8; 1024];
    while !seen.contains(wanted) {
        let n = file.read(&mut buf).unwrap_or_else(|e| panic!("{e} after {seen:?}"));
        assert!(n > 0, "the terminal ended after {seen:?}");
        seen.push_str(&text(&buf[..n]));
    }
    seen
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let Some(place) = Place::new() else { return };
    let socket = place.dir.path().join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    let bundle =
        place.bundle("t", &["sh", "-c", "tty; stty size; read -r x; echo got $x; exec sleep 1000"], |spec| {
            spec["process"]["terminal"] = json!(true);
            spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
        });
    let bundle = bundle.to_str().unwrap();
    assert_eq!(
        place.fails(1, &["create", "--bundle", bundle, "t"]),
        "runc create failed: cannot allocate tty if runc will detach without setting console socket; use --console-socket"
    );
    assert_eq!(
        place.fails(1, &["create", "--bundle", bundle, "--console-socket", "/nonexistent", "t"]),
        "runc create failed: dial unix /nonexistent: connect: no such file or directory"
    );
    place.quiet(&["create", "--bundle", bundle, "--console-socket", socket, "t"]);
    let (master, name) = receive(&listener);
    assert!(!name.is_empty());
    place.start("t");
    let seen = read_until(&master, "33 77");
    assert!(seen.contains("/dev/pts/0"), "{seen}");
    File::from(master.try_clone().unwrap()).write_all(b"hello\n").unwrap();
    read_until(&master, "got hello");

    place.quiet(&["exec", "-d", "-t", "--console-socket", socket, "t", "sh", "-c", "tty; exec sleep 1000"]);
    let (second, _) = receive(&listener);
    assert!(read_until(&second, "\n").contains("/dev/pts/1"));
    place.ok(&["delete", "--force", "t"]);
    place.finish();
}

#[test]
fn a_pidfd_is_sent() {
    let Some(place) = Place::new() else { return };
    let socket = place.dir.path().join("pidfd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let bundle = place.bundle("p", &["sleep", "1000"], |_| {});
    place.quiet(&[
        "create",
        "--bundle",
        bundle.to_str().unwrap(),
        "--pidfd-socket",
        socket.to_str().unwrap(),
        "p",
    ]);
    let (pidfd, _) = receive(&listener);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    assert!(info.contains(&format!("Pid:\t{}\n", place.pid("p"))), "{info}");
    rustix::process::pidfd_send_signal(pidfd.as_fd(), rustix::process::Signal::KILL).unwrap();
    place.until("p", "stopped");
    place.ok(&["delete", "p"]);
    place.finish();
}

/// Runs the program in a shell with further descriptors open.
fn with_descriptors(place: &Place, redirections: &str, args: &str) -> std::process::Output {
    let script = format!("exec {CREEL} oci --root {} {args} {redirections}", place.root().display());
    Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).env("LISTEN_FDS", "").output().unwrap()
}

#[test]
fn descriptors_are_kept_only_as_asked() {
    let Some(place) = Place::new() else { return };
    let kept = place.dir.path().join("kept");
    fs::write(&kept, "kept\n").unwrap();
    let kept = kept.display();
    let list = "for i in 3 4 5 6; do [ -e /proc/self/fd/$i ] && echo $i; done; cat <&4";
    let bundle = place.bundle("f", &["sh", "-c", list], |_| {});
    let run = format!("run --bundle {} --preserve-fds 2 f", bundle.display());
    let output = with_descriptors(&place, &format!("3<{kept} 4<{kept} 5<{kept}"), &run);
    assert_eq!(text(&output.stdout), "3\n4\nkept\n", "{}", text(&output.stderr));

    // One that is not open is not made up from this program's own.
    let output = with_descriptors(&place, &format!("3<&- 4<{kept}"), &run);
    assert_eq!(text(&output.stdout), "4\nkept\n", "{}", text(&output.stderr));

    // Socket activation: the count is handed on, and process 1 is the one who is meant.
    let list = "echo $LISTEN_FDS $LISTEN_PID; cat <&3; [ -e /proc/self/fd/4 ] || echo no more";
    let bundle = place.bundle("l", &["sh", "-c", list], |_| {});
    let script = format!(
        "LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec {CREEL} oci --root {} run --bundle {} l \
         3<{kept} 4<{kept}",
        place.root().display(),
        bundle.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(text(&output.stdout), "1 1\nkept\nno more\n", "{}", text(&output.stderr));
    place.finish();
}

#[test]
fn nothing_else_of_the_caller_s_gets_in() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let secret = File::open("/etc/passwd").unwrap();
    // Not close-on-exec: as a careless caller would leave it.
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let log = place.dir.path().join("log");
    let log = log.to_str().unwrap();
    let listed = place.ok(&["--log", log, "exec", "c", "ls", "/proc/self/fd"]);
    // The fourth is ls's own.
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let bundle = place.bundle("r", &["ls", "/proc/self/fd"], |_| {});
    let listed = place.ok(&["--log", log, "run", "--bundle", bundle.to_str().unwrap(), "r"]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn an_exec_joins_a_group_below() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let file = place.cgroup_file("c", &["pids.max"]);
    let sub = file.parent().unwrap().join("sub");
    fs::create_dir(&sub).unwrap();
    let v1 = sub.join("tasks").exists();
    let argument = if v1 { "pids:sub" } else { "sub" };
    place.quiet(&["exec", "-d", "--cgroup", argument, "c", "sleep", "1000"]);
    let inside = fs::read_to_string(sub.join("cgroup.procs")).unwrap();
    assert_eq!(inside.lines().count(), 1, "{inside}");
    for (wrong, part) in [("..", "bad sub cgroup path"), ("none", "no such file or directory")] {
        let said = place.fails(255, &["exec", "--cgroup", wrong, "c", "true"]);
        assert!(said.contains(part), "{wrong}: {said}");
    }
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}
