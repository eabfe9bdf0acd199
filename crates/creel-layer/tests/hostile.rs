//! Archives that mean harm (see `corpus`): each has one expected outcome, and what stands outside is never touched.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;
mod corpus;

use std::path::{Path, PathBuf};

use common::{Tar, describe, root, scratch, shape};
use corpus::{Case, Corpus, Outcome};
use creel_layer::{Error, ExtractOptions, Limits, UnpackOptions, Unpacked, decompress, extract, unpack};
use creel_types::{Classify, ErrorKind};
use rustix::fs::{Mode, OFlags};

fn open(archive: &[u8], dest: &Path, limits: Limits, parents: Vec<PathBuf>) -> Result<Unpacked, Error> {
    unpack(decompress(archive)?, dest, &UnpackOptions { limits, parents, ..Default::default() })
}

fn check(case: Case) {
    let what = case.what;
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for dir in ["outside", "outside/dir", "dest", "below"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("outside/dir/sentinel"), "untouched").unwrap();
    std::fs::write(at("outside/.wh.sentinel"), "untouched").unwrap();
    let mut parents = Vec::new();
    if let Some(below) = &case.below {
        open(below, &at("below"), Limits::default(), Vec::new()).unwrap();
        parents.push(at("below"));
    }
    let outside = || (describe(&at("outside"), true), describe(&at("below"), true));
    let before = outside();
    let result = open(&case.archive, &at("dest"), case.limits, parents);
    match (case.outcome, result) {
        (Outcome::Refused(text), Err(error)) => {
            assert!(error.to_string().contains(text), "{what}: {error}");
            assert_ne!(error.kind(), ErrorKind::Internal, "{what}: {error}");
        }
        (Outcome::Refused(text), Ok(_)) => {
            panic!("{what}: unpacked, `{text}` was expected\n{}", shape(&at("dest")))
        }
        (Outcome::Made(expected), Ok(_)) => {
            let lines: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            assert_eq!(shape(&at("dest")).lines().skip(1).collect::<Vec<_>>(), lines, "{what}");
        }
        (Outcome::Made(_), Err(error)) => panic!("{what}: {error}"),
    }
    assert!(!Path::new("/var/tmp/creel-was-here").exists(), "{what}");
    assert_eq!(outside(), before, "{what}: something outside was touched");
    let mut names: Vec<_> =
        std::fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["below", "dest", "outside"], "{what}");
}

#[test]
fn every_archive_of_the_corpus_has_its_outcome() {
    if !root() {
        return;
    }
    let corpus = Corpus::all();
    assert!(corpus.0.len() > 150, "{} cases", corpus.0.len());
    let mut failed = 0;
    for case in corpus.0 {
        // All that are wrong, not only the first; each has said why.
        failed += u32::from(std::panic::catch_unwind(|| check(case)).is_err());
    }
    assert_eq!(failed, 0, "cases with another outcome");
}

#[test]
fn a_stream_without_an_end_is_cut_off() {
    if !root() {
        return;
    }
    use std::io::Read;
    let scratch = scratch();
    let options =
        UnpackOptions { limits: Limits { bytes: Some(1 << 20), ..Limits::NONE }, ..Default::default() };
    let whole = Tar::new().file("f", &"x".repeat(3000)).bytes();
    let endless = whole[..512].chain(std::io::repeat(b'x'));
    let error = unpack(endless, scratch.path(), &options).unwrap_err();
    assert!(matches!(error, Error::Refused { .. } | Error::Tar(_)), "{error}");
    let error = unpack(std::io::repeat(0), scratch.path(), &options).unwrap_err();
    assert!(matches!(error, Error::TooLarge(1_048_576)), "{error}");
}

#[test]
fn a_cut_compressed_layer_is_data_loss() {
    if !root() {
        return;
    }
    use std::io::Write;
    let scratch = scratch();
    let plain = Tar::new()
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
