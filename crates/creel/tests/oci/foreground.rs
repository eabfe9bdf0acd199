//! A program in the foreground: its signals, its terminal, its orphans.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::termios::Winsize;
use serde_json::json;

use crate::support::{Place, eventually, text};

#[test]
fn signals_reach_the_program() {
    let Some(place) = Place::new() else { return };
    let script =
        "trap 'echo term; exit 5' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done";
    let bundle = place.bundle("s", &["sh", "-c", script], |_| {});
    let mut command = place.command(&["run", "--bundle", bundle.to_str().unwrap(), "s"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut wait_for = |wanted: &str| {
        let mut buf = [0u8; 256];
        while !seen.contains(wanted) {
            let n = out.read(&mut buf).unwrap();
            assert!(n > 0, "ended after {seen:?}");
            seen.push_str(&text(&buf[..n]));
        }
    };
    let pid = Pid::from_child(&child);
    wait_for("ready");
    rustix::process::kill_process(pid, Signal::USR1).unwrap();
    wait_for("usr1");
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_for("term");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    place.finish();
}

#[test]
fn the_program_starts_with_a_clean_slate_of_signals() {
    let Some(place) = Place::new() else { return };
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -s '\\t' ' '";
    let bundle = place.bundle("m", &["sh", "-c", script], |_| {});
    let clean = "SigBlk: 0000000000000000\nSigIgn: 0000000000000000";
    assert_eq!(place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "m"]), clean);
    place.running("c");
    assert_eq!(place.ok(&["exec", "c", "sh", "-c", script]), clean);
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

/// A terminal of the test's own: both ends.
fn terminal(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let open = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, open, rustix::fs::Mode::empty()).unwrap();
    resize(&master, rows, columns);
    (master, slave)
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn the_caller_s_terminal_becomes_the_program_s() {
    let Some(place) = Place::new() else { return };
    let (master, slave) = terminal(30, 90);
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let script = "trap 'stty size' WINCH; stty size; until read -r line; do :; done; echo got $line; exit 3";
    let bundle = place.bundle("t", &["sh", "-c", script], |spec| spec["process"]["terminal"] = json!(true));
    let stream = || Stdio::from(slave.try_clone().unwrap());
    let mut command = place.command(&["run", "--bundle", bundle.to_str().unwrap(), "t"]);
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    let mut seen = String::new();
    let mut file = File::from(master.try_clone().unwrap());
    let mut wait_for = |wanted: &str| {
        let mut buf = [0u8; 256];
        while !seen.contains(wanted) {
            let n = file.read(&mut buf).unwrap();
            assert!(n > 0, "ended after {seen:?}");
            seen.push_str(&text(&buf[..n]));
        }
    };
    wait_for("30 90");
    eventually("raw mode", || {
        let now = rustix::termios::tcgetattr(&slave).unwrap();
        !now.local_modes.contains(rustix::termios::LocalModes::ICANON)
    });
    resize(&master, 40, 100);
    // Nobody's controlling terminal: the kernel tells no one, so the test does.
    rustix::process::kill_process(Pid::from_child(&child), Signal::WINCH).unwrap();
    wait_for("40 100");
    File::from(master.try_clone().unwrap()).write_all(b"typed\r").unwrap();
    wait_for("got typed");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let after = rustix::termios::tcgetattr(&slave).unwrap();
    assert_eq!((after.local_modes, after.output_modes), (before.local_modes, before.output_modes));
    place.finish();
}

#[test]
fn a_terminal_without_a_caller_s_one() {
    let Some(place) = Place::new() else { return };
    let script = "tty; seq 1 2000 | tail -n 1";
    let bundle = place.bundle("t", &["sh", "-c", script], |spec| spec["process"]["terminal"] = json!(true));
    // No carriage returns, and all that was written before the end.
    assert_eq!(place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "t"]), "/dev/pts/0\n2000");
    place.running("c");
    assert_eq!(place.ok(&["exec", "-t", "c", "sh", "-c", "tty; seq 1 5000"]).lines().count(), 5001);
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn orphans_do_not_keep_a_run_from_ending() {
    let Some(place) = Place::new() else { return };
    let script = "(sleep 0.05; true) & (sleep 1000 >/dev/null 2>&1 </dev/null) & sleep 0.2; exit 9";
    for namespaces in [true, false] {
        let bundle = place.bundle("o", &["sh", "-c", script], |spec| {
            if !namespaces {
                spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
            }
        });
        let output = place.call(&["run", "--bundle", bundle.to_str().unwrap(), "o"]);
        assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    }
    place.finish();
}

#[test]
fn a_container_in_the_foreground_ends_with_its_runtime() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("k", &["sleep", "1000"], |_| {});
    let mut child = place.command(&["run", "--bundle", bundle.to_str().unwrap(), "k"]).spawn().unwrap();
    eventually("the start", || {
        place.call(&["state", "k"]).status.success() && place.status("k") == "running"
    });
    std::thread::sleep(Duration::from_millis(20));
    child.kill().unwrap();
    child.wait().unwrap();
    place.until("k", "stopped");
    place.ok(&["delete", "k"]);
    place.finish();
}
