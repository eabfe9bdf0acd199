//! Loading, saving and importing archives: made by skopeo, by `save`, and by people who mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::Write;

use common::*;
use creel_distribution::{Error, ImportOptions, LoadOptions, Loaded, Recorded, Silent, import, load, save};
use creel_layer::tar::{Entry, Kind, Writer};
use creel_types::image::media_type;
use creel_types::{Classify, Digest, ErrorKind, Platform};

fn try_load(store: &TestStore, archive: &[u8]) -> Result<Vec<Loaded>, Error> {
    load(&store.store, archive, &LoadOptions::default(), &Silent)
}

fn make(store: &TestStore, name: &str, content: &[u8]) -> Digest {
    let tar = tar(&[("dir/", b""), ("dir/file", content)]);
    let options = ImportOptions { reference: Some(reference(name)), ..ImportOptions::default() };
    import(&store.store, &tar[..], &options).unwrap()
}

/// An outer archive of any members.
fn outer(members: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, data) in members {
        let mut entry = Entry::new(*name, kind.clone());
        entry.size = data.len() as u64;
        writer.entry(&entry).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap().0
}

#[test]
fn skopeo_reads_what_is_saved_and_is_read() {
    if !is_root() || !has_tool("skopeo") {
        return;
    }
    let dir = scratch();
    let store = TestStore::new();
    let id = make(&store, "a/b:1", &noise(1, 300_000));
    let saved = dir.path().join("saved.tar");
    save(&store.store, &["a/b:1".into()], std::fs::File::create(&saved).unwrap()).unwrap();
    for (at, source) in ["docker-archive", "oci-archive"].into_iter().enumerate() {
        let from = format!("{source}:{}", saved.display());
        for (to, flags) in [
            ("docker-archive", &[][..]),
            ("oci-archive", &[]),
            ("oci-archive", &["--dest-compress-format", "zstd"]),
        ] {
            let name = if to == "docker-archive" { "docker.io/c/d:2" } else { "c/d:2" };
            let out = dir.path().join(format!("{at}-{to}-{}.tar", flags.len()));
            let target = format!("{to}:{}:{name}", out.display());
            let mut arguments = vec!["copy", "--insecure-policy", "--quiet"];
            arguments.extend(flags);
            arguments.extend([from.as_str(), target.as_str()]);
            run("skopeo", &arguments);
            let fresh = TestStore::new();
            let events = Recorded::default();
            let file = std::fs::File::open(&out).unwrap();
            let loaded = load(&fresh.store, file, &LoadOptions::default(), &events).unwrap();
            assert_eq!(loaded[0].references, [reference("c/d:2")], "{from} to {target}");
            assert!(statuses(&events.events()).contains(&"Loaded image: c/d:2".to_owned()));
            let image = fresh.store.image(&loaded[0].image).unwrap();
            let dir = fresh.store.layer_dir(&image.layers[0].layer);
            assert_eq!(std::fs::read(dir.join("dir/file")).unwrap(), noise(1, 300_000));
            if at == 0 {
                assert_eq!(image.layers[0].diff_id, store.store.image(&id).unwrap().layers[0].diff_id);
            }
            common::assert_whole(&fresh.store);
        }
    }
}

#[test]
fn several_images_share_an_archive_and_it_may_be_compressed() {
    if !is_root() {
        return;
    }
    let store = TestStore::new();
    let one = make(&store, "one:1", &noise(1, 100_000));
    let two = make(&store, "two:2", &noise(1, 100_000));
    store.store.tag(&reference("one:latest"), &one).unwrap();
    assert_ne!(one, two);
    let mut archive = Vec::new();
    save(&store.store, &["one".into(), two.to_string(), "one:1".into()], &mut archive).unwrap();
    assert!(archive.len() < 150_000, "the shared layer is there twice");
    for compressed in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let fresh = TestStore::new();
        let events = Recorded::default();
        let loaded = load(&fresh.store, &compressed[..], &LoadOptions::default(), &events).unwrap();
        let found: Vec<_> = loaded.iter().map(|one| (one.image, one.references.len())).collect();
        assert_eq!(found, [(one, 2), (two, 0)]);
        let told = statuses(&events.events());
        assert!(told.contains(&"Loaded image: one:latest".to_owned()), "{told:?}");
        assert!(told.contains(&format!("Loaded image ID: {two}")), "{told:?}");
        // A tag that moves is announced.
        let third = make(&fresh, "one:1", b"else");
        let events = Recorded::default();
        load(&fresh.store, &compressed[..], &LoadOptions::default(), &events).unwrap();
        assert!(statuses(&events.events()).contains(&format!(
            "The image one:1 already exists, renaming the old one with ID {third} to empty string"
        )));
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A docker-archive of one image with these layer names; more members can be put beside.
fn docker_archive(tars: &[Vec<u8>], layers: &[&str], members: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let image = TestImage::new(tars);
    let config = &image.blobs[&image.config.digest];
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":["x:1"],"Layers":{}}}]"#,
        serde_json::to_string(layers).unwrap()
    );
    let mut all = vec![("config.json", Kind::File, &config[..])];
    all.extend_from_slice(members);
    all.push(("manifest.json", Kind::File, manifest.as_bytes()));
    outer(&all)
}

#[test]
fn old_docker_archives_have_layers_behind_links() {
    if !is_root() {
        return;
    }
    let (a, b) = (tar(&[("a", &noise(1, 90_000))]), tar(&[("b", b"2")]));
    let archive = docker_archive(
        &[a.clone(), b.clone(), a.clone(), b.clone()],
        &["1/layer.tar", "2/layer.tar", "3/layer.tar", "4/layer.tar"],
        &[
            ("./1/layer.tar", Kind::File, &a),
            ("2/layer.tar", Kind::File, &gzip(&b)),
            ("3/layer.tar", Kind::Symlink(b"../1/layer.tar".to_vec()), b""),
            ("4/layer.tar", Kind::HardLink(b"2/layer.tar".to_vec()), b""),
        ],
    );
    let store = TestStore::new();
    let loaded = try_load(&store, &archive).unwrap();
    let image = store.store.image(&loaded[0].image).unwrap();
    assert_eq!(image.layers.len(), 4);
    assert_eq!(image.layers[0].blob.as_ref().unwrap().media_type, media_type::OCI_LAYER);
    assert_eq!(image.layers[1].blob.as_ref().unwrap().media_type, media_type::OCI_LAYER_GZIP);
    assert_eq!(image.layers[0].layer, image.layers[2].layer);
}

#[test]
fn members_that_are_no_files_neither_hang_nor_lead_out() {
    if !is_root() {
        return;
    }
    let layer = tar(&[("a", b"1")]);
    let cases: &[(&str, Kind, &str)] = &[
        ("l", Kind::Fifo, "is a named pipe, not a file"),
        ("l", Kind::CharDevice(1, 5), "is a device, not a file"),
        ("l", Kind::Symlink(b"/etc/passwd".to_vec()), "leads out"),
        ("l", Kind::Symlink(b"../../etc/passwd".to_vec()), "leads out"),
        ("l", Kind::HardLink(b"../etc/passwd".to_vec()), "leads out"),
        ("l", Kind::Symlink(b"l".to_vec()), "leads to itself"),
        ("l", Kind::Symlink(b"nothing".to_vec()), "is not in it"),
        ("other", Kind::File, "`l` is not in it"),
        ("../l", Kind::File, "`l` is not in it"),
    ];
    for (name, kind, words) in cases {
        let archive = docker_archive(std::slice::from_ref(&layer), &["l"], &[(name, kind.clone(), b"")]);
        let store = TestStore::new();
        let error = try_load(&store, &archive).unwrap_err();
        assert!(error.to_string().contains(words), "{name} {kind:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        store.assert_empty();
    }
    let climbing = docker_archive(std::slice::from_ref(&layer), &["../../etc/passwd"], &[]);
    let store = TestStore::new();
    assert!(try_load(&store, &climbing).unwrap_err().to_string().contains("leads out"));
    // The manifest itself as a pipe.
    let error = try_load(&store, &outer(&[("manifest.json", Kind::Fifo, b"")])).unwrap_err().to_string();
    assert!(error.contains("named pipe"), "{error}");
    store.assert_empty();
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    if !is_root() {
        return;
    }
    let made = TestStore::new();
    make(&made, "x:1", &noise(1, 200_000));
    let mut archive = Vec::new();
    save(&made.store, &["x:1".into()], &mut archive).unwrap();
    let store = TestStore::new();
    // A flipped byte in the layer's file.
    let mut flipped = archive.clone();
    flipped[100_000] ^= 1;
    let error = try_load(&store, &flipped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert!(error.to_string().contains("blobs/sha256/"), "{error}");
    store.assert_empty();
    for cut in [0, 100, 512, 5000, 150_000, archive.len() - 5000] {
        let error = try_load(&store, &archive[..cut]).unwrap_err();
        assert!(error.to_string().contains("archive"), "cut at {cut}: {error}");
        store.assert_empty();
    }
    let cut = gzip(&archive);
    assert!(try_load(&store, &cut[..cut.len() / 2]).is_err());
    store.assert_empty();
    // A layer that is not the one of the configuration.
    let wrong = docker_archive(&[tar(&[("a", b"1")])], &["l"], &[("l", Kind::File, &tar(&[("a", b"2")]))]);
    let error = try_load(&store, &wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    assert!(error.to_string().contains("layer `l`"), "{error}");
    store.assert_empty();
    for (content, words) in [
        (outer(&[("etc/passwd", Kind::File, b"")]), "is for `import`"),
        (outer(&[("repositories", Kind::File, b"{}")]), "before 1.10"),
        (outer(&[("manifest.json", Kind::File, b"[]")]), "names no image"),
        (outer(&[("manifest.json", Kind::File, b"{")]), "is not valid"),
        (b"hello".to_vec(), "the archive cannot be loaded"),
    ] {
        let error = try_load(&store, &content).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_bad_tag_keeps_the_image_out() {
    if !is_root() {
        return;
    }
    let layer = tar(&[("a", b"1")]);
    let image = TestImage::new(std::slice::from_ref(&layer));
    let archive = outer(&[
        ("c", Kind::File, &image.blobs[&image.config.digest]),
        ("l", Kind::File, &layer),
        ("manifest.json", Kind::File, br#"[{"Config":"c","RepoTags":["UPPER/../x"],"Layers":["l"]}]"#),
    ]);
    let store = TestStore::new();
    let error = try_load(&store, &archive).unwrap_err().to_string();
    assert!(error.contains("a tag in `manifest.json` is wrong"), "{error}");
    store.assert_empty();
}

#[test]
fn a_layout_for_several_platforms_gives_the_one_that_is_wanted() {
    if !is_root() {
        return;
    }
    let (host, other): (Platform, Platform) = (Platform::host(), "linux/s390x".parse().unwrap());
    let make = |text: &str, platform: &Platform| {
        let tar = tar(&[("arch", text.as_bytes())]);
        TestImage::with_platform(&[(gzip(&tar), sha256(&tar))], platform)
    };
    let (mine, theirs) = (make("host", &host), make("other", &other));
    let nested = index(&[(&theirs, &other), (&mine, &host)]);
    let mut top = descriptor(media_type::OCI_INDEX, &nested);
    top.annotations.insert("org.opencontainers.image.ref.name".into(), "multi:1".into());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    let mut members = vec![("index.json".to_owned(), index.into_bytes())];
    for image in [&mine, &theirs] {
        members.extend(
            image.blobs.iter().map(|(d, bytes)| (format!("blobs/sha256/{}", d.hex()), bytes.clone())),
        );
        members.push((format!("blobs/sha256/{}", image.digest().hex()), image.manifest.clone()));
    }
    members.push((format!("blobs/sha256/{}", sha256(&nested).hex()), nested));
    let members: Vec<_> =
        members.iter().map(|(name, bytes)| (name.as_str(), Kind::File, bytes.as_slice())).collect();
    let archive = outer(&members);
    let store = TestStore::new();
    let loaded = try_load(&store, &archive).unwrap();
    assert_eq!(loaded[0].image, mine.config.digest);
    assert_eq!(loaded[0].references, [reference("multi:1")]);
    let options = LoadOptions { platform: Some(other), ..Default::default() };
    let loaded = load(&store.store, &archive[..], &options, &Silent).unwrap();
    assert_eq!(loaded[0].image, theirs.config.digest);
    let options = LoadOptions { platform: Some("linux/riscv64".parse().unwrap()), ..Default::default() };
    let error = load(&store.store, &archive[..], &options, &Silent).unwrap_err().to_string();
    assert!(error.contains("it has: linux/s390x"), "{error}");
}

#[test]
fn import_takes_compressed_tars_and_refuses_the_rest() {
    if !is_root() {
        return;
    }
    let store = TestStore::new();
    let plain = tar(&[("bin/", b""), ("bin/sh", b"#!")]);
    let mut diff_ids = Vec::new();
    for archive in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let id = import(&store.store, &archive[..], &ImportOptions::default()).unwrap();
        let image = store.store.image(&id).unwrap();
        assert_eq!(image.config.platform(), Platform::host());
        assert_eq!(image.config.comment.as_deref(), Some("Imported from -"));
        diff_ids.push(image.layers[0].diff_id);
        store.store.delete_image(&id).unwrap();
    }
    assert_eq!(diff_ids, [sha256(&plain); 3]);
    let climbing = tar(&[("../../escaped", b"x")]);
    for wrong in [&b""[..], b"no tar", &plain[..700], &gzip(&plain)[..40], &climbing] {
        let error = import(&store.store, wrong, &ImportOptions::default()).unwrap_err();
        assert!(error.to_string().contains("archive"), "{error}");
        store.assert_empty();
    }
    let options = ImportOptions { changes: vec!["RUN x".into()], ..ImportOptions::default() };
    let error = import(&store.store, &plain[..], &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let xz = import(&store.store, &b"\xfd7zXZ\0\0\0"[..], &ImportOptions::default()).unwrap_err().to_string();
    assert!(xz.contains("xz"), "{xz}");
}

#[test]
fn save_names_what_it_does_not_find() {
    let store = TestStore::new();
    let error = save(&store.store, &["nothing:here".into()], std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("No such image: nothing:here"), "{error}");
}
