//! Layers seen as one tree without mounting anything anywhere: a detached mount that ends with its descriptor.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use creel_sys::mount::{self as sys, FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// fsconfig(2) takes strings of less than 256 bytes.
const MAX_STRING: usize = 255;

/// A container's tree, read-only: `lower` (topmost first) below `upper`.
pub(crate) fn read_only(lower: &[PathBuf], upper: &Path) -> Result<OwnedFd> {
    // Without an upper directory overlayfs wants two lower ones at least; the init layer is always there.
    let layers: Vec<&Path> = std::iter::once(upper).chain(lower.iter().map(PathBuf::as_path)).collect();
    detached(&layers, None)
}

/// A container's tree, writable: `lower` (topmost first) below `upper`.
pub(crate) fn writable(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let layers: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    detached(&layers, Some((upper, work)))
}

fn detached(lower: &[&Path], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    let step = "looking at the container's layers as one tree";
    let failed = |e: rustix::io::Errno| Error::io(step, e);
    let fs = sys::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    let said = |e: rustix::io::Errno| {
        let mut words = [0; 256];
        match sys::fs_message(&fs, &mut words) {
            Some(text) => Error::io(format_args!("{step}: {}", text.trim_start_matches("e ")), e),
            None => Error::io(step, e),
        }
    };
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| {
        let name = if path.as_os_str().len() <= MAX_STRING {
            CString::new(path.as_os_str().as_bytes())
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            held.push(fd);
            CString::new(name)
        };
        let name = name.map_err(|_| failed(rustix::io::Errno::INVAL))?;
        sys::fsconfig_set_string(&fs, key, name.as_c_str()).map_err(said)
    };
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
        sys::fsconfig_set_string(&fs, key, value).map_err(said)?;
    }
    sys::fsconfig_create(&fs).map_err(said)?;
    sys::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed)
}
