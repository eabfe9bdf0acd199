//! The init layer over several kinds of images.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::scratch;
use creel_layer::make_init_layer;

fn listing(root: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if meta.is_symlink() {
                found.push(format!("{name} -> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                let kind = if meta.is_dir() { "/" } else { "" };
                found.push(format!("{name}{kind} {:o}", meta.mode() & 0o7777));
            }
            if meta.is_dir() {
                walk(&path, root, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

#[test]
fn from_nothing_it_has_everything() {
    let dir = scratch();
    make_init_layer(dir.path(), &[]).unwrap();
    assert_eq!(
        listing(dir.path()),
        [
            ".dockerenv 755",
            "dev/ 755",
            "dev/console 755",
            "dev/pts/ 755",
            "dev/shm/ 755",
            "etc/ 755",
            "etc/hostname 755",
            "etc/hosts 755",
            "etc/mtab -> /proc/mounts",
            "etc/resolv.conf 755",
            "proc/ 755",
            "sys/ 755",
        ]
    );
}

#[test]
fn directories_of_the_image_stay_and_look_as_they_did() {
    let (dir, below) = (scratch(), scratch());
    let (top, base) = (below.path().join("top"), below.path().join("base"));
    for path in ["etc", "proc", "dev/pts", "dev/console"] {
        std::fs::create_dir_all(base.join(path)).unwrap();
    }
    std::fs::create_dir_all(top.join("etc/hosts")).unwrap();
    std::fs::write(base.join("etc/hostname"), "the image's").unwrap();
    // A link where a directory is wanted gives way, as it does in Docker.
    symlink("/elsewhere", top.join("sys")).unwrap();
    std::fs::set_permissions(top.join("etc"), std::fs::Permissions::from_mode(0o1711)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
    std::fs::File::open(top.join("etc")).unwrap().set_modified(time).unwrap();
    make_init_layer(dir.path(), &[top, base]).unwrap();
    assert_eq!(
        listing(dir.path()),
        [
            ".dockerenv 755",
            "dev/ 755",
            "dev/shm/ 755",
            "etc/ 1711",
            "etc/hostname 755",
            "etc/mtab -> /proc/mounts",
            "etc/resolv.conf 755",
            "sys/ 755",
        ]
    );
    assert_eq!(std::fs::metadata(dir.path().join("etc")).unwrap().mtime(), 1_000);
}
