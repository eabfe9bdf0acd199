//! Trees come out of archives exactly as they went in: GNU tar is the witness, in both directions.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::{describe, root, scratch};
use creel_layer::{Naming, PackOptions, UnpackOptions, pack_tree, unpack};
use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with one of everything.
fn tree(root: &Path) {
    let at = |name: &str| root.join(name);
    let long = format!("long/{}", "n".repeat(120));
    for dir in ["d", "d/e", "long", &long, "closed", "setgid"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("d/file"), "content").unwrap();
    std::fs::write(at("d/empty"), "").unwrap();
    std::fs::write(at(&format!("{long}/{}", "f".repeat(200))), "deep").unwrap();
    std::fs::write(at("big"), vec![42; 700_001]).unwrap();
    std::fs::write(at("old"), "before 1970").unwrap();
    std::fs::write(at("suid"), "program").unwrap();
    std::fs::write(at("capable"), "program").unwrap();
    std::fs::write(at("odd \u{fc} \n name"), "utf-8").unwrap();
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"bytes-\xff\xfe")), "not utf-8").unwrap();
    std::fs::hard_link(at("d/file"), at("linked")).unwrap();
    symlink("../no/such/target", at("d/dangling")).unwrap();
    symlink("t".repeat(300), at("longlink")).unwrap();
    std::fs::hard_link(at("d/dangling"), at("d/linked-link")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    node("fifo", FileType::Fifo, 0);
    let sparse = std::fs::File::create(at("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    for (offset, text) in [(0, "start"), (20 << 20, "middle"), ((50 << 20) - 3, "end")] {
        rustix::io::pwrite(&sparse, text.as_bytes(), offset).unwrap();
    }
    std::fs::File::create(at("all-hole")).unwrap().set_len(30 << 20).unwrap();

    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    set("d/file", "user.plain", b"value");
    set("d/file", "user.binary", b"\0\n=\xff");
    set("d/e", "user.on-dir", b"x");
    std::os::unix::fs::chown(at("capable"), Some(7), Some(8)).unwrap();
    // cap_net_bind_service=ep, as setcap(8) stores it (capabilities(7), "File capabilities", version 2).
    set("capable", "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    for (name, mode) in
        [("suid", 0o6755), ("closed", 0o0), ("setgid", 0o2775), ("d/e", 0o1777), ("d/file", 0o444)]
    {
        if name == "suid" {
            std::os::unix::fs::chown(at(name), Some(1000), Some(1001)).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(at(name), mode).unwrap();
    }
    std::os::unix::fs::chown(at("setgid"), Some(3), Some(4)).unwrap();
    std::os::unix::fs::lchown(at("d/dangling"), Some(4_000_000_000), Some(5)).unwrap();
    rustix::fs::chmod(at("setgid"), Mode::from_raw_mode(0o2775)).unwrap();
    std::fs::write(at("setgid/child"), "root's group, not the directory's").unwrap();
    std::os::unix::fs::chown(at("setgid/child"), Some(0), Some(0)).unwrap();
    time(&at("old"), -1_000_000, 250_000_000);
    time(&at("d/file"), 1_700_000_000, 123_456_789);
    time(&at("longlink"), 1_600_000_000, 1);
    time(&at("null"), 10_000_000_000, 0);
    time(&at("setgid"), 1_500_000_000, 999_999_999);
    time(&at("d"), 1_400_000_000, 0);
    time(root, 1_300_000_000, 7);
}

fn unpack_file(archive: &Path, dest: &Path) {
    std::fs::create_dir(dest).unwrap();
    let done = unpack(std::fs::File::open(archive).unwrap(), dest, &UnpackOptions::default()).unwrap();
    assert!(!done.composed && done.root_entry && done.dropped_xattrs == 0, "{done:?}");
}

const EXTRACT: [&str; 6] =
    ["--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-xpf", "-C"];

#[test]
fn unpacks_what_gnu_tar_packed_as_gnu_tar_does() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).unwrap();
    tree(&source);
    let formats: [&[&str]; 6] = [
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=1.0"],
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
    ];
    for (index, options) in formats.iter().enumerate() {
        let at = |name: &str| scratch.path().join(format!("{name}{index}"));
        let (archive, theirs, ours) = (at("archive"), at("theirs"), at("ours"));
        let mut arguments = options.to_vec();
        arguments.extend(["-cf", archive.to_str().unwrap(), "-C", source.to_str().unwrap(), "."]);
        run("tar", &arguments);
        std::fs::create_dir(&theirs).unwrap();
        let [a, b, c, d, e, f] = EXTRACT;
        run("tar", &[a, b, c, d, e, archive.to_str().unwrap(), f, theirs.to_str().unwrap()]);
        unpack_file(&archive, &ours);
        let (theirs, ours) = (describe(&theirs, true), describe(&ours, true));
        assert_eq!(ours, theirs, "{options:?}");
        if options.contains(&"--xattrs") {
            let mut source = describe(&source, true);
            if !options.contains(&"--sparse") {
                for line in source.values_mut() {
                    *line = line.replace(" sparse", "");
                }
            }
            assert_eq!(ours, source, "{options:?}");
        }
    }
}

#[test]
fn reads_ustar_and_v7() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let source = scratch.path().join("source");
    std::fs::create_dir_all(source.join("d").join("x".repeat(90))).unwrap();
    std::fs::write(source.join("d/file"), "text").unwrap();
    std::fs::write(source.join("d").join("x".repeat(90)).join("y".repeat(60)), "split name").unwrap();
    for path in ["d/file", "d", "."] {
        time(&source.join(path), 1_234_567_890, 0);
    }
    time(&source.join("d").join("x".repeat(90)), 1_234_567_890, 0);
    time(&source.join("d").join("x".repeat(90)).join("y".repeat(60)), 1_234_567_890, 0);
    for (format, what) in [("--format=ustar", "."), ("--format=v7", "./d/file"), ("--format=oldgnu", ".")] {
        let archive = scratch.path().join("archive");
        let dest = scratch.path().join(format);
        run("tar", &[format, "-cf", archive.to_str().unwrap(), "-C", source.to_str().unwrap(), what]);
        std::fs::create_dir(&dest).unwrap();
        unpack(std::fs::File::open(&archive).unwrap(), &dest, &UnpackOptions::default()).unwrap();
        if what == "." {
            assert_eq!(describe(&dest, true), describe(&source, true), "{format}");
        } else {
            assert_eq!(std::fs::read_to_string(dest.join("d/file")).unwrap(), "text");
        }
    }
}

#[test]
fn gnu_tar_reads_what_we_pack() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("source")).unwrap();
    tree(&at("source"));
    std::os::unix::net::UnixListener::bind(at("source/socket")).unwrap();
    let source = rustix::fs::open(at("source"), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    let pack = || {
        let mut archive = Vec::new();
        let packed = pack_tree(&source, Path::new("/"), &PackOptions::default(), &mut archive).unwrap();
        assert_eq!(packed.skipped, ["./socket: a socket cannot be archived"]);
        assert_eq!(packed.bytes, archive.len() as u64);
        archive
    };
    let archive = pack();
    assert!(archive.len() < 3 << 20, "holes are not written out");
    assert!(archive == pack(), "the same tree gives the same archive");
    std::fs::write(at("archive"), &archive).unwrap();
    std::fs::remove_file(at("source/socket")).unwrap();
    time(&at("source"), 1_300_000_000, 7);

    std::fs::create_dir(at("theirs")).unwrap();
    let [a, b, c, d, e, f] = EXTRACT;
    run("tar", &[a, b, c, d, e, at("archive").to_str().unwrap(), f, at("theirs").to_str().unwrap()]);
    unpack_file(&at("archive"), &at("ours"));
    let mut source_lines = describe(&at("source"), true);
    let mut ours = describe(&at("ours"), true);
    for lines in [&mut source_lines, &mut ours] {
        // The socket was in it when it was packed.
        *lines.get_mut("").unwrap() = String::new();
    }
    assert_eq!(ours, source_lines);
    let mut theirs = describe(&at("theirs"), true);
    *theirs.get_mut("").unwrap() = String::new();
    assert_eq!(theirs, source_lines);
}

#[test]
fn names_are_as_docker_gives_them() {
    if !root() {
        return;
    }
    let scratch = scratch();
    std::fs::create_dir_all(scratch.path().join("etc/sub")).unwrap();
    std::fs::write(scratch.path().join("etc/passwd"), "root").unwrap();
    let dir = rustix::fs::open(scratch.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    let names = |path: &str, naming| {
        let mut archive = Vec::new();
        let options = PackOptions { naming, one_mount: true, ..Default::default() };
        pack_tree(&dir, Path::new(path), &options, &mut archive).unwrap();
        let mut reader = creel_layer::tar::Reader::new(&archive[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.name).unwrap());
        }
        names.join(" ")
    };
    assert_eq!(names("/", Naming::Content), "etc/ etc/passwd etc/sub/");
    assert_eq!(names("/etc", Naming::Basename), "etc/ etc/passwd etc/sub/");
    assert_eq!(names("/etc/.", Naming::Basename), "./ ./passwd ./sub/");
    assert_eq!(names("/", Naming::Basename), "./ ./etc/ ./etc/passwd ./etc/sub/");
    assert_eq!(names("etc/passwd", Naming::Basename), "passwd");
}
