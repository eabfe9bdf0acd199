//! Pulling from a registry that misbehaves: what may pass is survived, what is wrong is named, and nothing that is
//! not whole stays in the store.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use creel_distribution::{Auth, Error, Pulled, Silent, pull};
use creel_types::image::media_type;
use creel_types::{Classify, ErrorKind, Platform};

fn image() -> TestImage {
    TestImage::new(&[
        tar(&[("etc/", b""), ("etc/a", b"one"), ("big", &noise(1, 300_000))]),
        tar(&[("etc/", b""), ("etc/b", b"two"), ("more", &noise(2, 200_000))]),
        tar(&[("c", &noise(3, 1000))]),
        tar(&[("d", &noise(4, 1000))]),
        tar(&[("e", b"five")]),
    ])
}

async fn pull_from(server: &Server, store: &TestStore) -> Result<Pulled, Error> {
    pull(&store.store, &server.image(":1"), &pull_options(), &(Arc::new(Silent) as _)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_registry_gives_the_image_and_the_second_pull_asks_once() {
    if !is_root() {
        return;
    }
    let image = image();
    let served = image.clone();
    let server = Server::new(move |seen| answer(&served, seen));
    let store = TestStore::new();
    let (recorded_events, progress) = recorded();
    let name = server.image(":1");
    let pulled = pull(&store.store, &name, &pull_options(), &progress).await.unwrap();
    assert_eq!(pulled.manifest_digest, image.digest());
    assert!(!pulled.up_to_date);
    let record = store.store.resolve_image(&name.familiar()).unwrap();
    assert_eq!(record.id, image.config.digest);
    assert_eq!(record.layers.len(), 5);
    let top = store.store.layer_dir(&record.layers[0].layer);
    assert_eq!(std::fs::read(top.join("etc/a")).unwrap(), b"one");
    assert_eq!(record.repo_digests, [name.at_digest(image.digest())]);

    let told = statuses(&recorded_events.events());
    let id = image.layers[0].digest.short();
    assert_eq!(told[0], "1: Pulling from test/image");
    for status in
        ["Pulling fs layer", "Downloading", "Download complete", "Verifying Checksum", "Pull complete"]
    {
        assert!(told.contains(&format!("{id}: {status}")), "{status} in {told:#?}");
    }
    assert!(told.contains(&format!("{}: Waiting", image.layers[4].digest.short())));
    assert_eq!(
        told[told.len() - 2..],
        [
            format!("Digest: {}", image.digest()),
            format!("Status: Downloaded newer image for {}", name.familiar())
        ]
    );

    let before = server.log().len();
    let (again, progress) = recorded();
    let pulled = pull(&store.store, &name, &pull_options(), &progress).await.unwrap();
    assert!(pulled.up_to_date);
    let asked: Vec<String> = server.log()[before..].iter().map(|seen| seen.method.clone()).collect();
    assert_eq!(asked, ["HEAD"]);
    assert_eq!(
        statuses(&again.events()),
        [
            "1: Pulling from test/image".to_owned(),
            format!("Digest: {}", image.digest()),
            format!("Status: Image is up to date for {}", name.familiar())
        ]
    );
    // By digest nobody is asked at all.
    let by_digest = server.image(&format!("@{}", image.digest()));
    assert!(pull(&store.store, &by_digest, &pull_options(), &progress).await.unwrap().up_to_date);
    assert_eq!(server.log().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_are_resumed_without_reading_a_byte_twice() {
    if !is_root() {
        return;
    }
    let image = image();
    let (served, big) = (image.clone(), image.layers[0].digest.to_string());
    let server = Server::new(move |seen| {
        let reply = answer(&served, seen);
        if seen.path.contains(&big) && seen.nth < 3 { reply.cut_after(70_000) } else { reply }
    });
    let store = TestStore::new();
    pull_from(&server, &store).await.unwrap();
    let ranges: Vec<_> = server
        .log()
        .iter()
        .filter(|seen| seen.path.contains(&image.layers[0].digest.to_string()))
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=70000-"));
    assert_eq!(ranges[2].as_deref(), Some("bytes=140000-"));
    assert_eq!(ranges.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_ignores_range_is_survived() {
    if !is_root() {
        return;
    }
    let image = image();
    let (served, big) = (image.clone(), image.layers[0].digest.to_string());
    let server = Server::new(move |seen| {
        let mut plain = seen.clone();
        plain.headers.remove("range");
        let reply = answer(&served, &plain);
        if seen.path.contains(&big) && seen.nth < 2 {
            reply.cut_after(100_000 * (seen.nth + 1))
        } else {
            reply
        }
    });
    let store = TestStore::new();
    pull_from(&server, &store).await.unwrap();
    common::assert_whole(&store.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again() {
    if !is_root() {
        return;
    }
    let image = image();
    let served = image.clone();
    let server = Server::new(move |seen| match seen.nth {
        0 => Reply::new(500, "oops"),
        1 => Reply::new(429, "slow down").header("Retry-After", "0"),
        2 if seen.path.contains("/manifests/") => answer(&served, seen).cut_after(10),
        _ => answer(&served, seen),
    });
    let store = TestStore::new();
    pull_from(&server, &store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_an_error_in_bounded_time() {
    if !is_root() {
        return;
    }
    let served = image();
    let blob = served.layers[2].digest.to_string();
    let server =
        Server::new(
            move |seen| {
                if seen.path.contains(&blob) { Reply::new(503, "") } else { answer(&served, seen) }
            },
        );
    let store = TestStore::new();
    let error = pull_from(&server, &store).await.unwrap_err().to_string();
    assert!(error.contains("downloading layer sha256:") && error.contains("503"), "{error}");
    assert_eq!(server.count("GET", &image().layers[2].digest.to_string()), 4);
    store.assert_empty();

    let served = image();
    let blob = served.layers[0].digest.to_string();
    let server = Server::new(move |seen| {
        let reply = answer(&served, seen);
        if seen.path.contains(&blob) { reply.cut_after(0) } else { reply }
    });
    let error = pull_from(&server, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    store.assert_empty();
}

/// A pull in which the answers to one layer's requests are changed must fail with these words and leave nothing.
async fn check_refused(change: impl Fn(Reply) -> Reply + Send + Sync + 'static, words: &[&str]) {
    let image = image();
    let (served, blob) = (image.clone(), image.layers[1].digest.to_string());
    let server = Server::new(move |seen| {
        let reply = answer(&served, seen);
        if seen.path.contains(&blob) { change(reply) } else { reply }
    });
    let store = TestStore::new();
    let error = pull_from(&server, &store).await.unwrap_err();
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(text.contains(&image.layers[1].digest.to_string()), "the layer is not named in: {text}");
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{text}");
    store.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_other_content_is_named_and_not_stored() {
    if !is_root() {
        return;
    }
    let flip = |at: usize| {
        move |mut reply: Reply| {
            reply.body[at] ^= 0x40;
            reply
        }
    };
    for at in [0, 5, 1000, 100_000] {
        check_refused(flip(at), &["is damaged", "its digest is sha256:", "was promised"]).await;
    }
    let longer = |mut reply: Reply| {
        reply.body.extend([0; 10]);
        reply
    };
    check_refused(longer, &["is damaged", "promised"]).await;
    let shorter = |mut reply: Reply| {
        reply.body.truncate(1000);
        reply
    };
    check_refused(shorter, &["is damaged", "1000 bytes"]).await;
    let endless = |mut reply: Reply| {
        reply.endless = true;
        reply
    };
    check_refused(endless, &["is damaged", "promised"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unpacks_to_something_else_is_named() {
    if !is_root() {
        return;
    }
    let one = tar(&[("a", b"one")]);
    let image = TestImage::of_archives(&[(gzip(&one), sha256(&tar(&[("a", b"other")])))]);
    let served = image.clone();
    let server = Server::new(move |seen| answer(&served, seen));
    let store = TestStore::new();
    let error = pull_from(&server, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert!(error.to_string().contains(&image.layers[0].digest.to_string()), "{error}");
    store.assert_empty();

    // Also if the layer that it pretends to be is here already.
    let honest = TestImage::new(std::slice::from_ref(&one));
    let lying = TestImage::of_archives(&[(gzip(&tar(&[("b", b"evil")])), sha256(&one))]);
    let current = Arc::new(std::sync::Mutex::new(honest.clone()));
    let served = current.clone();
    let server = Server::new(move |seen| answer(&served.lock().unwrap().clone(), seen));
    pull_from(&server, &store).await.unwrap();
    *current.lock().unwrap() = lying;
    let error = pull_from(&server, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert_eq!(store.store.resolve_image(&server.image(":1").familiar()).unwrap().id, honest.config.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_archives_of_the_right_digest_are_named() {
    if !is_root() {
        return;
    }
    let whole = gzip(&tar(&[("a", &noise(9, 50_000))]));
    let diff_id = sha256(&tar(&[("a", &noise(9, 50_000))]));
    let cut_tar = &tar(&[("a", &noise(9, 50_000))])[..20_000];
    for archive in
        [whole[..whole.len() / 2].to_vec(), b"not a tar at all".to_vec(), Vec::new(), gzip(cut_tar)]
    {
        let image = TestImage::of_archives(&[(archive, diff_id)]);
        let served = image.clone();
        let server = Server::new(move |seen| answer(&served, seen));
        let store = TestStore::new();
        let error = pull_from(&server, &store).await.unwrap_err().to_string();
        assert!(error.contains(&image.layers[0].digest.to_string()), "{error}");
        store.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_bounded_and_held_against_their_digest() {
    if !is_root() {
        return;
    }
    let store = TestStore::new();
    let endless = Server::new(|_| {
        let mut reply = Reply::new(200, vec![b' '; 64 << 10]);
        reply.endless = true;
        reply
    });
    let error = pull_from(&endless, &store).await.unwrap_err().to_string();
    assert!(error.contains("more than the 4194304 bytes"), "{error}");

    let large = Server::new(|_| {
        let mut reply = Reply::new(200, "{");
        reply.length = Some(1 << 40);
        reply
    });
    assert!(pull_from(&large, &store).await.unwrap_err().to_string().contains("more than the 4194304 bytes"));

    let served = image();
    let server = Server::new(move |seen| {
        let mut reply = answer(&served, seen);
        if seen.path.contains("/manifests/") {
            reply.body.push(b' ');
        }
        reply
    });
    let error = pull_from(&server, &store).await.unwrap_err().to_string();
    assert!(error.contains("the manifest of") && error.contains("its digest is"), "{error}");

    let schema1 = Server::new(|_| {
        Reply::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#)
            .header("Content-Type", media_type::DOCKER_SCHEMA1_SIGNED)
    });
    let error = pull_from(&schema1, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("schema 1"), "{error}");

    let missing = Server::new(|_| {
        Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    });
    let error = pull_from(&missing, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("manifest unknown"), "{error}");
    store.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused() {
    if !is_root() {
        return;
    }
    let mut image = image();
    image.layers.pop();
    image.seal();
    let served = image.clone();
    let server = Server::new(move |seen| answer(&served, seen));
    let store = TestStore::new();
    let error = pull_from(&server, &store).await.unwrap_err().to_string();
    assert!(error.contains("it names 5 layers where its manifest names 4"), "{error}");

    let mut helm = image.clone();
    helm.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    helm.seal();
    let server = Server::new(move |seen| answer(&helm, seen));
    let error = pull_from(&server, &store).await.unwrap_err().to_string();
    assert!(error.contains("not a container image"), "{error}");
    store.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_without_credentials_and_not_for_ever() {
    if !is_root() {
        return;
    }
    let image = image();
    let served = image.clone();
    let elsewhere = Server::new(move |seen| answer(&served, seen));
    let target = elsewhere.address;
    let served = image.clone();
    let server = Server::new(move |seen| {
        if seen.header("authorization").is_none() {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if seen.path.contains("/blobs/") {
            Reply::new(307, "").header("Location", format!("http://{target}{}", seen.path))
        } else {
            answer(&served, seen)
        }
    });
    let store = TestStore::new();
    let mut options = pull_options();
    options.registry.auth = Some(Auth::basic("user", "secret"));
    let progress = Arc::new(Silent) as _;
    pull(&store.store, &server.image(""), &options, &progress).await.unwrap();
    assert!(elsewhere.log().len() >= 6);
    for seen in elsewhere.log() {
        assert_eq!(seen.header("authorization"), None, "credentials went to another port");
    }

    let looping = Server::new(|seen| Reply::new(302, "").header("Location", seen.path.clone()));
    let error = pull_from(&looping, &store).await.unwrap_err().to_string();
    assert!(error.contains("redirected more than 10 times"), "{error}");
    assert_eq!(looping.log().len(), 11);

    let unencrypted = Server::new(|_| Reply::new(302, "").header("Location", "http://192.0.2.1/blob"));
    let error = pull_from(&unencrypted, &store).await.unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_renewed_and_kept_to_their_scope() {
    if !is_root() {
        return;
    }
    let image = image();
    let served = image.clone();
    let tokens = Server::new(|seen| {
        assert!(
            seen.path.contains("service=reg") && seen.path.contains("scope=repository%3Atest%2Fimage%3Apull")
        );
        assert!(seen.header("authorization").unwrap().starts_with("Basic "));
        Reply::new(200, format!(r#"{{"token":"t{}"}}"#, seen.nth))
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = Server::new(move |seen| {
        // The first token runs out when the layers' turn comes.
        let wanted = if seen.path.contains("/blobs/") { "Bearer t1" } else { "Bearer t0" };
        if seen.header("authorization") != Some(wanted) {
            return Reply::new(401, "").header(
                "WWW-Authenticate",
                format!(r#"Bearer realm="{realm}",service="reg",scope="repository:test/image:pull""#),
            );
        }
        answer(&served, seen)
    });
    let store = TestStore::new();
    let mut options = pull_options();
    options.registry.auth = Some(Auth::basic("user", "secret"));
    pull(&store.store, &server.image(":1"), &options, &(Arc::new(Silent) as _)).await.unwrap();
    assert_eq!(tokens.log().len(), 2, "one token, and one more for all that it had run out for");
    for seen in server.log() {
        let header = seen.header("authorization").unwrap_or("Bearer ");
        assert!(header.starts_with("Bearer "), "the password went to the registry: {header}");
    }

    let closed = Server::new(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""));
    let error = pull_from(&closed, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("needs a login"), "{error}");
    assert_eq!(closed.log().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_from_an_index() {
    if !is_root() {
        return;
    }
    let (host, other): (Platform, Platform) = (Platform::host(), "linux/s390x".parse().unwrap());
    let make = |text: &str, platform: &Platform| {
        let tar = tar(&[("arch", text.as_bytes())]);
        TestImage::with_platform(&[(gzip(&tar), sha256(&tar))], platform)
    };
    let (mine, theirs) = (make("host", &host), make("other", &other));
    let all = index(&[(&theirs, &other), (&mine, &host)]);
    let digest = sha256(&all);
    let (images, served) = ([mine.clone(), theirs.clone()], all.clone());
    let server = Server::new(move |seen| {
        let last = seen.path.rsplit('/').next().unwrap();
        if last == "multi" || last == digest.to_string() {
            return Reply::new(200, served.clone())
                .header("Content-Type", media_type::OCI_INDEX)
                .header("Docker-Content-Digest", digest.to_string());
        }
        let replies = images.each_ref().map(|image| answer(image, seen));
        replies.into_iter().find(|reply| reply.status != 404).unwrap_or(Reply::new(404, ""))
    });
    let store = TestStore::new();
    let progress = Arc::new(Silent) as _;
    let name = server.image(":multi");
    let pulled = pull(&store.store, &name, &pull_options(), &progress).await.unwrap();
    assert_eq!((pulled.image, pulled.manifest_digest), (mine.config.digest, digest));
    assert!(pull(&store.store, &name, &pull_options(), &progress).await.unwrap().up_to_date);

    let mut options = pull_options();
    options.platform = Some(other.clone());
    let pulled = pull(&store.store, &name, &options, &progress).await.unwrap();
    assert_eq!((pulled.image, pulled.up_to_date), (theirs.config.digest, false));

    options.platform = Some("linux/riscv64".parse().unwrap());
    let error = pull(&store.store, &name, &options, &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&format!("it has: {other}, {host}")), "{error}");

    // An image that is for one platform alone is refused if another was asked for, and only then.
    let alone = server.image(&format!("@{}", theirs.digest()));
    assert!(pull(&store.store, &alone, &options, &progress).await.unwrap_err().to_string().contains("s390x"));
    assert!(pull(&store.store, &alone, &pull_options(), &progress).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_dropped_leaves_nothing_running() {
    if !is_root() {
        return;
    }
    let served = image();
    let server = Server::new(move |seen| {
        if seen.path.contains("/blobs/") && seen.nth > 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        answer(&served, seen).cut_after(40_000)
    });
    let store = TestStore::new();
    let _ = tokio::time::timeout(Duration::from_millis(100), pull_from(&server, &store)).await;
    let began = std::time::Instant::now();
    // A thread that was only about to begin when the pull was dropped may still find out.
    let mut quiet = 0;
    while quiet < 5 {
        assert!(began.elapsed() < Duration::from_secs(20), "temporary files stay");
        store.store.gc().unwrap();
        quiet = if store.content() == (0, 0, 0) { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_as_several_layers_is_fetched_once() {
    if !is_root() {
        return;
    }
    let (a, b) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    let image = TestImage::new(&[a.clone(), b.clone(), a.clone(), a]);
    let served = image.clone();
    let server = Server::new(move |seen| answer(&served, seen));
    let store = TestStore::new();
    let pulled = pull_from(&server, &store).await.unwrap();
    assert_eq!(server.count("GET", &image.layers[0].digest.to_string()), 1);
    assert_eq!(store.store.image(&pulled.image).unwrap().layers.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_reached_by_its_name() {
    if !is_root() {
        return;
    }
    let image = image();
    let served = image.clone();
    let server = Server::new(move |seen| answer(&served, seen));
    let store = TestStore::new();
    let name = reference(&format!("localhost:{}/test/image:1", server.address.port()));
    let progress = Arc::new(Silent) as _;
    let pulled = pull(&store.store, &name, &pull_options(), &progress).await.unwrap();
    assert_eq!(pulled.image, image.config.digest);
}
