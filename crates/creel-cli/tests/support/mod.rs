//! A daemon of the test's own on a temporary unix socket, and the commands run against it.

// What goes wrong in here is the test's own failure; not each test uses all of it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, without the version.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What to answer.
pub enum Reply {
    /// Status, further headers, body.
    Full(u16, &'static str, Vec<u8>),
    /// 101, then the connection is the function's.
    Hijack(Box<dyn FnOnce(UnixStream) + Send>),
    /// Headers at once, the body when the function returns it.
    Later(Box<dyn FnOnce() -> String + Send>),
    /// A body that promises more than it gives.
    Cut(String),
}

pub fn ok(body: impl Into<String>) -> Reply {
    Reply::Full(200, "", body.into().into_bytes())
}

pub fn status(code: u16, message: &str) -> Reply {
    Reply::Full(code, "", serde_json::json!({ "message": message }).to_string().into_bytes())
}

/// The daemon.
pub struct Daemon {
    directory: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Daemon {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("d.sock")).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Self { directory, seen }
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.directory.path().join("d.sock").display())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = creel(args);
        command.env("CREEL_HOST", self.socket());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = spawn(self.command(args));
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        spawn(self.command(args))
    }
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Ran {
            code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program with the commands alone, which cargo builds as an example beside these tests.
pub fn creel(args: &[&str]) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/creel-client");
    assert!(
        path.exists(),
        "{} is missing: run the whole package's tests, cargo test -p creel-cli",
        path.display()
    );
    let mut command = Command::new(path);
    // Never the machine's own daemon, and none started: a socket that nobody listens on, unless a test says otherwise.
    command
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("CREEL_HOST", "unix:///nonexistent/creel.sock");
    command
}

pub fn run(args: &[&str]) -> Ran {
    creel(args).stdin(Stdio::null()).output().unwrap().into()
}

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// One frame of multiplexed output.
pub fn frame(stream: u8, data: &str) -> Vec<u8> {
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data.as_bytes());
    bytes
}

fn serve(stream: UnixStream, answer: &(dyn Fn(&Request) -> Reply + Send + Sync), log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader) {
        log.lock().unwrap().push(request.clone());
        let sent = match answer(&request) {
            Reply::Full(code, headers, body) => {
                let body: &[u8] =
                    if request.method == "HEAD" || code == 204 || code == 304 { b"" } else { &body };
                let length =
                    if code == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                let head = format!("HTTP/1.1 {code} X\r\n{length}{headers}\r\n");
                writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body))
            }
            Reply::Later(body) => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes()).and_then(|()| {
                    let body = body();
                    writer.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes())
                })
            }
            Reply::Cut(body) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len() + 10);
                let _ = writer.write_all(head.as_bytes());
                return;
            }
            Reply::Hijack(session) => {
                let head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                            Content-Type: application/vnd.docker.multiplexed-stream\r\n\r\n";
                writer.write_all(head.as_bytes()).unwrap();
                session(writer);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let target = target.strip_prefix("/v1.51").expect("a versioned path").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header =
        |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
    } else if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok().filter(|n| *n > 0)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend(&chunk[..size]);
        }
    }
    Some(Request { method, target, headers, body })
}
