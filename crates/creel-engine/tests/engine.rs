//! The engine with real shims and containers, in directories and a cgroup of its own. Needs root, the creel binary
//! (`CREEL_BIN`, or the one that cargo has put beside this test) and busybox-static.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use creel_engine::{
    AttachOptions, ByteStream, CommitOptions, Engine, EngineConfig, ImportOptions, ListOptions, LogOptions,
    PutOptions, RemoveOptions, WaitCondition,
};
use creel_layer::tar::{Entry, Kind, Writer};
use creel_types::ErrorKind;
use creel_wire::container::{Config, CreateRequest};
use creel_wire::exec::{ExecConfig, ExecStart};
use creel_wire::host::HostConfig;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Where the busybox that is put into the image may be.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];

struct Lab {
    engine: Arc<Engine>,
    cgroup: String,
    _dir: tempfile::TempDir,
}

fn binary() -> Option<PathBuf> {
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.parent()?.join("creel"))
    };
    std::env::var_os("CREEL_BIN").map(PathBuf::from).or_else(beside).filter(|path| path.exists())
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    if binary().is_none() {
        return Some("the creel binary (CREEL_BIN)");
    }
    BUSYBOX.iter().all(|path| !Path::new(path).exists()).then_some("busybox-static")
}

/// Opens an engine with an image `bb` of one busybox; `None` where that cannot be.
async fn lab() -> Option<Lab> {
    if let Some(what) = missing() {
        assert_ne!(std::env::var("CREEL_TEST_ROOT").as_deref(), Ok("1"), "this test needs {what}");
        eprintln!("skipped: needs {what}");
        return None;
    }
    let dir = tempfile::Builder::new().prefix("ce").tempdir_in("/var/tmp").unwrap();
    let cgroup = format!("/{}", dir.path().file_name().unwrap().to_str().unwrap());
    let engine = Engine::open(EngineConfig {
        root: dir.path().join("root"),
        run_dir: dir.path().join("run"),
        cgroup_parent: cgroup.clone(),
        executable: binary().unwrap(),
        registries: creel_engine::RegistryConfig::default(),
        driver: None,
        plugin_dirs: Vec::new(),
        max_layer_bytes: None,
    })
    .await
    .unwrap();
    let options = ImportOptions {
        reference: Some("bb:latest".parse().unwrap()),
        changes: vec!["CMD [\"sh\"]".to_owned(), "VOLUME /data".to_owned()],
        ..ImportOptions::default()
    };
    let mut messages = engine.import(source(image()), options).await.unwrap();
    while let Some(message) = messages.recv().await {
        assert_eq!(message.error, None);
    }
    Some(Lab { engine, cgroup, _dir: dir })
}

impl Lab {
    /// Everything must be gone: whoever calls this has removed his containers.
    async fn close(self) {
        assert!(
            self.engine.list(ListOptions { all: true, ..ListOptions::default() }).await.unwrap().is_empty()
        );
        let hierarchies = creel_cgroup::Hierarchies::detect().unwrap();
        for mount in hierarchies.mount_points() {
            let dir = mount.join(self.cgroup.trim_start_matches('/'));
            let groups = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            assert_eq!(
                groups.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).count(),
                0,
                "{}",
                dir.display()
            );
            let _ = std::fs::remove_dir(&dir);
        }
    }

    /// Waits until this is all that a container has written.
    async fn logged(&self, name: &str, wanted: &str) {
        let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
        let mut bytes = self.engine.logs(name, options).await.unwrap().bytes;
        let mut framed = Vec::new();
        while plain(&framed) != wanted {
            framed.extend_from_slice(&bytes.recv().await.expect("the log has ended").unwrap());
        }
    }

    async fn create(&self, name: &str, script: &str, host_config: HostConfig) -> String {
        let config = Config {
            image: "bb".into(),
            cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            open_stdin: true,
            stdin_once: true,
            ..Config::default()
        };
        let request = CreateRequest { config, host_config, networking_config: None };
        self.engine.create(Some(name), request, None).await.unwrap().id
    }
}

/// The archive of an image of one busybox.
fn image() -> Vec<u8> {
    let busybox = BUSYBOX.iter().find_map(|path| std::fs::read(path).ok()).unwrap();
    let mut writer = Writer::new(Vec::new());
    let mut file = |name: &str, mode, content: &[u8]| {
        writer.entry(&Entry { size: content.len() as u64, mode, ..Entry::new(name, Kind::File) }).unwrap();
        std::io::Write::write_all(&mut writer, content).unwrap();
    };
    file("bin/busybox", 0o755, &busybox);
    file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\nwww:x:33:\nextra:x:50:www\n");
    file("data/given", 0o644, b"by the image\n");
    for name in ["sh", "cat", "echo", "sleep", "id", "ls", "touch", "kill", "true"] {
        writer.entry(&Entry::new(format!("bin/{name}"), Kind::Symlink(b"busybox".to_vec()))).unwrap();
    }
    writer.finish().unwrap().0
}

fn source(bytes: Vec<u8>) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(Ok(Bytes::from(bytes))).unwrap();
    receiver
}

async fn drain(mut stream: ByteStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

/// What a stream of frames says, stdout and stderr one after the other.
fn plain(framed: &[u8]) -> String {
    let mut text = Vec::new();
    creel_wire::stream::Demultiplexer::default().feed(framed, |_, piece| text.extend_from_slice(piece));
    String::from_utf8(text).unwrap()
}

const FORCE: RemoveOptions = RemoveOptions { force: true, volumes: true, link: false };

#[tokio::test(flavor = "multi_thread")]
async fn a_container_lives_from_create_to_remove() {
    let Some(lab) = lab().await else { return };
    let engine = &lab.engine;
    let id =
        lab.create("one", "read line; echo got $line; cat /data/given; exit 7", HostConfig::default()).await;
    let waiting = engine.wait("one", WaitCondition::NextExit).await.unwrap();
    let options =
        AttachOptions { stdin: true, stdout: true, stderr: true, stream: true, ..AttachOptions::default() };
    let attachment = engine.attach(&id[..12], options).await.unwrap();
    let (client, ours) = tokio::io::duplex(1 << 16);
    let running = tokio::spawn(attachment.run(ours));
    let timings = engine.start("/one").await.unwrap();
    assert!(timings.iter().any(|(name, _)| name == "shim.start"), "{timings:?}");
    assert_eq!(engine.start("one").await.unwrap_err().kind(), ErrorKind::NotModified);
    let (mut read, mut write) = tokio::io::split(client);
    tokio::io::AsyncWriteExt::write_all(&mut write, b"hello\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
    let mut output = Vec::new();
    read.read_to_end(&mut output).await.unwrap();
    assert_eq!(plain(&output), "got hello\nby the image\n");
    running.await.unwrap().unwrap();
    assert_eq!(waiting.wait().await.status_code, 7);
    let state = engine.inspect("one", false).await.unwrap().state;
    assert_eq!((state.status.as_str(), state.exit_code, state.pid), ("exited", 7, 0));
    let options = LogOptions { stdout: true, tail: Some(1), ..LogOptions::default() };
    let logs = engine.logs("one", options).await.unwrap();
    assert_eq!(plain(&drain(logs.bytes).await), "by the image\n");
    engine.remove("one", RemoveOptions::default()).await.unwrap();
    assert_eq!(engine.inspect("one", false).await.unwrap_err().kind(), ErrorKind::NotFound);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why_and_is_kept_as_its_state() {
    let Some(lab) = lab().await else { return };
    let engine = &lab.engine;
    let config = Config { image: "bb".into(), cmd: Some(vec!["nosuch".into()]), ..Config::default() };
    let request = CreateRequest { config, ..CreateRequest::default() };
    engine.create(Some("wrong"), request, None).await.unwrap();
    let refused = engine.start("wrong").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ProgramNotFound);
    assert!(refused.to_string().contains("executable file not found in $PATH"), "{refused}");
    let state = engine.inspect("wrong", false).await.unwrap().state;
    assert_eq!((state.status.as_str(), state.exit_code), ("created", 127));
    let again = CreateRequest {
        config: Config { image: "bb".into(), ..Config::default() },
        ..CreateRequest::default()
    };
    let conflict = engine.create(Some("wrong"), again, None).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    engine.remove("wrong", RemoveOptions::default()).await.unwrap();
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_pause_restart_and_rm() {
    let Some(lab) = lab().await else { return };
    let engine = &lab.engine;
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    lab.create("loop", script, HostConfig::default()).await;
    engine.start("loop").await.unwrap();
    lab.logged("loop", "ready\n").await;
    engine.pause("loop").await.unwrap();
    assert_eq!(engine.pause("loop").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(engine.inspect("loop", false).await.unwrap().state.status, "paused");
    engine.unpause("loop").await.unwrap();
    engine.restart("loop", None, None).await.unwrap();
    lab.logged("loop", "ready\nready\n").await;
    assert_eq!(
        engine.remove("loop", RemoveOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    engine.pause("loop").await.unwrap();
    engine.stop("loop", None, Some(5)).await.unwrap();
    assert_eq!(engine.inspect("loop", false).await.unwrap().state.exit_code, 5);
    assert_eq!(engine.stop("loop", None, None).await.unwrap_err().kind(), ErrorKind::NotModified);
    engine.start("loop").await.unwrap();
    engine.remove("loop", FORCE).await.unwrap();
    // --rm: removed by its own end.
    lab.create("gone", "exit 3", HostConfig { auto_remove: true, ..HostConfig::default() }).await;
    let removed = engine.wait("gone", WaitCondition::Removed).await.unwrap();
    engine.start("gone").await.unwrap();
    assert_eq!(removed.wait().await.status_code, 3);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_files_and_commit() {
    let Some(lab) = lab().await else { return };
    let engine = &lab.engine;
    lab.create("box", "sleep 1000", HostConfig::default()).await;
    engine.start("box").await.unwrap();
    let exec = |user: &str, command: &[&str]| ExecConfig {
        user: user.to_owned(),
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        ..ExecConfig::default()
    };
    let run = async |config: ExecConfig| {
        let id = engine.exec_create("box", config).await.unwrap();
        let session = engine.exec_start(&id, ExecStart::default()).await.unwrap();
        let (mut client, ours) = tokio::io::duplex(1 << 16);
        let running = tokio::spawn(session.run(ours));
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.unwrap();
        let _ = running.await.unwrap();
        (plain(&output), engine.exec_inspect(&id).await.unwrap().exit_code)
    };
    let (text, code) = run(exec("www", &["sh", "-c", "id; exit 4"])).await;
    assert_eq!(text, "uid=33(www) gid=33(www) groups=33(www),50(extra)\n");
    assert_eq!(code, Some(4));
    let (text, code) = run(exec("", &["nosuch"])).await;
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    assert_eq!(code, Some(127));
    let top = engine.top("box", None).await.unwrap();
    assert!(top.processes.iter().any(|row| row.last().is_some_and(|c| c.contains("sleep 1000"))), "{top:?}");
    // Into the container that runs, and out of it; then the same at rest.
    for name in ["running", "resting"] {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&Entry { size: 4, ..Entry::new(name, Kind::File) }).unwrap();
        std::io::Write::write_all(&mut writer, b"data").unwrap();
        let tar = source(writer.finish().unwrap().0);
        engine.archive_put("box", "/bin", PutOptions::default(), tar).await.unwrap();
        let stat = engine.path_stat("box", &format!("/bin/{name}")).await.unwrap();
        assert_eq!((stat.size, stat.mode), (4, 0o644));
        let (_, bytes) = engine.archive_get("box", &format!("/bin/{name}")).await.unwrap();
        let bytes = drain(bytes).await;
        let mut reader = creel_layer::tar::Reader::new(&bytes[..]);
        assert_eq!(reader.next_entry().unwrap().unwrap().name, name.as_bytes());
        let lost = engine.path_stat("box", "/none").await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::NotFound);
        if name == "running" {
            engine.kill("box", None).await.unwrap();
        }
    }
    let changed: Vec<String> = engine.changes("box").await.unwrap().into_iter().map(|c| c.path).collect();
    assert!(changed.contains(&"/bin/resting".to_owned()), "{changed:?}");
    let options =
        CommitOptions { reference: Some("bb2:latest".parse().unwrap()), ..CommitOptions::default() };
    let image = engine.commit("box", options).await.unwrap();
    assert_eq!(engine.image_inspect("bb2").await.unwrap().id, image);
    assert_eq!(engine.image_history("bb2").await.unwrap().len(), 2);
    assert_eq!(engine.image_remove("bb", false, true).await.unwrap_err().kind(), ErrorKind::Conflict);
    engine.remove("box", FORCE).await.unwrap();
    engine.image_remove("bb", false, true).await.unwrap();
    engine.image_remove("bb2", false, true).await.unwrap();
    assert!(engine.images(false, false, Default::default()).await.unwrap().is_empty());
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_leave_nothing_behind() {
    let Some(lab) = lab().await else { return };
    let lab = Arc::new(lab);
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let lab = lab.clone();
            tokio::spawn(async move {
                let name = format!("many{n}");
                let host = HostConfig { auto_remove: true, ..HostConfig::default() };
                lab.create(&name, &format!("exit {n}"), host).await;
                let removed = lab.engine.wait(&name, WaitCondition::Removed).await.unwrap();
                lab.engine.start(&name).await.unwrap();
                assert_eq!(removed.wait().await.status_code, n);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    Arc::into_inner(lab).unwrap().close().await;
}
