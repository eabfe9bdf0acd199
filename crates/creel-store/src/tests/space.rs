//! A full disk: errors that say so, nothing left behind, and all is well again when there is room.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::*;

const MOUNT: &str = "CREEL_STORE_SMALL_DISK";

/// Runs in a mount namespace of its own, in which it mounts a small file system.
#[test]
fn child() {
    let Some(mount) = std::env::var_os(MOUNT) else { return };
    let mount = std::path::PathBuf::from(mount);
    rustix::mount::mount("small", &mount, "tmpfs", rustix::mount::MountFlags::empty(), c"size=3m").unwrap();
    let store = Store::open(&mount.join("store")).unwrap();
    let layer = |seed: u64, size: usize| tar(&[("file", &noise(seed, size))]);
    let before = pull(&store, &[layer(1, 10_000)], &[reference("before")]).unwrap();

    // each alone: too large a blob, too large a layer
    let error = store.put_blob(&noise(2, 4_000_000)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let plain = layer(3, 4_000_000);
    let archive = gzip(&plain);
    let error = store.apply_layer(&archive[..], &sha256(&plain), &[], &ApplyOptions::default()).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let zeros = tar(&[("file", &vec![0; 4_000_000])]);
    let small = gzip(&zeros);
    let options = ApplyOptions {
        keep_blob: Some(descriptor(media_type::OCI_LAYER_GZIP, &small)),
        ..Default::default()
    };
    let error = store.apply_layer(&small[..], &sha256(&zeros), &[], &options).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_whole(&store);

    // with every amount of room that lets a pull fail at another step
    let filler = mount.join("filler");
    let mut refused = 0;
    for room in (0..300).step_by(12) {
        let _ = std::fs::remove_file(&filler);
        let free = rustix::fs::statvfs(&mount).unwrap();
        let free = free.f_bavail * free.f_frsize;
        std::fs::write(&filler, vec![0; (free.saturating_sub(room << 10)) as usize]).unwrap();
        let name = reference(&format!("image:{room}"));
        match pull(&store, &[layer(room, 60_000), layer(room + 1, 10_000)], &[name]) {
            Ok(image) => {
                std::fs::remove_file(&filler).unwrap();
                store.delete_image(&image.id).unwrap();
            }
            Err(error) => {
                assert!(error.is_no_space(), "with {room} KiB: {error}");
                refused += 1;
            }
        }
        let _ = std::fs::remove_file(&filler);
        store.gc().unwrap();
        assert_whole(&store);
        assert_eq!(store.resolve_image("before").unwrap().id, before.id);
    }
    assert!(refused > 3 && refused < 25, "{refused} pulls were refused");

    // records until nothing goes any more; what was acknowledged is there after opening anew
    let free = rustix::fs::statvfs(&mount).unwrap();
    std::fs::write(&filler, vec![0; (free.f_bavail * free.f_frsize - 200_000) as usize]).unwrap();
    let json = format!("\"{}\"", "x".repeat(2000));
    let written = (0..1000)
        .take_while(|number| match store.put_record("volume", &number.to_string(), None, json.as_bytes()) {
            Ok(()) => true,
            Err(error) => {
                assert!(error.is_no_space(), "{error}");
                false
            }
        })
        .count();
    assert!((10..1000).contains(&written), "{written} records");
    // larger than what is left in the write-ahead log's last page
    let large = json.repeat(40).replace("\"\"", "");
    let error =
        store.create_container(&container(1), &before, "container", None, large.as_bytes()).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(!store.container_dir(&container(1)).exists());
    drop(store);
    // opening a store on a full disk must not fail
    let store = Store::open(&mount.join("store")).unwrap();
    assert_eq!(store.records("volume").len(), written);
    std::fs::remove_file(&filler).unwrap();
    store.create_container(&container(1), &before, "container", None, b"{}").unwrap();
    assert_whole(&store);
    // the parent tells this end from a test that was not run
    std::process::exit(42);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    if !is_root("to mount a small file system") {
        return;
    }
    let dir = scratch();
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "tests::space::child", "--nocapture"])
        .env(MOUNT, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.status.signal()), (Some(42), None), "{text}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "the mount has leaked");
}

const QUOTA: &str = "CREEL_STORE_QUOTA";

fn tool(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// In a mount namespace of its own, on a btrfs subvolume that may only have so much.
#[test]
fn quota_child() {
    let Some(dir) = std::env::var_os(QUOTA) else { return };
    let dir = dir.to_str().unwrap();
    let root = format!("{dir}/disk/volume");
    tool(&format!(
        "cd {dir} && truncate -s 200M image && mkfs.btrfs -q image && mkdir disk && mount -o loop image disk &&
         btrfs quota enable disk && btrfs subvolume create disk/volume && btrfs qgroup limit 12M disk/volume"
    ));
    let store = Store::open(Path::new(&root)).unwrap();
    let layer = |seed: u64, size: usize| tar(&[("file", &noise(seed, size))]);
    let before = pull(&store, &[layer(1, 10_000)], &[reference("before")]).unwrap();
    let large = noise(2, 20_000_000);
    let error = store.put_blob(&large).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let plain = tar(&[("file", &large)]);
    let archive = gzip(&plain);
    let error = store.apply_layer(&archive[..], &sha256(&plain), &[], &ApplyOptions::default()).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_whole(&store);
    // in the log of the database, where SQLite tells of a failed disk
    let json = format!("\"{}\"", "x".repeat(100_000));
    let mut written = 0;
    let error = loop {
        match store.put_record("volume", &written.to_string(), None, json.as_bytes()) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000);
    };
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains("free some room"), "{error}");
    drop(store);
    let store = Store::open(Path::new(&root)).unwrap();
    assert_eq!(store.records("volume").len(), written);
    tool(&format!("btrfs quota disable {dir}/disk"));
    store.create_container(&container(1), &before, "container", None, b"{}").unwrap();
    assert_whole(&store);
    drop(store);
    tool(&format!("umount {dir}/disk"));
    std::process::exit(42);
}

#[test]
fn the_end_of_a_quota_is_a_full_disk() {
    if !is_root("to mount a file system with quotas") {
        return;
    }
    if Command::new("btrfs").arg("--version").output().is_err() {
        println!("skipped: there is no btrfs, whose quotas need nothing but it");
        return;
    }
    let dir = scratch();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "tests::space::quota_child", "--nocapture"])
        .env(QUOTA, dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", String::from_utf8_lossy(&output.stderr));
}
