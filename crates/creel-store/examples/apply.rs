//! Prints how long it takes to bring an OCI layout's layers into a store, in wall and CPU time: a pull without a network.
//! `cargo run --release -p creel-store --example apply LAYOUT STORE [at-a-time]`, as root; STORE is made anew.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people, run by hand")]

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use creel_store::{ApplyOptions, Store};
use creel_types::Digest;
use creel_types::image::{ImageConfig, Index, Manifest};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (layout, root) = (Path::new(&arguments[0]), Path::new(&arguments[1]));
    let at_a_time = arguments.get(2).map_or(3, |count| count.parse::<usize>().unwrap());
    let read = |digest: &Digest| std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let index: Index = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest: Manifest = serde_json::from_slice(&read(&index.manifests[0].digest)).unwrap();
    let config: ImageConfig = serde_json::from_slice(&read(&manifest.config.digest)).unwrap();
    let diff_ids = &config.rootfs.diff_ids;
    let _ = std::fs::remove_dir_all(root);
    let store = Store::open(root).unwrap();
    rustix::fs::sync();
    let jobs = Mutex::new(manifest.layers.iter().enumerate());
    let (start, before) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let Some((at, blob)) = jobs.lock().unwrap().next() else { return };
                    let archive = File::open(layout.join("blobs/sha256").join(blob.digest.hex())).unwrap();
                    let options = ApplyOptions { keep_blob: Some(blob.clone()), ..ApplyOptions::default() };
                    let layer = store.apply_layer_alone(archive, &diff_ids[at], &diff_ids[..at], &options);
                    assert!(layer.unwrap().is_some());
                }
            });
        }
    });
    let (user, system) = cpu();
    let (user, system) = (user - before.0, system - before.1);
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    println!(
        "{:.3?} wall, {user:.2} user, {system:.2} system, {:.2} CPU, {peak}",
        start.elapsed(),
        user + system
    );
}

/// User and system seconds of this process so far.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> =
        stat[stat.rfind(')').unwrap() + 2..].split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
    (fields[11] / 100.0, fields[12] / 100.0)
}
