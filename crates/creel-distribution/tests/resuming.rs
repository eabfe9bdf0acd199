//! Downloads that are interrupted and lied to: each attack with what it must come to.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use creel_distribution::{Error, PullOptions, Pulled, RegistryOptions, RetryPolicy, Silent, pull};
use creel_types::image::media_type;
use creel_types::{Classify, ErrorKind};

fn image(bytes: usize) -> TestImage {
    TestImage::new(&[tar(&[("noise", &noise(21, bytes))])])
}

fn tries(attempts: u32) -> PullOptions {
    let retry = RetryPolicy { attempts, base: Duration::from_millis(1), longest: Duration::from_millis(1) };
    PullOptions {
        registry: RegistryOptions { retry, ..RegistryOptions::default() },
        ..PullOptions::default()
    }
}

async fn pull_from(server: &Server, store: &TestStore, attempts: u32) -> Result<Pulled, Error> {
    pull(&store.store, &server.image(":1"), &tries(attempts), &(Arc::new(Silent) as _)).await
}

/// What was kept of interrupted downloads.
fn parts(store: &TestStore) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.dir.path().join("root/partial"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// The ranges that were asked for of a blob, in their order.
fn ranges(server: &Server, blob: &str) -> Vec<String> {
    let asked = server.log().into_iter().filter(|seen| seen.path.contains(blob));
    asked.map(|seen| seen.header("range").unwrap_or("all").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_survives_a_cut_after_every_byte() {
    if !is_root() {
        return;
    }
    let image = image(10);
    let blob = image.layers[0].clone();
    let (served, name) = (image.clone(), blob.digest.to_string());
    let server = Server::new(move |seen| {
        let reply = answer(&served, seen);
        if seen.path.contains(&name) { reply.cut_after(1) } else { reply }
    });
    let store = TestStore::new();
    let pulled = pull_from(&server, &store, u32::MAX).await.unwrap();
    assert_eq!(pulled.image, image.config.digest);
    let expected: Vec<String> =
        (0..blob.size).map(|at| if at == 0 { "all".to_owned() } else { format!("bytes={at}-") }).collect();
    assert_eq!(ranges(&server, &blob.digest.to_string()), expected);
    common::assert_whole(&store.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pull_goes_on_where_the_last_was_cut_wherever_that_was() {
    if !is_root() {
        return;
    }
    let image = image(200_000);
    let blob = image.layers[0].clone();
    let size = usize::try_from(blob.size).unwrap();
    let mut positions: Vec<usize> = (1..20).collect();
    positions.extend((1..12).map(|n| n * size / 12));
    positions.extend([65_535, 65_536, 65_537, 131_072, size - 2, size - 1]);
    for at in positions {
        let (served, name) = (image.clone(), blob.digest.to_string());
        let server = Server::new(move |seen| {
            let reply = answer(&served, seen);
            if seen.path.contains(&name) && seen.nth == 0 { reply.cut_after(at) } else { reply }
        });
        let store = TestStore::new();
        let error = pull_from(&server, &store, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{at}: {error}");
        assert_eq!(store.content(), (0, 0, 0), "{at}: more than the part is left");
        assert_eq!(parts(&store).len(), 1, "{at}");
        // The daemon is started anew between the two: what was kept does not live in memory.
        let TestStore { store: open, dir } = store;
        drop(open);
        let store = TestStore { store: creel_store::Store::open(&dir.path().join("root")).unwrap(), dir };
        let pulled = pull_from(&server, &store, 1).await.unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(pulled.image, image.config.digest);
        assert_eq!(ranges(&server, &blob.digest.to_string()), ["all".to_owned(), format!("bytes={at}-")]);
        assert_eq!(parts(&store), Vec::<PathBuf>::new(), "{at}");
        common::assert_whole(&store.store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_not_trusted_and_goes_with_a_collection() {
    if !is_root() {
        return;
    }
    let image = image(100_000);
    let name = image.layers[0].digest.to_string();
    for damage in ["bent", "too long", "whole but bent", "nothing"] {
        let (served, blob) = (image.clone(), name.clone());
        let server = Server::new(move |seen| {
            let reply = answer(&served, seen);
            if seen.path.contains(&blob) && seen.nth == 0 { reply.cut_after(50_000) } else { reply }
        });
        let store = TestStore::new();
        pull_from(&server, &store, 1).await.unwrap_err();
        let part = parts(&store).remove(0);
        let mut bytes = std::fs::read(&part).unwrap();
        assert_eq!(bytes.len(), 50_000);
        match damage {
            "bent" => bytes[30_000] ^= 1,
            "too long" => bytes.resize(500_000, 0),
            "whole but bent" => bytes.resize(usize::try_from(image.layers[0].size).unwrap(), 7),
            _ => bytes.clear(),
        }
        std::fs::write(&part, bytes).unwrap();
        let pulled = pull_from(&server, &store, 1).await.unwrap_or_else(|e| panic!("{damage}: {e}"));
        assert_eq!(pulled.image, image.config.digest);
        assert_eq!(ranges(&server, &name).last().unwrap(), "all", "{damage}");
        assert_eq!(parts(&store), Vec::<PathBuf>::new(), "{damage}");
    }
    let (served, blob) = (image.clone(), name.clone());
    let server = Server::new(move |seen| {
        let reply = answer(&served, seen);
        if seen.path.contains(&blob) { reply.cut_after(50_000) } else { reply }
    });
    let store = TestStore::new();
    pull_from(&server, &store, 1).await.unwrap_err();
    assert_eq!(parts(&store).len(), 1);
    assert_eq!(store.store.gc().unwrap().bytes, 0);
    assert_eq!(store.store.forget_partials().bytes, 50_000);
    assert_eq!(parts(&store), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_has_its_outcome() {
    if !is_root() {
        return;
    }
    use ErrorKind::{DataLoss, Unavailable};
    // The lie, what it must come to, a word of the message.
    for (lie, kind, word) in [
        ("another part than was asked for", Unavailable, "another part"),
        ("a part that nobody asked for", Unavailable, "another part"),
        ("a part without its place", Unavailable, "another part"),
        ("a part with other bytes", DataLoss, "its digest is"),
        ("a part that is too long", DataLoss, "promised"),
        ("a longer whole after the cut", DataLoss, "promised"),
        ("a length that is too small", DataLoss, "promised"),
        ("a manifest as an index", DataLoss, "not valid"),
        ("a page of HTML as manifest", DataLoss, "not valid"),
        ("a digest of something else", DataLoss, "its digest is"),
    ] {
        let image = image(100_000);
        let (served, blob) = (image.clone(), image.layers[0].digest.to_string());
        let server = Server::new(move |seen| {
            let mut reply = answer(&served, seen);
            let manifest = seen.path.contains("/manifests/");
            let (first, later) =
                (seen.path.contains(&blob) && seen.nth == 0, seen.path.contains(&blob) && seen.nth > 0);
            let place = |text: &str| ("Content-Range".to_owned(), text.to_owned());
            match lie {
                "a part that nobody asked for" if first => {
                    reply.status = 206;
                    reply.headers = vec![place("bytes 0-9/10")];
                }
                "a length that is too small" if first => reply.length = Some(10),
                "a manifest as an index" if manifest => {
                    reply.headers[0].1 = media_type::OCI_INDEX.to_owned();
                }
                "a page of HTML as manifest" if manifest => {
                    reply = Reply::new(200, "<html>").header("Content-Type", "text/html");
                }
                "a digest of something else" if manifest => {
                    reply.headers[1].1 = sha256(b"something else").to_string();
                }
                _ if first => return reply.cut_after(50_000),
                "another part than was asked for" if later => {
                    reply.headers = vec![place("bytes 49999-99999/100000")]
                }
                "a part without its place" if later => reply.headers.clear(),
                "a part with other bytes" if later => reply.body[20_000] ^= 1,
                "a part that is too long" if later => reply.body.push(0),
                "a longer whole after the cut" if later => {
                    reply = Reply::new(200, vec![0; 200_000]);
                }
                _ => {}
            }
            reply
        });
        let store = TestStore::new();
        let error = pull_from(&server, &store, 3).await.expect_err(lie);
        assert_eq!(error.kind(), kind, "{lie}: {error}");
        assert!(error.to_string().contains(word), "{lie}: {error}");
        assert_eq!(parts(&store), Vec::<PathBuf>::new(), "{lie}: a part is kept of what was wrong");
        store.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_says_how_long_to_wait_and_recovers() {
    if !is_root() {
        return;
    }
    let image = image(1000);
    for status in [429, 500, 502, 503, 504] {
        let served = image.clone();
        let server = Server::new(move |seen| {
            if seen.nth < 2 {
                Reply::new(status, "").header("Retry-After", "1")
            } else {
                answer(&served, seen)
            }
        });
        let store = TestStore::new();
        let mut options = tries(3);
        options.registry.retry.longest = Duration::from_millis(120);
        let began = Instant::now();
        pull(&store.store, &server.image(":1"), &options, &(Arc::new(Silent) as _)).await.unwrap();
        // Manifest, configuration and layer wait twice each; never longer than the user allows.
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(720), "{status}: {waited:?}");
        assert!(waited < Duration::from_secs(5), "{status}: {waited:?}");
    }
    let gone = Server::new(|_| Reply::new(404, ""));
    pull_from(&gone, &TestStore::new(), 9).await.unwrap_err();
    assert_eq!(gone.log().len(), 1, "what will not pass was asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_in_circles_between_hosts_end() {
    if !is_root() {
        return;
    }
    let target = Arc::new(std::sync::Mutex::new(String::new()));
    let to = target.clone();
    let there = Server::new(move |seen| {
        Reply::new(307, "").header("Location", format!("http://{}{}", to.lock().unwrap(), seen.path))
    });
    let back = there.address;
    let here = Server::new(move |seen| {
        Reply::new(302, "").header("Location", format!("http://{back}{}", seen.path))
    });
    *target.lock().unwrap() = here.address.to_string();
    let error = pull_from(&here, &TestStore::new(), 3).await.unwrap_err();
    assert!(error.to_string().contains("redirected more than 10 times"), "{error}");
    assert_eq!(here.log().len() + there.log().len(), 11);
    for bad in ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://[", "//"] {
        let server = Server::new(move |_| Reply::new(302, "").header("Location", bad));
        let error = pull_from(&server, &TestStore::new(), 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{bad}: {error}");
    }
}
