//! EROFS images of layers, mounted by the kernel and held against the same layers unpacked.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Tar, root, scratch, special};
use creel_layer::erofs::{Indexed, Tee, Unfit, index};
use creel_layer::tar::{Entry, Kind, Timestamp};
use creel_layer::{Limits, UnpackOptions, differences, unpack};
use proptest::prelude::*;

/// Whether this kernel mounts such images; it must where tests have their tools.
fn can_mount() -> bool {
    if !root() {
        return false;
    }
    let scratch = scratch();
    let image = keep(scratch.path(), &Tar::new().dir("d/").bytes()).unwrap();
    match creel_sys::erofs::mount(&image) {
        Ok(_) => true,
        Err(why) => {
            assert_ne!(std::env::var("CREEL_TEST_TOOLS").as_deref(), Ok("1"), "{why}");
            println!("skipped: this kernel mounts no EROFS image in a file: {why}");
            false
        }
    }
}

/// Makes the two files of a layer.
fn keep(dir: &Path, tar: &[u8]) -> Result<PathBuf, Unfit> {
    let archive = fs::File::create(dir.join("layer.tar")).unwrap();
    let mut tee = Tee::new(tar, archive);
    let Indexed { tree, .. } = index(&mut tee, &Limits::default(), |_| true).unwrap()?;
    assert_eq!(fs::read(dir.join("layer.tar")).unwrap(), tar, "the copy is the archive");
    let path = dir.join("layer.erofs");
    let mut image = fs::File::create(&path).unwrap();
    let length = tree.write(&mut image, [7; 16], tar.len() as u64).unwrap();
    image.flush().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), length);
    Ok(path)
}

/// Unpacks and mounts, and compares.
fn same(tar: &[u8]) {
    let scratch = scratch();
    let dir = scratch.path().join("fs");
    fs::create_dir(&dir).unwrap();
    let unpacked = unpack(tar, &dir, &UnpackOptions { alone: true, ..Default::default() }).unwrap();
    let image = keep(scratch.path(), tar).unwrap();
    let found = differences(&dir, &image, unpacked.root_entry, 10).unwrap();
    assert_eq!((found.count, found.first), (0, vec![]));
    let meta = fs::metadata(&dir).unwrap();
    let root = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    assert_eq!(creel_layer::erofs::root_of(&image).unwrap(), root);
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn sized(name: &str, data: &[u8]) -> Entry {
    Entry { size: data.len() as u64, ..Entry::new(name, Kind::File) }
}

#[test]
fn an_image_shows_what_unpacking_makes() {
    if !can_mount() {
        return;
    }
    let long = "n".repeat(255);
    let deep: String = (0..12).map(|n| format!("{}{n}/", "p".repeat(200))).collect();
    let mut tar = Tar::new().add(Entry { mode: 0o750, uid: 3, ..Entry::new("./", Kind::Directory) }, b"");
    for length in [0, 1, 511, 512, 513, 4095, 4096, 4097, 100_000, 3_000_000] {
        let data = noise(length, length as u64);
        tar = tar.add(sized(&format!("file{length}"), &data), &data);
    }
    for name in ["-first", "!first", ".hidden", "..two", "...", "zz", "\u{fc}", "a b\nc"] {
        tar = tar.dir(name).file(&format!("{name}/inner"), name);
    }
    tar = tar.add(sized("\u{1}", b"x"), b"x").add(Entry::new(&b"\xff\xfe"[..], Kind::File), b"");
    tar = tar.dir(&format!("{long}/")).file(&format!("{long}/{long}"), "long");
    let mut path = String::new();
    for part in deep.split('/').filter(|part| !part.is_empty()) {
        path = format!("{path}{part}/");
        tar = tar.dir(&path);
    }
    tar = tar.file(&format!("{path}deepest"), "deep");
    let attributes = |name: &str, size: usize| {
        let big = (b"user.big".to_vec(), noise(size, 5));
        let cap = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        let xattrs = vec![
            (b"security.capability".to_vec(), cap.to_vec()),
            (b"user.empty".to_vec(), vec![]),
            big,
            (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        ];
        Entry {
            mode: 0o6755,
            uid: 4_000_000_000,
            gid: 70_000,
            mtime: Timestamp { seconds: -5, nanoseconds: 999_999_999 },
            xattrs,
            ..sized(name, b"with attributes")
        }
    };
    tar = tar.dir("attr").add(attributes("attr/one", 5), b"with attributes");
    tar = tar.add(attributes("attr/two", 2000), b"with attributes");
    tar = tar.link("attr/three", "attr/two").link("other", "attr/two").symlink("attr/link", "two");
    tar = tar.link("attr/link2", "attr/link").add(special("special/"), b"").file("special/f", "");
    for length in [1, 100, 430, 447, 448, 449, 512, 513, 4000] {
        tar = tar.symlink(&format!("link{length}"), &"l".repeat(length));
    }
    tar = tar.kind("null", Kind::CharDevice(1, 3)).kind("disk", Kind::BlockDevice(4095, 1_048_575));
    tar = tar.kind("fifo", Kind::Fifo).dir("dev/").kind("dev/low", Kind::BlockDevice(0, 0));
    // whiteouts, before and after what they share a name with, and directories that hide
    tar =
        tar.file(".wh.gone", "").file("special/.wh.gone", "").dir("opaque/").file("opaque/.wh..wh..opq", "");
    tar = tar.file("opaque/kept", "kept").file(".wh.again", "").dir("again/").file("again/new", "");
    tar = tar.dir("before/").file(".wh.before", "").file(".wh.file", "").file("file", "here");
    tar = tar.file(".wh.fifo", "").file("file", "twice, the second longer").add(special("again"), b"");
    same(&tar.bytes());
}

#[test]
fn large_directories_and_many_files_are_all_there() {
    if !can_mount() {
        return;
    }
    let mut tar = Tar::new().dir("many/").dir("empty/");
    for n in 0..20_000 {
        tar = tar.file(&format!("many/{n:x}{}", "-".repeat(n % 90)), if n % 3 == 0 { "three" } else { "" });
    }
    for n in 0..500 {
        tar = tar.dir(&format!("many/directory{n}/")).file(&format!("many/directory{n}/f"), "f");
    }
    same(&tar.bytes());
}

#[test]
fn what_an_image_cannot_say_is_left_to_unpacking() {
    let unfit = |tar: Tar| {
        let mut out = Vec::new();
        index(Tee::new(&tar.bytes()[..], &mut out), &Limits::default(), |_| true).unwrap().unwrap_err()
    };
    let below = |tar| matches!(unfit(tar), Unfit::Below(_));
    assert!(below(Tar::new().file("no/parent", "")));
    assert!(below(Tar::new().link("link", "of/below")) && below(Tar::new().link("link", "below")));
    assert!(below(Tar::new().file(".wh..wh..opq", "")));
    for (tar, why) in [
        (Tar::new().sparse("s", 1 << 30, 5, "x"), "sparse"),
        (Tar::new().symlink("a", "b").file("a/c", ""), "no directory"),
        (Tar::new().dir("a").file("a", ""), "a directory's place"),
        (Tar::new().file("a", "").dir("a"), "place of something else"),
        (Tar::new().kind("a", Kind::CharDevice(0, 0)), "whiteout"),
        (Tar::new().file("../a", ""), "out of the root"),
        (
            Tar::new().add(
                Entry {
                    xattrs: vec![(b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0])],
                    ..Entry::new("acl", Kind::File)
                },
                b"",
            ),
            "posix_acl",
        ),
    ] {
        let said = unfit(tar);
        assert!(matches!(&said, Unfit::Other(text) if text.contains(why)), "{said:?} has no `{why}`");
    }
    let tar = Tar::new().file("a", "").file("b", "").bytes();
    let limits = Limits { entries: Some(1), ..Limits::NONE };
    assert!(index(&tar[..], &limits, |_| false).unwrap().is_err());
    let limits = Limits { bytes: Some(700), ..Limits::NONE };
    assert!(index(&tar[..], &limits, |_| false).is_err());
}

#[test]
fn a_mount_leaves_nothing_and_goes_with_its_descriptor() {
    if !can_mount() {
        return;
    }
    let scratch = scratch();
    let image = keep(scratch.path(), &Tar::new().dir("d").file("d/f", "content").bytes()).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = creel_layer::open_layer(&image).unwrap();
    let at = format!("/proc/self/fd/{}", dir.as_raw_fd());
    assert_eq!(fs::read_to_string(format!("{at}/d/f")).unwrap(), "content");
    assert!(fs::write(format!("{at}/d/new"), "").is_err());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    // without its archive, or with half of it, nothing wrong is shown
    fs::remove_file(scratch.path().join("layer.tar")).unwrap();
    let why = creel_layer::open_layer(&image).unwrap_err().to_string();
    assert!(why.contains("layer.tar"), "{why}");
}

/// Entries as they come, mostly ones that fit together.
fn entries() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "a",
        "b",
        "a/b",
        "a/c",
        "b/c",
        "a/b/c",
        "a/b/d",
        ".wh.a",
        "a/.wh.b",
        "b/.wh..wh..opq",
        "c",
        "./",
        "-",
        "a/-",
    ]);
    let kinds = prop_oneof![
        4 => Just(Kind::Directory),
        4 => Just(Kind::File),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::CharDevice(5, 1)),
        2 => "[a-c]".prop_map(|target| Kind::Symlink(target.into_bytes())),
        2 => prop::sample::select(vec!["a", "b", "c", "a/b", "a/c"])
            .prop_map(|target| Kind::HardLink(target.as_bytes().to_vec())),
    ];
    let entry = (names, kinds, 0u32..0o10000, 0usize..1500, 0u64..70_000, any::<i32>());
    prop::collection::vec(entry, 0..14).prop_map(|list| {
        let mut tar = Tar::new().dir("a/").dir("b/");
        for (name, kind, mode, length, uid, seconds) in list {
            let mark = name.contains(".wh.");
            let kind = if mark { Kind::File } else { kind };
            let data = if kind == Kind::File && !mark { noise(length, 3) } else { Vec::new() };
            let mtime = Timestamp { seconds: i64::from(seconds), nanoseconds: 0 };
            let entry =
                Entry { mode, uid, mtime, size: data.len() as u64, ..Entry::new(name.as_bytes(), kind) };
            tar = tar.add(entry, &data);
        }
        tar.bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_indexed_is_what_unpacking_makes(tar in entries()) {
        static CAN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        if *CAN.get_or_init(can_mount) && index(&tar[..], &Limits::default(), |_| false).unwrap().is_ok() {
            same(&tar);
        }
    }

    #[test]
    fn no_archive_makes_it_fail_in_another_way_than_by_words(
        mut tar in entries(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let at = at.index(tar.len());
        tar[at] = byte;
        if let Ok(Ok(indexed)) = index(&tar[..], &Limits::default(), |_| false) {
            let length = indexed.tree.write(std::io::sink(), [0; 16], tar.len() as u64).unwrap();
            prop_assert_eq!(length % 512, 0);
        }
    }
}
