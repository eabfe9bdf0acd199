//! The archives that mean harm, on their way through the store as a pull sends them: nothing outside of a layer's
//! directory is touched, and what was refused leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

#[path = "../../creel-layer/tests/common/mod.rs"]
mod common;
#[path = "../../creel-layer/tests/corpus/mod.rs"]
mod corpus;

use std::io::Read;
use std::path::Path;

use common::{describe, root, scratch, shape};
use corpus::{Case, Corpus, Outcome};
use creel_store::{ApplyOptions, LayerId, Store};
use creel_types::image::{Descriptor, media_type};
use creel_types::{Classify, Digest, ErrorKind};

fn sha256(bytes: &[u8]) -> Digest {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest::from_sha256(sum)
}

/// The digest that an honest configuration would name: of as much as can be decompressed.
fn diff_id(archive: &[u8]) -> Digest {
    let mut plain = Vec::new();
    if let Ok(stream) = creel_layer::decompress(archive) {
        let _ = stream.take(64 << 20).read_to_end(&mut plain);
    }
    sha256(&plain)
}

fn apply(
    store: &std::sync::Arc<Store>,
    archive: &[u8],
    below: &[LayerId],
    case: Option<&Case>,
) -> creel_store::Result<LayerId> {
    let blob = Descriptor {
        media_type: media_type::OCI_LAYER_GZIP.to_owned(),
        digest: sha256(archive),
        size: archive.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    let options =
        ApplyOptions { keep_blob: Some(blob), limits: case.map(|case| case.limits), ..Default::default() };
    store.apply_layer(archive, &diff_id(archive), below, &options)
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

fn check(case: &Case) {
    let what = &case.what;
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    // Beside the store, beside the layers' directories, and beside what a layer has in its own.
    let store = Store::open(&at("store")).unwrap();
    for dir in ["outside", "store/layers/outside", "store/tmp/outside", "store/outside"] {
        std::fs::create_dir_all(at(dir).join("dir")).unwrap();
        std::fs::write(at(dir).join("dir/sentinel"), "untouched").unwrap();
    }
    let mut below = Vec::new();
    let lease = store.lease();
    if let Some(archive) = &case.below {
        below.push(apply(&store, archive, &[], None).unwrap());
    }
    let state = || {
        let places = ["outside", "store/layers", "store/tmp", "store/outside", "store/blobs"];
        places.map(|place| describe(&at(place), false))
    };
    let (before, blobs) = (state(), names(&at("store/blobs/sha256")));
    let result = apply(&store, &case.archive, &below, Some(case));
    match (&case.outcome, result) {
        (Outcome::Refused(text), Err(error)) => {
            assert!(error.to_string().contains(text), "{what}: {error}");
            assert_ne!(error.kind(), ErrorKind::Internal, "{what}: {error}");
            assert_eq!(state(), before, "{what}: something was left behind");
        }
        (Outcome::Refused(text), Ok(layer)) => {
            panic!("{what}: unpacked, `{text}` was expected\n{}", shape(&store.layer_dir(&layer)))
        }
        (Outcome::Made(expected), Ok(layer)) => {
            let lines: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let shape = shape(&store.layer_dir(&layer));
            assert_eq!(shape.lines().skip(1).collect::<Vec<_>>(), lines, "{what}");
            assert_eq!(names(&at("store/blobs/sha256")).len(), blobs.len() + 1, "{what}");
            drop(lease);
            std::fs::remove_dir_all(at("store/tmp/outside")).unwrap();
            assert_eq!(store.gc().unwrap().failures, Vec::<String>::new(), "{what}");
            assert_eq!(names(&at("store/layers")), ["outside"], "{what}");
            assert_eq!(names(&at("store/tmp")), [""; 0], "{what}");
            assert_eq!(describe(&at("outside"), false), before[0], "{what}: something outside was touched");
            assert_eq!(describe(&at("store/outside"), false), before[3], "{what}");
        }
        (Outcome::Made(_), Err(error)) => panic!("{what}: {error}"),
    }
    assert!(!Path::new("/var/tmp/creel-was-here").exists(), "{what}");
}

#[test]
fn every_archive_of_the_corpus_has_its_outcome_and_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let mut failed = 0;
    for case in Corpus::all().0 {
        failed += u32::from(std::panic::catch_unwind(|| check(&case)).is_err());
    }
    assert_eq!(failed, 0, "cases with another outcome");
}
