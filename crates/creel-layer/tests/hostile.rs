//! Archives that mean harm: each has one expected outcome, and what stands outside is never touched.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::io::Read;
use std::path::Path;

use common::{Tar, describe, root, scratch, shape};
use creel_layer::tar::{Entry, Kind, Segment};
use creel_layer::{Error, ExtractOptions, UnpackOptions, decompress, extract, unpack};
use creel_types::{Classify, ErrorKind};
use rustix::fs::{Mode, OFlags};

/// What is to come of an archive.
enum Outcome {
    /// The error's text contains this.
    Refused(&'static str),
    /// The directory then has this shape.
    Made(&'static str),
}
use Outcome::{Made, Refused};

fn case(what: &str, bytes: Vec<u8>, outcome: Outcome) {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for dir in ["outside", "outside/dir", "dest"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("outside/dir/sentinel"), "untouched").unwrap();
    std::fs::write(at("outside/.wh.sentinel"), "untouched").unwrap();
    let before = describe(&at("outside"), true);
    let result = unpack(&bytes[..], &at("dest"), &UnpackOptions::default());
    match (outcome, result) {
        (Refused(text), Err(error)) => {
            assert!(error.to_string().contains(text), "{what}: {error}");
            assert_ne!(error.kind(), ErrorKind::Internal, "{what}: {error}");
        }
        (Refused(text), Ok(_)) => panic!("{what}: unpacked, `{text}` was expected\n{}", shape(&at("dest"))),
        (Made(expected), Ok(_)) => {
            let lines: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            assert_eq!(shape(&at("dest")).lines().skip(1).collect::<Vec<_>>(), lines, "{what}");
        }
        (Made(_), Err(error)) => panic!("{what}: {error}"),
    }
    assert_eq!(describe(&at("outside"), true), before, "{what}: something outside was touched");
    let mut names: Vec<_> =
        std::fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dest", "outside"], "{what}");
}

fn tar() -> Tar {
    Tar::new()
}

#[test]
fn climbing_out_by_name() {
    if !root() {
        return;
    }
    case("..", tar().file("../outside/x", "x").bytes(), Refused("leads out of the root"));
    case(".. in the middle", tar().file("a/../../outside/x", "x").bytes(), Refused("leads out of the root"));
    case(".. as directory", tar().dir("..").bytes(), Refused("leads out of the root"));
    case(".. as whiteout", tar().file("../.wh.outside", "").bytes(), Refused("leads out of the root"));
    case("whiteout of ..", tar().file(".wh...", "").bytes(), Refused("nothing that can be deleted"));
    case("opaque ..", tar().file("../.wh..wh..opq", "").bytes(), Refused("leads out of the root"));
    case(
        "absolute",
        tar().file("/etc/x", "x").bytes(),
        Made("etc 40755 0:0\n etc/x 100644 0:0 size 1 \"x\""),
    );
    case("inner ..", tar().file("a/../b", "x").bytes(), Made("b 100644 0:0 size 1 \"x\""));
    let long = "../".repeat(60) + "outside/x";
    case("pax path", tar().file(&long, "x").bytes(), Refused("leads out of the root"));
    case("name too long", tar().file(&"n".repeat(256), "x").bytes(), Refused("longer than 255"));
    case("path too long", tar().file(&"n/".repeat(2100), "x").bytes(), Refused("longer than 4095"));
}

#[test]
fn climbing_out_through_links() {
    if !root() {
        return;
    }
    let up = "../outside/dir";
    case(
        "relative link",
        tar().symlink("l", up).file("l/x", "x").bytes(),
        // Followed inside of the root, where that path is made.
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0\n outside/dir/x 100644 0:0 size 1 \"x\"",
        ),
    );
    case(
        "absolute link",
        tar().symlink("l", "/var/tmp").file("l/creel-was-here", "x").bytes(),
        Made(
            "l 120777 0:0 -> /var/tmp\n var 40755 0:0\n var/tmp 40755 0:0\n var/tmp/creel-was-here 100644 0:0 size 1 \"x\"",
        ),
    );
    assert!(!Path::new("/var/tmp/creel-was-here").exists());
    case(
        "link in the middle, and `..` behind it",
        tar().dir("a").symlink("a/l", "../../..").file("a/l/outside/x", "x").bytes(),
        Made(
            "a 40755 0:0\n a/l 120777 0:0 -> ../../..\n outside 40755 0:0\n outside/x 100644 0:0 size 1 \"x\"",
        ),
    );
    case(
        "whiteout through a link",
        tar().symlink("l", up).file("l/.wh.sentinel", "").bytes(),
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0\n outside/dir/sentinel 20000 0:0 dev 0:0",
        ),
    );
    case(
        "opaque marker through a link",
        tar().symlink("l", up).file("l/.wh..wh..opq", "").bytes(),
        Made(
            "l 120777 0:0 -> ../outside/dir\n outside 40755 0:0\n outside/dir 40755 0:0 trusted.overlay.opaque=y",
        ),
    );
    case(
        "file over a link replaces the link",
        tar().symlink("l", "../outside/dir/sentinel").file("l", "mine").bytes(),
        Made("l 100644 0:0 size 4 \"mine\""),
    );
    case(
        "directory over a link replaces the link",
        tar().symlink("l", up).dir("l").file("l/x", "x").bytes(),
        Made("l 40755 0:0 trusted.overlay.opaque=y\n l/x 100644 0:0 size 1 \"x\""),
    );
    case(
        "link loop",
        tar().symlink("a", "b").symlink("b", "a").file("a/x", "x").bytes(),
        Refused("find its directory"),
    );
    case("link to itself", tar().symlink("a", "a/b").file("a/x", "x").bytes(), Refused("find its directory"));
    case(
        "magic link",
        tar().symlink("p", "/proc/self/root").file("p/x", "x").bytes(),
        Made(
            "p 120777 0:0 -> /proc/self/root\n proc 40755 0:0\n proc/self 40755 0:0\n proc/self/root 40755 0:0\n proc/self/root/x 100644 0:0 size 1 \"x\"",
        ),
    );
    // The directory's time is set at the end, when a link stands in its place.
    case(
        "directory, then a link in its place",
        tar().dir("d").dir("d/dir").symlink("d", "../outside").bytes(),
        Made("d 120777 0:0 -> ../outside"),
    );
    case(
        "remembered directory, then a link in its place",
        tar().dir("d").file("d/x", "x").symlink("d", "../outside").file("d/sentinel", "y").bytes(),
        Made("d 120777 0:0 -> ../outside\n outside 40755 0:0\n outside/sentinel 100644 0:0 size 1 \"y\""),
    );
}

#[test]
fn hard_links() {
    if !root() {
        return;
    }
    let missing = "no such file";
    case("outside by ..", tar().link("l", "../outside/dir/sentinel").bytes(), Refused("outside of the root"));
    case("outside by name", tar().link("l", "/etc/passwd").bytes(), Refused(missing));
    case(
        "through a link",
        tar().symlink("s", "../outside/dir").link("l", "s/sentinel").bytes(),
        Refused(missing),
    );
    case(
        "to a link",
        tar().symlink("s", "../outside/dir/sentinel").link("l", "s").bytes(),
        Made("l 120777 0:0 -> ../outside/dir/sentinel\n s 120777 0:0 -> ../outside/dir/sentinel = l"),
    );
    case("to a directory", tar().dir("d").link("l", "d").bytes(), Refused("is a directory"));
    case("to the root", tar().link("l", "/").bytes(), Refused("is a directory"));
    case("to nothing", tar().link("l", "none").bytes(), Refused(missing));
    case("to itself", tar().link("l", "l").bytes(), Refused(missing));
    case("to itself, there", tar().file("l", "x").link("l", "l").bytes(), Made("l 100644 0:0 size 1 \"x\""));
    case(
        "to a deleted name",
        tar().file(".wh.x", "").link("l", "x").bytes(),
        Refused("deleted by the same layer"),
    );
    case(
        "to a whiteout by its name",
        tar().file(".wh.x", "").link("l", ".wh.x").bytes(),
        Refused("whiteout"),
    );
    case(
        "then written through",
        tar().file("a", "first").link("b", "a").file("b", "second").bytes(),
        Made("a 100644 0:0 size 5 \"first\"\n b 100644 0:0 size 6 \"second\""),
    );
    case(
        "over a directory that has its target",
        tar().dir("d").file("d/x", "x").link("d", "d/x").bytes(),
        Refused("create"),
    );
}

#[test]
fn overlay_language() {
    if !root() {
        return;
    }
    case("0:0 device", tar().kind("etc", Kind::CharDevice(0, 0)).bytes(), Refused("overlayfs's own mark"));
    case("0:0 by overflow", tar().kind("etc", Kind::CharDevice(1 << 12, 0)).bytes(), Refused("no device"));
    case(
        "0:0 by overflow of minor",
        tar().kind("etc", Kind::CharDevice(0, 1 << 20)).bytes(),
        Refused("no device"),
    );
    let mut entry = Entry::new("d", Kind::Directory);
    for key in
        ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "trusted.x", "user.ok"]
    {
        entry.xattrs.push((key.as_bytes().to_vec(), b"y".to_vec()));
    }
    case("attributes", tar().add(entry, b"").bytes(), Made("d 40755 0:0 user.ok=y"));
    case("file below a whiteout's name", tar().file(".wh.d/x", "x").bytes(), Refused("reserved"));
    case("whiteout of nothing", tar().file(".wh.", "").bytes(), Refused("nothing that can be deleted"));
    case("aufs's own", tar().file(".wh..wh.plnk/12.34", "x").file(".wh..wh.aufs", "").bytes(), Made(""));
}

#[test]
fn kinds_and_doubles() {
    if !root() {
        return;
    }
    case(
        "fifo, then a file of its name",
        tar().kind("f", Kind::Fifo).file("f", "x").bytes(),
        Made("f 100644 0:0 size 1 \"x\""),
    );
    case(
        "file, then a fifo of its name",
        tar().file("f", "x").kind("f", Kind::Fifo).bytes(),
        Made("f 10644 0:0"),
    );
    case(
        "fifo as parent",
        tar().kind("f", Kind::Fifo).file("f/x", "x").bytes(),
        Refused("`f` is not a directory"),
    );
    case("file as parent", tar().file("f", "").file("f/x", "x").bytes(), Refused("`f` is not a directory"));
    case(
        "file twice",
        tar().file("f", "one").file("./f", "other").bytes(),
        Made("f 100644 0:0 size 5 \"other\""),
    );
    case(
        "directory twice keeps what is in it",
        tar().special_dir("d").file("d/x", "x").dir("d/").bytes(),
        Made("d 40755 0:0\n d/x 100644 0:0 size 1 \"x\""),
    );
    case(
        "directory, then a file",
        tar().dir("d").file("d/x", "x").file("d", "f").bytes(),
        Made("d 100644 0:0 size 1 \"f\""),
    );
    case("root as a file", tar().file("./", "x").bytes(), Refused("the root can be a directory only"));
    case("root as a link", tar().symlink(".", "/etc").bytes(), Refused("the root can be a directory only"));
    case("empty name", tar().file("", "x").bytes(), Refused("the root can be a directory only"));
    case("empty link", tar().symlink("l", "").bytes(), Refused("create"));
    let owned = Entry { uid: 1 << 32, ..Entry::new("f", Kind::File) };
    case("uid beyond 32 bits", tar().add(owned, b"").bytes(), Refused("not an id"));
    let owned = Entry { gid: u64::from(u32::MAX), ..Entry::new("f", Kind::File) };
    case("gid -1", tar().add(owned, b"").bytes(), Refused("not an id"));
}

#[test]
fn huge_and_cut() {
    if !root() {
        return;
    }
    let sparse = |size: u64, offset| {
        let sparse = Some(vec![Segment { offset, length: 1 }]);
        tar().add(Entry { size, sparse, ..Entry::new("s", Kind::File) }, b"x").bytes()
    };
    case("2^62 of hole", sparse(1 << 62, (1 << 62) - 1), Refused("set the file's length"));
    case("1 TiB of hole", sparse(1 << 40, 1 << 39), Made("s 100644 0:0 size 1099511627776 sparse"));
    case("sparse beyond its end", sparse(10, 10), Refused("beyond the end"));
    let many = Some(vec![Segment { offset: 5, length: 3 }, Segment { offset: 2, length: 1 }]);
    let entry = Entry { size: 20, sparse: many, ..Entry::new("s", Kind::File) };
    case("sparse backwards", tar().add(entry, b"abcd").bytes(), Refused("overlap"));
    let whole = tar().file("f", &"x".repeat(3000)).bytes();
    case("cut in a file", whole[..2000].to_vec(), Refused("truncated"));
    case("cut in a header", whole[..300].to_vec(), Refused("truncated"));
    case("no archive", b"<html>not found</html>".repeat(100), Refused("wrong checksum"));
    let mut claims = tar().file("f", "").bytes();
    claims[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = claims[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    claims[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    case("8 GiB announced, none there", claims, Refused("truncated"));

    let scratch = scratch();
    let options = UnpackOptions { max_bytes: Some(1 << 20), ..Default::default() };
    let endless = whole[..512].chain(std::io::repeat(b'x'));
    let error = unpack(endless, scratch.path(), &options).unwrap_err();
    assert!(matches!(error, Error::Refused { .. } | Error::Tar(_)), "{error}");
    let zeros = std::io::repeat(0);
    let error = unpack(zeros, scratch.path(), &options).unwrap_err();
    assert!(matches!(error, Error::TooLarge(1_048_576)), "{error}");
    let big = tar().file("big", &"x".repeat(2 << 20)).bytes();
    let error = unpack(&big[..], scratch.path(), &options).unwrap_err();
    assert!(matches!(error, Error::TooLarge(1_048_576)), "{error}");
}

#[test]
fn a_cut_compressed_layer_is_data_loss() {
    if !root() {
        return;
    }
    use std::io::Write;
    let scratch = scratch();
    let plain = tar()
        .file("f", &(0..40_000).map(|i| char::from(33 + (i * i % 89) as u8)).collect::<String>())
        .bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for (index, cut) in [gzip.len() / 2, gzip.len() - 9, gzip.len() - 1].into_iter().enumerate() {
        let dest = scratch.path().join(index.to_string());
        std::fs::create_dir(&dest).unwrap();
        let stream = decompress(&gzip[..cut]).unwrap();
        let error = unpack(stream, &dest, &UnpackOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    }
}

/// The same dangers when files are copied into a container's tree, which the container may have prepared.
#[test]
fn copying_into_a_prepared_tree() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for dir in ["outside", "rootfs", "rootfs/tmp"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("outside/sentinel"), "untouched").unwrap();
    std::os::unix::fs::symlink("../../outside", at("rootfs/tmp/rel")).unwrap();
    std::os::unix::fs::symlink(at("outside"), at("rootfs/tmp/abs")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd/..", at("rootfs/tmp/magic")).unwrap();
    let before = describe(&at("outside"), true);
    let dir = rustix::fs::open(at("rootfs"), OFlags::PATH, Mode::empty()).unwrap();
    let copy =
        |path: &str, tar: Tar| extract(&tar.bytes()[..], &dir, Path::new(path), &ExtractOptions::default());
    for path in ["/tmp/rel", "tmp/abs", "/tmp/magic", "../../outside", "/tmp/../../outside"] {
        let error = copy(path, Tar::new().file("sentinel", "changed")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{path}: {error}");
    }
    for name in ["rel/sentinel", "abs/sentinel", "magic/sentinel"] {
        copy("/tmp", Tar::new().file(name, "changed")).unwrap();
    }
    assert!(copy("/tmp", Tar::new().file("../../outside/sentinel", "changed")).is_err());
    assert!(copy("/tmp", Tar::new().link("l", "../rel/sentinel")).is_err());
    assert_eq!(describe(&at("outside"), true), before);
    assert_eq!(std::fs::read_to_string(at("rootfs/outside/sentinel")).unwrap(), "changed");
}
