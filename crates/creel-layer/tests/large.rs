//! Files of more than 8 GiB, whose sizes the octal digits of a header cannot tell: in base 256, in PAX records, and with
//! holes, as GNU tar writes them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::fs::File;
use std::io::{BufRead, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{describe, root, scratch};
use creel_layer::tar::{Kind, Reader};
use creel_layer::{UnpackOptions, pack_diff, unpack};

const SIZE: u64 = (9 << 30) + 12_345;

/// A file with some data at the beginning, in the middle and at the end, and holes between.
fn make(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for (at, data) in [(0, "begin"), (8 << 30, "above eight"), (SIZE - 3, "end")] {
        file.write_all_at(data.as_bytes(), at).unwrap();
    }
}

fn check(path: &Path) {
    let file = File::open(path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), SIZE);
    assert!(meta.blocks() < 1000, "{} KiB are allocated", meta.blocks() / 2);
    for (at, data) in [(0, "begin"), (8 << 30, "above eight"), (SIZE - 3, "end"), (1 << 33 | 100, "\0\0\0\0")]
    {
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, at).unwrap();
        assert_eq!(found, data.as_bytes());
    }
}

fn tar(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Some bytes, then zeros, then others: without having any of them in memory.
struct Stream<'a> {
    head: &'a [u8],
    zeros: u64,
    tail: &'a [u8],
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(match (self.head, self.zeros) {
            ([], 0) => self.tail,
            ([], zeros) => &ZEROS[..zeros.min(1 << 20) as usize],
            (head, _) => head,
        })
    }
    fn consume(&mut self, count: usize) {
        match (self.head, self.zeros) {
            ([], 0) => self.tail = &self.tail[count..],
            ([], _) => self.zeros -= count as u64,
            (head, _) => self.head = &head[count..],
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// All of its data is in the archive, and the next entry is found behind it.
#[test]
fn the_size_is_read_whichever_way_it_is_written() {
    let scratch = scratch();
    make(&scratch.path().join("large"));
    std::fs::write(scratch.path().join("next"), "next").unwrap();
    let next = tar(scratch.path(), &["-cf", "-", "next"]);
    for (format, length) in [("gnu", 512), ("posix", 512 * 3), ("oldgnu", 512)] {
        let mut child = Command::new("tar")
            .arg("-C")
            .arg(scratch.path())
            .args(["--format", format, "-cf", "-", "large"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut head = vec![0; length];
        child.stdout.take().unwrap().read_exact(&mut head).unwrap();
        child.wait().unwrap();
        let stream = Stream { head: &head, zeros: SIZE.next_multiple_of(512), tail: &next };
        let mut reader = Reader::new(stream);
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            (&entry.name[..], entry.size, &entry.kind),
            (&b"large"[..], SIZE, &Kind::File),
            "{format}"
        );
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((&entry.name[..], entry.size), (&b"next"[..], 4), "{format}");
        assert!(reader.next_entry().unwrap().is_none());
        // a size that its data does not follow is no file
        let mut short = Reader::new(Stream { head: &head, zeros: SIZE / 2, tail: b"" });
        short.next_entry().unwrap().unwrap();
        assert!(short.next_entry().is_err(), "{format}");
    }
}

#[test]
fn holes_come_out_as_holes_and_go_in_as_holes() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("tree")).unwrap();
    make(&at("tree/large"));
    for (number, args) in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let archive = tar(&at("tree"), &[&["-S"], *args, &["-cf", "-", "large"]].concat());
        assert!(archive.len() < 1 << 20);
        let dest = at(&format!("ours{number}"));
        std::fs::create_dir(&dest).unwrap();
        let unpacked = unpack(&archive[..], &dest, &UnpackOptions::default()).unwrap();
        assert!(unpacked.bytes < 1 << 20, "{args:?}");
        check(&dest.join("large"));
        let (ours, theirs) = (describe(&dest, false), describe(&at("tree"), false));
        assert_eq!(ours.get("large"), theirs.get("large"), "{args:?}");
    }
    let mut archive = Vec::new();
    pack_diff(&at("tree"), &[], &mut archive).unwrap();
    assert!(archive.len() < 1 << 20, "{} bytes", archive.len());
    std::fs::write(at("ours.tar"), &archive).unwrap();
    std::fs::create_dir(at("theirs")).unwrap();
    tar(&at("theirs"), &["-xf", at("ours.tar").to_str().unwrap()]);
    check(&at("theirs/large"));
}
