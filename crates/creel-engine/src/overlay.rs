//! Layers seen as one tree without mounting anything anywhere: a detached mount that ends with its descriptor.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use creel_sys::mount::{
    self as sys, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// fsconfig(2) takes strings of less than 256 bytes.
const MAX_STRING: usize = 255;

/// What overlayfs may not do: follow or leave redirects, copy metadata alone, keep an index.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

const STEP: &str = "looking at the container's layers as one tree";

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
    match by_fsconfig(lower, upper) {
        // Before Linux 6.5 overlayfs takes no layers one by one, and says so when it is made.
        Err((Errno::INVAL, _)) => in_a_namespace(lower, upper),
        other => other.map_err(|(_, error)| error),
    }
}

fn failed(e: Errno) -> Error {
    Error::io(STEP, e)
}

fn by_fsconfig(
    lower: &[&Path],
    upper: Option<(&Path, &Path)>,
) -> std::result::Result<OwnedFd, (Errno, Error)> {
    let failed = |e: Errno| (e, failed(e));
    let fs = sys::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    let said = |e: Errno| {
        let mut words = [0; 256];
        let error = match sys::fs_message(&fs, &mut words) {
            Some(text) => Error::io(format_args!("{STEP}: {}", text.trim_start_matches("e ")), e),
            None => Error::io(STEP, e),
        };
        (e, error)
    };
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| {
        let name = if creel_sys::erofs::is_image(path) {
            let tree = creel_sys::erofs::mount(path).map_err(|e| {
                let number = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                (number, Error::io(format_args!("mounting the layer {}", path.display()), e))
            })?;
            let name = format!("/proc/self/fd/{}", tree.as_raw_fd());
            held.push(tree);
            self::name(name).map_err(failed)?
        } else if path.as_os_str().len() <= MAX_STRING {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::INVAL))?
        } else {
            by_descriptor(path, &mut held).and_then(name).map_err(failed)?
        };
        sys::fsconfig_set_string(&fs, key, name.as_c_str()).map_err(said)
    };
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    for (key, value) in OPTIONS {
        sys::fsconfig_set_string(&fs, key, value).map_err(said)?;
    }
    if lower.iter().any(|layer| creel_sys::erofs::is_image(layer)) {
        // As the runtime mounts it: all files on one device.
        sys::fsconfig_set_string(&fs, "xino", "on").map_err(said)?;
    }
    sys::fsconfig_create(&fs).map_err(said)?;
    sys::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed)
}

/// A directory by a name that is short and needs no quoting; `held` keeps it valid.
fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> std::result::Result<String, Errno> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(name)
}

fn name(text: String) -> std::result::Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

/// The same by mount(2), for which there must be a place: one thread's mount namespace, which ends with the thread and
/// leaves the detached copy.
fn in_a_namespace(lower: &[&Path], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("old overlay".into());
        let thread = thread.spawn_scoped(scope, || by_mount(lower, upper));
        let thread = thread.map_err(|e| Error::io(STEP, e))?;
        thread.join().unwrap_or_else(|_| Err(failed(Errno::INVAL)))
    })
}

/// Must run in a thread of its own: it leaves the mount namespace of the process.
fn by_mount(lower: &[&Path], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    creel_sys::ns::unshare(creel_sys::clone::NEWNS).map_err(|e| Error::io(STEP, e))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    sys::mount_change("/", private).map_err(failed)?;
    // Opened here, not before: overlayfs refuses what belongs to another mount namespace.
    let mut held = Vec::new();
    let mut names = |paths: &[&Path]| {
        let names = paths.iter().map(|path| by_descriptor(path, &mut held));
        names.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)
    };
    let mut data = format!("lowerdir={}", names(lower)?.join(":"));
    let mut flags = MountFlags::RDONLY;
    if let Some((upper, work)) = upper {
        let both = names(&[upper, work])?;
        data.push_str(&format!(",upperdir={},workdir={}", both[0], both[1]));
        flags = MountFlags::empty();
    }
    for (key, value) in OPTIONS {
        data.push_str(&format!(",{key}={value}"));
    }
    let place = "/proc";
    let data = name(data).map_err(failed)?;
    sys::mount("overlay", place, "overlay", flags, Some(data.as_c_str())).map_err(failed)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    sys::open_tree(CWD, place, clone).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What the tree holds, by the descriptor.
    fn seen(tree: &OwnedFd) -> Vec<String> {
        let dir = fs::read_dir(format!("/proc/self/fd/{}", tree.as_raw_fd())).unwrap();
        let mut names: Vec<_> = dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_way_of_old_kernels_shows_the_same_tree_and_leaves_no_mount() {
        if !rustix::process::geteuid().is_root() {
            assert_ne!(std::env::var("CREEL_TEST_ROOT").as_deref(), Ok("1"), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::Builder::new().prefix("creel-test-").tempdir_in("/var/tmp").unwrap();
        let [low, lower, upper, work] = ["low,with:odd\\name", "lower", "upper", "work"].map(|name| {
            fs::create_dir(dir.path().join(name)).unwrap();
            dir.path().join(name)
        });
        fs::write(low.join("low"), "").unwrap();
        fs::write(lower.join("lower"), "").unwrap();
        fs::write(upper.join("upper"), "").unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let layers = [lower.as_path(), low.as_path()];
        let tree = in_a_namespace(&layers, Some((&upper, &work))).unwrap();
        assert_eq!(seen(&tree), ["low", "lower", "upper"]);
        fs::write(format!("/proc/self/fd/{}/new", tree.as_raw_fd()), "").unwrap();
        assert!(upper.join("new").exists());
        drop(tree);
        let tree = in_a_namespace(&[&upper, &lower, &low], None).unwrap();
        assert_eq!(seen(&tree), ["low", "lower", "new", "upper"]);
        assert!(fs::write(format!("/proc/self/fd/{}/more", tree.as_raw_fd()), "").is_err());
        drop(tree);
        let tree = read_only(&[lower, low], &upper).unwrap();
        assert_eq!(seen(&tree), ["low", "lower", "new", "upper"]);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    }
}
