//! Layers on top of each other come out as umoci makes them out of the same archives, entry by entry.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Tar, describe, root, scratch};
use creel_layer::tar::{Entry, Kind, Segment, Timestamp};

/// A root directory with umoci in it: this machine's, or the one that bench/peers.sh makes.
fn umoci() -> Option<PathBuf> {
    let lab = std::env::var_os("CREEL_LAB_ROOT").unwrap_or_else(|| "/var/tmp/creel-lab-root".into());
    let found =
        [PathBuf::from("/"), lab.into()].into_iter().find(|root| root.join("usr/bin/umoci").is_file());
    if found.is_none() {
        println!("skipped: there is no umoci, neither here nor where bench/peers.sh puts it");
    }
    found
}

fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

fn entry(name: impl Into<Vec<u8>>, kind: Kind, mode: u32, mtime: Timestamp) -> Entry {
    Entry { mode, mtime, uid: 7, gid: 8, ..Entry::new(name, kind) }
}

fn file(tar: Tar, name: impl Into<Vec<u8>>, mode: u32, mtime: Timestamp, data: &str) -> Tar {
    tar.add(Entry { size: data.len() as u64, ..entry(name, Kind::File, mode, mtime) }, data.as_bytes())
}

fn xattrs(entry: Entry, list: &[(&str, &[u8])]) -> Entry {
    let xattrs = list.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect();
    Entry { xattrs, ..entry }
}

/// One of everything.
fn first() -> Tar {
    let dir = |name: &str| entry(name, Kind::Directory, 0o755, at(1_500_000_000, 1));
    let long = format!("long/{}/{}", "d".repeat(150), "f".repeat(200));
    let mut tar = Tar::new().add(entry("./", Kind::Directory, 0o751, at(1_400_000_000, 5)), b"");
    for name in
        ["bin/", "keep/", "keep/in/", "gone/", "opaque/", "opaque/sub/", "turns/", "turns/dir/", "long/"]
    {
        tar = tar.add(dir(name), b"");
    }
    tar = tar.add(dir(&format!("long/{}/", "d".repeat(150))), b"");
    let special = Entry { mode: 0o3770, uid: 4_000_000_000, ..dir("keep/special/") };
    tar = tar.add(xattrs(special, &[("user.dir", b"yes")]), b"");
    tar = file(tar, "bin/tool", 0o6755, at(1_600_000_000, 123_456_789), "tool");
    let capable =
        Entry { size: 4, ..entry("bin/capable", Kind::File, 0o755, at(1_600_000_001, 999_999_999)) };
    // cap_net_bind_service=ep, see tests/exact.rs.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    tar = tar.add(xattrs(capable, &[("security.capability", capability), ("user.x", b"\0=\n\xff")]), b"tool");
    tar = file(tar, long, 0o600, at(1_600_000_002, 10), "deep");
    tar = file(tar, b"keep/in/bytes-\xff\xfe".to_vec(), 0o644, at(1, 0), "not utf-8");
    tar = file(tar, "keep/in/caf\u{e9} \n", 0o444, at(2_100_000_000, 5), "utf-8");
    tar = tar.add(
        entry("bin/alias", Kind::HardLink(b"bin/tool".to_vec()), 0o6755, at(1_600_000_000, 123_456_789)),
        b"",
    );
    tar = tar.add(entry("lib", Kind::Symlink(b"keep/in".to_vec()), 0o777, at(1_600_000_003, 7)), b"");
    let target = "t/".repeat(100).into_bytes();
    tar = tar.add(entry("dangling", Kind::Symlink(target), 0o777, at(1_600_000_004, 0)), b"");
    tar = tar.add(entry("null", Kind::CharDevice(1, 3), 0o666, at(1_600_000_005, 0)), b"");
    tar = tar.add(entry("disk", Kind::BlockDevice(259, 70_000), 0o640, at(1_600_000_006, 0)), b"");
    tar = tar.add(entry("pipe", Kind::Fifo, 0o622, at(1_600_000_007, 3)), b"");
    let sparse =
        Some(vec![Segment { offset: 1 << 20, length: 5 }, Segment { offset: (3 << 20) - 3, length: 3 }]);
    let hole = Entry { size: 3 << 20, sparse, ..entry("hole", Kind::File, 0o644, at(1_600_000_008, 0)) };
    tar = tar.add(hole, b"in itend");
    for name in [
        "gone/a",
        "gone/b",
        "opaque/old",
        "opaque/sub/old",
        "turns/file",
        "turns/dir/x",
        "turns/other",
        "keep/plain",
        "deleted",
    ] {
        tar = file(tar, name, 0o644, at(1_600_000_009, 0), name);
    }
    tar
}

/// Deletes, hides, and turns things into other things; each directory that changes has its entry.
fn second() -> Tar {
    let t = at(1_650_000_000, 42);
    let dir = |name: &str, mode| entry(name, Kind::Directory, mode, t);
    let mut tar = Tar::new().file(".wh.deleted", "").file(".wh.gone", "");
    tar = tar.add(dir("opaque/", 0o711), b"").file("opaque/.wh..wh..opq", "");
    tar = file(tar, "opaque/new", 0o644, t, "new");
    tar = tar.add(dir("turns/", 0o755), b"").add(dir("turns/file/", 0o750), b"");
    tar = file(tar, "turns/file/inside", 0o644, t, "was a file");
    tar = file(tar, "turns/dir", 0o644, t, "was a directory");
    tar = tar.add(entry("turns/other", Kind::Symlink(b"dir".to_vec()), 0o777, t), b"");
    tar = tar.add(dir("keep/", 0o700), b"").file("keep/.wh.plain", "");
    tar = tar.add(xattrs(dir("keep/special/", 0o1755), &[("user.new", b"only")]), b"");
    tar = file(tar, "null", 0o600, t, "was a device");
    file(tar, "pipe", 0o4711, at(1_650_000_001, 9), "was a pipe")
}

/// Needs what is below: entries without parents, hard links into lower layers, a path through a link.
fn third() -> Tar {
    let t = at(1_660_000_000, 77);
    let mut tar = file(Tar::new(), "keep/special/added", 0o644, t, "added");
    tar = tar.add(entry("linked", Kind::HardLink(b"bin/capable".to_vec()), 0o755, t), b"");
    file(tar, "long/plain", 0o644, t, "plain")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes an OCI layout of uncompressed layers, called `latest`.
fn layout(dir: &Path, tars: &[Vec<u8>]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let mut writer = creel_layer::HashingWriter::new(std::io::sink());
        std::io::Write::write_all(&mut writer, bytes).unwrap();
        let digest = writer.finish().1.to_string();
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        digest
    };
    let describe = |media: &str, bytes: &[u8]| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{media}"), "digest": put(bytes), "size": bytes.len()});
    let layers: Vec<_> = tars.iter().map(|tar| describe("layer.v1.tar", tar)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = describe("config.v1+json", &serde_json::to_vec(&config).unwrap());
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
    let mut manifest = describe("manifest.v1+json", &serde_json::to_vec(&manifest).unwrap());
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn layers_come_out_as_umoci_makes_them() {
    if !root() {
        return;
    }
    let Some(machine) = umoci() else { return };
    let tars = [first(), second(), third()];
    let scratch = scratch();
    let theirs = tempfile::Builder::new().prefix("creel-umoci-").tempdir_in(machine.join("var/tmp")).unwrap();
    let mut dirs: Vec<PathBuf> = Vec::new();
    let mut archives = Vec::new();
    for (index, tar) in tars.into_iter().enumerate() {
        let bytes = tar.bytes();
        let below: Vec<&Path> = dirs.iter().rev().map(PathBuf::as_path).collect();
        let dest = scratch.path().join(index.to_string());
        std::fs::create_dir(&dest).unwrap();
        let parents = below.iter().map(|path| path.to_path_buf()).collect();
        let options = creel_layer::UnpackOptions { parents, ..Default::default() };
        let done = creel_layer::unpack(&bytes[..], &dest, &options).unwrap();
        assert_eq!(done.composed, index == 2);
        dirs.push(dest);
        archives.push(bytes);
    }
    // As overlayfs shows our layers, copied out of a mount that ends with its process.
    let ours = scratch.path().join("ours");
    let mounted = scratch.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let lower: Vec<_> = dirs.iter().rev().map(|dir| dir.to_str().unwrap()).collect();
    let script = r#"mount -t overlay overlay -o "lowerdir=$1" "$2" && cp -aT --sparse=always "$2" "$3""#;
    run(Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", script, "sh"])
        .arg(lower.join(":"))
        .args([&mounted, &ours]));
    layout(&theirs.path().join("image"), &archives);
    let inside = Path::new("/").join(theirs.path().strip_prefix(&machine).unwrap());
    let image = format!("{}:latest", inside.join("image").display());
    run(Command::new("chroot")
        .arg(&machine)
        .args(["umoci", "raw", "unpack", "--image", &image])
        .arg(inside.join("rootfs")));
    let (mut ours, mut theirs) = (describe(&ours, true), describe(&theirs.path().join("rootfs"), true));
    // The overlay's root takes mode and owner from its topmost directory; the store's init layer sees to that.
    assert!(ours.remove("").is_some() && theirs.remove("").is_some());
    for lines in [&mut ours, &mut theirs] {
        for line in lines.values_mut() {
            // umoci writes holes out.
            *line = line.replace(" sparse", "");
        }
    }
    let names: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    let differences: Vec<_> = names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}\n  ours   {:?}\n  theirs {:?}", ours.get(name), theirs.get(name)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(ours.len() >= 25, "{ours:#?}");
}
