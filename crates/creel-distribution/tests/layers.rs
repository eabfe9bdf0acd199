//! An image's layers come in and are unpacked side by side, each by itself, and once for all who want them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use creel_distribution::{Error, Pulled, Silent, pull};
use creel_layer::tar::{Entry, Kind, Writer};
use creel_store::LayerId;
use creel_types::Reference;

/// Waits for something, at most ten seconds, and says whether it came.
fn comes(what: impl Fn() -> bool) -> bool {
    let clock = Instant::now();
    while clock.elapsed() < Duration::from_secs(10) {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

async fn pull_into(store: &TestStore, name: &Reference) -> Result<Pulled, Error> {
    pull(&store.store, name, &pull_options(), &(Arc::new(Silent) as _)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_unpacked_before_those_below_them_have_come() {
    if !is_root() {
        return;
    }
    let tars: Vec<_> = (0..5).map(|n| tar(&[("d/", b""), (&format!("d/{n}"), &noise(n, 100_000))])).collect();
    let image = TestImage::new(&tars);
    let upper: Vec<_> = tars[1..].iter().map(|tar| LayerId::new(sha256(tar))).collect();
    let lowest = image.layers[0].digest.to_string();
    let seen_all = Arc::new(AtomicBool::new(false));
    let store = TestStore::new();
    let (state, noted) = (store.store.clone(), seen_all.clone());
    let server = Server::new(move |seen| {
        if seen.path.contains(&lowest) {
            let all = comes(|| upper.iter().all(|layer| state.layer(layer).is_some()));
            noted.store(all, Ordering::SeqCst);
        }
        answer(&image, seen)
    });
    pull_into(&store, &server.image(":1")).await.unwrap();
    assert!(seen_all.load(Ordering::SeqCst), "the layers waited for the lowest");
    common::assert_whole(&store.store);
}

/// The lowest layer comes last. Those above it need it: by a hard link, and for a directory that they do not describe.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_needs_those_below_waits_for_them_and_is_fetched_once() {
    if !is_root() {
        return;
    }
    let of = |entries: &[(&str, Kind, u32, &[u8])]| {
        let mut writer = Writer::new(Vec::new());
        for (name, kind, mode, data) in entries {
            let size = data.len() as u64;
            writer.entry(&Entry { mode: *mode, size, ..Entry::new(*name, kind.clone()) }).unwrap();
            writer.write_all(data).unwrap();
        }
        writer.finish().unwrap().0
    };
    let image = TestImage::new(&[
        of(&[("d/", Kind::Directory, 0o1770, b""), ("d/f", Kind::File, 0o4711, b"below")]),
        of(&[("d/new", Kind::File, 0o644, b"new"), ("more", Kind::File, 0o644, &noise(9, 200_000))]),
        of(&[("alias", Kind::HardLink(b"d/f".to_vec()), 0o644, b"")]),
        of(&[("other", Kind::File, 0o644, b"alone")]),
    ]);
    let blobs: Vec<_> = image.layers.iter().map(|layer| layer.digest.to_string()).collect();
    let lowest = blobs[0].clone();
    let store = TestStore::new();
    let state = store.store.clone();
    let above: Vec<_> = image.layers[1..].iter().map(|layer| layer.digest).collect();
    let server = Server::new(move |seen| {
        if seen.path.contains(&lowest) {
            assert!(comes(|| above.iter().all(|blob| state.blob_size(blob).is_some())));
        }
        answer(&image, seen)
    });
    let name = server.image(":1");
    pull_into(&store, &name).await.unwrap();
    for blob in &blobs {
        assert_eq!(server.count("GET", blob), 1, "{blob}");
    }
    let record = store.store.resolve_image(&name.familiar()).unwrap();
    let dirs: Vec<_> = record.layers.iter().map(|layer| store.store.layer_dir(&layer.layer)).collect();
    let composed = |at: usize| store.store.layer(&record.layers[at].layer).unwrap().composed;
    assert_eq!([0, 1, 2, 3].map(composed), [false, true, true, false]);
    assert!(tree(&dirs[1])[std::path::Path::new("d")].starts_with("41770 "), "{:?}", tree(&dirs[1]));
    assert!(tree(&dirs[2])[std::path::Path::new("alias")].starts_with("104711 "));
    common::assert_whole(&store.store);
    assert_eq!(store.content().2, 0, "something was left in tmp");
}

/// Two images of the same layers, one upside down, pulled at once, over and over: each blob is fetched once, and
/// neither pull waits for the other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_pulls_want_is_fetched_and_unpacked_once() {
    if !is_root() {
        return;
    }
    for round in 0..6 {
        let mut tars: Vec<_> = (0..6u32)
            .map(|n| match n % 3 {
                // Needs what is below it, in either order.
                2 => tar(&[(&format!("x{n}/y"), b"text")]),
                _ => tar(&[("d/", b""), (&format!("d/{n}"), &noise(round * 10 + n, 60_000))]),
            })
            .collect();
        let first = TestImage::new(&tars);
        tars.reverse();
        let second = TestImage::new(&tars);
        let blobs = first.layers.clone();
        let server = Server::new(move |seen| {
            std::thread::sleep(Duration::from_millis(5));
            answer(if seen.path.contains("/other/") { &second } else { &first }, seen)
        });
        let store = TestStore::new();
        let other = reference(&format!("{}/other/image:1", server.address));
        let name = server.image(":1");
        let both = async { tokio::join!(pull_into(&store, &name), pull_into(&store, &other)) };
        let (one, two) =
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("they wait for ever");
        assert_ne!(one.unwrap().image, two.unwrap().image);
        for blob in blobs {
            assert_eq!(server.count("GET", &blob.digest.to_string()), 1, "{}", blob.digest);
        }
        common::assert_whole(&store.store);
        assert_eq!(store.content(), (10, 8, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_anothers_download_takes_over_when_that_is_given_up() {
    if !is_root() {
        return;
    }
    let image = TestImage::new(&[tar(&[("f", &noise(5, 300_000))])]);
    let blob = image.layers[0].digest.to_string();
    let (served, slow, asked) = (image.clone(), blob.clone(), Arc::new(AtomicBool::new(false)));
    let noted = asked.clone();
    let server = Server::new(move |seen| {
        if seen.path.contains(&slow) && seen.nth == 0 {
            noted.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(3));
        }
        answer(&served, seen)
    });
    let store = TestStore::new();
    let name = server.image(":1");
    let clock = Instant::now();
    let first = tokio::time::timeout(Duration::from_millis(900), pull_into(&store, &name));
    let second = async {
        while !asked.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pull_into(&store, &name).await
    };
    let waits = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.count("GET", &blob)
    };
    let (first, second, asked_before) = tokio::join!(first, second, waits);
    assert!(first.is_err(), "the first was to be given up");
    assert_eq!(asked_before, 1, "the second does not wait");
    second.unwrap();
    assert!(clock.elapsed() < Duration::from_millis(2500), "it waited for the server, not for the pull");
    assert_eq!(server.count("GET", &blob), 2);
    common::assert_whole(&store.store);
}

/// `CREEL_SPEED_LAYERS="a.tar.gz b.tar.gz" cargo test -p creel-distribution --test layers -- --ignored --nocapture`:
/// seconds for a pull of these layers from the loopback into an empty store.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn speed_of_a_pull() {
    let paths = std::env::var("CREEL_SPEED_LAYERS").expect("paths of layers, gzip");
    let archives: Vec<_> = paths
        .split_whitespace()
        .map(|path| {
            let archive = std::fs::read(path).unwrap();
            let mut plain = Vec::new();
            creel_layer::decompress(&archive[..]).unwrap().read_to_end(&mut plain).unwrap();
            (archive, sha256(&plain))
        })
        .collect();
    let image = TestImage::of_archives(&archives);
    let server = Server::new(move |seen| answer(&image, seen));
    for _ in 0..7 {
        let store = TestStore::new();
        let clock = Instant::now();
        let pulled = pull(&store.store, &server.image(":1"), &pull_options(), &(Arc::new(Silent) as _)).await;
        assert!(pulled.is_ok());
        println!("{:.2} s", clock.elapsed().as_secs_f64());
    }
}
