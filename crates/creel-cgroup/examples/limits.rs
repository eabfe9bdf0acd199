//! Makes a group with the `linux.resources` of a JSON file, and prints what its files say: to be held against what
//! another runtime makes of the same document.
//!
//! `limits PATH RESOURCES.json [UPDATE.json]`: prints `FILE<TAB>CONTENT` for every file of the group, and its
//! statistics as `runc events --stats` tells them; then the group is removed.
#![allow(clippy::print_stdout)]

use std::fs;

use creel_cgroup::{Cgroup, Hierarchies, RuncStats};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("PATH is missing")?;
    let resources = serde_json::from_str(&fs::read_to_string(args.next().ok_or("RESOURCES is missing")?)?)?;
    let group = Cgroup::create(&Hierarchies::detect()?, &path, &resources)?;
    let done = (|| -> Result<(), Box<dyn std::error::Error>> {
        if let Some(file) = args.next() {
            group.update(&serde_json::from_str(&fs::read_to_string(file)?)?)?;
        }
        for dir in group.dirs() {
            let mut files: Vec<_> = fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                if let Ok(text) = fs::read_to_string(&file) {
                    println!("{}\t{:?}", file.display(), text.trim_end());
                }
            }
        }
        println!("stats\t{}", serde_json::to_string(&RuncStats::from(&group.stats()?))?);
        Ok(())
    })();
    group.remove()?;
    done
}
