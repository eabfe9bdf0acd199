//! What the store says that it takes, held against the disk.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

use super::*;

/// Bytes of all regular files below a directory, each file once.
fn on_disk(directory: &Path) -> u64 {
    fn walk(at: &Path, seen: &mut HashSet<u64>) -> u64 {
        let mut total = 0;
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            total += match meta.is_dir() {
                true => walk(&entry.path(), seen),
                false if meta.is_file() && seen.insert(meta.ino()) => meta.len(),
                false => 0,
            };
        }
        total
    }
    walk(directory, &mut HashSet::new())
}

fn layers_on_disk(store: &Store) -> u64 {
    let layers = std::fs::read_dir(store.paths().layers()).unwrap().flatten();
    layers.map(|layer| on_disk(&layer.path().join("fs"))).sum()
}

#[test]
fn sums_are_those_of_the_disk_and_a_prune_frees_what_was_said() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let base = tar(&[("base", &noise(1, 5000))]);
    let middle = tar(&[("middle", &noise(2, 700))]);
    let own = |n: u64| tar(&[("own", &noise(n, 100 * n as usize))]);
    let one = pull(&store, &[base.clone(), middle.clone(), own(3)], &[reference("one")]).unwrap();
    let two = pull(&store, &[base.clone(), own(4)], &[reference("two")]).unwrap();
    // the same layer twice lies on the disk once
    let twice = pull(&store, &[own(5), own(5)], &[reference("twice")]).unwrap();
    let shared = store.view().shared_sizes();
    assert_eq!((one.size, shared[&one.id]), (5000 + 700 + 300, 5000));
    assert_eq!((two.size, shared[&two.id]), (5000 + 400, 5000));
    assert_eq!((twice.size, shared[&twice.id]), (500, 0));
    let unshared: u64 = [&one, &two, &twice].iter().map(|image| image.size - shared[&image.id]).sum();
    let none = store.disk_use(&HashSet::new());
    assert_eq!(none.layers.bytes, unshared + 5000);
    assert_eq!(none.layers.bytes, layers_on_disk(&store));
    assert_eq!(none.blobs.bytes, on_disk(&store.paths().blobs()));
    assert_eq!((none.layers.count, none.layers.active, none.layers.reclaimable), (5, 0, none.layers.bytes));
    // a part of a download that broke off
    let part = store.keep_partial(&no_digest());
    let mut writer = store.blob_writer(Some(no_digest()), Some(1000)).unwrap();
    writer.write_all(&noise(9, 321)).unwrap();
    drop(writer);
    let busy = store.disk_use(&HashSet::new()).partials;
    assert_eq!((busy.count, busy.active, busy.bytes, busy.reclaimable), (1, 1, 321, 0));
    drop(part);
    // a container keeps the layers, its image keeps its blobs as well
    store.prepare_snapshot(&container(1), &one).unwrap();
    let said = store.disk_use(&HashSet::from([one.id]));
    assert_eq!((said.layers.active, said.layers.reclaimable), (3, 400 + 500));
    assert_eq!(said.partials.reclaimable, 321);
    let mut freed = 0;
    for image in [&two, &twice] {
        freed += store.delete_image(&image.id).unwrap().freed.bytes;
    }
    freed += store.gc().unwrap().bytes;
    assert_eq!(store.disk_use(&HashSet::new()).partials.bytes, 321);
    freed += store.forget_partials().bytes;
    assert_eq!(freed, said.layers.reclaimable + said.blobs.reclaimable + said.partials.reclaimable);
    let after = store.disk_use(&HashSet::from([one.id]));
    assert_eq!((after.layers.reclaimable, after.blobs.reclaimable, after.partials.count), (0, 0, 0));
    assert_eq!(after.layers.bytes, layers_on_disk(&store));
    assert_eq!(after.blobs.bytes, on_disk(&store.paths().blobs()));
}
