//! Layers of very many entries: time and memory in proportion, whatever the entries are.
//!
//! `CREEL_TEST_FILES=1000000` asks for another number of tiny files than the usual 200,000.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests: an unwrap is an assertion"
)]

mod common;

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{root, scratch};
use creel_layer::tar::{Entry, Kind, Writer};
use creel_layer::{UnpackOptions, Unpacked, unpack};

type Archive = Writer<BufWriter<std::io::PipeWriter>>;

/// An archive that is made while it is read.
fn stream(make: impl FnOnce(&mut Archive) + Send + 'static) -> impl Read {
    let (reader, writer) = std::io::pipe().unwrap();
    std::thread::spawn(move || {
        let mut archive = Writer::new(BufWriter::with_capacity(64 << 10, writer));
        make(&mut archive);
        archive.finish().unwrap().0.flush().unwrap();
    });
    reader
}

fn file(archive: &mut Archive, name: String, data: &[u8]) {
    archive.entry(&Entry { size: data.len() as u64, ..Entry::new(name, Kind::File) }).unwrap();
    archive.write_all(data).unwrap();
}

fn bare(archive: &mut Archive, name: String, kind: Kind) {
    archive.entry(&Entry::new(name, kind)).unwrap();
}

fn apply(scratch: &Path, archive: impl Read) -> (Unpacked, Duration) {
    let dest = scratch.join("layer");
    std::fs::create_dir(&dest).unwrap();
    let begun = Instant::now();
    let unpacked = unpack(archive, &dest, &UnpackOptions::default()).unwrap();
    let took = begun.elapsed();
    std::fs::remove_dir_all(&dest).unwrap();
    (unpacked, took)
}

/// A shape's name, and what adds so many entries of it.
type Shape = (&'static str, fn(&mut Archive, usize));

/// What archives of many entries are made of.
const SHAPES: [Shape; 11] = [
    ("files in one directory", |archive, count| {
        (0..count).for_each(|n| file(archive, format!("d/f{n}"), b"tiny"));
    }),
    ("a directory for each file, none of them described", |archive, count| {
        (0..count).for_each(|n| file(archive, format!("d{n}/f"), b"tiny"));
    }),
    ("directories", |archive, count| {
        (0..count).for_each(|n| bare(archive, format!("d{n}/"), Kind::Directory));
    }),
    ("one name again and again", |archive, count| {
        (0..count).for_each(|_| file(archive, "same".to_owned(), b"tiny"));
    }),
    ("a file and a directory in turn", |archive, count| {
        (0..count).for_each(|n| match n % 2 {
            0 => file(archive, "turn".to_owned(), b""),
            _ => bare(archive, "turn/".to_owned(), Kind::Directory),
        });
    }),
    ("hard links", |archive, count| {
        file(archive, "first".to_owned(), b"tiny");
        (0..count).for_each(|n| bare(archive, format!("l{n}"), Kind::HardLink(b"first".to_vec())));
    }),
    ("symbolic links, and files through them", |archive, count| {
        bare(archive, "d/".to_owned(), Kind::Directory);
        (0..count / 2).for_each(|n| {
            bare(archive, format!("s{n}"), Kind::Symlink(b"d".to_vec()));
            file(archive, format!("s{n}/f{n}"), b"");
        });
    }),
    ("whiteouts", |archive, count| {
        (0..count).for_each(|n| file(archive, format!("d/.wh.f{n}"), b""));
    }),
    ("implied directories, and a mark that hides all again and again", |archive, count| {
        (0..count / 2).for_each(|n| file(archive, format!("d{n}/f"), b""));
        (0..count / 2).for_each(|_| file(archive, ".wh..wh..opq".to_owned(), b""));
    }),
    ("implied directories, and a whiteout of what is above them again and again", |archive, count| {
        (0..count / 2).for_each(|n| file(archive, format!("top/d{n}/f"), b""));
        (0..count / 2).for_each(|_| file(archive, ".wh.top".to_owned(), b""));
    }),
    ("implied directories deep down, and marks from there up", |archive, count| {
        let deep: Vec<String> = (1..=100).map(|depth| vec!["d"; depth].join("/")).collect();
        deep.iter().for_each(|path| bare(archive, format!("{path}/"), Kind::Directory));
        (0..count - 200).for_each(|n| file(archive, format!("{}/i{n}/f", deep[99]), b""));
        deep.iter().rev().for_each(|path| file(archive, format!("{path}/.wh..wh..opq"), b""));
    }),
];

const COUNT: &str = "CREEL_TEST_FILES";
const DIR: &str = "CREEL_LAYER_MANY";

/// Runs one of the two below alone in a process, so that the memory is its own, on a file system in memory.
fn alone(test: &str) {
    if !root() {
        return;
    }
    let dir = scratch();
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{text}");
    eprint!("{text}");
}

/// The directory to work in, where one is to work.
fn place() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os(DIR)?);
    rustix::mount::mount("many", &dir, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    Some(dir)
}

#[test]
fn proportion() {
    let Some(dir) = place() else { return };
    for (what, make) in SHAPES {
        let time = |count| apply(&dir, stream(move |archive| make(archive, count))).1;
        // the first one warms what is warmed by it
        let times = [3000, 3000, 12_000].map(time);
        eprintln!("{what}: {times:?}");
        let most = times[1].min(times[0]) * 12 + Duration::from_secs(2);
        assert!(times[2] < most, "{what}: {times:?}");
    }
    std::process::exit(42);
}

#[test]
fn four_times_as_many_entries_take_about_four_times_as_long() {
    alone("proportion");
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory() {
    let Some(dir) = place() else { return };
    let count: usize = std::env::var(COUNT).map_or(200_000, |count| count.parse().unwrap());
    let archive = stream(move |archive| {
        for n in 0..count {
            if n.is_multiple_of(500) {
                bare(archive, format!("d{}/", n / 500), Kind::Directory);
            }
            file(archive, format!("d{}/file-{n}", n / 500), if n % 4 == 0 { b"tiny" } else { b"" });
        }
    });
    let before = peak();
    let (unpacked, took) = apply(&dir, archive);
    assert_eq!(unpacked.entries as usize, count + count.div_ceil(500));
    eprintln!("{count} files: {took:?}, {} KiB", peak() - before);
    assert!(peak() - before < 32 << 10, "{} KiB for {count} files", peak() - before);
    std::process::exit(42);
}

#[test]
fn very_many_tiny_files_take_no_more_memory_than_few() {
    alone("memory");
}
