//! Pull and push against Debian's docker-registry, with images made by skopeo and by our own import.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::sync::Arc;

use common::*;
use creel_distribution::{
    Auth, Error, ImportOptions, LoadOptions, Progress, Silent, import, load, pull, push, save,
};
use creel_types::image::{Manifest, media_type};
use creel_types::{Classify, ErrorKind};

fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// A root file system with something of everything that survives a tar.
fn rootfs() -> Vec<u8> {
    use creel_layer::tar::{Entry, Kind, Writer};
    use std::io::Write;
    let mut writer = Writer::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").unwrap_or_else(|_| noise(7, 900_000));
    for (name, kind, mode, data) in [
        ("bin/", Kind::Directory, 0o755, &b""[..]),
        ("bin/busybox", Kind::File, 0o755, &busybox),
        ("bin/sh", Kind::Symlink(b"busybox".to_vec()), 0o777, b""),
        ("bin/ls", Kind::HardLink(b"bin/busybox".to_vec()), 0o755, b""),
        ("tmp/", Kind::Directory, 0o1777, b""),
        ("etc/", Kind::Directory, 0o750, b""),
        ("etc/secret", Kind::File, 0o600, b"text"),
        ("dev/", Kind::Directory, 0o755, b""),
        ("dev/null", Kind::CharDevice(1, 3), 0o666, b""),
        ("pipe", Kind::Fifo, 0o644, b""),
    ] {
        let mut entry = Entry::new(name, kind);
        (entry.mode, entry.size, entry.uid, entry.gid) = (mode, data.len() as u64, 3, 4);
        writer.entry(&entry).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_round_and_stays_the_same() {
    if !is_root() {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let first = TestStore::new();
    let name = registry.image("round/trip:1");
    let options = ImportOptions {
        reference: Some(name.clone()),
        changes: vec!["CMD [\"/bin/sh\"]".into(), "ENV A=b".into()],
        message: Some("made by a test".into()),
        platform: None,
        policy: None,
    };
    let id = import(&first.store, &rootfs()[..], &options).unwrap();
    let original = first.store.image(&id).unwrap();
    assert_eq!(original.config.config.as_ref().unwrap().cmd, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(original.config.comment.as_deref(), Some("made by a test"));
    assert_eq!(original.manifest, None);
    let original_tree = tree(&first.store.layer_dir(&original.layers[0].layer));
    assert!(original_tree.len() >= 10);

    let (recorded_events, progress) = recorded();
    let pushed = push(&first.store, &name, &push_options(), &progress).await.unwrap();
    let told = statuses(&recorded_events.events());
    let layer = original.layers[0].diff_id.short();
    assert_eq!(told[0], format!("The push refers to repository [{}/round/trip]", registry.address));
    assert_eq!(told[1], format!("{layer}: Preparing"));
    assert!(told.contains(&format!("{layer}: Pushed")), "{told:#?}");
    assert!(told.contains(&format!("1: digest: {} size: {}", pushed.digest, pushed.size)), "{told:#?}");
    let aux = recorded_events.events().into_iter().find_map(|event| event.aux).unwrap();
    assert_eq!((aux.tag.as_str(), aux.digest, aux.size), ("1", pushed.digest, pushed.size));

    // Pushed again nothing is sent, and the digest is the same: the compressed layer was remembered.
    let (again, progress) = recorded();
    assert_eq!(push(&first.store, &name, &push_options(), &progress).await.unwrap(), pushed);
    assert!(statuses(&again.events()).contains(&format!("{layer}: Layer already exists")));
    let known = first.store.image(&id).unwrap();
    assert_eq!(known.repo_digests, [name.at_digest(pushed.digest)]);
    assert_eq!(known.layers[0].blob.as_ref().unwrap().media_type, media_type::OCI_LAYER_GZIP);

    // Another repository of the same registry takes the layer from the first.
    let other = registry.image("round/other");
    first.store.tag(&other, &id).unwrap();
    let (mounted, progress) = recorded();
    assert_eq!(push(&first.store, &other, &push_options(), &progress).await.unwrap().digest, pushed.digest);
    assert!(statuses(&mounted.events()).contains(&format!("{layer}: Mounted from round/trip")));

    first.store.delete_image(&id).unwrap();
    first.assert_empty();
    let pulled = pull(&first.store, &name, &pull_options(), &silent()).await.unwrap();
    assert_eq!((pulled.image, pulled.manifest_digest), (id, pushed.digest));
    let back = first.store.image(&id).unwrap();
    assert_eq!(tree(&first.store.layer_dir(&back.layers[0].layer)), original_tree);

    let mut archive = Vec::new();
    save(&first.store, &[name.familiar()], &mut archive).unwrap();
    let mut same = Vec::new();
    save(&first.store, &[name.familiar()], &mut same).unwrap();
    assert!(archive == same, "saving twice gives other bytes");
    let second = TestStore::new();
    let loaded = load(&second.store, &archive[..], &LoadOptions::default(), &Silent).unwrap();
    assert_eq!((loaded[0].image, &loaded[0].references), (id, &vec![name.clone()]));
    let there = second.store.image(&id).unwrap();
    assert_eq!((&there.manifest, &there.layers[0].blob), (&back.manifest, &back.layers[0].blob));
    assert_eq!(tree(&second.store.layer_dir(&there.layers[0].layer)), original_tree);
    assert_eq!(push(&second.store, &name, &push_options(), &silent()).await.unwrap(), pushed);
    common::assert_whole(&second.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushed_is_pulled_and_pushed_again_unchanged() {
    if !is_root() || !has_tool("skopeo") {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let dir = scratch();
    for (tag, flags) in [
        ("gzip", &["--dest-compress-format", "gzip", "--format", "v2s2"][..]),
        ("oci", &["--dest-compress-format", "gzip", "--format", "oci"]),
        ("zstd", &["--dest-compress-format", "zstd", "--format", "oci"]),
    ] {
        // Content of its own for each: skopeo remembers what it has compressed, and how.
        let made = TestStore::new();
        let name = Some(reference("made/here:1"));
        let extra = tar(&[("bin/", b""), ("bin/busybox", &noise(5, 99_999)), ("tag", tag.as_bytes())]);
        import(&made.store, &extra[..], &ImportOptions { reference: name, ..ImportOptions::default() })
            .unwrap();
        let archive = dir.path().join(format!("{tag}.tar"));
        save(&made.store, &["made/here:1".into()], std::fs::File::create(&archive).unwrap()).unwrap();
        let source = format!("docker-archive:{}", archive.display());
        let name = registry.image(&format!("skopeo/{tag}:1"));
        let target = format!("docker://{}", name.familiar());
        let mut arguments = vec!["copy", "--insecure-policy", "--dest-tls-verify=false"];
        arguments.extend(flags);
        arguments.extend([source.as_str(), target.as_str()]);
        run("skopeo", &arguments);

        let store = TestStore::new();
        let pulled = pull(&store.store, &name, &pull_options(), &silent()).await.unwrap();
        let image = store.store.image(&pulled.image).unwrap();
        let blob = image.layers[0].blob.clone().unwrap();
        assert_eq!(blob.media_type.ends_with("zstd"), tag == "zstd", "{}", blob.media_type);
        assert!(store.store.layer_dir(&image.layers[0].layer).join("bin/busybox").is_file());
        let again = registry.image(&format!("again/{tag}:1"));
        store.store.tag(&again, &pulled.image).unwrap();
        let pushed = push(&store.store, &again, &push_options(), &silent()).await.unwrap();
        assert_eq!(pushed.digest, pulled.manifest_digest, "{tag}: the digest changed");
        let inspected = run(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", again.familiar())],
        );
        assert_eq!(sha256(inspected.as_bytes()), pushed.digest);
        let manifest: Manifest = serde_json::from_str(&inspected).unwrap();
        assert_eq!(manifest.layers[0].digest, blob.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_asked_for_and_used() {
    if !is_root() {
        return;
    }
    // `secret` in bcrypt, the only form that the registry reads.
    let line = "user:$2b$04$GVooWkN.AJYnkQTYgMruhuYYLwa3LeM40.JktVT3WsG4yum2H2Pz2\n";
    let Some(registry) = RealRegistry::start(Some(("user", line))) else { return };
    let store = TestStore::new();
    let name = registry.image("private/image:1");
    let options = ImportOptions { reference: Some(name.clone()), ..ImportOptions::default() };
    import(&store.store, &tar(&[("a", b"b")])[..], &options).unwrap();
    let error = push(&store.store, &name, &push_options(), &silent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    let mut wrong = push_options();
    wrong.registry.auth = Some(Auth::basic("user", "wrong"));
    let error = push(&store.store, &name, &wrong, &silent()).await.unwrap_err().to_string();
    assert!(error.contains("not accepted") && !error.contains("wrong"), "{error}");
    let mut right = push_options();
    right.registry.auth = Some(Auth::basic("user", "secret"));
    let pushed = push(&store.store, &name, &right, &silent()).await.unwrap();
    let other = TestStore::new();
    assert!(pull(&other.store, &name, &pull_options(), &silent()).await.is_err());
    let mut options = pull_options();
    options.registry.auth = right.registry.auth;
    let pulled = pull(&other.store, &name, &options, &silent()).await.unwrap();
    assert_eq!(pulled.manifest_digest, pushed.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_layer_comes_through_both_ways() {
    if !is_root() {
        return;
    }
    let Some(registry) = RealRegistry::start(None) else { return };
    let store = TestStore::new();
    let name = registry.image("large:1");
    let big = tar(&[("noise", &noise(3, 40 << 20))]);
    let options = ImportOptions { reference: Some(name.clone()), ..ImportOptions::default() };
    let id = import(&store.store, &big[..], &options).unwrap();
    let (events, progress) = recorded();
    push(&store.store, &name, &push_options(), &progress).await.unwrap();
    assert!(events.events().iter().any(|event| event.status == "Pushing" && event.current > Some(0)));
    let other = TestStore::new();
    let (events, progress) = recorded();
    assert_eq!(pull(&other.store, &name, &pull_options(), &progress).await.unwrap().image, id);
    assert!(
        events.events().iter().any(|event| event.status == "Downloading" && event.total > Some(40 << 20))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let Some(registry) = RealRegistry::start(None) else { return };
    let store = TestStore::new();
    let name = registry.image("no/such:image");
    let error = pull(&store.store, &name, &pull_options(), &silent()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownImage { .. }), "{error}");
    assert!(error.to_string().contains(&name.familiar()), "{error}");
    let error = push(&store.store, &name, &push_options(), &silent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error =
        push(&store.store, &name.at_digest(sha256(b"")), &push_options(), &silent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
