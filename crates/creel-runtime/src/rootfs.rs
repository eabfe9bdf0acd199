//! The root file system: an overlay or a directory, mounted inside the container's own mount namespace.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_sys::mount::{self as sys, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::Rootfs;
use crate::error::{Error, Fault};
use crate::mounts::Propagation;
use crate::mounts::apply;

/// Options that keep overlayfs to what a layer may say: no redirects to other directories, no metadata-only copies
/// (the upper directory must be whole by itself, since `diff` and `commit` read it), no index.
const OVERLAY_OPTIONS: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// fsconfig(2) takes strings of less than 256 bytes.
const MAX_STRING: usize = 255;

/// The root as a mount that is attached nowhere, private or its host's slave; `None` where this kernel cannot make one (overlays before Linux 6.5,
/// whose layers cannot be given one by one).
pub(crate) fn detached(rootfs: &Rootfs, slave: bool) -> Result<Option<OwnedFd>, Fault> {
    match rootfs {
        Rootfs::Directory(path) => {
            let tree = apply::open_source(&path.display().to_string(), true)?;
            let mode = if slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
            apply::set_propagation(&tree, Propagation { mode, recursive: true })?;
            Ok(Some(tree))
        }
        Rootfs::Overlay { lower, upper, work } => match overlay(lower, upper, work) {
            Err(fault) if fault.errno == Some(libc::EINVAL) => Ok(None),
            other => other.map(Some),
        },
    }
}

/// Mounts the root, if that has not been done, and returns it, attached.
///
/// A directory is mounted over itself, since hooks of kind createContainer look for the container's mounts there. What
/// has no place of its own, or none that can be reached from here (a user namespace's root may not be let in), goes on
/// top of this mount namespace's own root: absolute paths of this process still begin below it.
pub(crate) fn mount(rootfs: &Rootfs, ready: Option<OwnedFd>) -> Result<OwnedFd, Fault> {
    let tree = match ready {
        Some(tree) => Some(tree),
        None => detached(rootfs, false)?,
    };
    match (tree, rootfs) {
        (Some(tree), _) => {
            let own = match rootfs {
                Rootfs::Directory(path) => place(path).ok(),
                Rootfs::Overlay { .. } => None,
            };
            let target = match own {
                Some(own) => own,
                None => place(Path::new("/"))?,
            };
            sys::attach(&tree, &target)?;
            Ok(tree)
        }
        (None, Rootfs::Overlay { lower, upper, work }) => old_overlay(lower, upper, work),
        (None, Rootfs::Directory(_)) => Err(Fault::from(Errno::INVAL)),
    }
}

/// A directory, to mount something on.
pub(crate) fn place(path: &Path) -> Result<OwnedFd, Fault> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Fault::from(e).context(path.display()))
}

/// A directory by a name that is short whatever its path is; the descriptor keeps the name valid.
fn short(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Fault> {
    if path.as_os_str().len() <= MAX_STRING {
        return Ok(path.to_path_buf());
    }
    by_descriptor(path, held)
}

fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Fault> {
    let fd = place(path)?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    held.push(fd);
    Ok(name)
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Fault> {
    let fs = sys::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let said = |e: Errno, what: &dyn std::fmt::Display| {
        let mut words = [0u8; 256];
        let fault = Fault::from(e);
        match sys::fs_message(&fs, &mut words) {
            Some(text) => fault.context(format!("{what}: {}", text.trim_start_matches("e "))),
            None => fault.context(what),
        }
    };
    let mut held = Vec::new();
    sys::fsconfig_set_string(&fs, "source", "overlay").map_err(|e| said(e, &"source"))?;
    for layer in lower {
        let name = short(layer, &mut held)?;
        sys::fsconfig_set_string(&fs, "lowerdir+", name.as_path()).map_err(|e| said(e, &layer.display()))?;
    }
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        let name = short(path, &mut held)?;
        sys::fsconfig_set_string(&fs, key, name.as_path()).map_err(|e| said(e, &path.display()))?;
    }
    for (key, value) in OVERLAY_OPTIONS {
        sys::fsconfig_set_string(&fs, key, value).map_err(|e| said(e, &key))?;
    }
    sys::fsconfig_create(&fs).map_err(|e| said(e, &upper.display()))?;
    Ok(sys::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The classic mount(2), with all layers in one string; each is named by a descriptor, which is short and needs no
/// quoting, so that 128 layers fit into the page that the kernel reads.
fn old_overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Fault> {
    let mut held = Vec::new();
    let mut names = Vec::new();
    for path in lower.iter().map(PathBuf::as_path).chain([upper, work]) {
        names.push(by_descriptor(path, &mut held)?.display().to_string());
    }
    let mut data = format!("lowerdir={}", names[..lower.len()].join(":"));
    data.push_str(&format!(",upperdir={},workdir={}", names[lower.len()], names[lower.len() + 1]));
    for (key, value) in OVERLAY_OPTIONS {
        data.push_str(&format!(",{key}={value}"));
    }
    let data = std::ffi::CString::new(data).map_err(|_| Fault::from(Errno::INVAL))?;
    sys::mount("overlay", upper, "overlay", MountFlags::empty(), Some(data.as_c_str()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, upper, flags, Mode::empty())?)
}

/// Unmounts everything below a directory: what a container without a mount namespace of its own leaves behind there.
///
/// # Errors
/// [`Error::Setup`] when the mounts cannot be listed, or one cannot be unmounted; the others are all the same.
pub fn unmount_below(root: &Path) -> Result<(), Error> {
    let failed = |e: &std::io::Error| {
        Error::setup(format!("cannot unmount what is below {}", root.display()), crate::error::plain(e))
    };
    let root = root.canonicalize().map_err(|e| failed(&e))?;
    let text = creel_sys::kernelfs::read_to_string("/proc/self/mountinfo").map_err(|e| failed(&e))?;
    let mut result = Ok(());
    // The latest first: it may lie on an earlier one.
    for line in text.lines().rev() {
        let place = PathBuf::from(creel_sys::kernelfs::unescape(line.split(' ').nth(4).unwrap_or("")));
        if place != root && place.starts_with(&root) {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            if let Err(e) = rustix::mount::unmount(&place, flags) {
                result = Err(failed(&e.into()));
            }
        }
    }
    result
}
