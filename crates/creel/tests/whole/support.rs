//! A daemon of one's own, and the images to feed it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::processes_with;

/// How long anything may take before a test gives up on it; in an emulated machine everything takes longer.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("CREEL_TEST_SLOW").is_some() { 300 } else { 30 })
}

/// The program under test.
pub(crate) const CREEL: &str = env!("CARGO_BIN_EXE_creel");

/// A directory for scratch on a real file system: overlayfs has no upper directory on some others.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("creel-test-").tempdir_in("/var/tmp").unwrap()
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

/// A daemon with directories, cgroup parent, mount and network namespace of its own.
pub(crate) struct Daemon {
    pub(crate) dir: tempfile::TempDir,
    cgroup: String,
    child: Option<Child>,
    flags: Vec<String>,
}

impl Daemon {
    /// Starts one; `None` where tests cannot be privileged.
    pub(crate) fn start() -> Option<Self> {
        Self::start_in(scratch(), &[])
    }

    /// Starts one with an image `busybox` in its store.
    pub(crate) fn with_busybox() -> Option<Self> {
        let daemon = Self::start()?;
        daemon.ok(&["import", "-c", "CMD [\"sh\"]", path(busybox_tar()), "busybox:latest"]);
        Some(daemon)
    }

    /// Starts one in the given directory with further flags.
    pub(crate) fn start_in(dir: tempfile::TempDir, flags: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !can_run() {
            return None;
        }
        let cgroup = format!("/creel-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut daemon = Self { dir, cgroup, child: None, flags };
        daemon.spawn();
        Some(daemon)
    }

    /// Starts one that runs this command in its mount namespace first, with further flags, which may say another root.
    pub(crate) fn start_after(command: &str, flags: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !can_run() {
            return None;
        }
        let cgroup =
            format!("/creel-test-after-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut daemon = Self { dir: scratch(), cgroup, child: None, flags };
        let first = format!("{command} && exec \"$0\" \"$@\"");
        daemon.spawn_by(&["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", &first]);
        Some(daemon)
    }

    /// The flags that the next process is started with.
    pub(crate) fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts the daemon's process (again).
    pub(crate) fn spawn(&mut self) {
        self.spawn_by(&["unshare", "--mount", "--net", "--propagation", "private"]);
    }

    /// Starts the daemon's process again, in the network namespace of this other one.
    pub(crate) fn spawn_beside(&mut self, pid: u32) {
        let net = format!("--net=/proc/{pid}/ns/net");
        self.spawn_by(&["nsenter", &net, "unshare", "--mount", "--propagation", "private"]);
    }

    fn spawn_by(&mut self, how: &[&str]) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = Command::new(how[0])
            .args(&how[1..])
            .args(["sh", "-c"])
            .arg("ip link set lo up; exec \"$0\" \"$@\"")
            .args([CREEL, "daemon", "--log-level", "debug", "--cgroup-parent", &self.cgroup])
            .args(if self.flags.iter().any(|flag| flag == "--root") { None } else { Some("--root") })
            .args(if self.flags.iter().any(|flag| flag == "--root") { None } else { Some(self.root()) })
            .arg("--run-dir")
            .arg(self.dir.path().join("run"))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(begin.elapsed() < patience(), "the daemon does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the daemon as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the daemon as a service manager does.
    pub(crate) fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/creel.sock")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The names of what is stored, by directory.
    pub(crate) fn stored(&self) -> Vec<Vec<String>> {
        let names = |directory: &str| {
            let entries = std::fs::read_dir(self.root().join(directory)).into_iter().flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        ["blobs/sha256", "layers", "containers", "inits", "tmp", "partial"].map(names).to_vec()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A command of creel's, pointed at this daemon.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(CREEL);
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(args);
        command
    }

    /// Runs a command with nothing on its standard input.
    pub(crate) fn creel<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed; its output without the last newline.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let output = self.creel(args);
        let line = args.iter().map(|a| a.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        assert!(
            output.status.success(),
            "creel {line}: {}\nstdout: {}\nstderr: {}\ndaemon: {}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs a command that must end with `code`; its standard error.
    pub(crate) fn fails<S: AsRef<OsStr>>(&self, code: i32, args: &[S]) -> String {
        let output = self.creel(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = args.iter().map(|a| a.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "creel {line}: {stderr}\ndaemon: {}", self.log());
        stderr
    }

    /// One value out of `inspect`.
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, name])
    }

    /// Waits until `template` gives `wanted`.
    pub(crate) fn until(&self, name: &str, template: &str, wanted: &str) {
        let begin = Instant::now();
        loop {
            let value = self.inspect(name, template);
            if value == wanted {
                return;
            }
            assert!(
                begin.elapsed() < patience(),
                "{name}: {template} is `{value}`, not `{wanted}`\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a program in the daemon's network namespace.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(program);
        command
    }

    /// Removes every container, stops the daemon and checks that nothing is left.
    pub(crate) fn finish(mut self) {
        self.clean_up(true);
    }

    fn clean_up(&mut self, check: bool) {
        if self.child.is_none() && !check {
            // A failed test may have left containers and no daemon: a new one cleans up.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.spawn()));
        }
        if self.child.is_some() {
            let ids = self.creel(&["ps", "-aq", "--no-trunc"]);
            for id in String::from_utf8_lossy(&ids.stdout).lines() {
                self.creel(&["rm", "-f", id]);
            }
            self.terminate();
        }
        let left = || (self.processes(), self.cgroups());
        let begin = Instant::now();
        while left() != (vec![], vec![]) && begin.elapsed() < patience() / 6 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (processes, cgroups) = left();
        for directory in self.parents() {
            let _ = fs::remove_dir(directory);
        }
        if check {
            assert_eq!((processes, cgroups), (vec![], vec![]), "something is left behind\n{}", self.log());
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let here = self.dir.path().to_str().unwrap();
            assert!(!mounts.contains(here), "a mount of {here} is left on the machine");
        }
    }

    /// Command lines of processes that name this daemon's directory.
    fn processes(&self) -> Vec<String> {
        processes_with(self.dir.path().to_str().unwrap())
    }

    pub(crate) fn parents(&self) -> Vec<PathBuf> {
        let roots = ["/sys/fs/cgroup".to_owned()].into_iter().chain(
            fs::read_dir("/sys/fs/cgroup")
                .unwrap()
                .flatten()
                .map(|e| e.path().to_string_lossy().into_owned()),
        );
        roots.map(|root| PathBuf::from(format!("{root}{}", self.cgroup))).filter(|p| p.is_dir()).collect()
    }

    /// Cgroups of containers that still exist below this daemon's parent.
    fn cgroups(&self) -> Vec<PathBuf> {
        let children = |parent: PathBuf| {
            fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir())
        };
        self.parents().into_iter().flat_map(children).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() || std::thread::panicking() {
            self.clean_up(false);
        }
    }
}

/// A path as text.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A root file system with busybox and its commands, as a tar archive; made once a run, in the place of the last run's
/// (nothing in a static is ever dropped).
pub(crate) fn busybox_tar() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let dir = scratch();
        let root = dir.path().join("root");
        for directory in ["bin", "etc", "tmp", "root", "home"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
            .or_else(|_| fs::copy("/bin/busybox", root.join("bin/busybox")))
            .expect("busybox-static is not installed: run dev/setup");
        // Not the copy: another thread that forks just now would still hold it open for writing.
        let list = Command::new("busybox").arg("--list").output().unwrap();
        for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nadam:x:1000:1000::/home/adam:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nadam:x:1000:\nwheel:x:10:adam\n").unwrap();
        let tar = dir.path().join("busybox.tar");
        let status = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["--numeric-owner", "-cf"])
            .arg(&tar)
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(kept).unwrap();
        // Another run may be reading the last one.
        let new = kept.join(format!("busybox.tar.{}", std::process::id()));
        fs::copy(&tar, &new).unwrap();
        fs::rename(&new, kept.join("busybox.tar")).unwrap();
        kept.join("busybox.tar")
    })
}

/// Waits until `check` holds.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < patience(), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a command printed, as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
