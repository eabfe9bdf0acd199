//! Prints how long unpacking many small files takes, next to a bare loop of open, write, fchown and close.
//! `cargo run --release -p creel-layer --example speed [files]`, as root, on the file system of the current directory.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people, run by hand")]

use std::io::Write;
use std::time::Instant;

use creel_layer::tar::{Entry, Kind, Timestamp, Writer};
use creel_layer::{UnpackOptions, unpack};

const PER_DIRECTORY: usize = 100;

fn main() {
    let files: usize = std::env::args().nth(1).map_or(100_000, |count| count.parse().unwrap());
    let data = [b'x'; 1200];
    let mut writer = Writer::new(Vec::new());
    for index in 0..files {
        if index % PER_DIRECTORY == 0 {
            writer.entry(&Entry::new(format!("d{}/", index / PER_DIRECTORY), Kind::Directory)).unwrap();
        }
        let name = format!("d{}/f{index}", index / PER_DIRECTORY);
        let mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        writer.entry(&Entry { size: data.len() as u64, mtime, ..Entry::new(name, Kind::File) }).unwrap();
        writer.write_all(&data).unwrap();
    }
    let (archive, _) = writer.finish().unwrap();
    for round in 0..3 {
        let scratch = tempfile::tempdir_in(".").unwrap();
        let bare = scratch.path().join("bare");
        let start = Instant::now();
        for index in 0..files {
            let dir = bare.join(format!("d{}", index / PER_DIRECTORY));
            if index % PER_DIRECTORY == 0 {
                std::fs::create_dir_all(&dir).unwrap();
            }
            let mut file = std::fs::File::create_new(dir.join(format!("f{index}"))).unwrap();
            file.write_all(&data).unwrap();
            std::os::unix::fs::fchown(&file, Some(0), Some(0)).unwrap();
        }
        let bare = start.elapsed();
        let ours = scratch.path().join("ours");
        std::fs::create_dir(&ours).unwrap();
        let start = Instant::now();
        unpack(&archive[..], &ours, &UnpackOptions::default()).unwrap();
        let ours = start.elapsed();
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        println!("round {round}: bare loop {bare:.2?}, unpack {ours:.2?}, ratio {ratio:.2}");
    }
}
