//! What the tests of this crate share: archives made by hand, and trees written down so that they can be compared.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use creel_layer::tar::{Entry, Kind, Segment, Timestamp, Writer};
use creel_layer::{Error, UnpackOptions, Unpacked, unpack};
use tempfile::TempDir;

/// Whether privileged tests can run; they must if `CREEL_TEST_ROOT=1`.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(
        root || std::env::var("CREEL_TEST_ROOT").as_deref() != Ok("1"),
        "CREEL_TEST_ROOT=1, but not root"
    );
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// A directory on a real file system (/tmp may be a tmpfs), removed at the end.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("creel-layer-").tempdir_in("/var/tmp").unwrap()
}

/// An archive in the making.
pub struct Tar(Writer<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }
    pub fn add(mut self, entry: Entry, data: &[u8]) -> Self {
        self.0.entry(&entry).unwrap();
        self.0.write_all(data).unwrap();
        self
    }
    pub fn file(self, name: &str, data: &str) -> Self {
        let size = data.len() as u64;
        self.add(Entry { size, ..Entry::new(name, Kind::File) }, data.as_bytes())
    }
    pub fn dir(self, name: &str) -> Self {
        self.add(Entry::new(name, Kind::Directory), b"")
    }
    /// A directory with mode, owner, time and one attribute of its own.
    pub fn special_dir(self, name: &str) -> Self {
        self.add(special(name), b"")
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        self.add(Entry::new(name, Kind::HardLink(target.into())), b"")
    }
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.add(Entry::new(name, Kind::Symlink(target.into())), b"")
    }
    pub fn kind(self, name: &str, kind: Kind) -> Self {
        self.add(Entry::new(name, kind), b"")
    }
    pub fn sparse(self, name: &str, size: u64, at: u64, data: &str) -> Self {
        let sparse = Some(vec![Segment { offset: at, length: data.len() as u64 }]);
        self.add(Entry { size, sparse, ..Entry::new(name, Kind::File) }, data.as_bytes())
    }
    pub fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap().0
    }
}

pub fn special(name: &str) -> Entry {
    Entry {
        mode: 0o1710,
        uid: 11,
        gid: 12,
        mtime: Timestamp { seconds: 1_000, nanoseconds: 5 },
        xattrs: vec![(b"user.kept".to_vec(), b"yes".to_vec())],
        ..Entry::new(name, Kind::Directory)
    }
}

/// A layer unpacked into a directory of its own below `scratch`, on top of others (topmost first).
pub fn layer(scratch: &Path, name: &str, tar: Tar, parents: &[&Path]) -> (PathBuf, Result<Unpacked, Error>) {
    let dest = scratch.join(name);
    std::fs::create_dir(&dest).unwrap();
    let parents = parents.iter().map(|path| path.to_path_buf()).collect();
    let result = unpack(&tar.bytes()[..], &dest, &UnpackOptions { parents, ..Default::default() });
    (dest, result)
}

/// Every file of a tree with all that can be compared; hard links are shown by the first name of their file.
pub fn describe(root: &Path, times: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut links = BTreeMap::new();
    visit(root, root, times, &mut links, &mut out);
    out
}

fn visit(
    root: &Path,
    path: &Path,
    times: bool,
    links: &mut BTreeMap<u64, String>,
    out: &mut BTreeMap<String, String>,
) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let kind = meta.file_type();
    let mut text = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    if times {
        write!(text, " {}.{:09}", meta.mtime(), meta.mtime_nsec()).unwrap();
    }
    if kind.is_char_device() || kind.is_block_device() {
        let device = meta.rdev();
        write!(text, " dev {}:{}", rustix::fs::major(device), rustix::fs::minor(device)).unwrap();
    }
    if kind.is_symlink() {
        write!(text, " -> {}", std::fs::read_link(path).unwrap().display()).unwrap();
    }
    if kind.is_file() {
        write!(text, " size {}", meta.len()).unwrap();
        if meta.len() < 1 << 24 {
            let data = std::fs::read(path).unwrap();
            let sum = data.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            if data.len() < 40 && data.is_ascii() {
                write!(text, " {:?}", String::from_utf8_lossy(&data)).unwrap();
            } else {
                write!(text, " sum {sum:x}").unwrap();
            }
        }
        if meta.blocks() * 512 + (64 << 10) < meta.len() {
            write!(text, " sparse").unwrap();
        }
    }
    for (key, value) in xattrs(path) {
        // A blank ends the value for whoever takes the line apart; overlayfs's file handles hold any byte.
        write!(text, " {key}={}", value.escape_ascii().to_string().replace(' ', "\\x20")).unwrap();
    }
    if meta.nlink() > 1 && !kind.is_dir() {
        match links.get(&meta.ino()) {
            Some(first) => write!(text, " = {first}").unwrap(),
            None => drop(links.insert(meta.ino(), name.clone())),
        }
    }
    out.insert(name, text);
    if kind.is_dir() {
        let mut children: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        for child in children {
            visit(root, &child, times, links, out);
        }
    }
}

pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 4096];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        found.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    found.sort();
    found
}

/// Paths of a description with the mode's type in words: short enough to be written into a test.
pub fn shape(root: &Path) -> String {
    let mut text = String::new();
    for (name, line) in describe(root, false) {
        writeln!(text, "{} {line}", if name.is_empty() { "." } else { &name }).unwrap();
    }
    text
}

/// The shape of the union of layers as overlayfs shows it, topmost layer first. Mounted in a process of its own, in
/// its own mount namespace, so nothing of it outlives the call.
pub fn union(layers: &[&Path]) -> String {
    let lower: Vec<_> = layers.iter().map(|path| path.to_str().unwrap()).collect();
    // overlayfs wants two lower directories if there is no upper one.
    let empty = scratch();
    let at = scratch();
    let script = r#"
        mount -t overlay overlay -o "lowerdir=$1" "$2" && cd "$2" &&
        find . -mindepth 1 -printf '%P %M %U:%G' \( -type f -exec sh -c 'test -s "$1" && printf " " && head -c 40 "$1"' _ {} \; -o -true \) -printf '\n' | sort
    "#;
    let lowerdir = format!("{}:{}", lower.join(":"), empty.path().display());
    let output = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", script, "sh", &lowerdir])
        .arg(at.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
