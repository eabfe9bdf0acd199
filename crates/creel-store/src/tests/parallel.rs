//! Many at once.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

struct Counted<'a>(&'a [u8], &'a AtomicU32, bool);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.2 {
            self.2 = true;
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.0.read(buffer)
    }
}

#[test]
fn a_layer_that_two_pulls_want_is_unpacked_once() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let plain = tar(&[("file", &noise(5, 2_000_000))]);
    let diff_id = sha256(&plain);
    let readers = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let archive = Counted(&plain, &readers, false);
                let layer = store.apply_layer(archive, &diff_id, &[], &ApplyOptions::default()).unwrap();
                assert_eq!(layer, LayerId::new(diff_id));
            });
        }
    });
    assert_eq!(readers.load(Ordering::SeqCst), 1);
    assert_whole(&store);
}

#[test]
fn one_who_waits_for_a_layer_unpacks_it_if_the_other_fails() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let plain = tar(&[("file", &noise(5, 2_000_000))]);
    let diff_id = sha256(&plain);
    let readers = AtomicU32::new(0);
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = |length: usize| {
            let archive = Counted(&plain[..length], &readers, false);
            store.apply_layer(archive, &diff_id, &[], &ApplyOptions::default())
        };
        let threads = [1_000_000, plain.len(), 1_500_000].map(|length| scope.spawn(move || run(length)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results[1].is_ok());
    assert_whole(&store);
}

#[test]
fn the_collector_runs_beside_pulls_and_containers() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let base = tar(&[("base", &noise(9, 30_000))]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (store, base) = (&store, &base);
                scope.spawn(move || {
                    for turn in 0..25u64 {
                        let own = tar(&[("own", &noise(turn % 5, 20_000))]);
                        let number = worker * 1000 + turn;
                        // the lease spans pull and create, as the engine's does
                        let lease = store.lease();
                        let name = reference(&format!("w{worker}"));
                        let image = pull(store, &[base.clone(), own], &[name]).unwrap();
                        let id = container(number);
                        match store.create_container(&id, &image, "container", None, b"{}") {
                            Ok(overlay) => {
                                for lower in &overlay.lower {
                                    assert!(!names(lower).is_empty());
                                }
                                drop(lease);
                                store.delete_container(&id, "container").unwrap();
                            }
                            Err(error) => panic!("{error}"),
                        }
                        if turn % 4 == 3 {
                            // another worker may have deleted it before
                            let _ = store.delete_image(&image.id);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(store.gc().unwrap().failures, Vec::<String>::new());
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
    store.gc().unwrap();
    assert_whole(&store);
    for image in store.list_images() {
        store.delete_image(&image.id).unwrap();
    }
    assert_eq!((store.view().blobs().count(), store.view().layers().count()), (0, 0));
}

#[test]
fn writes_that_arrive_together_fail_alone() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let (store, won) = (&store, &won);
            scope.spawn(move || {
                for turn in 0..20 {
                    let id = format!("{worker}-{turn}");
                    match store.put_record("container", &id, Some(&format!("name{turn}")), b"{}") {
                        Ok(()) => {
                            won.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(store.record("container", &id).unwrap().id, id);
                        }
                        Err(Error::NameInUse { holder, .. }) => {
                            assert!(store.record("container", &holder).is_some());
                            store.put_record("container", &id, None, b"{}").unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(won.load(Ordering::SeqCst), 20);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.records("container").len(), 320);
}

/// `cargo test -p creel-store -- --ignored --nocapture cost`: what `creel run` pays for the store.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_a_containers_record() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &[tar(&[("a", b"one")])], &[]).unwrap();
    let json = format!("{{\"pad\":\"{}\"}}", "x".repeat(4000));
    let mut times = [const { Vec::new() }; 4];
    let mut plain = std::fs::File::create(dir.path().join("plain")).unwrap();
    plain.write_all(&[0; 1 << 20]).unwrap();
    plain.sync_all().unwrap();
    for number in 0..300 {
        let id = container(number);
        let mut clock = std::time::Instant::now();
        let mut lap = |index: usize| {
            times[index].push(clock.elapsed().as_micros());
            clock = std::time::Instant::now();
        };
        store.create_container(&id, &image, "container", Some(&number.to_string()), json.as_bytes()).unwrap();
        lap(0);
        store.put_record("container", id.as_str(), Some(&number.to_string()), json.as_bytes()).unwrap();
        lap(1);
        store.delete_container(&id, "container").unwrap();
        lap(2);
        std::os::unix::fs::FileExt::write_all_at(&plain, &[number as u8; 8192], number % 100 * 8192).unwrap();
        plain.sync_data().unwrap();
        lap(3);
    }
    for (what, mut times) in ["create", "put", "delete", "a plain write and sync"].into_iter().zip(times) {
        times.sort();
        println!("{what}: median {} µs, p95 {} µs", times[times.len() / 2], times[times.len() * 95 / 100]);
    }
}

/// `cargo test -p creel-store -- --ignored --nocapture unpacking`: bytes a second of one plain layer.
#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_unpacking() {
    let dir = scratch();
    let store = Store::open(dir.path()).unwrap();
    let plain = tar(&[("file", &noise(5, 200_000_000))]);
    let diff_id = sha256(&plain);
    let clock = std::time::Instant::now();
    sha256(&plain);
    println!("hashing alone: {:?}", clock.elapsed());
    let clock = std::time::Instant::now();
    store.apply_layer(&plain[..], &diff_id, &[], &ApplyOptions::default()).unwrap();
    println!("unpacking with hash and sync: {:?}", clock.elapsed());
}
