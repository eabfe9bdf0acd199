//! Applies mounts inside the new root by descriptors: every mount gets its attributes while it is still detached, and
//! is then attached to an object that was resolved inside the root, so nothing is ever visible half-made.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::mount::{
    self as sys, EMPTY_PATH, FsMountFlags, FsOpenFlags, MountAttr, MountAttrFlags, OpenTreeFlags, RECURSIVE,
};
use creel_sys::openat2;
use creel_types::ErrorKind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::binding::{self, Manner};
use super::{CgroupHierarchy, MountOptions, MountStep, Propagation, copy};
use crate::error::Fault;
use crate::lsm;
use crate::path::{self, Make};

const PROC_MAGIC: u64 = 0x9fa0;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Whether the object lies in procfs.
pub(crate) fn is_procfs(fd: impl AsFd) -> Result<bool, Fault> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == PROC_MAGIC)
}

/// Whether a source is an open descriptor of some process.
pub(crate) fn is_descriptor(source: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let rest = source.strip_prefix("/proc/").and_then(|rest| rest.split_once("/fd/"));
    rest.is_some_and(|(pid, fd)| number(pid) && number(fd))
}

/// Copies the mount (tree) at a host path into a descriptor. A tree that is attached nowhere is taken itself where the
/// kernel copies none (before Linux 6.15).
pub(crate) fn open_source(source: &str, recursive: bool) -> Result<OwnedFd, Fault> {
    open_end(source, recursive, true)
}

/// As [`open_source`]; unless it follows, a link at the end of the path is what is copied.
pub(crate) fn open_end(source: &str, recursive: bool, follow: bool) -> Result<OwnedFd, Fault> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if !follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    let opened = match sys::open_tree(CWD, source, flags) {
        Err(Errno::INVAL) if is_descriptor(source) => {
            rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        }
        other => other,
    };
    opened.map_err(|e| Fault::from(e).context(format!("cannot open {source}")))
}

/// A copy of the mount that `fd`, an object in this mount namespace, is in, rooted at that object.
pub(crate) fn clone_of(fd: impl AsFd, recursive: bool) -> Result<OwnedFd, Fault> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(sys::open_tree(fd, c"", flags)?)
}

/// Sets attributes of a mount, or of the tree below it.
pub(crate) fn set_attributes(mount: impl AsFd, set: u64, clear: u64, tree: bool) -> Result<(), Fault> {
    let flags = EMPTY_PATH | if tree { RECURSIVE } else { 0 };
    Ok(sys::mount_setattr(mount, c"", flags, &MountAttr { set, clear, ..MountAttr::default() })?)
}

/// Sets a mount's propagation.
pub(crate) fn set_propagation(mount: impl AsFd, change: Propagation) -> Result<(), Fault> {
    let flags = EMPTY_PATH | if change.recursive { RECURSIVE } else { 0 };
    Ok(sys::mount_setattr(
        mount,
        c"",
        flags,
        &MountAttr { propagation: change.mode, ..MountAttr::default() },
    )?)
}

/// The kernel's own words why a configuration failed, if it left any.
fn said(fs: &OwnedFd, error: Errno, what: &str) -> Fault {
    let mut words = [0u8; 256];
    let fault = match sys::fs_message(fs, &mut words) {
        Some(text) => {
            // Its name for the error too, which callers look for.
            let name = std::io::Error::from(error).to_string();
            let name = name.split(" (os error").next().unwrap_or_default();
            Fault { message: format!("{} ({name})", text.trim_start_matches("e ")), ..Fault::from(error) }
        }
        None => Fault::from(error),
    };
    if what.is_empty() { fault } else { fault.context(format!("option {what}")) }
}

/// Sets the options of a file system that is being made or changed; in `more` an empty value makes a flag.
fn configure(fs: &OwnedFd, options: &MountOptions, more: &[(&str, &str)]) -> Result<(), Fault> {
    for flag in &options.superblock {
        sys::fsconfig_set_flag(fs, *flag).map_err(|e| said(fs, e, flag))?;
    }
    for (name, value) in &options.data {
        match value {
            Some(value) => sys::fsconfig_set_string(fs, name.as_str(), value.as_str()),
            None => sys::fsconfig_set_flag(fs, name.as_str()),
        }
        .map_err(|e| said(fs, e, name))?;
    }
    for (name, value) in more {
        match *value {
            "" => sys::fsconfig_set_flag(fs, *name),
            value => sys::fsconfig_set_string(fs, *name, value),
        }
        .map_err(|e| said(fs, e, name))?;
    }
    Ok(())
}

/// A new file system, mounted nowhere yet.
pub(crate) fn new_filesystem(
    kind: &str,
    source: &str,
    options: &MountOptions,
    more: &[(&str, &str)],
) -> Result<OwnedFd, Fault> {
    let fs = sys::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NODEV => Fault::new(ErrorKind::Unsupported, format!("this kernel has no file system {kind}")),
        e => e.into(),
    })?;
    if !source.is_empty() {
        sys::fsconfig_set_string(&fs, "source", source).map_err(|e| said(&fs, e, "source"))?;
    }
    configure(&fs, options, more)?;
    sys::fsconfig_create(&fs).map_err(|e| said(&fs, e, ""))?;
    let set = options.attributes.set | options.tree_attributes.set;
    let attributes = MountAttrFlags::from_bits_retain(set as u32);
    let mount = sys::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    if let Some(change) = options.propagation {
        set_propagation(&mount, change)?;
    }
    Ok(mount)
}

/// The directory inside the root where a file system goes; procfs and sysfs only go where no link leads, since the
/// rest of the set-up and the program rely on those two names.
fn directory(root: BorrowedFd<'_>, destination: &str, strict: bool) -> Result<(OwnedFd, bool), Fault> {
    let (target, existed) = path::ensure(root, destination, Make::Directory)?;
    if !path::is_dir(&target)? {
        return Err(Fault::from(Errno::NOTDIR).context(destination));
    }
    if strict {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        return match openat2::open_with(root, path::relative(destination), flags, 0, resolve) {
            // The first words are runc's; its callers look for them.
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => Err(Fault::new(
                ErrorKind::InvalidArgument,
                format!(
                    "it must be mounted on ordinary directory; the image has a symbolic link in {destination}"
                ),
            )),
            other => Ok((other?, existed)),
        };
    }
    if is_procfs(&target)? {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("{destination} leads into /proc")));
    }
    Ok((target, existed))
}

/// Applies one mount; `source` is the tree opened for a bind mount, `locked` whether its attributes come from a more
/// privileged user namespace. Returns the mount.
pub(crate) fn mount(
    root: BorrowedFd<'_>,
    step: &MountStep,
    source: Option<OwnedFd>,
    locked: bool,
) -> Result<OwnedFd, Fault> {
    match step {
        MountStep::New { destination, filesystem, source, options, label, .. } => {
            let (target, existed) = directory(
                root,
                destination,
                destination == "/dev" || matches!(&**filesystem, "proc" | "sysfs"),
            )?;
            let mut more = Vec::new();
            if let Some(label) = label.as_deref().filter(|_| lsm::selinux_is_on()) {
                more.push(("context", label));
            }
            let mode;
            let has = |name: &str| options.data.iter().any(|(known, _)| known == name);
            // A tmpfs over a directory of the image looks like that directory (as runc does it).
            if filesystem == "tmpfs" && existed && !has("mode") {
                mode = format!("{:o}", rustix::fs::fstat(&target)?.st_mode & 0o7777);
                more.push(("mode", mode.as_str()));
            }
            let mount = match new_filesystem(filesystem, source, options, &more) {
                // Only the owner of the network or IPC namespace may; the host's view is the same one then.
                Err(fault) if fault.errno == Some(libc::EPERM) => host_view(filesystem, options, fault)?,
                other => other?,
            };
            if options.copy_up {
                copy::tree(&target, &mount)?;
            }
            sys::attach(&mount, &target)?;
            Ok(mount)
        }
        MountStep::Bind { destination, options, .. } => {
            let tree = source.ok_or_else(|| Fault::new(ErrorKind::Internal, "its source was not opened"))?;
            bind(root, destination, tree, options, if locked { Manner::Locked } else { Manner::Exact })
        }
        MountStep::Change { destination, options } => change(root, destination, options),
        MountStep::Cgroup { destination, hierarchies, namespaced, options } => {
            cgroup(root, destination, hierarchies, *namespaced, options)
        }
    }
}

/// What stands in for a file system that belongs to a namespace which the container shares with its host.
fn host_view(filesystem: &str, options: &MountOptions, refused: Fault) -> Result<OwnedFd, Fault> {
    let source = match filesystem {
        "sysfs" => "/sys",
        "mqueue" => "/dev/mqueue",
        _ => return Err(refused),
    };
    let tree = open_source(source, true).map_err(|_| refused)?;
    set_propagation(&tree, Propagation { mode: libc::MS_PRIVATE, recursive: true })?;
    set_attributes(&tree, options.attributes.set | options.tree_attributes.set, 0, true)?;
    Ok(tree)
}

/// `remount`: changes what is mounted at a destination. Options that are not named stay, so that a user namespace never
/// has to repeat what it could not take away.
fn change(root: BorrowedFd<'_>, destination: &str, options: &MountOptions) -> Result<OwnedFd, Fault> {
    let nothing =
        || Fault::new(ErrorKind::InvalidArgument, "nothing is mounted there that could be remounted");
    let target = path::find(root, destination)?.ok_or_else(nothing)?;
    let seen = rustix::fs::statx(&target, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(nothing());
    }
    if !(options.bind || options.superblock.is_empty() && options.data.is_empty()) {
        let flags = sys::FsPickFlags::FSPICK_EMPTY_PATH | sys::FsPickFlags::FSPICK_CLOEXEC;
        let fs = sys::fspick(&target, c"", flags)?;
        configure(&fs, options, &[])?;
        sys::fsconfig_reconfigure(&fs).map_err(|e| said(&fs, e, ""))?;
    }
    for (attributes, tree) in [(options.attributes, false), (options.tree_attributes, true)] {
        if !attributes.is_empty() {
            set_attributes(&target, attributes.set, attributes.clear, tree)?;
        }
    }
    if let Some(change) = options.propagation {
        set_propagation(&target, change)?;
    }
    Ok(target)
}

/// Attaches an opened tree at a destination, which is made as what the tree is: a directory or a file.
pub(crate) fn bind(
    root: BorrowedFd<'_>,
    destination: &str,
    tree: OwnedFd,
    options: &MountOptions,
    manner: Manner,
) -> Result<OwnedFd, Fault> {
    let links = options.links;
    if links.copy && FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) == FileType::Symlink {
        copy_link(root, destination, &tree)?;
        return Ok(tree);
    }
    let source_is_dir = path::is_dir(&tree)?;
    let make = if source_is_dir { Make::Directory } else { Make::File };
    let target = if links.cover {
        path::ensure_itself(root, destination, make)?
    } else {
        path::ensure(root, destination, make)?.0
    };
    if path::is_dir(&target)? != source_is_dir {
        let text = "a directory cannot be mounted onto a file, nor a file onto a directory";
        return Err(Fault::new(ErrorKind::InvalidArgument, text));
    }
    let into_proc = is_procfs(&target)?;
    if into_proc && !destination.starts_with("/proc/") {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("{destination} leads into /proc")));
    }
    if destination == "/proc" && !is_procfs(&tree)? {
        return Err(Fault::new(ErrorKind::InvalidArgument, "only procfs can be mounted on /proc"));
    }
    // A tree that was shared with the host stays so only if the Spec says so.
    let change = options.propagation.unwrap_or(Propagation { mode: libc::MS_PRIVATE, recursive: true });
    set_propagation(&tree, change)?;
    let now = || rustix::fs::fstatvfs(&tree).map(|stat| stat.f_flag.bits());
    let attributes = binding::change(options, manner, now).map_err(|e| match e {
        Some(e) => e.into(),
        None => Fault::from(Errno::PERM).context(
            "the options would change what is locked in a user namespace (ro, nodev, nosuid, noexec, atime)",
        ),
    })?;
    if !attributes.is_empty() {
        set_attributes(&tree, attributes.set, attributes.clear, false)?;
    }
    if !options.tree_attributes.is_empty() {
        set_attributes(&tree, options.tree_attributes.set, options.tree_attributes.clear, true)?;
    }
    sys::attach(&tree, &target)?;
    Ok(tree)
}

/// Makes a link as `link` at a destination; the same one may be there already.
fn copy_link(root: BorrowedFd<'_>, destination: &str, link: &OwnedFd) -> Result<(), Fault> {
    let text = rustix::fs::readlinkat(link, c"", Vec::new())?;
    let (dir, name) = path::ensure_parent(root, destination)?;
    if is_procfs(&dir)? {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("{destination} leads into /proc")));
    }
    match rustix::fs::symlinkat(&*text, &dir, name) {
        Err(Errno::EXIST) if rustix::fs::readlinkat(&dir, name, Vec::new()).is_ok_and(|now| now == text) => {
            Ok(())
        }
        other => Ok(other?),
    }
}

fn cgroup(
    root: BorrowedFd<'_>,
    destination: &str,
    hierarchies: &[CgroupHierarchy],
    namespaced: bool,
    options: &MountOptions,
) -> Result<OwnedFd, Fault> {
    let (target, _) = directory(root, destination, false)?;
    let attributes = options.attributes.set | options.tree_attributes.set;
    if hierarchies.is_empty() {
        let mount = if namespaced {
            new_filesystem("cgroup2", "cgroup", options, &[])?
        } else {
            let tree = unified()?;
            set_attributes(&tree, attributes, 0, false)?;
            tree
        };
        sys::attach(&mount, &target)?;
        return Ok(mount);
    }
    let groups = if namespaced { OwnGroups::default() } else { OwnGroups::read()? };
    let mut plain = options.clone();
    plain.attributes.set &= !sys::ATTR_RDONLY;
    let top = new_filesystem("tmpfs", "tmpfs", &plain, &[("mode", "755")])?;
    sys::attach(&top, &target)?;
    for hierarchy in hierarchies {
        rustix::fs::mkdirat(&top, hierarchy.name.as_str(), Mode::from_raw_mode(0o755))?;
        let place = openat2::open_strict(&top, hierarchy.name.as_str(), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        let mount = if namespaced {
            let words: Vec<(&str, &str)> = hierarchy
                .controllers
                .iter()
                .flat_map(|word| match word.split_once('=') {
                    // A named hierarchy without controllers has to say so.
                    Some((name, value)) => vec![("none", ""), (name, value)],
                    None => vec![(word.as_str(), "")],
                })
                .collect();
            new_filesystem("cgroup", "cgroup", options, &words)
                .map_err(|fault| fault.context(format!("hierarchy {}", hierarchy.name)))?
        } else {
            let own = groups.of(&hierarchy.controllers)?;
            let tree = open_source(&format!("{}{own}", hierarchy.mountpoint), false)?;
            set_attributes(&tree, attributes, 0, false)?;
            tree
        };
        sys::attach(&mount, &place)?;
        if hierarchy.controllers.len() > 1 {
            for controller in &hierarchy.controllers {
                rustix::fs::symlinkat(hierarchy.name.as_str(), &top, controller.as_str())?;
            }
        }
    }
    set_attributes(&top, options.attributes.set, options.attributes.clear, false)?;
    Ok(top)
}

/// A copy of the host's mount of the unified hierarchy. It is all there, for the names of groups that a process reads in
/// procfs begin at its root; a new mount of it from here would set the options of the host's anew.
fn unified() -> Result<OwnedFd, Fault> {
    for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let Ok(tree) = open_source(place, false) else { continue };
        if rustix::fs::fstatfs(&tree)?.f_type as u64 == CGROUP2_MAGIC {
            set_propagation(&tree, Propagation { mode: libc::MS_PRIVATE, recursive: true })?;
            return Ok(tree);
        }
    }
    Err(Fault::new(ErrorKind::NotFound, "the host has no unified control group hierarchy in /sys/fs/cgroup"))
}

/// This process's groups, as `/proc/self/cgroup` says (cgroups(7)).
#[derive(Debug, Default)]
struct OwnGroups(String);

impl OwnGroups {
    fn read() -> Result<OwnGroups, Fault> {
        Ok(OwnGroups(creel_sys::kernelfs::read_to_string("/proc/self/cgroup")?))
    }

    /// The group in the hierarchy of these controllers; empty for its root.
    fn of(&self, controllers: &[String]) -> Result<&str, Fault> {
        for line in self.0.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, names, group) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
            let known = |name: &str| controllers.iter().any(|word| word == name);
            if !names.is_empty() && names.split(',').all(known) {
                return Ok(if group == "/" { "" } else { group });
            }
        }
        Err(Fault::new(ErrorKind::NotFound, "the process is in no such control group hierarchy"))
    }
}

/// Makes a path read-only where it is; a missing one is passed over.
pub(crate) fn readonly_path(root: BorrowedFd<'_>, place: &str) -> Result<(), Fault> {
    let Some(target) = path::find(root, place)? else { return Ok(()) };
    let tree = clone_of(&target, true)?;
    set_attributes(&tree, sys::ATTR_RDONLY, 0, true)?;
    Ok(sys::attach(&tree, &target)?)
}

/// Hides paths: files behind the host's `/dev/null`, directories behind one empty read-only tmpfs.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    empty: Option<OwnedFd>,
}

impl Masks {
    pub(crate) fn hide(&mut self, root: BorrowedFd<'_>, place: &str) -> Result<(), Fault> {
        let Some(target) = path::find(root, place)? else { return Ok(()) };
        if !path::is_dir(&target)? {
            // The container's own /dev/null may be anything; the host's is checked all the same.
            let null = open_source("/dev/null", false)?;
            let stat = rustix::fs::fstat(&null)?;
            let is_char = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            if !is_char || stat.st_rdev != creel_sys::dev::makedev(1, 3) {
                return Err(Fault::new(ErrorKind::Internal, "the host's /dev/null is no null device"));
            }
            return Ok(sys::attach(&null, &target)?);
        }
        let mount = match &self.empty {
            // Once the first one is attached it can be copied (before, older kernels refuse).
            Some(first) => clone_of(first, false)?,
            None => {
                let mut options = MountOptions::default();
                options.attributes.set =
                    sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;
                new_filesystem(
                    "tmpfs",
                    "tmpfs",
                    &options,
                    &[("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "755")],
                )?
            }
        };
        sys::attach(&mount, &target)?;
        self.empty.get_or_insert(mount);
        Ok(())
    }
}

/// Sets the propagation of everything in this mount namespace to private, so that nothing leaves it.
pub(crate) fn private_tree() -> Result<(), Fault> {
    const ROOT: &CStr = c"/";
    let attr = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    Ok(sys::mount_setattr(CWD, ROOT, RECURSIVE, &attr)?)
}
