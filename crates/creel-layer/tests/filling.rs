//! Small files are filled by a thread of their own: whatever names do meanwhile, each has its own content, and a failure
//! there is one of the whole.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Tar, layer, root, scratch};
use creel_layer::tar::{Entry, Kind, Timestamp};
use creel_layer::{Error, UnpackOptions, unpack};
use proptest::prelude::*;

/// One entry of an archive, over a handful of names.
#[derive(Clone, Debug)]
enum Step {
    File { name: usize, size: usize, mode: u32, seconds: i64 },
    Link { name: usize, target: usize },
    Symlink { name: usize },
    Directory { name: usize },
}

const NAMES: [&str; 8] = ["a", "b", "c", "d/a", "d/b", "d/c", "e/f/a", "e/f/b"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES.len();
    // mostly small, some empty, some just above what the thread takes
    let size =
        prop_oneof![4 => 0usize..2000, 2 => 0usize..40_000, 1 => Just(32 << 10), 1 => Just((32 << 10) + 1)];
    let mode = prop_oneof![Just(0o644), Just(0o4755), Just(0o600), Just(0o2711)];
    let step = prop_oneof![
        6 => (name.clone(), size, mode, 0..2_000_000_000i64)
            .prop_map(|(name, size, mode, seconds)| Step::File { name, size, mode, seconds }),
        2 => (name.clone(), name.clone()).prop_map(|(name, target)| Step::Link { name, target }),
        1 => name.clone().prop_map(|name| Step::Symlink { name }),
        1 => name.prop_map(|name| Step::Directory { name }),
    ];
    proptest::collection::vec(step, 0..300)
}

/// What a name is: a file by its number, a symbolic link, or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    File(usize),
    Symlink,
    Directory,
}

fn content(number: usize, size: usize) -> Vec<u8> {
    let start = format!("{number}:").into_bytes();
    start.iter().copied().cycle().take(size).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_file_has_its_own_content_whatever_becomes_of_its_name(steps in steps()) {
        if !root() {
            return Ok(());
        }
        let mut tar = Tar::new();
        let mut names: BTreeMap<&str, Is> = BTreeMap::new();
        let mut files = Vec::new();
        for step in &steps {
            match *step {
                Step::File { name, size, mode, seconds } => {
                    let data = content(files.len(), size);
                    let mtime = Timestamp { seconds, nanoseconds: files.len() as u32 };
                    let entry = Entry { size: size as u64, mode, mtime, uid: 7, ..Entry::new(NAMES[name], Kind::File) };
                    tar = tar.add(entry, &data);
                    names.insert(NAMES[name], Is::File(files.len()));
                    files.push((data, mode, mtime));
                }
                // only to what is a file, and not to itself
                Step::Link { name, target } if name != target => {
                    if let Some(Is::File(number)) = names.get(NAMES[target]).copied() {
                        tar = tar.link(NAMES[name], NAMES[target]);
                        names.insert(NAMES[name], Is::File(number));
                    }
                }
                Step::Link { .. } => {}
                Step::Symlink { name } => {
                    tar = tar.symlink(NAMES[name], "nowhere");
                    names.insert(NAMES[name], Is::Symlink);
                }
                Step::Directory { name } => {
                    tar = tar.dir(NAMES[name]);
                    names.insert(NAMES[name], Is::Directory);
                }
            }
        }
        let scratch = scratch();
        let (path, unpacked) = layer(scratch.path(), "layer", tar, &[]);
        unpacked.unwrap();
        for (name, is) in names {
            let path = path.join(name);
            let meta = std::fs::symlink_metadata(&path).unwrap();
            match is {
                Is::File(number) => {
                    let (data, mode, mtime) = &files[number];
                    prop_assert!(std::fs::read(&path).unwrap() == *data, "{} has not its own content", name);
                    prop_assert_eq!((meta.mode() & 0o7777, meta.uid()), (*mode, 7), "{}", name);
                    prop_assert_eq!(
                        (meta.mtime(), meta.mtime_nsec()),
                        (mtime.seconds, i64::from(mtime.nanoseconds)),
                        "{}", name
                    );
                }
                Is::Symlink => prop_assert!(meta.is_symlink()),
                Is::Directory => prop_assert!(meta.is_dir()),
            }
        }
    }
}

const SMALL_DISK: &str = "CREEL_LAYER_SMALL_DISK";

fn many(size: usize) -> Vec<u8> {
    (0..500)
        .fold(Tar::new(), |tar, number| {
            let name = format!("f{number}");
            tar.add(Entry { size: size as u64, ..Entry::new(&*name, Kind::File) }, &content(number, size))
        })
        .bytes()
}

/// Threads of this process that fill files.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "layer-fill").count()
}

/// Runs in a mount namespace of its own, alone in its process.
#[test]
fn child() {
    let Some(mount) = std::env::var_os(SMALL_DISK) else { return };
    let mount = PathBuf::from(mount);
    let options = Some(c"size=4m");
    rustix::mount::mount("small", &mount, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let apply = |archive: &[u8], name: &str| {
        let dir = mount.join(name);
        std::fs::create_dir(&dir).unwrap();
        let result = unpack(archive, &dir, &UnpackOptions::default());
        assert_eq!(threads(), 0, "{name}: a thread is left");
        std::fs::remove_dir_all(&dir).unwrap();
        result
    };
    // the disk is full in the other thread: the file is named, and the reason
    for size in [12_000, 20_000] {
        match apply(&many(size), "full") {
            Err(Error::Entry { name, step, cause }) => {
                assert!(name.starts_with("f") && step == "write", "{step} {name:?}");
                assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull);
            }
            other => panic!("{other:?}"),
        }
    }
    // cut off in the middle of a small file, after others were handed over; and before any was
    let archive = many(1000);
    for cut in [600, 1800, 1536 * 60 + 700, 1536 * 499 + 600] {
        assert!(matches!(apply(&archive[..cut], "cut"), Err(Error::Tar(_))), "{cut}");
    }
    assert_eq!(apply(&archive, "whole").unwrap().entries, 500);
    // the parent tells this end from a test that was not run
    std::process::exit(42);
}

#[test]
fn a_failure_of_the_thread_is_one_of_the_whole_and_leaves_no_thread() {
    if !root() {
        return;
    }
    let dir = scratch();
    let path: &Path = dir.path();
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(SMALL_DISK, path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", String::from_utf8_lossy(&output.stderr));
}
