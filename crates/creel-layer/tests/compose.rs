//! A root that is a copy of its layers: it shows what overlayfs shows, and whatever is changed in it is found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: an unwrap is an assertion")]

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Tar, describe, layer, root, scratch, special};
use creel_layer::tar::{Entry, Kind, Timestamp};
use creel_layer::{changes, changes_of_copy, compose, differences, pack_copy, pack_diff};
use creel_sys::mount as sys;

fn layers(scratch: &Path) -> Vec<PathBuf> {
    let capable = Entry {
        mode: 0o4755,
        xattrs: vec![
            (b"security.capability".to_vec(), b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            (b"user.x".to_vec(), b"y".to_vec()),
        ],
        mtime: Timestamp { seconds: 7, nanoseconds: 123_456_789 },
        ..Entry::new("d/capable", Kind::File)
    };
    let low = Tar::new()
        .add(Entry { mode: 0o750, uid: 5, ..Entry::new("./", Kind::Directory) }, b"")
        .dir("d/")
        .file("d/gone", "low")
        .file("d/kept", "low")
        .add(capable, b"")
        .link("d/linked", "d/kept")
        .dir("hidden/")
        .file("hidden/x", "")
        .dir("gone/")
        .file("gone/y", "")
        .file("type", "a file")
        .dir("other/")
        .file("other/z", "")
        .kind("null", Kind::CharDevice(1, 3))
        .kind("fifo", Kind::Fifo)
        .sparse("sparse", 1 << 33, 1 << 32, "in the middle")
        .symlink("link", "d/kept")
        .add(special("special/"), b"")
        .file("special/inner", "");
    let top = Tar::new()
        .dir("d/")
        .file("d/.wh.gone", "")
        .file("d/new", "top")
        .dir("hidden/")
        .file("hidden/.wh..wh..opq", "")
        .file("hidden/shown", "")
        .file(".wh.gone", "")
        .dir("type/")
        .file("type/inside", "")
        .file("other", "now a file")
        .add(special("special/"), b"");
    let (low, done) = layer(scratch, "low", low, &[]);
    done.unwrap();
    let (top, done) = layer(scratch, "top", top, &[&low]);
    done.unwrap();
    vec![top, low]
}

/// The layers as overlayfs shows them, by a path that is good as long as the descriptor is.
fn overlay(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> (std::os::fd::OwnedFd, PathBuf) {
    let fs = sys::fsopen("overlay", sys::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in lowers {
        sys::fsconfig_set_string(&fs, "lowerdir+", lower.as_path()).unwrap();
    }
    if let Some((upper, work)) = upper {
        sys::fsconfig_set_string(&fs, "upperdir", upper).unwrap();
        sys::fsconfig_set_string(&fs, "workdir", work).unwrap();
    }
    for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
        sys::fsconfig_set_string(&fs, key, value).unwrap();
    }
    sys::fsconfig_create(&fs).unwrap();
    let tree = sys::fsmount(&fs, sys::FsMountFlags::FSMOUNT_CLOEXEC, sys::MountAttrFlags::empty()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    (tree, path)
}

/// A copy, and the file that says since when.
fn copy(scratch: &Path, name: &str, lowers: &[PathBuf], like: &Path) -> (PathBuf, PathBuf) {
    let (to, made) = (scratch.join(name), scratch.join(format!("{name}-made")));
    fs::create_dir(&to).unwrap();
    compose(lowers, like, &to).unwrap();
    fs::write(&made, "").unwrap();
    (to, made)
}

#[test]
fn a_copy_is_what_overlayfs_shows() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let lowers = layers(scratch.path());
    let (to, made) = copy(scratch.path(), "copy", &lowers, &lowers[1]);
    let (_tree, seen) = overlay(&lowers, None);
    let mut found = differences(&seen, &to, false, 10).unwrap();
    // the root's own is that of the layer which says something about it; overlayfs shows the topmost one's
    found.first.retain(|line| !line.starts_with("/: "));
    assert_eq!(found.first, Vec::<String>::new());
    let meta = fs::metadata(&to).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o750, 5));
    assert_eq!(fs::metadata(to.join("d/kept")).unwrap().nlink(), 2);
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 1 << 20, "holes are holes");
    assert_eq!(changes_of_copy(&to, &lowers, &made).unwrap(), vec![]);
}

#[test]
fn plain_whiteouts_hide_as_overlayfs_own_do() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let lowers = layers(scratch.path());
    let (expected, _) = copy(scratch.path(), "expected", &lowers, &lowers[1]);
    let top = &lowers[0];
    for name in ["d/.wh.gone", ".wh.gone", "hidden/.wh..wh..opq"] {
        fs::write(top.join(name), "").unwrap();
    }
    for name in ["d/gone", "gone"] {
        fs::remove_file(top.join(name)).unwrap();
    }
    rustix::fs::removexattr(top.join("hidden"), "trusted.overlay.opaque").unwrap();
    let (found, _) = copy(scratch.path(), "found", &lowers, &lowers[1]);
    // making the marks by hand has changed the directories' times
    assert_eq!(describe(&expected, false), describe(&found, false));
}

/// What a container may do, in a root that is mounted or copied.
fn change(at: &Path) {
    fs::write(at.join("d/new"), "changed").unwrap();
    fs::remove_file(at.join("d/kept")).unwrap();
    fs::write(at.join("d/fresh"), "").unwrap();
    fs::remove_dir_all(at.join("type")).unwrap();
    symlink("elsewhere", at.join("type")).unwrap();
    fs::remove_dir_all(at.join("special")).unwrap();
    fs::create_dir(at.join("special")).unwrap();
    fs::write(at.join("special/again"), "").unwrap();
    fs::set_permissions(at.join("hidden"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::hard_link(at.join("other"), at.join("another")).unwrap();
    fs::rename(at.join("null"), at.join("moved")).unwrap();
}

#[test]
fn a_copys_changes_are_those_of_an_overlay_and_so_is_the_layer() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let lowers = layers(scratch.path());
    let (to, made) = copy(scratch.path(), "copy", &lowers, &lowers[1]);
    let [upper, work] = ["upper", "work"].map(|name| scratch.path().join(name));
    for dir in [&upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    fs::set_permissions(&upper, PermissionsExt::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(&upper, Some(5), None).unwrap();
    let (tree, seen) = overlay(&lowers, Some((&upper, &work)));
    change(&seen);
    drop(tree);
    change(&to);
    assert_eq!(changes_of_copy(&to, &lowers, &made).unwrap(), changes(&upper, &lowers).unwrap());
    // Both layers upon the same ones show the same: the copy's has nothing in it that was not changed.
    let below: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let mut shown = Vec::new();
    for name in ["overlays", "copys"] {
        let mut tar = Vec::new();
        match name {
            "copys" => pack_copy(&to, &lowers, &made, &mut tar).unwrap(),
            _ => pack_diff(&upper, &lowers, &mut tar).unwrap(),
        };
        let dest = scratch.path().join(name);
        fs::create_dir(&dest).unwrap();
        let options = creel_layer::UnpackOptions {
            parents: below.iter().map(|path| path.to_path_buf()).collect(),
            ..Default::default()
        };
        creel_layer::unpack(&tar[..], &dest, &options).unwrap();
        let all: Vec<PathBuf> = [dest].into_iter().chain(lowers.iter().cloned()).collect();
        let (root, _) = copy(scratch.path(), &format!("{name}-root"), &all, &lowers[1]);
        shown.push(describe(&root, false));
    }
    assert_eq!(shown[0], shown[1]);
    assert!(shown[1].contains_key("another") && !shown[1].contains_key("null"));
}

#[test]
fn a_change_is_found_though_its_traces_are_covered() {
    if !root() {
        return;
    }
    let scratch = scratch();
    let lowers = layers(scratch.path());
    let (to, made) = copy(scratch.path(), "copy", &lowers, &lowers[1]);
    // data of the same length, and the time set back
    let file = to.join("d/new");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "TOP").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    // an attribute that `diff` does not look at
    let set = |name: &str| {
        rustix::fs::setxattr(to.join(name), "user.new", b"", rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("d/capable");
    set("hidden");
    // touched, and made what it was
    let same = to.join("other");
    let time = fs::metadata(&same).unwrap().modified().unwrap();
    fs::write(&same, "now a file").unwrap();
    fs::File::options().write(true).open(&same).unwrap().set_modified(time).unwrap();
    let found: Vec<String> = changes_of_copy(&to, &lowers, &made)
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
        .collect();
    assert_eq!(found, ["C /d", "C /d/capable", "C /d/new", "C /hidden"]);
}
