//! Containers of an ordinary user.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use creel_sys::seccomp::{Answer, receive, respond};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::support::{CREEL, Place, in_the_guest, lives, say};

/// An id that nobody has.
const USER: u32 = 12345;

/// A user with a home, and with a place for the state of his containers.
struct User {
    home: PathBuf,
}

impl User {
    fn new(place: &Place) -> User {
        let home = place.dir.path().join("home");
        for dir in [place.dir.path(), &home] {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
        User { home }
    }

    /// A bundle that he may run.
    fn bundle(&self, place: &Place, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        place.bundle("u", args, |spec| {
            let linux = spec["linux"].as_object_mut().unwrap();
            linux.remove("resources");
            linux.remove("cgroupsPath");
            let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
            linux.insert("uidMappings".into(), map.clone());
            linux.insert("gidMappings".into(), map);
            linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            spec["mounts"] = json!([
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
            ]);
            change(spec);
        })
    }

    /// A call of his; what it prints.
    fn ok(&self, args: &[&str]) -> String {
        let log = self.home.join("log");
        let mut command = Command::new(CREEL);
        command.args(["oci", "--log"]).arg(&log).args(args).uid(USER).gid(USER);
        command.env("XDG_RUNTIME_DIR", &self.home).stdin(Stdio::null()).stderr(Stdio::null());
        if args[0] == "create" {
            command.stdout(Stdio::null());
        }
        let output = command.output().unwrap();
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "u"])).unwrap()
    }
}

#[test]
fn an_ordinary_user_has_containers_too() {
    let Some(place) = Place::new() else { return };
    let user = User::new(&place);
    let bundle = user.bundle(&place, &["sleep", "1000"], |_| {});
    user.ok(&["create", "--bundle", bundle.to_str().unwrap(), "u"]);
    let root = user.home.join("creel-oci");
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o1700);
    assert_eq!(fs::metadata(&root).unwrap().uid(), USER);
    user.ok(&["start", "u"]);
    assert_eq!(user.ok(&["exec", "u", "id", "-u"]), "0\n");
    let state = user.state();
    assert_eq!(state["status"], json!("running"));
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), USER);
    user.ok(&["delete", "--force", "u"]);
    assert!(!lives(pid));
    place.finish();
}

/// yama's ptrace_scope, for the time of a test: 1 lets only those look into a process from whom it descends, or who have
/// CAP_SYS_PTRACE over it.
struct Scope {
    former: String,
}

const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

impl Scope {
    /// `None` where the kernel has no yama.
    fn set(value: &str) -> Option<Scope> {
        if !Path::new(SCOPE).exists() {
            assert!(!in_the_guest(), "this guest has no yama");
            say("in part: this kernel has no yama; tests/vm/run has a guest whose has");
            return None;
        }
        let former = fs::read_to_string(SCOPE).unwrap();
        fs::write(SCOPE, value).unwrap();
        Some(Scope { former })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = fs::write(SCOPE, &self.former);
    }
}

#[test]
fn an_ordinary_user_starts_what_has_its_calls_answered() {
    let Some(place) = Place::new() else { return };
    let user = User::new(&place);
    let socket = user.home.join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(USER), Some(USER)).unwrap();
    // For one container: refuses mkdir, lets all else go on, and ends with it.
    let agent = std::thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        let mut buf = vec![0; 64 * 1024];
        let (_, fds) = creel_sys::fdpass::recv(&connection, &mut buf).unwrap();
        let fd = fds[0].as_fd();
        let mut refused = 0;
        loop {
            let mut polled = [PollFd::new(&fd, PollFlags::IN)];
            poll(&mut polled, None).unwrap();
            if polled[0].revents().contains(PollFlags::HUP) {
                return refused;
            }
            let Ok(call) = receive(fd) else { continue };
            refused += 1;
            let _ = respond(fd, call.id, Answer::Error(18));
        }
    });
    let script = "mkdir /tmp/x 2>/dev/null || echo refused > /dev/said; sleep 1000";
    let bundle = user.bundle(&place, &["sh", "-c", script], |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": socket,
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
    // The one who starts it is not the one who made it, and no ancestor of it either.
    let scope = Scope::set("1");
    user.ok(&["create", "--bundle", bundle.to_str().unwrap(), "u"]);
    assert_eq!(user.state()["status"], json!("created"));
    user.ok(&["start", "u"]);
    let pid = user.state()["pid"].as_i64().unwrap() as i32;
    let said = format!("/proc/{pid}/root/dev/said");
    crate::support::eventually("a refusal", || {
        fs::read_to_string(&said).is_ok_and(|text| text == "refused\n")
    });
    drop(scope);
    user.ok(&["delete", "--force", "u"]);
    assert_eq!(agent.join().unwrap(), 1);
    place.finish();
}
