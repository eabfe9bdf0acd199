//! A process that works with the store is killed: at each named step, and at any moment. Opening must succeed
//! afterwards, everything must be whole or absent, and what was acknowledged must be there.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

const ROOT: &str = "CREEL_STORE_CHILD_ROOT";
const ROUND: &str = "CREEL_STORE_CHILD_ROUND";
const DRIVER: &str = "CREEL_STORE_CHILD_DRIVER";

/// Everything that a daemon does with the store, over and over; each answer is written down when it has come.
#[test]
fn child() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let root = std::path::PathBuf::from(root);
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let mut done = std::fs::File::options().append(true).create(true).open(root.join("done")).unwrap();
    // In one write: a line that the kill cuts would be taken for what was done.
    let mut note = |line: String| done.write_all(format!("{line}\n").as_bytes()).unwrap();
    let store = Store::open(&root.join("store")).unwrap();
    store.set_driver(std::env::var(DRIVER).map_or(Driver::Overlay, |name| name.parse().unwrap()));
    let base = tar(&[("base", &noise(7, 20_000))]);
    for step in 0.. {
        let number = round * 1000 + step;
        let text = number.to_string();
        let name = reference(&format!("image:{number}"));
        let own = tar(&[("own", text.as_bytes()), ("more", &noise(number, 50_000))]);
        let image = pull(&store, &[base.clone(), own], std::slice::from_ref(&name)).unwrap();
        note(format!("+image:{number}"));
        let id = container(number);
        store.create_container(&id, &image, "container", Some(&text), text.as_bytes()).unwrap();
        note(format!("+container {number}"));
        if number.is_multiple_of(2) {
            note(format!("-container {number}"));
            store.delete_container(&id, "container").unwrap();
        }
        let volume = format!("volume-{number}");
        store.create_volume(&volume, text.as_bytes()).unwrap();
        note(format!("+volume {number}"));
        let filled = store.fill_volume::<Error>(&volume, |dir| {
            std::fs::write(dir.join("one"), "1").unwrap();
            std::fs::write(dir.join("two"), "2").unwrap();
            Ok(())
        });
        assert!(filled.unwrap());
        note(format!("+filled {number}"));
        if number.is_multiple_of(2) {
            note(format!("-volume {number}"));
            note(format!("-filled {number}"));
            store.remove_volume(&volume).unwrap();
        }
        if number.is_multiple_of(3) {
            note(format!("-image:{number}"));
            store.untag(&name).unwrap();
            store.delete_image(&image.id).unwrap();
            store.gc().unwrap();
        }
    }
}

fn start(root: &Path, round: u64, kill_at: Option<&str>) -> std::process::Child {
    start_with(Driver::Overlay, root, round, kill_at)
}

fn start_with(driver: Driver, root: &Path, round: u64, kill_at: Option<&str>) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::crash::child", "--nocapture"]);
    command.env(ROOT, root).env(ROUND, round.to_string());
    command.env(DRIVER, driver.to_string()).stdout(Stdio::null());
    if let Some(step) = kill_at {
        command.env("CREEL_STORE_KILL_AT", step);
    }
    command.spawn().unwrap()
}

/// Opens the store and holds it against what the child wrote down.
fn check(root: &Path) {
    let store = Store::open(&root.join("store")).unwrap();
    assert_eq!(store.open_report().quarantined, Vec::<String>::new());
    assert_whole(&store);
    let volumes = store.volumes();
    for volume in &volumes {
        // whole, with its document, and either empty or filled
        assert_eq!(
            volume.name,
            format!("volume-{}", String::from_utf8_lossy(volume.json.as_ref().unwrap().as_ref().unwrap()))
        );
        let count = std::fs::read_dir(store.volume_data(&volume.name)).unwrap().count();
        assert!(count == 0 || count == 2, "{}: {count} files", volume.name);
    }
    let beside = std::fs::read_dir(store.paths().volumes()).unwrap().count();
    assert_eq!(beside, volumes.len(), "something else lies among the volumes");
    let done = std::fs::read_to_string(root.join("done")).unwrap_or_default();
    let begun: Vec<&str> = done.lines().filter_map(|line| line.strip_prefix('-')).collect();
    for line in done.lines().filter_map(|line| line.strip_prefix('+')) {
        if begun.contains(&line) {
            continue;
        }
        let volume = |number: &str| store.volume_data(&format!("volume-{number}"));
        if let Some(number) = line.strip_prefix("volume ") {
            assert!(volumes.iter().any(|v| v.name == format!("volume-{number}")), "{line}");
            continue;
        }
        if let Some(number) = line.strip_prefix("filled ") {
            assert_eq!(std::fs::read_dir(volume(number)).unwrap().count(), 2, "{line}");
            continue;
        }
        match line.strip_prefix("container ") {
            Some(number) => {
                let record = store.record_by_name("container", number).unwrap_or_else(|| panic!("{line}"));
                assert_eq!(&record.json[..], number.as_bytes());
                store.snapshot(&container(number.parse().unwrap())).unwrap();
            }
            None => {
                let image = store.resolve_image(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                let own = layer_tree(&store, &image.layers[1].layer);
                assert_eq!(format!("image:{}", String::from_utf8_lossy(&own["own"])), line);
            }
        }
    }
    // a record and its snapshot live and die together
    let records = store.records("container");
    assert_eq!(records.len(), store.view().snapshots().count());
    for record in records {
        assert!(store.snapshot(&record.id.parse().unwrap()).is_ok());
    }
}

#[test]
fn killed_at_every_step_everything_is_whole_or_absent() {
    let steps = [
        "blob-before-sync",
        "blob-before-rename",
        "blob-before-dir-sync",
        "blob-before-row",
        "blob-after-row",
        "layer-before-sync",
        "layer-before-rename",
        "layer-before-dir-sync",
        "layer-before-row",
        "layer-after-row",
        "image-before-row",
        "snapshot-before-row",
        "snapshot-after-row",
        "snapshot-row-gone",
        "volume-before-sync",
        "volume-before-rename",
        "volume-before-dir-sync",
        "volume-filled",
        "volume-renamed-away",
        "gc-rows-gone",
        "gc-renamed",
        "db-before-commit",
        "db-after-commit",
    ];
    let dir = scratch();
    for (round, step) in steps.iter().enumerate() {
        let mut child = start(dir.path(), 2 * round as u64 + 1, Some(step));
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{step} was not reached");
        check(dir.path());
        let later = format!("{step}:{}", 2 + round % 4);
        let mut child = start(dir.path(), 2 * round as u64 + 2, Some(&later));
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{later} was not reached");
        check(dir.path());
    }
}

#[test]
fn killed_at_the_other_drivers_own_steps_everything_is_whole_or_absent() {
    if !is_root("to mount and to copy") {
        return;
    }
    let steps = [
        (Driver::Erofs, "erofs-before-image"),
        (Driver::Erofs, "layer-before-sync"),
        (Driver::Erofs, "layer-before-rename"),
        (Driver::Erofs, "layer-before-row"),
        (Driver::Erofs, "layer-after-row"),
        (Driver::Erofs, "snapshot-before-row"),
        (Driver::Erofs, "gc-rows-gone"),
        (Driver::Erofs, "gc-renamed"),
        (Driver::Copy, "copy-before-sync"),
        (Driver::Copy, "copy-before-dir-sync"),
        (Driver::Copy, "snapshot-before-row"),
        (Driver::Copy, "snapshot-after-row"),
        (Driver::Copy, "snapshot-row-gone"),
    ];
    // one store for all: each driver finds what the others have left
    let dir = scratch();
    for (round, (driver, step)) in steps.iter().enumerate() {
        let step = format!("{step}:{}", 1 + round % 3);
        let mut child = start_with(*driver, dir.path(), round as u64, Some(&step));
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{driver}: {step} was not reached");
        check(dir.path());
    }
}

#[test]
fn killed_at_any_moment_everything_is_whole_or_absent() {
    let dir = scratch();
    for round in 0..15 {
        let mut child = start(dir.path(), round, None);
        std::thread::sleep(Duration::from_millis(20 + (noise(round, 1)[0] as u64) * 2));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "the child failed by itself");
        check(dir.path());
    }
    let done = std::fs::read_to_string(dir.path().join("done")).unwrap_or_default();
    assert!(done.lines().count() > 10, "the kills came before any work: {done}");
}
