//! The root file system: an overlay or a directory, mounted inside the container's own mount namespace.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_sys::mount::{self as sys, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use creel_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::Rootfs;
use crate::error::{Error, Fault};
use crate::mounts::apply;
use crate::mounts::{MountOptions, Propagation};

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

/// A layer by a name that is short whatever its path is; the descriptor keeps the name valid.
fn short(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Fault> {
    if creel_sys::erofs::is_image(path) {
        held.push(creel_sys::erofs::mount(path).map_err(|e| not_mounted(path, e))?);
        let fd = held.last().map_or(-1, |fd| fd.as_raw_fd());
        return Ok(PathBuf::from(format!("/proc/self/fd/{fd}")));
    }
    if path.as_os_str().len() <= MAX_STRING {
        return Ok(path.to_path_buf());
    }
    by_descriptor(path, held)
}

/// Not with the kernel's number: that of an overlay would mean that it wants to be mounted in another way.
fn not_mounted(image: &Path, error: std::io::Error) -> Fault {
    Fault::new(ErrorKind::Unsupported, format!("cannot mount the layer {}: {error}", image.display()))
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
    if lower.iter().any(|layer| creel_sys::erofs::is_image(layer)) {
        // Several file systems: all files shall be on one device nevertheless (`overlayfs.rst`, "Inode properties").
        sys::fsconfig_set_string(&fs, "xino", "on").map_err(|e| said(e, &"xino"))?;
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

/// Before the root is changed without pivot_root(2): takes the host's procfs and sysfs away, and moves the root over the
/// host's. With those in reach, be it below, the kernel would let a user namespace inside mount its own, in which nothing
/// is masked (mount_too_revealing in fs/namespace.c).
pub(crate) fn cover_the_host(root: BorrowedFd<'_>) -> Result<(), Fault> {
    let own = mount_id(root)?;
    let text = creel_sys::kernelfs::read_to_string("/proc/self/mountinfo")?;
    let mounts: Vec<Mounted> = text.lines().filter_map(Mounted::parse).collect();
    let in_root = |mount: &Mounted| {
        // Up through the parents; there are no more of them than mounts.
        let mut id = mount.id;
        for _ in 0..mounts.len() {
            if id == own {
                return true;
            }
            match mounts.iter().find(|other| other.id == id) {
                Some(above) if above.parent != id => id = above.parent,
                _ => return false,
            }
        }
        false
    };
    let whole = |mount: &&Mounted| mount.root == Path::new("/") && matches!(mount.kind, "proc" | "sysfs");
    for mount in mounts.iter().filter(whole).filter(|mount| !in_root(mount)) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(&mount.place, flags) {
            // Gone with one that it lay on.
            Ok(()) | Err(Errno::NOENT) => {}
            // Locked in place, so that it can only be covered.
            Err(Errno::INVAL | Errno::PERM) => {
                let over = apply::new_filesystem("tmpfs", "tmpfs", &MountOptions::default(), &[])?;
                sys::attach(&over, place(&mount.place)?)?;
            }
            Err(e) => return Err(Fault::from(e).context(mount.place.display())),
        }
    }
    match sys::attach(root, place(Path::new("/"))?) {
        // It is there already, on top.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EINVAL)) => Ok(()),
        other => Ok(other?),
    }
}

/// The mount that a descriptor is in, by the number that mountinfo shows.
fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Fault> {
    let info = creel_sys::kernelfs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    number.and_then(|number| number.parse().ok()).ok_or_else(|| Fault::from(Errno::INVAL))
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mounted<'a> {
    id: u64,
    parent: u64,
    root: PathBuf,
    place: PathBuf,
    kind: &'a str,
}

impl Mounted<'_> {
    fn parse(line: &str) -> Option<Mounted<'_>> {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        let mut number = || fields.next()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let _device = fields.next()?;
        let mut path = || fields.next().map(|path| PathBuf::from(creel_sys::kernelfs::unescape(path)));
        let root = path()?;
        Some(Mounted { id, parent, root, place: path()?, kind: right.split(' ').next()? })
    }
}

/// How many mounts lie over one another on a directory.
///
/// # Errors
/// [`Error::Setup`] when the mounts cannot be listed.
pub fn mounts_on(root: &Path) -> Result<usize, Error> {
    let failed = |e: &std::io::Error| {
        Error::setup(format!("cannot find the mounts on {}", root.display()), crate::error::plain(e))
    };
    let root = root.canonicalize().map_err(|e| failed(&e))?;
    let text = creel_sys::kernelfs::read_to_string("/proc/self/mountinfo").map_err(|e| failed(&e))?;
    Ok(text.lines().filter_map(Mounted::parse).filter(|mount| mount.place == root).count())
}

/// Unmounts what lies on a directory but for the first `keep` mounts, with all that is mounted below: what a container
/// without a mount namespace of its own leaves behind.
///
/// # Errors
/// [`Error::Setup`] when the mounts cannot be listed, or one cannot be unmounted.
pub fn unmount(root: &Path, keep: usize) -> Result<(), Error> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    for _ in keep..mounts_on(root)? {
        rustix::mount::unmount(root, flags).map_err(|e| {
            Error::setup(format!("cannot unmount {}", root.display()), crate::error::plain(&e.into()))
        })?;
    }
    Ok(())
}
