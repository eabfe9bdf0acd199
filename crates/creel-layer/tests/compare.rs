//! A layer held against another unpacking of its archive: whatever is changed is found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use common::{Tar, layer, root, scratch, special};
use creel_layer::differences;
use creel_layer::tar::Kind;

fn archive() -> Tar {
    Tar::new()
        .dir("./")
        .dir("d/")
        .file("d/file", "some content")
        .file("d/other", "more")
        .link("d/linked", "d/file")
        .symlink("link", "d/file")
        .kind("fifo", Kind::Fifo)
        .kind("null", Kind::CharDevice(1, 3))
        .add(special("special/"), b"")
        .sparse("sparse", 1 << 40, 1 << 30, "in the middle")
        .file("special/.wh..wh..opq", "")
        .file("d/.wh.gone", "")
}

/// What is found after `change` to an unpacking of [`archive`].
fn after(change: impl FnOnce(&Path)) -> Vec<String> {
    let scratch = scratch();
    let (expected, unpacked) = layer(scratch.path(), "expected", archive(), &[]);
    unpacked.unwrap();
    let (found, unpacked) = layer(scratch.path(), "found", archive(), &[]);
    unpacked.unwrap();
    change(&found);
    let all = differences(&expected, &found, true, 10).unwrap();
    assert_eq!(all.count as usize, all.first.len());
    all.first
}

fn stamp(path: &Path, of: &Path) {
    let meta = fs::symlink_metadata(of).unwrap();
    fs::File::open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
}

#[test]
fn two_unpackings_are_the_same() {
    if root() {
        assert_eq!(after(|_| ()), Vec::<String>::new());
    }
}

#[test]
fn each_change_is_named() {
    if !root() {
        return;
    }
    let keep_time = |path: PathBuf, change: &dyn Fn(&Path)| {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        change(&path);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let in_place = |path: &Path, at: u64, data: &[u8]| {
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(path).unwrap().write_all_at(data, at).unwrap();
    };
    // the same length, the same time: only the data tells
    let flipped = after(|dir| keep_time(dir.join("d/other"), &|path| in_place(path, 2, b"X")));
    assert_eq!(flipped, ["d/other: its data differs at byte 2"]);
    // one file under two names
    let linked = after(|dir| keep_time(dir.join("d/file"), &|path| in_place(path, 0, b"S")));
    assert_eq!(linked.len(), 2, "{linked:?}");
    let hole = after(|dir| keep_time(dir.join("sparse"), &|path| in_place(path, 1 << 39, b"x")));
    assert_eq!(hole, [format!("sparse: its data differs at byte {}", 1u64 << 39)]);
    // zeros in a hole's place are the same content
    assert_eq!(after(|dir| keep_time(dir.join("sparse"), &|path| in_place(path, 0, &[0; 9000]))), [""; 0]);
    let mode = after(|dir| fs::set_permissions(dir.join("link"), fs::Permissions::from_mode(0o600)).unwrap());
    assert!(
        mode.iter().all(|line| line.ends_with("its mode is 0600, not 0644")) && mode.len() == 2,
        "{mode:?}"
    );
    assert_eq!(
        after(|dir| lchown(dir.join("link"), Some(5), None).unwrap()),
        ["link: its owner is 5:0, not 0:0"]
    );
    let owner = after(|dir| chown(dir.join("special"), Some(1), Some(2)).unwrap());
    assert_eq!(owner, ["special: its owner is 1:2, not 11:12"]);
    let time = after(|dir| stamp(&dir.join("special"), &dir.join("d")));
    assert_eq!(time, ["special: its time of modification differs"]);
    let attribute = after(|dir| {
        rustix::fs::setxattr(dir.join("special"), "user.kept", b"no", rustix::fs::XattrFlags::empty())
            .unwrap()
    });
    assert_eq!(attribute, ["special: its extended attributes differ"]);
    let opaque = after(|dir| rustix::fs::removexattr(dir.join("special"), "trusted.overlay.opaque").unwrap());
    assert_eq!(opaque, ["special: its extended attributes differ"]);
    let gone = after(|dir| {
        let time = fs::metadata(dir.join("d")).unwrap().modified().unwrap();
        fs::remove_file(dir.join("d/gone")).unwrap();
        fs::remove_file(dir.join("d/other")).unwrap();
        fs::write(dir.join("d/new"), "").unwrap();
        fs::File::open(dir.join("d")).unwrap().set_modified(time).unwrap();
    });
    assert_eq!(gone, ["d/gone: it is missing", "d/new: it is not in the archive", "d/other: it is missing"]);
    let kind = after(|dir| {
        fs::remove_file(dir.join("fifo")).unwrap();
        fs::create_dir(dir.join("fifo")).unwrap();
        stamp(dir, &dir.join("d"));
    });
    assert!(kind.contains(&"fifo: it is a directory, not a named pipe".to_owned()), "{kind:?}");
    let target = after(|dir| {
        let time = fs::symlink_metadata(dir.join("link")).unwrap();
        fs::remove_file(dir.join("link")).unwrap();
        symlink("d/fale", dir.join("link")).unwrap();
        let time = rustix::fs::Timespec { tv_sec: time.mtime(), tv_nsec: time.mtime_nsec() };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, dir.join("link"), &times, nofollow).unwrap();
    });
    assert!(target.contains(&"link: it leads elsewhere".to_owned()), "{target:?}");
    // two files of the same content where one with two names should be
    let unlinked = after(|dir| {
        let meta = fs::metadata(dir.join("d/linked")).unwrap();
        fs::remove_file(dir.join("d/linked")).unwrap();
        fs::write(dir.join("d/linked"), "some content").unwrap();
        fs::File::options()
            .write(true)
            .open(dir.join("d/linked"))
            .unwrap()
            .set_modified(meta.modified().unwrap())
            .unwrap();
        fs::set_permissions(dir.join("d/linked"), meta.permissions()).unwrap();
    });
    assert!(unlinked.iter().any(|line| line.contains("is not linked to the files")), "{unlinked:?}");
    assert_eq!(after(|dir| fs::remove_dir_all(dir.join("d")).unwrap()).len(), 2); // the root's time, too
}
