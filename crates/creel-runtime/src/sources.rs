//! What a container takes from its host, opened while the host's tree is what it was: the sources of bind mounts, the
//! root, the namespaces to join.
//!
//! The creator opens them where it may, with its own rights, since in a user namespace the child has lost those; a
//! creator without rights leaves it to the child, who has them in its own mount namespace.

use std::os::fd::OwnedFd;

use creel_types::ErrorKind;
use creel_types::spec::{IdMapping, NamespaceKind};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::devices::DeviceNode;
use crate::error::{Error, Fault, plain};
use crate::mounts::apply;
use crate::mounts::idmapped::Maps;
use crate::mounts::{MountOptions, MountStep};
use crate::plan::{InitPlan, Step};
use crate::{idmap, namespaces, rootfs};

/// Descriptors for the steps of a plan, in the order of the steps.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Trees for bind mounts, devices and the reaper; `None` until they are opened.
    trees: Option<std::vec::IntoIter<OwnedFd>>,
    /// The root, mounted and attached nowhere.
    pub(crate) root: Option<OwnedFd>,
    /// Namespaces that the child joins.
    joins: Vec<(NamespaceKind, OwnedFd)>,
}

impl Sources {
    /// The creator's part.
    ///
    /// # Errors
    /// [`Error::Step`], with the step that the descriptor was for.
    pub(crate) fn open(plan: &InitPlan) -> Result<Sources, Error> {
        let mut sources = Sources::default();
        // Where the child cannot reach the root any more: without its creator's rights, or in another tree.
        let far = plan.steps.iter().any(|step| {
            matches!(
                step,
                Step::UserNamespace { .. } | Step::JoinNamespace { kind: NamespaceKind::Mount, .. }
            )
        });
        let privileged = idmap::may_mount();
        for step in &plan.steps {
            let result = match step {
                Step::JoinNamespace { kind, path } => {
                    open_namespace(*kind, path).map(|fd| sources.joins.push((*kind, fd)))
                }
                Step::OpenSources { .. } if privileged => sources.open_trees(plan),
                // In the child's own tree nothing is any host's slave.
                Step::Root { rootfs, slave } if privileged && (far || *slave) => {
                    rootfs::detached(rootfs, *slave).map(|fd| sources.root = fd)
                }
                _ => Ok(()),
            };
            result.map_err(|fault| Error::Step {
                step: step.title(),
                message: fault.message,
                errno: fault.errno,
                kind: fault.kind,
            })?;
        }
        Ok(sources)
    }

    /// Opens the trees, unless the creator has done so.
    pub(crate) fn open_trees(&mut self, plan: &InitPlan) -> Result<(), Fault> {
        if self.trees.is_some() {
            return Ok(());
        }
        let mut trees = Vec::new();
        let mut maps = Maps::default();
        let mut made = MadeDevices::default();
        for step in &plan.steps {
            trees.push(match step {
                Step::Mount { mount: MountStep::Bind { source, options, id_map, .. } } => {
                    let tree = apply::open_source(source, options.recursive)?;
                    if let Some(map) = id_map {
                        maps.apply(&tree, map).map_err(|fault| fault.context(source))?;
                    }
                    tree
                }
                Step::BindInit { source, .. } => apply::open_source(source, false)?,
                Step::BindDevice { device } => match made.tree(device, &plan.steps)? {
                    Some(tree) => tree,
                    None => open_device(device, made.lacks)?,
                },
                _ => continue,
            });
        }
        self.trees = Some(trees.into_iter());
        Ok(())
    }

    /// The next tree: they are used up in the order of the steps that they were opened for.
    pub(crate) fn next_tree(&mut self) -> Result<OwnedFd, Fault> {
        let next = self.trees.as_mut().and_then(Iterator::next);
        next.ok_or_else(|| Fault::new(ErrorKind::Internal, "its source was not opened"))
    }

    /// The namespace of a kind.
    pub(crate) fn take_namespace(&mut self, wanted: NamespaceKind) -> Result<OwnedFd, Fault> {
        match self.joins.iter().position(|(kind, _)| *kind == wanted) {
            Some(at) => Ok(self.joins.remove(at).1),
            None => Err(Fault::new(ErrorKind::Internal, "the namespace was not opened")),
        }
    }
}

/// Opens a namespace's file, which must be one of that kind.
pub(crate) fn open_namespace(kind: NamespaceKind, path: &str) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Fault::from(e).context(format!("cannot open {path}")))?;
    match creel_sys::ns::kind(&file) {
        Ok(bit) if bit == namespaces::bit(kind) => Ok(file),
        Ok(_) => Err(Fault::new(
            ErrorKind::InvalidArgument,
            format!("{path} is a namespace of another kind than {}", kind.proc_name()),
        )),
        Err(e) => {
            Err(Fault::new(ErrorKind::InvalidArgument, format!("{path} is no namespace: {}", plain(&e))))
        }
    }
}

/// Device nodes made by a creator who may, in a file system that nobody else sees: a user namespace cannot make its own,
/// and the host's have the host's owners and modes.
#[derive(Debug, Default)]
struct MadeDevices {
    place: Option<OwnedFd>,
    count: u32,
    /// Why a node could not be made.
    lacks: &'static str,
}

/// What is missing to make device nodes for a user namespace.
const NO_RIGHT: &str = "making one takes root on the host";
const OLD_KERNEL: &str = "making one takes Linux 6.15 or later";
const NO_ID: &str = "its owner has no id in the user namespace's maps";

impl MadeDevices {
    /// `None` where that cannot be done: without the right to make nodes, or before Linux 6.15, whose mounts cannot be
    /// copied before they are attached.
    fn tree(&mut self, device: &DeviceNode, steps: &[Step]) -> Result<Option<OwnedFd>, Fault> {
        let maps = steps.iter().find_map(|step| match step {
            Step::UserNamespace { uid_mappings, gid_mappings } => Some((uid_mappings, gid_mappings)),
            _ => None,
        });
        let Some((uids, gids)) = maps else { return Ok(None) };
        let (Some(uid), Some(gid)) = (host_id(uids, device.uid), host_id(gids, device.gid)) else {
            self.lacks = NO_ID;
            return Ok(None);
        };
        self.lacks = NO_RIGHT;
        if self.place.is_none() {
            let mut options = MountOptions::default();
            options.attributes.set = creel_sys::mount::ATTR_NOSUID | creel_sys::mount::ATTR_NOEXEC;
            match apply::new_filesystem("tmpfs", "dev", &options, &[("mode", "755")]) {
                Err(fault) if fault.errno == Some(libc::EPERM) => return Ok(None),
                made => self.place = Some(made?),
            }
        }
        let Some(place) = &self.place else { return Ok(None) };
        self.count += 1;
        let name = std::ffi::CString::new(self.count.to_string()).map_err(|_| Fault::from(Errno::INVAL))?;
        let number = creel_sys::dev::makedev(device.major, device.minor);
        let old = creel_sys::process::umask(0);
        let result = creel_sys::dev::mknodat(place, &name, device.kind | device.mode, number);
        creel_sys::process::umask(old);
        match result {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Ok(None),
            other => other?,
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(place, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(place, &name, flags, Mode::empty())?;
        self.lacks = OLD_KERNEL;
        Ok(apply::clone_of(&node, false).ok())
    }
}

/// The id on the host that a container's id is mapped to.
fn host_id(maps: &[IdMapping], id: u32) -> Option<u32> {
    let map = maps.iter().find(|map| id.checked_sub(map.container_id).is_some_and(|at| at < map.size))?;
    map.host_id.checked_add(id - map.container_id)
}

/// The host's node of the same name, if it is that device; `lacks` tells why none of the container's own was made.
fn open_device(device: &DeviceNode, lacks: &str) -> Result<OwnedFd, Fault> {
    let other = |what: &str| {
        let DeviceNode { path, major, minor, .. } = device;
        let text = format!(
            "{what}, and a user namespace gets no node of its own here: {lacks}; make {path} with number \
             {major}:{minor} on the host, or leave the device or the user namespace out"
        );
        Fault::new(ErrorKind::InvalidArgument, text)
    };
    let tree = apply::open_source(&device.path, false).map_err(|fault| match fault.errno {
        Some(libc::ENOENT) => other(&format!("the host has no {}", device.path)),
        _ => fault,
    })?;
    let stat = rustix::fs::fstat(&tree)?;
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::from_raw_mode(device.kind)
        && stat.st_rdev == creel_sys::dev::makedev(device.major, device.minor);
    if same { Ok(tree) } else { Err(other(&format!("the host's {} is another device", device.path))) }
}
