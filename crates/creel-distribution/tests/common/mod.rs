//! What the tests of this crate share: stores, images made by hand, a scripted server, a real registry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use creel_distribution::{
    Progress, ProgressEvent, PullOptions, PushOptions, Recorded, RegistryOptions, RetryPolicy,
};
use creel_layer::tar::{Entry, Kind, Writer};
use creel_store::Store;
use creel_types::image::{Descriptor, ImageConfig, Index, Manifest, RootFs, media_type};
use creel_types::{Digest, Platform, Reference};

/// A scratch directory on a real disk: /tmp may be a tmpfs without the attributes that layers need.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("creel-distribution-").tempdir_in("/var/tmp").unwrap()
}

/// Reads everything again: blobs against their digests, layers against their archives.
#[track_caller]
pub fn assert_whole(store: &Arc<Store>) {
    let report = store.verify(&creel_store::VerifyOptions::default(), &mut |_| true).unwrap();
    assert!(report.is_whole(), "{report:#?}");
}

/// A store of its own.
pub struct TestStore {
    pub store: Arc<Store>,
    pub dir: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = scratch();
        Self { store: Store::open(&dir.path().join("root")).unwrap(), dir }
    }

    /// Blobs and layers on the disk, and what lies in tmp.
    pub fn content(&self) -> (usize, usize, usize) {
        let count = |name: &str| {
            std::fs::read_dir(self.dir.path().join("root").join(name)).map_or(0, |entries| entries.count())
        };
        (count("blobs/sha256"), count("layers"), count("tmp"))
    }

    pub fn assert_empty(&self) {
        self.store.gc().unwrap();
        assert_eq!(self.content(), (0, 0, 0), "something half-stored was left");
        assert!(self.store.list_images().is_empty());
    }
}

/// Whether this test can run: unpacking makes devices and owners, which only root may.
pub fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        assert!(std::env::var_os("CREEL_TEST_ROOT").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether a tool is here; without it the test fails or is skipped, as CREEL_TEST_TOOLS says.
pub fn has_tool(name: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join(name).is_file());
    if !found {
        assert!(
            std::env::var_os("CREEL_TEST_TOOLS").is_none_or(|v| v != "1"),
            "{name} is missing: apt-get install docker-registry skopeo"
        );
        eprintln!("skipped: {name} is not installed (apt-get install docker-registry skopeo)");
    }
    found
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn quick_retry() -> RetryPolicy {
    RetryPolicy { attempts: 4, base: Duration::from_millis(5), longest: Duration::from_millis(50) }
}

pub fn pull_options() -> PullOptions {
    let registry = RegistryOptions { retry: quick_retry(), ..RegistryOptions::default() };
    PullOptions { registry, ..PullOptions::default() }
}

pub fn push_options() -> PushOptions {
    let registry = RegistryOptions { retry: quick_retry(), ..RegistryOptions::default() };
    PushOptions { registry, ..PushOptions::default() }
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Somebody who keeps all messages, in the two forms in which tests want him.
pub fn recorded() -> (Arc<Recorded>, Arc<dyn Progress>) {
    let recorded = Arc::new(Recorded::default());
    (recorded.clone(), recorded)
}

/// The statuses without amounts, each with its id in front.
pub fn statuses(events: &[ProgressEvent]) -> Vec<String> {
    let mut all: Vec<String> = events
        .iter()
        .map(|event| match &event.id {
            Some(id) => format!("{id}: {}", event.status),
            None => event.status.clone(),
        })
        .collect();
    all.dedup();
    all
}

pub fn sha256(bytes: &[u8]) -> Digest {
    let (_, digest, _) = {
        let mut writer = creel_layer::HashingWriter::new(std::io::sink());
        writer.write_all(bytes).unwrap();
        writer.finish()
    };
    digest
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let kind = if name.ends_with('/') { Kind::Directory } else { Kind::File };
        let mut entry = Entry::new(*name, kind);
        entry.size = content.len() as u64;
        writer.entry(&entry).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().0
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    })
    .take(length)
    .collect()
}

pub fn descriptor(media: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media.to_owned(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// An image made by hand: its blobs by digest, its manifest apart.
#[derive(Clone)]
pub struct TestImage {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub layers: Vec<Descriptor>,
    pub config: Descriptor,
    pub manifest: Vec<u8>,
}

impl TestImage {
    /// One of gzip layers, each from its tar.
    pub fn new(tars: &[Vec<u8>]) -> Self {
        Self::of_archives(&tars.iter().map(|tar| (gzip(tar), sha256(tar))).collect::<Vec<_>>())
    }

    /// One of archives and the diffIDs that they are said to have.
    pub fn of_archives(archives: &[(Vec<u8>, Digest)]) -> Self {
        Self::with_platform(archives, &Platform::host())
    }

    pub fn with_platform(archives: &[(Vec<u8>, Digest)], platform: &Platform) -> Self {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            rootfs: RootFs {
                diff_ids: archives.iter().map(|(_, diff_id)| *diff_id).collect(),
                ..RootFs::default()
            },
            ..ImageConfig::default()
        };
        let config = serde_json::to_vec(&config).unwrap();
        let mut blobs = BTreeMap::new();
        let layers: Vec<Descriptor> = archives
            .iter()
            .map(|(archive, _)| {
                blobs.insert(sha256(archive), archive.clone());
                descriptor(media_type::OCI_LAYER_GZIP, archive)
            })
            .collect();
        let config_descriptor = descriptor(media_type::OCI_CONFIG, &config);
        blobs.insert(config_descriptor.digest, config);
        let mut image = Self { blobs, layers, config: config_descriptor, manifest: Vec::new() };
        image.seal();
        image
    }

    /// Makes the manifest anew after a change to `layers` or `config`.
    pub fn seal(&mut self) {
        self.manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: self.config.clone(),
            layers: self.layers.clone(),
            annotations: BTreeMap::new(),
        })
        .unwrap();
    }

    pub fn digest(&self) -> Digest {
        sha256(&self.manifest)
    }
}

pub fn index(entries: &[(&TestImage, &Platform)]) -> Vec<u8> {
    let manifests = entries
        .iter()
        .map(|(image, platform)| Descriptor {
            platform: Some((*platform).clone()),
            ..descriptor(media_type::OCI_MANIFEST, &image.manifest)
        })
        .collect();
    serde_json::to_vec(&Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests,
        annotations: BTreeMap::new(),
    })
    .unwrap()
}

/// A request that the scripted server saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// How many requests of this method and path came before.
    pub nth: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the scripted server answers.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Hang up after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Say another length than the body has.
    pub length: Option<u64>,
    /// Send the body again and again, without a length.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_after: None, length: None, endless: false }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// An HTTP server that does what it is told, also what no server should.
pub struct Server {
    pub address: std::net::SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    /// How often it was asked for TLS, which it does not speak.
    pub probes: Arc<AtomicUsize>,
}

impl Server {
    pub fn new(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let (seen, stopped) = (log.clone(), stop.clone());
        let probes = Arc::new(AtomicUsize::new(0));
        let probed = probes.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (handler, log, probed) = (handler.clone(), seen.clone(), probed.clone());
                std::thread::spawn(move || serve(connection.unwrap(), &*handler, &log, &probed));
            }
        });
        Self { address, log, stop, probes }
    }

    /// The repository `test/image` of this server.
    pub fn image(&self, suffix: &str) -> Reference {
        reference(&format!("{}/test/image{suffix}", self.address))
    }

    pub fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// How many requests had this method and a path with this in it.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.log().iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(connection: TcpStream, handler: &Handler, log: &Mutex<Vec<Seen>>, probes: &AtomicUsize) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    // a TLS record with a handshake in it
    if reader.fill_buf().is_ok_and(|start| start.first() == Some(&0x16)) {
        probes.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let mut writer = connection;
    while let Some(mut seen) = read_request(&mut reader) {
        {
            let mut log = log.lock().unwrap();
            seen.nth = log.iter().filter(|old| old.method == seen.method && old.path == seen.path).count();
            log.push(seen.clone());
        }
        let reply = handler(&seen);
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if reply.endless {
            head.push_str("Connection: close\r\n\r\n");
        } else {
            head.push_str(&format!(
                "Content-Length: {}\r\n\r\n",
                reply.length.unwrap_or(reply.body.len() as u64)
            ));
        }
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
        if seen.method == "HEAD" {
            continue;
        }
        let end = reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len());
        if writer.write_all(&reply.body[..end]).is_err() {
            return;
        }
        if reply.endless {
            while writer.write_all(&reply.body).is_ok() {}
            return;
        }
        if reply.cut_after.is_some() || reply.length.is_some() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let mut seen =
        Seen { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Seen::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        seen.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    seen.body = vec![0; length];
    reader.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

/// The plain answers of a registry that holds `image` under every tag.
pub fn answer(image: &TestImage, seen: &Seen) -> Reply {
    let path = seen.path.split('?').next().unwrap();
    let last = path.rsplit('/').next().unwrap();
    if path.contains("/manifests/") {
        if last.starts_with("sha256:") && last != image.digest().to_string() {
            return Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        }
        return Reply::new(200, image.manifest.clone())
            .header("Content-Type", media_type::OCI_MANIFEST)
            .header("Docker-Content-Digest", image.digest().to_string());
    }
    let blob = last.parse::<Digest>().ok().and_then(|digest| image.blobs.get(&digest));
    match (blob, seen.header("range")) {
        (Some(blob), Some(range)) => {
            let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            Reply::new(206, &blob[start..])
                .header("Content-Range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()))
        }
        (Some(blob), None) => Reply::new(200, blob.clone()),
        _ => Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#),
    }
}

/// A port of the loopback for a server that is started later. It lies below those that the kernel hands out by itself
/// (`ip_local_port_range`): nobody's connection gets it meanwhile, not even one that looks whether the server is there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 8000) as u16;
    (0..10_000)
        .map(|_| 12_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 16_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port of the loopback is free")
}

/// Debian's docker-registry on a free port of the loopback, ended with the test.
pub struct RealRegistry {
    child: Child,
    pub address: String,
    pub dir: tempfile::TempDir,
}

impl RealRegistry {
    /// Starts one; `None`, with a message, if the program is not installed.
    pub fn start(auth: Option<(&str, &str)>) -> Option<Self> {
        let Some((_, line)) = auth else { return Self::start_with("", "") };
        let dir = scratch();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, line).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display());
        Self::start_in(dir, "", &auth)
    }

    /// Starts one with these lines of configuration below `http` and at the end.
    pub fn start_with(http: &str, more: &str) -> Option<Self> {
        Self::start_in(scratch(), http, more)
    }

    fn start_in(dir: tempfile::TempDir, http: &str, more: &str) -> Option<Self> {
        if !has_tool("docker-registry") {
            return None;
        }
        let address = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {address}\n  relativeurls: true\n{http}{more}",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self { child, address, dir };
        registry.wait();
        Some(registry)
    }

    fn wait(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("docker-registry ended with {status}: {log}");
            }
            assert!(began.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn image(&self, name: &str) -> Reference {
        reference(&format!("{}/{name}", self.address))
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All files below a directory: name, mode, owner, content or link target; for comparing trees.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let content = if meta.is_file() {
                sha256(&std::fs::read(entry.path()).unwrap()).short()
            } else if meta.is_symlink() {
                std::fs::read_link(entry.path()).unwrap().display().to_string()
            } else {
                String::new()
            };
            let name = entry.path().strip_prefix(root).unwrap().to_owned();
            found.insert(name, format!("{:o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid()));
            if meta.is_dir() {
                queue.push(entry.path());
            }
        }
    }
    found
}
