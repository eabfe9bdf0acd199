//! What is stored can be read again, now and after opening anew; what is wrong is refused by name.

use super::*;
use creel_types::Classify;
use expect_test::expect;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_pulled_image_is_there_after_opening_anew() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let tag = reference("busybox:1.36");
    let image =
        pull(&store, &[tar(&[("a", b"one")]), tar(&[("b", b"two")])], std::slice::from_ref(&tag)).unwrap();
    let digest = tag.at_digest(image.manifest.as_ref().unwrap().digest);
    store.tag(&digest, &image.id).unwrap();
    assert_whole(&store);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.open_report(), &OpenReport::default());
    let again = store.resolve_image("busybox:1.36").unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(again.references, [tag]);
    assert_eq!(again.repo_digests, [digest]);
    assert_eq!(tree(&store.layer_dir(&again.layers[1].layer))["b"], b"two");
    assert_whole(&store);
}

#[test]
fn a_blob_that_is_not_what_was_promised_leaves_nothing() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let say = |error: Error| format!("{error}\n");
    let mut all = String::new();
    all += &say(store.copy_blob(&b"hello"[..], Some(no_digest()), None).unwrap_err());
    all += &say(store.copy_blob(&b"hello"[..], None, Some(4)).unwrap_err());
    all += &say(store.copy_blob(&b"hello"[..], None, Some(6)).unwrap_err());
    all += &say(store.read_blob(&no_digest(), 10).unwrap_err());
    let digest = store.put_blob(b"hello").unwrap();
    all += &say(store.read_blob(&digest, 4).unwrap_err());
    expect![[r#"
        blob sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee: the content's digest is sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824, but sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee was promised; nothing was stored
        blob: 5 bytes were received, but 4 were promised; nothing was stored
        blob: 5 bytes were received, but 6 were promised; nothing was stored
        no such blob: sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee (if it was damaged, `creel image verify` has put it aside: pull its image again)
        blob sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 has 5 bytes, more than the 4 that are read of such a document
    "#]]
    .assert_eq(&all);
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    assert_whole(&store);
}

#[test]
fn a_damaged_layer_is_named_by_its_digest_and_leaves_nothing() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let plain = tar(&[("file", &noise(1, 300_000))]);
    let diff_id = sha256(&plain);
    let archive = gzip(&plain);
    let blob = descriptor(media_type::OCI_LAYER_GZIP, &archive);
    let keep = ApplyOptions { keep_blob: Some(blob.clone()), ..Default::default() };

    let mut flipped = archive.clone();
    flipped[150_000] ^= 1;
    let error = store.apply_layer(&flipped[..], &diff_id, &[], &keep).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == blob.digest), "{error}");

    let error = store.apply_layer(&archive[..150_000], &diff_id, &[], &keep).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { actual: 150_000, .. }), "{error}");

    let endless = std::io::Read::chain(&archive[..], std::io::repeat(0));
    let error = store.apply_layer(endless, &diff_id, &[], &keep).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");

    let error = store.apply_layer(&archive[..], &no_digest(), &[], &keep).unwrap_err();
    let both = matches!(error, Error::DigestMismatch { expected, actual, .. }
        if expected == no_digest() && actual == diff_id);
    assert!(both, "{error}");

    // without a blob to hold it against, the decompressor's and the archive's own complaints
    let bare = ApplyOptions::default();
    for broken in [&flipped[..], &archive[..150_000], &plain[..200_000]] {
        let error = store.apply_layer(broken, &diff_id, &[], &bare).unwrap_err();
        assert!(matches!(error, Error::Layer { .. } | Error::DigestMismatch { .. }), "{error}");
    }

    struct Cut(u32);
    impl std::io::Read for Cut {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => {
                    buffer[..2].copy_from_slice(&[0x1f, 0x8b]);
                    Ok(2)
                }
                _ => Err(std::io::Error::other("the registry hung up")),
            }
        }
    }
    let error = store.apply_layer(Cut(0), &diff_id, &[], &keep).unwrap_err();
    assert!(error.to_string().contains("the registry hung up"), "{error}");

    assert_eq!(store.view().blobs().count(), 0);
    assert_eq!(store.view().layers().count(), 0);
    assert_whole(&store);
    store.apply_layer(&archive[..], &diff_id, &[], &keep).unwrap();
    assert!(store.has_blob(&blob.digest));
    assert_whole(&store);
}

#[test]
fn a_layer_above_one_that_is_missing_is_refused() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let plain = tar(&[("a", b"b")]);
    let below = [LayerId::new(no_digest())];
    let error = store.apply_layer(&plain[..], &sha256(&plain), &below, &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NoSuchLayer(_)), "{error}");
}

#[test]
fn an_image_of_what_is_not_stored_is_refused() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")])], &[]).unwrap();
    let new = |layers: Vec<LayerRef>| NewImage {
        config: image.id,
        manifest: None,
        layers,
        parent: None,
        references: vec![reference("x")],
    };
    assert!(matches!(store.put_image(new(vec![])), Err(Error::Invalid { .. })));
    let mut wrong = image.layers.clone();
    wrong[0].layer = LayerId::new(no_digest());
    assert!(matches!(store.put_image(new(wrong)), Err(Error::NoSuchLayer(_))));
    let mut missing = new(image.layers.clone());
    missing.config = no_digest();
    assert!(matches!(store.put_image(missing), Err(Error::NoSuchBlob(_))));
    assert_eq!(store.reference(&reference("x")), None);
}

#[test]
fn names_are_unique_within_a_kind() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    store.put_record("container", "1", Some("web"), b"{}").unwrap();
    store.put_record("volume", "1", Some("web"), b"{}").unwrap();
    store.put_record("container", "2", None, b"{}").unwrap();
    let error = store.put_record("container", "2", Some("web"), b"{}").unwrap_err();
    assert_eq!(error.kind(), creel_types::ErrorKind::Conflict);
    expect![
        "the container name `web` is in use by container 1; remove or rename that one, or choose another name"
    ]
    .assert_eq(&error.to_string());
    assert!(store.rename_record("container", "2", "web", None).is_err());
    assert!(matches!(store.rename_record("container", "3", "x", None), Err(Error::NoSuchRecord { .. })));
    store.rename_record("container", "1", "old", None).unwrap();
    store.rename_record("container", "2", "web", Some(b"[2]")).unwrap();
    assert!(matches!(store.put_record("container", "3", None, b"{"), Err(Error::Invalid { .. })));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.record_by_name("container", "web").unwrap().json[..], *b"[2]");
    assert_eq!(store.record_by_name("container", "old").unwrap().id, "1");
    assert_eq!(store.records("container").len(), 2);
    assert!(store.delete_record("container", "2").unwrap());
    assert!(!store.delete_record("container", "2").unwrap());
    assert_eq!(store.record_by_name("container", "web"), None);
    store.put_record("container", "1", None, b"{}").unwrap();
    assert_eq!(store.record_by_name("container", "old"), None);
}

#[test]
fn a_container_is_made_and_deleted_whole() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")]), tar(&[("b", b"two")])], &[]).unwrap();
    let (one, two) = (container(1), container(2));
    let overlay = store.create_container(&one, &image, "container", Some("web"), b"{}").unwrap();
    let layers: Vec<_> = image.layers.iter().map(|layer| layer.layer).collect();
    let mut lower = vec![store.paths().init(&layers)];
    lower.extend(layers.iter().rev().map(|layer| store.layer_dir(layer)));
    assert_eq!(overlay.lower, lower);
    assert!(overlay.upper.is_dir() && overlay.work.is_dir());
    // nothing of a container remains whose name is taken
    let error = store.create_container(&two, &image, "container", Some("web"), b"{}").unwrap_err();
    assert!(matches!(error, Error::NameInUse { .. }), "{error}");
    assert!(store.snapshot(&two).is_err());
    assert!(!store.container_dir(&two).exists());
    assert!(matches!(store.prepare_snapshot(&one, &image), Err(Error::SnapshotExists(_))));
    assert!(overlay.upper.is_dir());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.snapshot(&one).unwrap().lower, lower);
    std::fs::write(overlay.upper.join("big"), [0; 5000]).unwrap();
    std::fs::hard_link(overlay.upper.join("big"), overlay.upper.join("same")).unwrap();
    assert_eq!(store.snapshot_size(&one).unwrap(), 5000);
    assert!(store.delete_container(&one, "container").unwrap());
    assert!(!store.delete_container(&one, "container").unwrap());
    assert_eq!(store.record_by_name("container", "web"), None);
    assert_whole(&store);
}

#[test]
fn an_image_without_layers_has_a_lower_directory_all_the_same() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[], &[]).unwrap();
    let overlay = store.prepare_snapshot(&container(1), &image).unwrap();
    assert_eq!(overlay.lower.len(), 1);
    assert_eq!(names(&overlay.lower[0]), [".dockerenv", "dev", "etc", "proc", "sys"]);
}

#[test]
fn an_init_layer_is_shared_lives_as_long_as_its_image_and_is_made_again_when_lost() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")])], &[]).unwrap();
    let other = pull(&store, &[tar(&[("b", b"two")])], &[]).unwrap();
    let one = store.prepare_snapshot(&container(1), &image).unwrap();
    let two = store.prepare_snapshot(&container(2), &image).unwrap();
    let three = store.prepare_snapshot(&container(3), &other).unwrap();
    assert_eq!(one.lower, two.lower);
    assert_ne!(one.lower[0], three.lower[0]);
    store.remove_snapshot(&container(1)).unwrap();
    store.remove_snapshot(&container(3)).unwrap();
    store.delete_image(&other.id).unwrap();
    assert!(!three.lower[0].exists());
    assert!(two.lower[0].join("etc/hosts").is_file());
    // a power cut took it, and left one that nothing uses
    std::fs::remove_dir_all(&two.lower[0]).unwrap();
    std::fs::create_dir(&three.lower[0]).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(two.lower[0].join("etc/hosts").is_file());
    assert!(!three.lower[0].exists());
    assert_whole(&store);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_upper_directory_looks_like_the_topmost_root_that_a_layer_describes() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let layers = [tar(&[("./", b""), ("a", b"one")]), tar(&[("b", b"two")])];
    let image = pull(&store, &layers, &[]).unwrap();
    let overlay = store.prepare_snapshot(&container(1), &image).unwrap();
    assert_eq!(mode(&overlay.upper), 0o711);
    std::fs::set_permissions(&overlay.upper, std::fs::Permissions::from_mode(0o1777)).unwrap();
    drop(store);
    // what the container has made of it stays, and what a power cut took is made again
    std::fs::remove_dir(&overlay.work).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(mode(&overlay.upper), 0o1777);
    assert_whole(&store);
}

#[test]
fn a_layer_that_leans_on_those_below_is_kept_for_them_alone() {
    if !is_root("to make directories that belong to root") {
        return;
    }
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let leaning = tar(&[("d/new", b"new")]);
    let described = tar(&[("d/", b""), ("d/old", b"old")]);
    let one = pull(&store, &[described.clone(), leaning.clone()], &[]).unwrap();
    let two = pull(&store, &[tar(&[("x", b"x")]), leaning.clone()], &[]).unwrap();
    let bottom = pull(&store, std::slice::from_ref(&leaning), &[]).unwrap();
    let (first, second) = (one.layers[1].layer, two.layers[1].layer);
    let chains = chain_ids(&one.config.rootfs.diff_ids);
    assert_eq!(first.digest(), chains[1]);
    assert_ne!(first, second);
    assert_eq!(mode(&store.layer_dir(&first).join("d")), 0o711);
    assert_eq!(mode(&store.layer_dir(&second).join("d")), 0o755);
    assert_eq!(bottom.layers[0].layer.digest(), bottom.layers[0].diff_id);
    // now that the same diffID is unpacked as a bottom, it is still not taken for the others
    let diff_ids = &one.config.rootfs.diff_ids;
    assert_eq!(store.find_layer(&diff_ids[1], &diff_ids[..1]), Some(first));
    assert_eq!(store.find_layer(&diff_ids[1], &[no_digest()]), None);
    assert_eq!(store.find_layer(&diff_ids[0], &[no_digest()]), Some(one.layers[0].layer));
    assert_whole(&store);
}

#[test]
fn two_daemons_do_not_share_a_root() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn what_was_changed_in_a_container_becomes_a_layer() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")])], &[]).unwrap();
    let overlay = store.prepare_snapshot(&container(1), &image).unwrap();
    std::fs::write(overlay.upper.join("new"), b"fresh").unwrap();
    let made = store.commit_snapshot(&container(1)).unwrap();
    assert!(!made.empty);
    assert_eq!(tree(&store.layer_dir(&made.layer.layer))["new"], b"fresh");
    let blob = made.layer.blob.clone().unwrap();
    assert_eq!(store.blob_size(&blob.digest), Some(blob.size));
    // the same change gives the same layer
    assert_eq!(store.commit_snapshot(&container(1)).unwrap(), made);
    assert_eq!(names(&store.paths().tmp()), Vec::<String>::new());
}

#[test]
fn chain_ids_follow_the_specification() {
    // image-spec config.md, "Layer ChainID": chain(a) = a, chain(a|b) = digest(chain(a) + " " + b)
    let (a, b) = (sha256(b"a"), sha256(b"b"));
    assert_eq!(chain_ids(&[a, b]), [a, sha256(format!("{a} {b}").as_bytes())]);
    assert_eq!(chain_ids(&[]), []);
}

#[test]
fn unreadable_and_deep_trees_are_deleted_and_links_not_followed() {
    let dir = scratch();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, b"stay").unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    let image = pull(&store, &[], &[]).unwrap();
    let overlay = store.prepare_snapshot(&container(1), &image).unwrap();
    std::os::unix::fs::symlink(&outside, overlay.upper.join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), overlay.upper.join("dirlink")).unwrap();
    let odd = overlay.upper.join("odd");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("file"), b"x").unwrap();
    std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o0)).unwrap();
    // deeper than descriptors and PATH_MAX allow to go down by path
    let mut at = rustix::fs::open(
        &overlay.upper,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&at, "side", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(
            &at,
            "deep",
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    drop(at);
    store.snapshot_size(&container(1)).unwrap();
    store.remove_snapshot(&container(1)).unwrap();
    assert_eq!(std::fs::read(&outside).unwrap(), b"stay");
    assert_whole(&store);
}
