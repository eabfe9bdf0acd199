//! Readiness of a container's program, as whoever set `$NOTIFY_SOCKET` hears of it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, eventually, patience, text};

/// A script that tells the socket of `$NOTIFY_SOCKET`, and goes on with `then`.
pub(crate) fn ready_and(then: &str) -> String {
    let part = "/dev/shm/program --exact notify::part_of_a_container --ignored --quiet >/dev/null";
    format!("{part} && {then}")
}

/// Puts the program of [`ready_and`] into a container, and what it is to say.
pub(crate) fn with_notifier(spec: &mut Value, message: &str) {
    // The tests themselves: one file, linked statically.
    let source = fs::read_link("/proc/self/exe").unwrap();
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev/shm/program", "type": "bind", "source": source, "options": ["bind", "ro"]
    }));
    spec["process"]["env"].as_array_mut().unwrap().push(json!(format!("MESSAGE={message}")));
}

/// Runs in a container: the script of [`ready_and`].
#[test]
#[ignore = "is run by other tests, in a container"]
fn part_of_a_container() {
    let place = std::env::var("NOTIFY_SOCKET").unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(std::env::var("MESSAGE").unwrap().as_bytes(), place).unwrap();
}

/// Where a service manager would listen.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn new(place: &Place) -> Manager {
        let path = place.dir.path().join("manager");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        Manager { socket, address: path.to_str().unwrap().into() }
    }

    fn hear(&self) -> String {
        let mut buf = [0; 4096];
        loop {
            match self.socket.recv(&mut buf) {
                // A socket with a time limit is not read again by itself after a signal (signal(7)).
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => return text(&buf[..read.unwrap()]),
            }
        }
    }

    /// A call of the runtime that tells this manager.
    fn spawn(&self, place: &Place, args: &[&str]) -> Child {
        let mut command = place.command(args);
        command.env("NOTIFY_SOCKET", &self.address).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

#[test]
fn who_waits_hears_that_a_container_is_ready() {
    let Some(place) = Place::new() else { return };
    let manager = Manager::new(&place);
    let script = format!("sleep 0.3; {}", ready_and("exec sleep 1000"));
    let bundle = place.bundle("c", &["sh", "-c", &script], |spec| {
        with_notifier(spec, "STATUS=starting\nREADY=1\nMAINPID=1\nFDSTORE=1");
        // Not root: he must reach the socket nevertheless.
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let bundle = bundle.to_str().unwrap();
    // Create and start: the one who starts stays until it is ready.
    assert!(manager.spawn(&place, &["create", "--bundle", bundle, "c"]).wait().unwrap().success());
    let mut start = manager.spawn(&place, &["start", "c"]);
    eventually("the start", || place.status("c") == "running");
    assert!(start.try_wait().unwrap().is_none(), "it is not ready yet");
    assert_eq!(manager.hear(), "READY=1");
    assert_eq!(manager.hear(), format!("MAINPID={}", place.pid("c")));
    assert_eq!(manager.hear(), "BARRIER=1");
    assert!(start.wait().unwrap().success());
    // What is executed later is none of the service's.
    assert_eq!(place.ok(&["exec", "c", "sh", "-c", "echo ${NOTIFY_SOCKET:-none}"]), "none");
    // It is where the manager's is, and cannot be exchanged from inside.
    let socket = format!("{}/notify.sock", manager.address);
    place.ok(&["exec", "--user", "0", "c", "test", "-S", &socket]);
    let said = place.call(&["exec", "--user", "0", "c", "rm", &socket]);
    assert!(!said.status.success());
    place.ok(&["delete", "--force", "c"]);

    let mut run = manager.spawn(&place, &["run", "--detach", "--bundle", bundle, "c"]);
    assert_eq!(manager.hear(), "READY=1");
    assert_eq!(manager.hear(), format!("MAINPID={}", place.pid("c")));
    assert_eq!(manager.hear(), "BARRIER=1");
    assert!(run.wait().unwrap().success());
    place.ok(&["delete", "--force", "c"]);

    let mut run = manager.spawn(&place, &["run", "--bundle", bundle, "c"]);
    assert_eq!(manager.hear(), "READY=1");
    assert_eq!(manager.hear(), format!("MAINPID={}", run.id()));
    assert_eq!(place.status("c"), "running");
    place.ok(&["kill", "c", "KILL"]);
    assert_eq!(run.wait().unwrap().code(), Some(137));
    place.finish();
}

#[test]
fn one_that_never_gets_ready_is_not_waited_for_longer_than_it_lives() {
    let Some(place) = Place::new() else { return };
    let manager = Manager::new(&place);
    let bundle = place.bundle("c", &["sleep", "0.3"], |_| {});
    let args = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"];
    assert!(manager.spawn(&place, &args).wait().unwrap().success());
    manager.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(manager.socket.recv(&mut [0; 64]).is_err());
    place.ok(&["delete", "--force", "c"]);
    // Nobody waits at a manager that is not there: the container runs, has its socket, and is not waited for.
    let script = "test -S $NOTIFY_SOCKET && exec sleep 1000";
    let bundle = place.bundle("d", &["sh", "-c", script], |_| {});
    let mut command = place.command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "d"]);
    let log = place.dir.path().join("said");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    assert!(command.env("NOTIFY_SOCKET", "/tmp/nobody/manager").status().unwrap().success());
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("level=warning") && said.contains("/tmp/nobody/manager"), "{said}");
    place.ok(&["exec", "d", "test", "-S", "/tmp/nobody/manager/notify.sock"]);
    assert_eq!(place.status("d"), "running");
    place.ok(&["delete", "--force", "d"]);
    place.finish();
}
