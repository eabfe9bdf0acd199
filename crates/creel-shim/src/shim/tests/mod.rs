//! The whole shim over processes of the host: no root needed. The shim is this test binary, run again.

mod fake;
mod life;
mod streams;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use creel_types::spec::Process;
use tempfile::TempDir;

use crate::client::{ClientError, Control, open_stream};
use crate::framing::mux;
use crate::proto::{
    Answer, Attach, Call, Event, ExecStart, ExitRecord, Failure, Opening, Rootfs, ShimConfig, Snapshot, files,
};

const DIR: &str = "CREEL_SHIM_TEST_DIR";

/// Not a test: what [`Rig::new`] runs as the shim.
#[test]
#[ignore = "run by the other tests as their shim"]
fn shim_process() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let control = super::setup::detach(0).unwrap();
    let signals = super::setup::take_signals().unwrap();
    let listener = super::setup::listen(&dir).unwrap();
    let config: ShimConfig = super::setup::read_json(&dir.join(files::CONFIG)).unwrap();
    let fake = fake::Fake::new(&dir, config.terminal);
    let own_pids = !dir.join("shared-pids").exists();
    super::Shim::new(dir, config, fake, own_pids, (control, signals, listener)).run();
    std::process::exit(0);
}

/// One shim in a directory of its own.
struct Rig {
    dir: TempDir,
    shim: Child,
    control: Control,
}

impl Rig {
    fn new(program: &[&str], change: impl FnOnce(&mut ShimConfig)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ShimConfig {
            id: "a".repeat(64),
            bundle: dir.path().to_owned(),
            rootfs: Rootfs::Directory("/".into()),
            cgroup_path: None,
            log_path: Some(dir.path().join("log")),
            log_max_size: None,
            log_max_files: None,
            open_stdin: false,
            stdin_once: false,
            terminal: false,
            held: Vec::new(),
            init: None,
        };
        change(&mut config);
        fs::write(dir.path().join(files::CONFIG), serde_json::to_vec(&config).unwrap()).unwrap();
        fs::write(dir.path().join("program"), serde_json::to_vec(program).unwrap()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shim::tests::shim_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rig = Rig { dir, shim, control: Control::new(ours) };
        // Its first answer says that its socket stands.
        rig.state();
        rig
    }

    fn sh(script: &str, change: impl FnOnce(&mut ShimConfig)) -> Rig {
        Rig::new(&["sh", "-c", script], change)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn create(&mut self) -> i32 {
        match self.control.call(Call::Create).unwrap() {
            Answer::Created { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    fn start(&mut self) -> i32 {
        match self.control.call(Call::Start).unwrap() {
            Answer::Started { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self) -> i32 {
        self.create();
        self.start()
    }

    fn state(&mut self) -> Snapshot {
        match self.control.call(Call::State).unwrap() {
            Answer::State(snapshot) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, call: Call) -> Failure {
        match self.control.call(call) {
            Err(ClientError::Refused(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn open(&self, opening: &Opening) -> Result<Wire, ClientError> {
        let (pid, stream, rest) = open_stream(self.path(), opening)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Ok(Wire { pid, stream, rest })
    }

    fn attach(&self) -> Wire {
        self.open(&Opening::Attach(ALL)).unwrap()
    }

    fn exec(&self, id: &str, script: &str, stdin: bool) -> Result<Wire, ClientError> {
        self.open(&Opening::Exec(exec_start(id, script, stdin)))
    }

    fn exit(&mut self) -> ExitRecord {
        loop {
            if let Event::Exit { record } = self.control.next_event().unwrap() {
                return record;
            }
        }
    }

    /// Waits for the shim's own end, and looks at what it left.
    fn gone(mut self) -> ExitRecord {
        let status = wait_for("the shim's end", || self.shim.try_wait().unwrap());
        assert!(status.success(), "{status:?}");
        assert!(!self.path().join(files::SOCKET).exists());
        serde_json::from_slice(&fs::read(self.path().join(files::EXIT)).unwrap()).unwrap()
    }

    /// The texts in the log, put together.
    fn logged(&self) -> String {
        fs::read_to_string(self.path().join("log"))
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    fn troubles(&self) -> String {
        fs::read_to_string(self.path().join(files::LOG)).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.shim.try_wait().unwrap().is_none() {
            let _ = self.control.call(Call::Shutdown { force: true });
            std::thread::sleep(Duration::from_millis(50));
            let _ = self.shim.kill();
            let _ = self.shim.wait();
        }
    }
}

const ALL: Attach = Attach { exec_id: None, stdin: true, stdout: true, stderr: true };

fn exec_start(id: &str, script: &str, open_stdin: bool) -> ExecStart {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let process = Process { args, ..Default::default() };
    ExecStart { exec_id: id.to_owned(), process, open_stdin, attach: ALL }
}

/// A stream connection.
struct Wire {
    pid: Option<i32>,
    stream: UnixStream,
    rest: Vec<u8>,
}

impl Wire {
    fn raw(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.rest);
        self.stream.read_to_end(&mut all).unwrap();
        all
    }

    /// Reads to the end and takes the frames apart: stdout and stderr.
    fn output(self) -> (Vec<u8>, Vec<u8>) {
        demux(&self.raw())
    }

    /// Reads until `text` has come.
    fn until(&mut self, text: &str) -> String {
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

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn half_close(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

fn demux(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
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
fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if std::env::var_os("CREEL_TEST_SLOW").is_some() { 10 * seconds } else { seconds })
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < patience(30), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that are no text and do not repeat soon.
fn noise(len: usize) -> Vec<u8> {
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
fn as_logged(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}
