//! What keeps what alive.

use super::*;

#[test]
fn untagging_keeps_the_image_and_deleting_frees_what_it_alone_kept() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let base = tar(&[("base", b"base")]);
    let one =
        pull(&store, &[base.clone(), tar(&[("1", b"1")])], &[reference("one"), reference("uno")]).unwrap();
    let two = pull(&store, &[base.clone(), tar(&[("2", b"2")])], &[reference("two")]).unwrap();
    let untagged = store.untag(&reference("uno")).unwrap();
    assert_eq!((untagged.image, untagged.remaining), (one.id, 1));
    assert!(matches!(store.untag(&reference("uno")), Err(Error::NoSuchImage(name)) if name == "uno:latest"));
    // a tag that moves says from where
    assert_eq!(store.tag(&reference("one"), &two.id).unwrap(), Some(one.id));
    assert!(store.image(&one.id).unwrap().references.is_empty());
    let deleted = store.delete_image(&one.id).unwrap();
    assert_eq!(deleted.freed.layers, [one.layers[1].layer]);
    assert_eq!(deleted.freed.blobs.len(), 3); // configuration, manifest, the upper layer
    assert!(store.resolve_image("one").unwrap().id == two.id);
    assert!(matches!(store.delete_image(&one.id), Err(Error::NoSuchImage(_))));
    assert_whole(&store);
    assert_eq!(store.gc().unwrap(), GcReport::default());
    let deleted = store.delete_image(&two.id).unwrap();
    assert_eq!(deleted.references, [reference("one:latest"), reference("two:latest")]);
    assert_eq!((store.view().blobs().count(), store.view().layers().count()), (0, 0));
    assert_whole(&store);
}

#[test]
fn a_containers_layers_outlive_the_image() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")])], &[]).unwrap();
    store.prepare_snapshot(&container(1), &image).unwrap();
    let deleted = store.delete_image(&image.id).unwrap();
    assert_eq!(deleted.freed.layers, []);
    assert!(store.gc().unwrap().layers.is_empty());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.snapshot(&container(1)).unwrap().lower[1].join("a").exists());
    store.remove_snapshot(&container(1)).unwrap();
    assert_eq!(store.gc().unwrap().layers, [image.layers[0].layer]);
    assert_whole(&store);
}

#[test]
fn a_lease_keeps_what_was_stored_and_found() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let before = store.put_blob(b"before").unwrap();
    let ignored = store.put_blob(b"ignored").unwrap();
    let lease = store.lease();
    let within = store.put_blob(b"within").unwrap();
    assert!(store.has_blob(&before));
    let plain = tar(&[("x", b"y")]);
    let layer = store.apply_layer(&plain[..], &sha256(&plain), &[], &ApplyOptions::default()).unwrap();
    assert_eq!(store.gc().unwrap().blobs, [ignored]);
    assert!(store.blob_size(&within).is_some() && store.layer(&layer).is_some());
    drop(lease);
    let mut all = vec![before, within];
    all.sort();
    let report = store.gc().unwrap();
    assert_eq!((report.blobs, report.layers), (all, vec![layer]));
    assert_whole(&store);
}

#[test]
fn an_index_named_by_digest_is_kept() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[], &[]).unwrap();
    let index = store.put_blob(b"{\"manifests\":[]}").unwrap();
    store.tag(&reference("a").at_digest(index), &image.id).unwrap();
    assert_eq!(store.gc().unwrap().blobs, []);
    let deleted = store.delete_image(&image.id).unwrap();
    assert!(deleted.freed.blobs.contains(&index));
}
