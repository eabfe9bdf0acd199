//! A bundle, a state root and a cgroup of one's own, and the check that nothing is left of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::processes_with;

/// The program under test.
pub(crate) const CREEL: &str = env!("CARGO_BIN_EXE_creel");

/// How long anything may take; in an emulated machine everything takes longer.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("CREEL_TEST_SLOW").is_some() { 300 } else { 30 })
}

/// Whether privileged tests can run; says so when they cannot.
pub(crate) fn can_run() -> bool {
    if fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        return true;
    }
    assert!(std::env::var_os("CREEL_TEST_ROOT").is_none(), "CREEL_TEST_ROOT is set but this is not root");
    eprintln!("skipped: needs root");
    false
}

/// Whether this is the guest of `tests/vm/run`, which has all that tests may need.
pub(crate) fn in_the_guest() -> bool {
    std::env::var_os("CREEL_TEST_GUEST").is_some()
}

/// Says why a test does nothing, past the harness, which keeps what passing tests print.
pub(crate) fn say(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

/// Whether control groups are unified.
pub(crate) fn on_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A root file system with busybox, which is only read: the same for all tests that run at a time, removed with the last
/// of them (nothing in a static is ever dropped).
fn rootfs() -> Arc<TempDir> {
    static ROOTFS: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut known = ROOTFS.lock().unwrap();
    known.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make_rootfs());
        *known = Arc::downgrade(&made);
        made
    })
}

fn make_rootfs() -> TempDir {
    let dir = tempfile::Builder::new().prefix("creel-oci-root-").tempdir_in("/var/tmp").unwrap();
    let root = dir.path();
    fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
        .or_else(|_| fs::copy("/bin/busybox", root.join("bin/busybox")))
        .expect("busybox-static is not installed: run dev/setup");
    let list = Command::new("busybox").arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    dir
}

/// A place for containers.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    rootfs: Arc<TempDir>,
    cgroup: String,
}

impl Place {
    /// `None` where tests cannot be privileged.
    pub(crate) fn new() -> Option<Place> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !can_run() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("creel-oci-").tempdir_in("/var/tmp").unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            dir,
            rootfs: rootfs(),
            cgroup: format!("creel-oci-test-{}-{number}", std::process::id()),
        })
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Where compiled system call filters are kept for other containers.
    pub(crate) fn profiles(&self) -> PathBuf {
        self.root().join("~profiles")
    }

    /// Writes a bundle that runs `args` without a terminal, changed by `change`; its directory.
    pub(crate) fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.dir.path().join("bundles").join(name);
        fs::create_dir_all(&bundle).unwrap();
        let _ = fs::remove_file(bundle.join("config.json"));
        let made = Command::new(CREEL).args(["oci", "spec", "--bundle"]).arg(&bundle).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let mut spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        spec["root"]["path"] = json!(self.rootfs.path());
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", self.cgroup));
        change(&mut spec);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        bundle
    }

    /// A call of the runtime with nothing on its standard input.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(CREEL);
        command.arg("oci").arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A call that must succeed; its output without the last newline.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let output = self.call(args);
        assert!(
            output.status.success(),
            "{}: {}\n{}{}",
            line(args),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout).trim_end().to_owned()
    }

    /// A call that starts something which lives on: nothing of it may hold a pipe of ours.
    pub(crate) fn quiet<S: AsRef<OsStr>>(&self, args: &[S]) {
        let log = self.dir.path().join(format!("log-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let status = self
            .command(&[OsStr::new("--log"), log.as_os_str()])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{}: {status}\n{said}", line(args));
    }

    /// A call that must end with `code`; what it says on standard error, without the time.
    pub(crate) fn fails<S: AsRef<OsStr>>(&self, code: i32, args: &[S]) -> String {
        let output = self.call(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{}: {said}", line(args));
        let marker = "level=error msg=";
        let at = said.find(marker).unwrap_or_else(|| panic!("{}: no error line: {said}", line(args)));
        let said = said[at + marker.len()..].trim_end();
        let said = said.strip_prefix('"').and_then(|said| said.strip_suffix('"')).unwrap_or(said);
        said.replace("\\\"", "\"")
    }

    /// `create` with the bundle of that name.
    pub(crate) fn create(&self, id: &str, bundle: &Path) {
        self.quiet(&[OsStr::new("create"), OsStr::new("--bundle"), bundle.as_os_str(), OsStr::new(id)]);
    }

    pub(crate) fn start(&self, id: &str) {
        self.quiet(&["start", id]);
    }

    /// A running `sleep`.
    pub(crate) fn running(&self, id: &str) -> PathBuf {
        let bundle = self.bundle(id, &["sleep", "1000"], |_| {});
        self.create(id, &bundle);
        self.start(id);
        bundle
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        self.state(id)["pid"].as_i64().unwrap() as i32
    }

    pub(crate) fn until(&self, id: &str, status: &str) {
        eventually(&format!("{id} {status}"), || self.status(id) == status);
    }

    /// Directories of cgroups that were made for containers here.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let parents = self.parents();
        parents
            .iter()
            // systemd removes what is empty in its own hierarchy of v1, at a time of its choice.
            .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// The directory of a container's cgroup in the hierarchy that has this file.
    pub(crate) fn cgroup_file(&self, id: &str, names: &[&str]) -> PathBuf {
        let files = self
            .parents()
            .into_iter()
            .flat_map(|parent| names.iter().map(move |name| parent.join(id).join(name)).collect::<Vec<_>>());
        let mut files = files.filter(|path| path.exists());
        files.next().unwrap_or_else(|| panic!("no hierarchy has {names:?}"))
    }

    fn parents(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let below = fs::read_dir(base).unwrap().flatten().map(|entry| entry.path());
        let mounts = std::iter::once(base.to_path_buf()).chain(below);
        mounts
            .filter(|path| !path.is_symlink())
            .map(|path| path.join(&self.cgroup))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Where the groups of containers are or will be, in every hierarchy.
    pub(crate) fn hierarchies(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = |line: &str| {
            let (place, kind) = line.split_once(" - ")?;
            let place = kind.starts_with("cgroup").then(|| place.split(' ').nth(4))??;
            Some(Path::new(place).join(&self.cgroup))
        };
        mounts.lines().filter_map(mounted).collect()
    }

    /// Checks that nothing is left: no state, no cgroup, no process, no mount.
    pub(crate) fn finish(self) {
        let mut left: Vec<_> =
            fs::read_dir(self.root()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        // No container's: for those to come.
        left.retain(|path| *path != self.profiles());
        assert_eq!(left, Vec::<PathBuf>::new(), "state is left");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
        let here = self.dir.path().to_str().unwrap();
        eventually("the end of all processes", || processes_with(here).is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(here), "a mount is left");
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Drop for Place {
    fn drop(&mut self) {
        for id in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let _ = self.call(&[OsStr::new("delete"), OsStr::new("--force"), id.file_name().as_os_str()]);
        }
        for parent in self.parents() {
            let _ = fs::remove_dir(parent);
        }
    }
}

fn line<S: AsRef<OsStr>>(args: &[S]) -> String {
    args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `check` holds.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < patience(), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives (a zombie does not).
pub(crate) fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}
