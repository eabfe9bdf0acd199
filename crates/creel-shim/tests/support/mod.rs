//! A busybox container in a scratch directory, its shim, and both ends of the protocol.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use creel_cgroup::{Cgroup, Hierarchies};
use creel_shim::client::{ClientError, Control, open_stream, spawn};
use creel_shim::framing::mux;
use creel_shim::proto::{
    Answer, Attach, Call, Event, ExecStart, ExitRecord, Opening, Rootfs, ShimConfig, Snapshot, files,
};
use creel_types::spec::*;
use tempfile::TempDir;

pub(crate) const ALL: Attach = Attach { exec_id: None, stdin: true, stdout: true, stderr: true };

/// One container with its shim.
pub(crate) struct Rig {
    scratch: TempDir,
    shim: Child,
    cgroup_path: String,
    pub(crate) control: Control,
}

fn parent() -> String {
    format!("/creel-shim-test-{}", std::process::id())
}

/// Removes the group above all containers of this run.
pub(crate) fn remove_parent_cgroup() {
    let hierarchies = Hierarchies::detect().unwrap();
    if let Ok(group) = Cgroup::open(&hierarchies, &parent()) {
        group.remove().unwrap();
    }
}

fn make_root(root: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in "sh cat echo sleep head tail wc id stty tty touch true".split(' ') {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
}

fn process(script: &str) -> Process {
    Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        ..Default::default()
    }
}

fn spec(script: &str) -> Spec {
    let mount = |destination: &str, kind: &str, options: &str| Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(kind.to_owned()),
        options: options.split(',').map(str::to_owned).collect(),
        ..Default::default()
    };
    let namespace = |kind| Namespace { kind, path: None };
    use NamespaceKind::{Ipc, Mount as MountNs, Network, Pid, Uts};
    Spec {
        oci_version: "1.2.0".to_owned(),
        root: Some(Root { path: "rootfs".to_owned(), readonly: false }),
        mounts: vec![
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ],
        process: Some(process(script)),
        linux: Some(Linux {
            namespaces: [MountNs, Network, Uts, Pid, Ipc].map(namespace).to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Rig {
    pub(crate) fn new(script: &str, change: impl FnOnce(&mut ShimConfig, &mut Spec)) -> Rig {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let scratch = tempfile::Builder::new().prefix("creel-shim-").tempdir_in("/var/tmp").unwrap();
        let (root, dir) = (scratch.path().join("root"), scratch.path().join("run"));
        make_root(&root);
        fs::create_dir(&dir).unwrap();
        let cgroup_path = format!("{}/{}", parent(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut config = ShimConfig {
            id: "b".repeat(64),
            bundle: dir.clone(),
            rootfs: Rootfs::Directory(root),
            cgroup_path: Some(cgroup_path.clone()),
            log_path: Some(scratch.path().join("log")),
            log_max_size: None,
            log_max_files: None,
            open_stdin: false,
            stdin_once: false,
            terminal: false,
            held: Vec::new(),
            init: None,
        };
        let mut spec = spec(script);
        change(&mut config, &mut spec);
        fs::write(dir.join(files::CONFIG), serde_json::to_vec(&config).unwrap()).unwrap();
        fs::write(dir.join(files::SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
        let (shim, stream) = spawn(&std::env::current_exe().unwrap(), &dir).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rig = Rig { scratch, shim, cgroup_path, control: Control::new(stream) };
        rig.state();
        rig
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        self.shim.id() as i32
    }

    pub(crate) fn call(&mut self, call: Call) -> Answer {
        self.control.call(call).unwrap()
    }

    pub(crate) fn create(&mut self) -> i32 {
        match self.call(Call::Create) {
            Answer::Created { pid, timings } => {
                if std::env::var_os("CREEL_TEST_TIMINGS").is_some() {
                    println!("    {timings:?}");
                }
                pid
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self) -> i32 {
        match self.call(Call::Start) {
            Answer::Started { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn run(&mut self) -> i32 {
        self.create();
        self.start()
    }

    pub(crate) fn state(&mut self) -> Snapshot {
        match self.call(Call::State) {
            Answer::State(snapshot) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn open(&self, opening: &Opening) -> Result<Wire, ClientError> {
        let (pid, stream, rest) = open_stream(&self.dir(), opening)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Ok(Wire { pid, stream, rest })
    }

    pub(crate) fn attach(&self) -> Wire {
        self.open(&Opening::Attach(ALL)).unwrap()
    }

    pub(crate) fn exit(&mut self) -> ExitRecord {
        loop {
            if let Event::Exit { record } = self.control.next_event().unwrap() {
                return record;
            }
        }
    }

    pub(crate) fn exec_exit(&mut self) -> (String, i32) {
        loop {
            if let Event::ExecExit(end) = self.control.next_event().unwrap() {
                return (end.exec_id, end.code);
            }
        }
    }

    /// What a killed daemon's connections do.
    pub(crate) fn lose_control(&mut self) {
        self.control = Control::new(UnixStream::pair().unwrap().0);
    }

    /// Waits for the exit record.
    pub(crate) fn recorded(&self) -> ExitRecord {
        let path = self.dir().join(files::EXIT);
        wait_for("the exit record", || {
            fs::read(&path).ok().map(|text| serde_json::from_slice(&text).unwrap())
        })
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::open(&Hierarchies::detect().unwrap(), &self.cgroup_path).unwrap()
    }

    pub(crate) fn remove_cgroup(&self) {
        self.cgroup().remove().unwrap();
    }

    pub(crate) fn kill_shim(&mut self) {
        self.shim.kill().unwrap();
        self.shim.wait().unwrap();
    }

    /// Waits for the shim's own end; nothing of it may be left but the records.
    pub(crate) fn gone(mut self) {
        let status = wait_for("the shim's end", || self.shim.try_wait().unwrap());
        assert!(status.success(), "{status:?}");
        assert!(!self.dir().join(files::SOCKET).exists());
        assert!(self.dir().join(files::EXIT).exists());
        assert!(
            Cgroup::open(&Hierarchies::detect().unwrap(), &self.cgroup_path).is_err(),
            "{}: {}",
            self.cgroup_path,
            self.troubles()
        );
    }

    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log"))
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    pub(crate) fn troubles(&self) -> String {
        fs::read_to_string(self.dir().join(files::LOG)).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.shim.try_wait().unwrap().is_none() {
            println!("    shim.log: {}", self.troubles());
            // Its container dies with it.
            let _ = self.shim.kill();
            let _ = self.shim.wait();
            std::thread::sleep(Duration::from_millis(100));
            if let Ok(cgroup) = Cgroup::open(&Hierarchies::detect().unwrap(), &self.cgroup_path) {
                let _ = cgroup.kill_all();
                let _ = cgroup.remove();
            }
        }
    }
}

pub(crate) fn exec_start(id: &str, script: &str, open_stdin: bool) -> Opening {
    Opening::Exec(ExecStart { exec_id: id.to_owned(), process: process(script), open_stdin, attach: ALL })
}

/// A stream connection.
pub(crate) struct Wire {
    pub(crate) pid: Option<i32>,
    pub(crate) stream: UnixStream,
    pub(crate) rest: Vec<u8>,
}

impl Wire {
    pub(crate) fn raw(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.rest);
        self.stream.read_to_end(&mut all).unwrap();
        all
    }

    pub(crate) fn output(self) -> (Vec<u8>, Vec<u8>) {
        demux(&self.raw())
    }

    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let got = String::from_utf8_lossy(&self.rest).into_owned();
            if got.contains(text) {
                return got;
            }
            let n = self.stream.read(&mut buffer).unwrap_or_else(|e| panic!("{e}; {got:?}"));
            assert!(n > 0, "ended before {text:?}: {got:?}");
            self.rest.extend_from_slice(&buffer[..n]);
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn half_close(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

pub(crate) fn demux(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut decoder = mux::Decoder::default();
    decoder
        .push(bytes, |stream, data| {
            if stream == mux::STDERR { err.extend_from_slice(data) } else { out.extend_from_slice(data) }
        })
        .unwrap();
    assert!(decoder.is_whole());
    (out, err)
}

/// So many seconds, and ten times as many in an emulated machine (`tests/vm/run` says so).
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if std::env::var_os("CREEL_TEST_SLOW").is_some() { 10 * seconds } else { seconds })
}

pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < patience(30), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes that are no text and do not repeat soon.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// What the log makes of bytes: each byte that is not part of UTF-8 is one U+FFFD.
pub(crate) fn as_logged(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}
