//! Copying into and out of a container's tree, as Docker's archive calls do it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Tar, describe, root, scratch, shape};
use creel_layer::tar::Kind;
use creel_layer::{
    Error, ExtractOptions, PackOptions, PathStat, UnpackOptions, extract, pack_tree, stat, unpack,
};
use expect_test::expect;
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn container() -> tempfile::TempDir {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir_all(at("etc/conf.d")).unwrap();
    std::fs::write(at("etc/passwd"), "root").unwrap();
    symlink("/etc", at("link")).unwrap();
    symlink("../../../none", at("etc/dangling")).unwrap();
    scratch
}

#[test]
fn copying_in_merges_and_replaces() {
    if !root() {
        return;
    }
    let container = container();
    let dir = open(container.path());
    let copy = |path: &str, tar: Tar, options: ExtractOptions| {
        extract(&tar.bytes()[..], &dir, Path::new(path), &options)
    };
    let plain = ExtractOptions::default();
    let careful = ExtractOptions { no_overwrite_dir_non_dir: true, ..plain };
    let owned = ExtractOptions { owner: Some((1000, 1001)), ..plain };

    let error = copy("/etc", Tar::new().file("conf.d", "x"), careful).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory with non-directory"), "{error}");
    let error = copy("/etc", Tar::new().dir("passwd"), careful).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite non-directory with directory"), "{error}");
    assert!(matches!(copy("/none", Tar::new(), plain), Err(Error::NotFound(_))));
    assert!(matches!(copy("/etc/passwd", Tar::new(), plain), Err(Error::NotADirectory(_))));
    assert!(matches!(copy("/etc/dangling", Tar::new(), plain), Err(Error::NotFound(_))));

    let tar = Tar::new().special_dir("./").file("passwd", "new").file("new/deep", "x").file(".wh.x", "plain");
    let done = copy("/link", tar, owned).unwrap();
    assert_eq!((done.entries, done.bytes), (4, 9));
    copy("/etc", Tar::new().dir("conf.d").link("hard", "passwd").kind("pipe", Kind::Fifo), careful).unwrap();
    copy("/", Tar::new().file("etc/dangling", "replaced"), plain).unwrap();
    expect![[r#"
        . 40755 0:0
        etc 40755 0:0
        etc/.wh.x 100644 1000:1001 size 5 "plain"
        etc/conf.d 40755 0:0
        etc/dangling 100644 0:0 size 8 "replaced"
        etc/hard 100644 1000:1001 size 3 "new"
        etc/new 40755 0:0
        etc/new/deep 100644 1000:1001 size 1 "x"
        etc/passwd 100644 1000:1001 size 3 "new" = etc/hard
        etc/pipe 10644 0:0
        link 120777 0:0 -> /etc
    "#]]
    .assert_eq(&shape(container.path()));
    copy("/", Tar::new().file("etc", "gone"), plain).unwrap();
    assert_eq!(std::fs::read_to_string(container.path().join("etc")).unwrap(), "gone");
}

#[test]
fn paths_are_told_as_docker_tells_them() {
    let container = container();
    let dir = open(container.path());
    let ask = |path: &str| -> Result<(String, u32, String), Error> {
        let PathStat { name, mode, link_target, .. } = stat(&dir, Path::new(path))?;
        Ok((name, mode & 0o170_000, link_target))
    };
    let is = |name: &str, mode, target: &str| (name.to_owned(), mode, target.to_owned());
    assert_eq!(ask("/etc/passwd").unwrap(), is("passwd", 0o100_000, ""));
    assert_eq!(ask("link").unwrap(), is("link", 0o120_000, "/etc"));
    assert_eq!(ask("link/").unwrap(), is("link", 0o040_000, ""));
    assert_eq!(ask("link/.").unwrap(), is(".", 0o040_000, ""));
    assert_eq!(ask("link/dangling").unwrap(), is("dangling", 0o120_000, "/none"));
    assert_eq!(ask("/").unwrap(), is("/", 0o040_000, ""));
    assert_eq!(ask("../../etc").unwrap(), is("etc", 0o040_000, ""));
    assert!(matches!(ask("/etc/passwd/"), Err(Error::NotADirectory(_))));
    assert!(matches!(ask("/none"), Err(Error::NotFound(_))));
    assert!(matches!(ask("/etc/passwd/x"), Err(Error::NotFound(_))));
    assert_eq!(stat(&dir, Path::new("etc/passwd")).unwrap().size, 4);
}

#[test]
fn copying_out_follows_a_link_if_asked() {
    let container = container();
    let dir = open(container.path());
    let names = |path: &str, follow_link| {
        let mut archive = Vec::new();
        let options = PackOptions { follow_link, ..Default::default() };
        pack_tree(&dir, Path::new(path), &options, &mut archive).unwrap();
        let mut reader = creel_layer::tar::Reader::new(&archive[..]);
        let mut names = String::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names += &format!("{} ", String::from_utf8_lossy(&entry.name));
        }
        names
    };
    assert_eq!(names("/link", false), "link ");
    assert_eq!(names("/link", true), "link/ link/conf.d/ link/dangling link/passwd ");
    assert_eq!(names("/link/.", false), "./ ./conf.d/ ./dangling ./passwd ");
    let missing = pack_tree(&dir, Path::new("/none"), &PackOptions::default(), std::io::sink());
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

#[test]
fn a_tree_deeper_than_any_path_is_replaced() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let mut dir = open(scratch.path());
    for _ in 0..3000 {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(dir);
    let dir = open(scratch.path());
    let error = pack_tree(&dir, Path::new("/"), &PackOptions::default(), std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("too long") || error.to_string().contains("open files"), "{error}");
    extract(&Tar::new().file("d", "flat").bytes()[..], &dir, Path::new("/"), &ExtractOptions::default())
        .unwrap();
    assert_eq!(std::fs::read_to_string(scratch.path().join("d")).unwrap(), "flat");
}

/// Parts of names that make trouble together.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        5 => prop::sample::select(vec!["a", "b", "c"]),
        1 => prop::sample::select(vec!["..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", "outside", ".wh.", "proc"]),
    ];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        name(),
        name().prop_map(|name| format!("/{name}")),
        name().prop_map(|name| format!("../../{name}"))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever an archive says, as a layer over another one or into a container's tree: it ends, and nothing outside
    /// of the tree changes.
    #[test]
    fn nothing_outside_changes(
        entries in prop::collection::vec((name(), target(), 0..7u8), 1..25),
        lower in prop::collection::vec((name(), target(), 0..7u8), 0..10),
    ) {
        if !root() {
            return Ok(());
        }
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        for dir in ["outside", "outside/a", "x", "x/lower", "x/layer", "x/tree", "x/tree/b"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        for file in ["outside/a/b", "outside/b", "a", "b"] {
            std::fs::write(at(file), "sentinel").unwrap();
        }
        let archive = |entries: &[(String, String, u8)]| {
            let mut tar = Tar::new();
            for (name, target, kind) in entries {
                tar = match kind {
                    0 | 1 => tar.file(name, "changed"),
                    2 => tar.special_dir(name),
                    3 | 4 => tar.symlink(name, target),
                    5 => tar.link(name, target),
                    _ => tar.kind(name, Kind::Fifo),
                };
            }
            tar.bytes()
        };
        let outside = || {
            let mut all = describe(scratch.path(), true);
            all.retain(|name, _| !name.starts_with("x/"));
            all
        };
        let before = outside();
        let _ = unpack(&archive(&lower)[..], &at("x/lower"), &UnpackOptions::default());
        let below = describe(&at("x/lower"), true);
        let options = UnpackOptions { parents: vec![at("x/lower")], ..Default::default() };
        let _ = unpack(&archive(&entries)[..], &at("x/layer"), &options);
        prop_assert_eq!(describe(&at("x/lower"), true), below);
        let dir = open(&at("x/tree"));
        let _ = extract(&archive(&lower)[..], &dir, Path::new("/"), &ExtractOptions::default());
        let _ = extract(&archive(&entries)[..], &dir, Path::new("/b"), &ExtractOptions::default());
        prop_assert_eq!(outside(), before);
        let _ = pack_tree(&dir, Path::new("/b/a"), &PackOptions::default(), std::io::sink());
    }
}
