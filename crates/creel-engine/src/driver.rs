//! Which storage driver is used: the one that was asked for, or the first that works. Found out by trying it in the
//! store's own directory, since nothing else tells: the file system, the kernel's configuration and a sandbox around the
//! daemon all have a say.

use std::fs::{create_dir, create_dir_all, write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use creel_layer::Limits;
use creel_layer::tar::{Entry, Kind, Writer};
use creel_store::{Driver, Paths};

use crate::error::{Error, Result};
use crate::overlay;

/// Chooses the driver for a store.
pub(crate) fn choose(paths: &Paths, wanted: Option<Driver>) -> Result<Driver> {
    let root = paths.root().display();
    match wanted {
        Some(driver) => match attempt(paths, driver) {
            Ok(()) => Ok(driver),
            Err(why) => Err(Error::unsupported(format!(
                "the storage driver {driver} cannot be used in {root}: {why}; choose another one with --storage-driver \
                 (without it creel finds one that works), or another --root"
            ))),
        },
        None => match attempt(paths, Driver::Overlay) {
            Ok(()) => Ok(Driver::Overlay),
            Err(why) => {
                tracing::warn!(
                    "overlay cannot be used in {root}: {why}; containers' roots are made by copying their images \
                     (storage driver copy), which takes time and room"
                );
                Ok(Driver::Copy)
            }
        },
    }
}

/// Does what a driver needs of the machine, in a directory of its own that is gone afterwards.
fn attempt(paths: &Paths, driver: Driver) -> Result<()> {
    // In tmp/, which is emptied whenever the store is opened, should this process be killed now.
    let place = paths.tmp().join(format!("probe-{}", std::process::id()));
    let done =
        create_dir_all(&place).map_err(|e| Error::io("making a directory", e)).and_then(|()| match driver {
            Driver::Overlay => overlay_works(&place, None),
            Driver::Erofs => image(&place).and_then(|layer| overlay_works(&place, Some(layer))),
            Driver::Copy => Ok(()),
        });
    if let Err(e) = std::fs::remove_dir_all(&place) {
        tracing::warn!("removing {}: {e}", place.display());
    }
    done
}

/// A layer as an EROFS image.
fn image(place: &Path) -> Result<PathBuf> {
    let failed = |e: std::io::Error| Error::io("making an EROFS image", e);
    let mut tar = Writer::new(Vec::new());
    for (name, kind) in
        [("directory/", Kind::Directory), ("directory/inner", Kind::File), ("file", Kind::File)]
    {
        tar.entry(&Entry::new(name, kind)).map_err(failed)?;
    }
    let (tar, length) = tar.finish().map_err(failed)?;
    let indexed = creel_layer::erofs::index(&tar[..], &Limits::NONE, |_| false).map_err(|e| Error::of(&e))?;
    let indexed = indexed.map_err(|why| Error::internal(format!("indexing a layer: {why:?}")))?;
    let path = place.join("layer.erofs");
    write(creel_sys::erofs::archive_of(&path), tar).map_err(failed)?;
    let file = std::fs::File::create(&path).map_err(failed)?;
    indexed.tree.write(file, [1; 16], length).map_err(failed)?;
    Ok(path)
}

/// Mounts an overlay and has it write, delete and replace: each leaves its own kind of mark in the upper directory.
fn overlay_works(place: &Path, layer: Option<PathBuf>) -> Result<()> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.join(name));
    let failed = |what: &'static str| move |e: std::io::Error| Error::io(what, e);
    for dir in [&lower, &upper, &work] {
        create_dir(dir).map_err(failed("making a directory"))?;
    }
    let layer = match layer {
        Some(layer) => layer,
        None => {
            let layer = place.join("layer");
            create_dir_all(layer.join("directory")).map_err(failed("making a directory"))?;
            write(layer.join("directory/inner"), "").map_err(failed("writing a file"))?;
            write(layer.join("file"), "").map_err(failed("writing a file"))?;
            layer
        }
    };
    let tree = overlay::writable(&[lower, layer], &upper, &work)?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    std::fs::remove_file(root.join("file")).map_err(failed("deleting a file of a lower layer"))?;
    let directory = root.join("directory");
    std::fs::remove_dir_all(&directory)
        .and_then(|()| create_dir(&directory))
        .map_err(failed("replacing a directory of a lower layer"))?;
    write(root.join("new"), "").map_err(failed("writing a file"))?;
    drop(tree);
    let mark = std::fs::symlink_metadata(upper.join("file")).map_err(failed("looking for a whiteout"))?;
    if !mark.file_type().is_char_device() || mark.rdev() != 0 {
        return Err(Error::unsupported("its whiteouts are of a kind that creel does not know"));
    }
    let opaque = std::fs::File::open(upper.join("directory"))
        .and_then(|dir| creel_sys::xattr::get(&dir, c"trusted.overlay.opaque"))
        .map_err(failed("looking for the mark of an opaque directory"))?;
    match opaque.as_deref() {
        Some(b"y") => Ok(()),
        _ => Err(Error::unsupported("the file system does not keep the mark of an opaque directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> bool {
        if rustix::process::geteuid().is_root() {
            return true;
        }
        assert_ne!(std::env::var("CREEL_TEST_ROOT").as_deref(), Ok("1"), "this test needs root");
        eprintln!("skipped: needs root");
        false
    }

    #[test]
    fn overlay_is_used_where_it_works_and_copies_where_not() {
        if !root() {
            return;
        }
        let dir = tempfile::Builder::new().prefix("creel-test-").tempdir_in("/var/tmp").unwrap();
        let paths = Paths::new(dir.path());
        assert_eq!(choose(&paths, None).unwrap(), Driver::Overlay);
        assert_eq!(choose(&paths, Some(Driver::Copy)).unwrap(), Driver::Copy);
        match choose(&paths, Some(Driver::Erofs)) {
            Ok(driver) => assert_eq!(driver, Driver::Erofs),
            Err(why) => assert_ne!(std::env::var("CREEL_TEST_TOOLS").as_deref(), Ok("1"), "{why}"),
        }
        // An overlay is no place for another one's upper directory.
        let [lower, upper, work] = ["l", "u", "w"].map(|name| dir.path().join(name));
        for dir in [&lower, &upper, &work] {
            create_dir(dir).unwrap();
        }
        let tree = overlay::writable(&[lower], &upper, &work).unwrap();
        let paths = Paths::new(Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd())));
        assert_eq!(choose(&paths, None).unwrap(), Driver::Copy);
        let why = choose(&paths, Some(Driver::Overlay)).unwrap_err().to_string();
        assert!(why.contains("--storage-driver"), "{why}");
        assert_eq!(std::fs::read_dir(paths.tmp()).unwrap().count(), 0);
    }
}
