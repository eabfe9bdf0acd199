//! Layers that are EROFS images: mounting one without attaching it anywhere (kernel, `Documentation/filesystems/erofs.rst`).
//!
//! `NAME.erofs` holds names and attributes and says which blocks of `NAME.tar`, its one further device, are which file's
//! content. Both are plain files: the kernel reads them as such since 6.12 (`CONFIG_EROFS_FS_BACKED_BY_FILE`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fs_message, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// What an image's name ends with.
pub const IMAGE: &str = "erofs";
/// What its archive's name ends with instead.
pub const ARCHIVE: &str = "tar";

/// Whether a path names an image. Only the name is looked at.
pub fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == IMAGE)
}

/// The archive that an image points into. Allocates.
pub fn archive_of(image: &Path) -> PathBuf {
    image.with_extension(ARCHIVE)
}

/// Mounts an image read-only and returns the mount, which is attached nowhere and ends with its last descriptor.
/// Allocates.
///
/// # Errors
/// The kernel's, with its own words if it has any: ENODEV without EROFS, ENOTBLK where files cannot be mounted.
pub fn mount(image: &Path) -> io::Result<OwnedFd> {
    // By descriptors: the kernel takes names of less than 256 bytes.
    let open = |path: &Path| {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| told(e, &path.display().to_string()))?;
        io::Result::Ok((format!("/proc/self/fd/{}", file.as_raw_fd()), file))
    };
    let ((image, _image), (archive, _archive)) = (open(image)?, open(&archive_of(image))?);
    let fs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| told(e, "fsopen erofs"))?;
    let said = |e: rustix::io::Errno| {
        let mut words = [0; 256];
        match fs_message(&fs, &mut words) {
            Some(text) => told(e, text.trim_start_matches("e ")),
            None => e.into(),
        }
    };
    fsconfig_set_flag(&fs, "ro").map_err(said)?;
    fsconfig_set_string(&fs, "source", image.as_str()).map_err(said)?;
    fsconfig_set_string(&fs, "device", archive.as_str()).map_err(said)?;
    fsconfig_create(&fs).map_err(said)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}

/// An error with the kernel's (or our own) words in front of what its number means.
fn told(error: rustix::io::Errno, words: &str) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{words}: {error}"))
}
