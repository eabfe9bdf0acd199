//! A power cut at any moment: what was acknowledged is there, and everything is whole or absent.
//!
//! A daemon works on a file system on a [`disk`] that writes down every write and every flush. Afterwards the disk is
//! laid out as a power cut may have left it: with all that was flushed, and with none, some or all of what was written
//! since. The kernel mounts each of these and replays its journal, the store is opened and everything in it is read.
//!
//! By default as many cuts are tried as fit into half a minute; `CREEL_TEST_POWER_CUTS=5000` asks for another number,
//! `CREEL_TEST_POWER_FS=xfs` for another file system (ext4, xfs, btrfs; ext4 and a little of the others by default).

mod cuts;
mod disk;
mod failing;
mod work;

use std::path::Path;
use std::process::Command;

use crate::support::{can_run, scratch};
use disk::{FILE_SYSTEMS, FileSystem};

pub(crate) use disk::{can_be_had, unmount};
pub(crate) use work::{archive, mount_bin, noise};

const KIND: &str = "CREEL_TEST_POWER_KIND";
const DIR: &str = "CREEL_TEST_POWER_DIR";
const CUTS: &str = "CREEL_TEST_POWER_CUTS";

/// What is done in a mount namespace of its own.
#[test]
fn child() {
    let (Some(kind), Some(dir)) = (std::env::var_os(KIND), std::env::var_os(DIR)) else { return };
    let kind = FILE_SYSTEMS.iter().find(|known| known.name == kind).unwrap();
    let cuts = std::env::var(CUTS).unwrap().parse().unwrap();
    let work = work::do_it(kind, Path::new(&dir));
    cuts::check_all(kind, Path::new(&dir), work, cuts);
    // the parent tells this end from a test that was not run
    std::process::exit(42);
}

/// The same, for [`failing`].
#[test]
fn failing_child() {
    if let (None, Some(dir)) = (std::env::var_os(KIND), std::env::var_os(DIR)) {
        failing::check(Path::new(&dir));
        std::process::exit(42);
    }
}

#[test]
fn what_could_not_be_written_fails_the_layer_even_if_an_early_sync_was_told() {
    if can_run() && disk::can_be_had(true) {
        inside("power::failing_child", |command| command);
    }
}

fn cut(kind: &FileSystem, cuts: usize) {
    if !kind.can_be_made() {
        eprintln!("skipped: there is no mkfs.{}", kind.name);
        return;
    }
    inside("power::child", |command| command.env(KIND, kind.name).env(CUTS, cuts.to_string()));
}

/// Runs one of the tests above in a mount namespace of its own.
fn inside(test: &str, with: impl Fn(&mut Command) -> &mut Command) {
    let dir = scratch();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DIR, dir.path());
    let output = with(&mut command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{test}: {text}");
    eprint!("{text}");
    let left = crate::common::processes_with(dir.path().to_str().unwrap());
    assert_eq!(left, Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "a mount has leaked");
}

#[test]
fn after_a_power_cut_everything_is_whole_or_absent() {
    if !can_run() || !disk::can_be_had(true) {
        return;
    }
    let asked = std::env::var(CUTS).ok().map(|cuts| cuts.parse::<usize>().unwrap());
    let only = std::env::var("CREEL_TEST_POWER_FS").ok();
    for kind in &FILE_SYSTEMS {
        let usual = if kind.name == "ext4" { 300 } else { 40 };
        match &only {
            Some(only) if only != kind.name => {}
            _ => cut(kind, asked.unwrap_or(usual)),
        }
    }
}
