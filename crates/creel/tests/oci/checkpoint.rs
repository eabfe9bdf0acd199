//! Checkpoint and restore, with CRIU where it is.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Place, eventually, in_the_guest, lives, patience, say, text};

/// Counts in a file system of the container's own.
const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done";

fn with_criu() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("criu").exists()) {
        return true;
    }
    assert!(!in_the_guest(), "criu is missing in this guest");
    say("skipped: criu is not installed; tests/vm/run has a guest where it is");
    false
}

/// How far it has come; between two numbers there is none for a moment.
fn count(place: &Place, id: &str) -> u64 {
    let mut found = None;
    eventually("a number", || {
        found = place.ok(&["exec", id, "cat", "/dev/shm/count"]).parse().ok();
        found.is_some()
    });
    found.unwrap()
}

/// A container that has counted for a while, the directory for its images, and the bundle.
fn counting(place: &Place, global: &[&str], path: Option<&str>) -> (PathBuf, PathBuf) {
    let bundle = place.bundle("c", &["sh", "-c", COUNTING], |spec| {
        if let Some(path) = path {
            spec["linux"]["cgroupsPath"] = json!(path);
        }
    });
    let run = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"];
    place.quiet(&[global, &run].concat());
    eventually("a count", || count(place, "c") >= 5);
    (place.dir.path().join("images"), bundle)
}

#[test]
fn what_cannot_be_checkpointed_is_told() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "1000"], |_| {});
    place.create("c", &bundle);
    let said = place.fails(1, &["checkpoint", "c"]);
    assert_eq!(said, "Container cannot be checkpointed in created state");
    place.start("c");
    let said = place.fails(1, &["checkpoint", "--lazy-pages", "c"]);
    assert!(said.contains("--page-server"), "{said}");
    let images = place.dir.path().join("images");
    let mut without = place.command(&["checkpoint", "--image-path", images.to_str().unwrap(), "c"]);
    let output = without.env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("CRIU is missing"), "{}", text(&output.stderr));
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

/// In the place of CRIU: one that never ends, and one whose child keeps its socket besides.
const STAND_INS: [&str; 2] = ["exec sleep 1000", "sleep 1000 & echo $! > \"${0%/*}/child\"; wait"];

#[test]
fn a_container_is_deleted_whatever_criu_does() {
    let Some(place) = Place::new() else { return };
    for stand_in in STAND_INS {
        place.running("c");
        let pid = place.pid("c");
        let (dir, images) = (place.dir.path().join("bin"), place.dir.path().join("images"));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("criu");
        std::fs::write(&program, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{stand_in}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut dump = place.command(&["checkpoint", "--image-path", images.to_str().unwrap(), "c"]);
        let log = File::create(place.dir.path().join("dump.err")).unwrap();
        let mut dump = Helper(dump.env("PATH", &dir).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("a checkpoint at work", || place.root().join("c/worker").exists());
        if stand_in.contains("child") {
            eventually("its child", || std::fs::read(dir.join("child")).is_ok_and(|text| !text.is_empty()));
        }
        assert!(dump.0.try_wait().unwrap().is_none());
        let begun = std::time::Instant::now();
        place.ok(&["delete", "--force", "c"]);
        assert!(begun.elapsed() < patience() / 4, "{:?}", begun.elapsed());
        assert!(!lives(pid));
        let ended = dump.0.wait().unwrap();
        let said = std::fs::read_to_string(place.dir.path().join("dump.err")).unwrap();
        assert_eq!(ended.code(), Some(1), "{said}");
        assert!(said.contains("CRIU ended without an answer"), "{said}");
        if let Ok(child) = std::fs::read_to_string(dir.join("child")) {
            let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        }
    }
    place.finish();
}

#[test]
fn a_container_goes_on_where_it_was() {
    let (true, Some(place)) = (with_criu(), Place::new()) else { return };
    let systemd = Path::new("/run/systemd/system").is_dir();
    for by_systemd in [false, true] {
        if by_systemd && !systemd {
            say("skipped in part: systemd does not run this machine");
            continue;
        }
        let global: &[&str] = if by_systemd { &["--systemd-cgroup"] } else { &[] };
        let scope = format!("creeltest-restored{}.scope", std::process::id());
        let path = format!("creeltest.slice:creeltest:restored{}", std::process::id());
        let (images, bundle) = counting(&place, global, by_systemd.then_some(&*path));
        let before = count(&place, "c");
        place.ok(&["checkpoint", "--image-path", images.to_str().unwrap(), "c"]);
        assert_eq!(place.fails(1, &["state", "c"]), "container does not exist");
        let descriptors = std::fs::read(images.join("descriptors.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<String>>(&descriptors).unwrap().len(), 3);
        let restore = ["restore", "--detach", "--image-path", images.to_str().unwrap()];
        place.quiet(&[global, &restore, &["--bundle", bundle.to_str().unwrap(), "c"]].concat());
        assert_eq!(place.status("c"), "running");
        let now = count(&place, "c");
        assert!(now >= before, "it has begun anew");
        eventually("further counting", || count(&place, "c") > now);
        if by_systemd {
            let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", place.pid("c"))).unwrap();
            assert!(
                groups.lines().all(|line| line.ends_with(&format!("/creeltest.slice/{scope}"))),
                "{groups}"
            );
            let show = |property: &str| {
                let show = ["show", "--value", "-p", property, &scope];
                text(&Command::new("systemctl").args(show).output().unwrap().stdout).trim().to_owned()
            };
            assert_eq!((&*show("ActiveState"), &*show("Delegate")), ("active", "yes"));
            place.ok(&["update", "--pids-limit", "33", "c"]);
            assert_eq!(show("TasksMax"), "33");
        }
        place.ok(&["pause", "c"]);
        place.ok(&["resume", "c"]);
        place.ok(&["delete", "--force", "c"]);
        std::fs::remove_dir_all(&images).unwrap();
    }
    place.finish();
}

/// Killed and reaped at the end.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_is_brought_over_when_it_is_touched() {
    let (true, Some(place)) = (with_criu(), Place::new()) else { return };
    let (images, _) = counting(&place, &[], None);
    let before = count(&place, "c");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let server = format!("127.0.0.1:{port}");
    let images = images.to_str().unwrap();
    let number = writer.as_raw_fd().to_string();
    let mut dump = place.command(&[
        "checkpoint",
        "--lazy-pages",
        "--page-server",
        &server,
        "--status-fd",
        &number,
        "--image-path",
        images,
        "c",
    ]);
    let log = File::create(place.dir.path().join("dump.err")).unwrap();
    let mut dump = Helper(dump.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    drop(writer);
    let mut told = Vec::new();
    reader.take(1).read_to_end(&mut told).unwrap();
    let said = || std::fs::read_to_string(place.dir.path().join("dump.err")).unwrap();
    assert_eq!(told, [0], "{}", said());
    // It serves pages until all are fetched; the container itself is stopped meanwhile.
    assert!(dump.0.try_wait().unwrap().is_none(), "{}", said());
    let mut daemon = Command::new("criu");
    daemon.args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port.to_string()]);
    let mut daemon = Helper(daemon.args(["-D", images]).stdout(Stdio::null()).spawn().unwrap());
    eventually("the daemon's socket", || Path::new(images).join("lazy-pages.socket").exists());
    let restore = ["restore", "--detach", "--lazy-pages", "--image-path", images];
    // Another name and another group: the first one is there until its last page is fetched.
    let other = place.bundle("d", &["sh", "-c", COUNTING], |_| {});
    place.quiet(&[&restore[..], &["--bundle", other.to_str().unwrap(), "d"]].concat());
    assert!(count(&place, "d") >= before, "it has begun anew");
    eventually("the end of the page server", || dump.0.try_wait().unwrap().is_some());
    assert!(dump.0.wait().unwrap().success(), "{}", said());
    eventually("the end of the daemon", || daemon.0.try_wait().unwrap().is_some());
    assert!(daemon.0.wait().unwrap().success());
    assert_eq!(place.fails(1, &["state", "c"]), "container does not exist");
    assert!(lives(place.pid("d")));
    place.ok(&["delete", "--force", "d"]);
    place.finish();
}
