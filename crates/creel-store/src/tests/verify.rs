//! Verifying: what is damaged is named and put aside, and whole again after the next pull.

use super::*;

fn verify(store: &Arc<Store>) -> VerifyReport {
    store.verify(&VerifyOptions { quarantine: true, ..Default::default() }, &mut |_| true).unwrap()
}

fn layers() -> Vec<Vec<u8>> {
    vec![tar(&[("base", b"base"), ("d/", b"")]), tar(&[("d/file", b"content"), ("d/more", b"more")])]
}

/// A store with one image of two layers, the upper of which took a directory from the lower one.
fn furnished(dir: &Path) -> (Arc<Store>, Arc<ImageRecord>) {
    let store = Store::open(dir).unwrap();
    let image = pull(&store, &layers(), &[reference("app")]).unwrap();
    assert!(store.layer(&image.layers[1].layer).unwrap().composed);
    (store, image)
}

fn aside(fate: &Fate) -> std::path::PathBuf {
    match fate {
        Fate::Quarantined(Some(path)) | Fate::Replaced(Some(path)) => path.clone(),
        other => panic!("{other:?}"),
    }
}

/// Changes a file's content and nothing else.
fn damage(path: &Path, content: &[u8]) {
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn what_is_whole_is_read_and_left_alone() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    let mut told = Vec::new();
    let options = VerifyOptions { images: Some(vec![image.id]), quarantine: true };
    let report = store
        .verify(&options, &mut |checking| {
            told.push(checking.content);
            true
        })
        .unwrap();
    assert!(report.is_whole() && report.unproven.is_empty(), "{report:?}");
    assert_eq!((report.blobs, report.layers, told.len()), (4, 2, 6));
    let blobs: u64 = store.view().blobs().map(|(_, size)| size).sum();
    assert_eq!(report.bytes, blobs + image.size);
    assert!(!store.paths().quarantine().exists());
    assert_whole(&store);
    let report = store.verify(&options, &mut |_| false).unwrap();
    assert!(report.broken_off && report.blobs == 0);
}

#[test]
fn a_damaged_file_is_named_and_its_layer_replaced_from_the_archive() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    store.create_container(&container(1), &image, "container", None, b"{}").unwrap();
    for (at, file, content) in [(0, "base", b"bose"), (1, "d/more", b"mare")] {
        let layer = image.layers[at].layer;
        let file = store.layer_dir(&layer).join(file);
        damage(&file, content);
        let only_looked = store.verify(&VerifyOptions::default(), &mut |_| true).unwrap();
        assert_eq!(only_looked.damaged[0].fate, Fate::Left);
        assert_eq!(std::fs::read(&file).unwrap(), content);
        let report = verify(&store);
        let [damage] = &report.damaged[..] else { panic!("{report:#?}") };
        assert_eq!(damage.content, Content::Layer(layer));
        assert!(damage.what[0].contains("its data differs at byte 1"), "{damage:?}");
        assert_eq!(
            (&damage.images[..], &damage.containers[..]),
            (&["app:latest".to_owned()][..], &[container(1)][..])
        );
        assert!(matches!(damage.fate, Fate::Replaced(_)), "{damage:?}");
        let kept = tree(&aside(&damage.fate));
        assert!(kept.values().any(|data| data == content), "the damaged file is not kept");
        assert!(report.incomplete.is_empty());
        assert_whole(&store);
    }
    // an extra file, a missing one
    std::fs::write(store.layer_dir(&image.layers[0].layer).join("extra"), b"").unwrap();
    std::fs::remove_file(store.layer_dir(&image.layers[1].layer).join("d/file")).unwrap();
    let report = verify(&store);
    let text = format!("{:?}", report.damaged);
    assert!(
        text.contains("extra: it is not in the archive") && text.contains("d/file: it is missing"),
        "{text}"
    );
    assert_whole(&store);
    std::fs::remove_dir_all(store.layer_dir(&image.layers[0].layer)).unwrap();
    assert!(matches!(verify(&store).damaged[0].fate, Fate::Replaced(_)));
    assert_whole(&store);
    store.whole_snapshot(&container(1)).unwrap();
    drop(store);
    assert_whole(&Store::open(dir.path()).unwrap());
}

#[test]
fn a_missing_layer_is_unpacked_again_even_if_its_row_is_gone() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    for layer in &image.layers {
        std::fs::remove_dir_all(store.paths().layer(&layer.layer)).unwrap();
    }
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.view().layers().count(), 0);
    let report = store.verify(&VerifyOptions::default(), &mut |_| true).unwrap();
    assert_eq!((report.incomplete.len(), report.damaged.len()), (1, 0), "{report:#?}");
    let report = verify(&store);
    let found: Vec<_> = report.damaged.iter().map(|damage| (damage.content, &damage.fate)).collect();
    let wanted: Vec<_> =
        image.layers.iter().map(|layer| (Content::Layer(layer.layer), &Fate::Replaced(None))).collect();
    assert_eq!(found, wanted);
    assert!(report.incomplete.is_empty() && report.unchecked.is_empty(), "{report:#?}");
    assert!(verify(&store).is_whole());
    assert_whole(&store);
}

#[test]
fn a_damaged_archive_is_put_aside_and_fetched_again_by_the_next_pull() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    for how in ["changed", "cut", "removed"] {
        let blob = image.layers[1].blob.as_ref().unwrap().digest;
        let path = store.paths().blob(&blob);
        let content = std::fs::read(&path).unwrap();
        match how {
            "changed" => damage(&path, &vec![7; content.len()]),
            "cut" => damage(&path, &content[..10]),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let report = verify(&store);
        let [damage] = &report.damaged[..] else { panic!("{report:#?}") };
        assert_eq!(
            (damage.content, &damage.images[..]),
            (Content::Blob(blob), &["app:latest".to_owned()][..])
        );
        assert_eq!(matches!(damage.fate, Fate::Quarantined(None)), how == "removed", "{damage:?}");
        // nothing is left to hold its layer against
        assert_eq!(report.unproven, [image.layers[1].layer]);
        assert_eq!(report.incomplete[0].lacks, [Content::Blob(blob)]);
        assert!(!store.has_blob(&blob) && matches!(store.open_blob(&blob), Err(Error::NoSuchBlob(_))));
        // it is told again as long as it is not fetched
        let again = verify(&store);
        assert!(again.damaged.is_empty() && again.incomplete.len() == 1 && !again.is_whole());
        pull(&store, &layers(), &[reference("app")]).unwrap();
        assert!(verify(&store).is_whole());
        assert_whole(&store);
    }
}

#[test]
fn an_image_without_a_layer_is_refused_until_it_is_pulled_again() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    store.create_container(&container(1), &image, "container", None, b"{}").unwrap();
    std::fs::write(store.snapshot(&container(1)).unwrap().upper.join("mine"), b"work").unwrap();
    let (layer, blob) = (image.layers[0].layer, image.layers[0].blob.as_ref().unwrap().digest);
    damage(&store.layer_dir(&layer).join("base"), b"bose");
    damage(&store.paths().blob(&blob), b"short");
    // with its archive gone the layer cannot be proven, and one that is removed is missed
    let report = verify(&store);
    assert_eq!((report.damaged.len(), &report.unproven[..]), (1, &[layer][..]));
    std::fs::remove_dir_all(store.paths().layer(&layer)).unwrap();
    let report = verify(&store);
    assert!(matches!(report.damaged[0].fate, Fate::Quarantined(None)), "{report:#?}");
    assert_eq!(report.incomplete[0].lacks, [Content::Blob(blob), Content::Layer(layer)]);
    assert_eq!(report.unchecked.len(), 1, "the layer above took something from it: {report:#?}");
    let refused = |store: &Arc<Store>| {
        let image = store.resolve_image("app").unwrap();
        assert!(image.size < 20);
        let why = store.create_container(&container(2), &image, "container", None, b"{}").unwrap_err();
        assert!(why.to_string().contains("pull the image again"), "{why}");
        let why = store.whole_snapshot(&container(1)).unwrap_err();
        assert!(matches!(why, Error::NotWhole { .. }), "{why}");
        assert!(!store.container_dir(&container(2)).exists());
    };
    refused(&store);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.open_report().quarantined, Vec::<String>::new());
    refused(&store);
    store.gc().unwrap();
    let again = pull(&store, &layers(), &[reference("app")]).unwrap();
    assert_eq!((again.id, again.size), (image.id, image.size));
    let overlay = store.whole_snapshot(&container(1)).unwrap();
    assert!(overlay.lower.iter().all(|dir| dir.is_dir()));
    assert_eq!(std::fs::read(overlay.upper.join("mine")).unwrap(), b"work");
    assert_whole(&store);
}

#[test]
fn with_its_configuration_an_image_goes_and_others_stay() {
    let dir = scratch();
    let (store, image) = furnished(dir.path());
    let other = pull(&store, &layers()[..1], &[reference("other")]).unwrap();
    damage(&store.paths().blob(&image.id), b"{}");
    let report = verify(&store);
    assert_eq!(report.damaged[0].images, ["app:latest"]);
    assert!(store.resolve_image("app").is_err() && report.incomplete.is_empty());
    assert_eq!(store.resolve_image("other").unwrap().id, other.id);
    assert_eq!(std::fs::read(aside(&report.damaged[0].fate)).unwrap(), b"{}");
    store.gc().unwrap();
    pull(&store, &layers(), &[reference("app")]).unwrap();
    assert_whole(&store);
    let aside = store.disk_use(&Default::default()).quarantine;
    assert_eq!((aside.count, aside.bytes), (1, 2));
}

const CHILD: &str = "CREEL_STORE_VERIFY_ROOT";

/// Verifies until it is killed.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    verify(&Store::open(Path::new(&root)).unwrap());
    panic!("the step was not reached");
}

#[test]
fn killed_while_it_puts_something_aside_it_neither_loses_that_nor_goes_on_using_it() {
    use std::os::unix::process::ExitStatusExt;
    for step in ["verify-moved", "verify-row-gone", "layer-before-rename", "layer-before-row"] {
        for archive in [true, false] {
            if archive && step.starts_with("layer") {
                continue; // nothing replaces an archive
            }
            let dir = scratch();
            let (store, image) = furnished(dir.path());
            store.create_container(&container(1), &image, "container", None, b"{}").unwrap();
            let blob = image.layers[1].blob.as_ref().unwrap();
            match archive {
                // of the same length: what is too short is put aside when the store is opened
                true => damage(&store.paths().blob(&blob.digest), &vec![1; blob.size as usize]),
                false => damage(&store.layer_dir(&image.layers[0].layer).join("base"), b"bose"),
            }
            drop(store);
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "tests::verify::child", "--nocapture"])
                .env(CHILD, dir.path())
                .env("CREEL_STORE_KILL_AT", step)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&child.stderr).into_owned();
            assert_eq!(child.status.signal(), Some(9), "{step}: {text}");
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(names(&store.paths().quarantine()).len(), 1, "{step}");
            let found = store.resolve_image("app").unwrap();
            let lacks = store.view().lacks(&found);
            assert_eq!(lacks.len(), 1, "{step}: {lacks:?}");
            pull(&store, &layers(), &[reference("app")]).unwrap();
            assert!(verify(&store).is_whole(), "{step}");
            store.whole_snapshot(&container(1)).unwrap();
            assert_whole(&store);
        }
    }
}
