//! systemd as the one who makes control groups (`--systemd-cgroup`): its units, their properties and their end; services
//! of the type notify; and an ordinary user's own systemd.

use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::notify::{ready_and, with_notifier};
use crate::support::{CREEL, Place, eventually, in_the_guest, lives, on_v2, say, text};

/// The slice of these tests.
const SLICE: &str = "creeltest.slice";

fn show(unit: &str, property: &str) -> String {
    let out = Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output().unwrap();
    text(&out.stdout).trim().to_owned()
}

/// Whether systemd runs this machine; in the guest it has to.
fn with_systemd() -> bool {
    if Path::new("/run/systemd/system").is_dir() {
        return true;
    }
    assert!(!in_the_guest(), "systemd does not run this guest");
    say("skipped: systemd does not run this machine; tests/vm/run has one where it does");
    false
}

/// Whether systemd knows nothing of a unit any more.
fn is_gone(unit: &str) -> bool {
    show(unit, "LoadState") == "not-found"
}

/// A name of a container and its unit, different in each test.
struct Unit {
    id: String,
    scope: String,
    path: String,
}

impl Unit {
    fn new(test: &str) -> Unit {
        let id = format!("{test}{}", std::process::id());
        Unit { scope: format!("creeltest-{id}.scope"), path: format!("{SLICE}:creeltest:{id}"), id }
    }

    /// A bundle for it.
    fn bundle(&self, place: &Place, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        place.bundle(&self.id, args, |spec| {
            spec["linux"]["cgroupsPath"] = json!(self.path);
            change(spec);
        })
    }

    fn create(&self, place: &Place, bundle: &Path) {
        place.quiet(&["--systemd-cgroup", "create", "--bundle", bundle.to_str().unwrap(), &self.id]);
    }
}

/// `/proc/PID/cgroup`: the group in each hierarchy.
fn groups(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn a_scope_from_create_to_delete() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    let unit = Unit::new("life");
    let bundle = unit.bundle(&place, &["sleep", "1000"], |spec| {
        spec["linux"]["resources"] = json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 64 << 20 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0" },
            "pids": { "limit": 50 },
        });
        spec["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.Description": "'a test of creel'",
        });
    });
    unit.create(&place, &bundle);
    assert_eq!(place.status(&unit.id), "created");
    let pid = place.pid(&unit.id);
    let wanted = format!("/{SLICE}/{}", unit.scope);
    assert!(groups(pid).iter().all(|group| *group == wanted), "{:?}", groups(pid));
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("Description", "a test of creel"),
        ("TimeoutStopUSec", "7s"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "0"),
        ("DevicePolicy", "strict"),
    ] {
        assert_eq!(show(&unit.scope, property), value, "{property}");
    }
    let (memory, weight) =
        if on_v2() { ("MemoryMax", ("CPUWeight", "59")) } else { ("MemoryLimit", ("CPUShares", "512")) };
    assert_eq!(show(&unit.scope, memory), (64 << 20).to_string());
    assert_eq!(show(&unit.scope, weight.0), weight.1);
    place.start(&unit.id);
    assert_eq!(place.status(&unit.id), "running");

    // What is executed later is in the same group, and held to the same limits.
    let file = place.dir.path().join("exec.pid");
    place.quiet(&["exec", "--detach", "--pid-file", file.to_str().unwrap(), &unit.id, "sleep", "1000"]);
    let second: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(groups(second), groups(pid));
    let mut pids: Vec<i32> = serde_json::from_str(&place.ok(&["ps", "--format", "json", &unit.id])).unwrap();
    pids.sort();
    let mut both = [pid, second];
    both.sort();
    assert_eq!(pids, both);
    assert_eq!(place.ok(&["exec", &unit.id, "sh", "-c", "echo > /dev/null && echo fine"]), "fine");
    let refused =
        place.call(&["exec", &unit.id, "sh", "-c", "mknod /tmp/kmsg c 1 11 2>/dev/null; exec < /tmp/kmsg"]);
    assert!(!refused.status.success(), "a device that nobody allowed");
    let event: Value = serde_json::from_str(&place.ok(&["events", "--stats", &unit.id])).unwrap();
    assert_eq!(event["data"]["memory"]["usage"]["limit"], json!(64 << 20), "{event}");
    assert_eq!(event["data"]["pids"]["current"], json!(2), "{event}");

    place.ok(&["update", "--memory", "48m", "--pids-limit", "30", "--cpu-share", "1024", &unit.id]);
    assert_eq!(show(&unit.scope, memory), (48 << 20).to_string());
    assert_eq!(show(&unit.scope, "TasksMax"), "30");
    assert_eq!(show(&unit.scope, weight.0), if on_v2() { "100" } else { "1024" });
    // What systemd does by itself later does not undo any of it.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    let event: Value = serde_json::from_str(&place.ok(&["events", "--stats", &unit.id])).unwrap();
    assert_eq!(event["data"]["memory"]["usage"]["limit"], json!(48 << 20), "{event}");
    assert_eq!(event["data"]["pids"]["limit"], json!(30), "{event}");

    place.ok(&["pause", &unit.id]);
    assert_eq!(place.status(&unit.id), "paused");
    place.ok(&["resume", &unit.id]);
    assert_eq!(place.status(&unit.id), "running");
    place.ok(&["kill", &unit.id, "KILL"]);
    place.until(&unit.id, "stopped");
    eventually("the end of the other process", || !lives(second));
    // Nobody has to delete it for that.
    eventually("the end of the unit", || is_gone(&unit.scope));
    place.ok(&["delete", &unit.id]);
    place.finish();
}

#[test]
fn a_unit_goes_with_its_container() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    let unit = Unit::new("goes");
    let bundle = unit.bundle(&place, &["sleep", "1000"], |_| {});
    // Deleted while it runs, and while it is frozen.
    for paused in [false, true] {
        place.quiet(&["--systemd-cgroup", "run", "--detach", "--bundle", bundle.to_str().unwrap(), &unit.id]);
        assert_eq!(show(&unit.scope, "ActiveState"), "active");
        let pid = place.pid(&unit.id);
        if paused {
            place.ok(&["pause", &unit.id]);
        }
        place.ok(&["delete", "--force", &unit.id]);
        assert!(!lives(pid));
        eventually("the end of the unit", || is_gone(&unit.scope));
        assert!(!Path::new(&format!("/sys/fs/cgroup/{SLICE}/{}", unit.scope)).exists());
    }
    // In the foreground, with an exit code.
    let bundle = unit.bundle(&place, &["sh", "-c", "cat /proc/self/cgroup; exit 7"], |spec| {
        // Without a name for its slice, prefix or itself it has the ones that are made up for it.
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        let spaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        if !spaces.iter().any(|one| one["type"] == "cgroup") {
            spaces.push(json!({ "type": "cgroup" }));
        }
    });
    let output = place.call(&["--systemd-cgroup", "run", "--bundle", bundle.to_str().unwrap(), &unit.id]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let inside = text(&output.stdout);
    assert!(inside.lines().all(|line| line.ends_with(":/")), "its own group is all that it sees: {inside}");
    eventually("the end of the unit", || is_gone(&format!("creel-{}.scope", unit.id)));
    place.finish();
}

#[test]
fn a_container_that_fails_leaves_no_unit() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    let unit = Unit::new("fails");
    let refused = |change: &dyn Fn(&mut Value)| {
        let bundle = unit.bundle(&place, &["true"], |spec| change(spec));
        let args = ["--systemd-cgroup", "run", "--bundle", bundle.to_str().unwrap(), &unit.id];
        let said = place.fails(1, &args);
        eventually("the end of the unit", || is_gone(&unit.scope));
        said
    };
    let said = refused(&|spec| spec["process"]["args"] = json!(["/nonexistent"]));
    assert!(said.contains("/nonexistent"), "{said}");
    let said = refused(&|spec| {
        spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/x", "type": "nonsense" }));
    });
    assert!(said.contains("/x"), "{said}");
    let said = refused(&|spec| {
        spec["annotations"] = json!({ "org.systemd.property.NoSuchThing": "true" });
    });
    assert!(said.contains(&unit.scope) && said.contains("NoSuchThing"), "{said}");
    let said = refused(&|spec| {
        spec["annotations"] = json!({ "org.systemd.property.TimeoutStopUSec": "a word" });
    });
    assert!(said.contains("org.systemd.property.TimeoutStopUSec"), "{said}");
    let said = refused(&|spec| spec["linux"]["cgroupsPath"] = json!("/some/path"));
    assert!(said.contains("slice:prefix:name"), "{said}");
    let said = refused(&|spec| spec["linux"]["cgroupsPath"] = json!("no.such:thing:x"));
    assert!(said.contains("no.such"), "{said}");
    place.finish();
}

#[test]
fn a_unit_of_somebody_else_is_left_alone() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    let unit = Unit::new("taken");
    let bundle = unit.bundle(&place, &["sleep", "1000"], |_| {});
    unit.create(&place, &bundle);
    let pid = place.pid(&unit.id);
    let args = ["--systemd-cgroup", "create", "--bundle", bundle.to_str().unwrap(), "another"];
    let said = place.fails(1, &args);
    assert!(said.contains("not empty"), "{said}");
    assert!(lives(pid) && show(&unit.scope, "ActiveState") == "active");
    place.ok(&["delete", "--force", &unit.id]);
    eventually("the end of the unit", || is_gone(&unit.scope));
    place.finish();
}

/// A service that waits to hear that it is ready; stopped when dropped.
struct Service(String);

impl Service {
    fn start(name: &str, place: &Place, args: &[&str]) -> Service {
        let service = Service(format!("creeltest-{name}{}.service", std::process::id()));
        let mut command = Command::new("systemd-run");
        command.args(["--service-type=notify", "--collect", "--unit", &service.0]).arg(CREEL);
        let output = command.args(["oci", "--root"]).arg(place.root()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        service
    }

    fn main_pid(&self) -> i32 {
        show(&self.0, "MainPID").parse().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", &self.0]).status();
    }
}

#[test]
fn a_service_hears_that_its_container_is_ready() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    let script = ready_and("trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let bundle = place.bundle("n", &["sh", "-c", &script], |spec| {
        with_notifier(spec, "STATUS=soon\nREADY=1\nMAINPID=1");
    });
    // In the foreground the runtime stays, and is whom systemd looks after.
    let service = Service::start("fore", &place, &["run", "--bundle", bundle.to_str().unwrap(), "n"]);
    assert_eq!(show(&service.0, "ActiveState"), "active");
    assert_eq!(show(&service.0, "StatusText"), "", "what else the container says is not passed on");
    let runtime = service.main_pid();
    assert!(fs::read_to_string(format!("/proc/{runtime}/cmdline")).unwrap().contains("oci"));
    drop(service);
    eventually("the container's end", || !place.call(&["state", "n"]).status.success());
    // Otherwise it is the container.
    let service =
        Service::start("back", &place, &["run", "--detach", "--bundle", bundle.to_str().unwrap(), "n"]);
    assert_eq!(show(&service.0, "ActiveState"), "active");
    assert_eq!(service.main_pid(), place.pid("n"));
    place.ok(&["kill", "n", "KILL"]);
    eventually("the service's end", || is_gone(&service.0) || show(&service.0, "ActiveState") == "failed");
    place.ok(&["delete", "--force", "n"]);
    drop(service);
    place.finish();
}

/// An ordinary user with a systemd of his own; gone at the end.
struct User {
    name: String,
    id: u32,
}

impl User {
    fn new() -> User {
        let name = format!("creeltest{}", std::process::id());
        run("useradd", &["--create-home", &name]);
        let id = text(&Command::new("id").args(["-u", &name]).output().unwrap().stdout);
        let user = User { name, id: id.trim().parse().unwrap() };
        run("loginctl", &["enable-linger", &user.name]);
        eventually("the user's bus", || user.runtime().join("bus").exists());
        user
    }

    fn runtime(&self) -> PathBuf {
        format!("/run/user/{}", self.id).into()
    }

    /// A program as that user, without a session.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.uid(self.id).gid(self.id).current_dir(self.home()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// As [`User::command`], with what he has in a session.
    fn in_session(&self, program: &str, args: &[&str]) -> Output {
        let mut command = self.command(program);
        command.env("XDG_RUNTIME_DIR", self.runtime());
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}/bus", self.runtime().display()));
        // Files, not pipes, for what lives on.
        let out = tempfile::tempfile().unwrap();
        let error = tempfile::tempfile().unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(error.try_clone().unwrap());
        let status = command.args(args).status().unwrap();
        let read = |mut file: fs::File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        Output { status, stdout: read(out), stderr: read(error) }
    }

    /// A call of the runtime in his session, which must succeed; what it says.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.in_session(CREEL, &[&["oci", "--systemd-cgroup"], args].concat());
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn show(&self, unit: &str, property: &str) -> String {
        let args = ["--user", "show", "--value", "-p", property, unit];
        text(&self.in_session("systemctl", &args).stdout).trim().to_owned()
    }

    fn home(&self) -> PathBuf {
        format!("/home/{}", self.name).into()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        run("loginctl", &["disable-linger", &self.name]);
        let _ = Command::new("systemctl").args(["stop", &format!("user@{}.service", self.id)]).status();
        run("userdel", &["--remove", "--force", &self.name]);
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success() || program == "userdel", "{program} {args:?}: {said}");
}

#[test]
fn an_ordinary_user_s_containers_are_his_own_systemd_s() {
    let (true, Some(place)) = (with_systemd(), Place::new()) else { return };
    if !on_v2() {
        say("skipped: users have control groups of their own in v2 alone");
        return;
    }
    let user = User::new();
    let unit = Unit::new("user");
    let theirs = place.bundle("x", &["true"], |_| {});
    let theirs: Value = serde_json::from_slice(&fs::read(theirs.join("config.json")).unwrap()).unwrap();
    let bundle = user.home().join("bundle");
    fs::create_dir(&bundle).unwrap();
    chown(&bundle, Some(user.id), Some(user.id)).unwrap();
    let bundle = bundle.to_str().unwrap();
    user.ok(&["spec", "--rootless", "--bundle", bundle]);
    let config = Path::new(bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["root"] = theirs["root"].clone();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sleep", "1000"]);
    spec["linux"]["cgroupsPath"] = json!(format!(":creeltest:{}", unit.id));
    spec["linux"]["resources"] = json!({ "pids": { "limit": 20 }, "memory": { "limit": 64 << 20 } });
    fs::write(&config, serde_json::to_vec(&spec).unwrap()).unwrap();

    user.ok(&["run", "--detach", "--bundle", bundle, &unit.id]);
    let state: Value = serde_json::from_str(&user.ok(&["state", &unit.id])).unwrap();
    let pid = state["pid"].as_i64().unwrap() as i32;
    let above = format!("/user.slice/user-{0}.slice/user@{0}.service/user.slice", user.id);
    assert_eq!(groups(pid), [format!("{above}/{}", unit.scope)]);
    for (property, value) in
        [("ActiveState", "active"), ("TasksMax", "20"), ("MemoryMax", "67108864"), ("Delegate", "yes")]
    {
        assert_eq!(user.show(&unit.scope, property), value, "{property}");
    }
    assert_eq!(user.ok(&["exec", &unit.id, "id", "-u"]), "0");
    let file = user.home().join("pid");
    user.ok(&["exec", "--detach", "--pid-file", file.to_str().unwrap(), &unit.id, "sleep", "1000"]);
    let second: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(groups(second), groups(pid), "what is executed is held to the same limits");
    user.ok(&["update", "--pids-limit", "30", &unit.id]);
    assert_eq!(user.show(&unit.scope, "TasksMax"), "30");
    user.ok(&["pause", &unit.id]);
    assert!(user.ok(&["state", &unit.id]).contains("paused"));
    user.ok(&["resume", &unit.id]);
    user.ok(&["kill", &unit.id, "KILL"]);
    eventually("the end", || !lives(pid) && !lives(second));
    user.ok(&["delete", &unit.id]);
    eventually("the end of the unit", || user.show(&unit.scope, "LoadState") == "not-found");

    // Without a session there is no systemd that could be asked.
    let root = user.home().join("root");
    let mut command = user.command(CREEL);
    command.args(["oci", "--systemd-cgroup", "--root", root.to_str().unwrap(), "run", "--bundle", bundle]);
    let output = command.arg(&unit.id).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("XDG_RUNTIME_DIR"), "{said}");
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    place.finish();
}
