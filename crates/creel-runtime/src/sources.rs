//! What a container takes from its host: the sources of bind mounts, the root, the namespaces to join.
//!
//! A source is opened right before it is mounted, by the container's process in its own copy of the host's tree: it may
//! lie in what an earlier mount of the same Spec has brought, and mountinfo lists mounts in the Spec's order. Those that
//! stay tied to the host's mounts it opens before it cuts its tree off from them. Where the process cannot do that (it has
//! lost its creator's rights, or is in another tree) the creator has opened it before the clone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_types::ErrorKind;
use creel_types::spec::{IdMapping, NamespaceKind};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::devices::DeviceNode;
use crate::error::{Error, Fault, plain};
use crate::mounts::idmapped::{self, Maps};
use crate::mounts::{MountOptions, MountStep, apply};
use crate::plan::{InitPlan, Step};
use crate::report::{Ask, Reporter};
use crate::{Rootfs, cloned, idmap, namespaces, rootfs};

/// Descriptors for the steps of a plan.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Trees that are open already, by the number of their step.
    trees: BTreeMap<usize, OwnedFd>,
    /// Steps whose source the creator opens when their turn has come.
    later: Vec<usize>,
    maps: Maps,
    /// The root, mounted and attached nowhere.
    pub(crate) root: Option<OwnedFd>,
    /// Namespaces that the child joins.
    joins: Vec<(NamespaceKind, OwnedFd)>,
}

/// A source that lies in the container's root and is opened with the creator's rights: an earlier mount may have brought
/// it.
#[derive(Debug)]
pub(crate) struct Later {
    step: usize,
    source: String,
    recursive: bool,
    follow: bool,
    /// The user namespace of its map of ids, and whether that holds for the whole tree.
    map: Option<(OwnedFd, bool)>,
}

fn failed(step: &Step) -> impl Fn(Fault) -> Error {
    let title = step.title();
    move |fault| Error::Step {
        step: title.clone(),
        message: fault.message,
        errno: fault.errno,
        kind: fault.kind,
    }
}

impl Sources {
    /// The creator's part, and what is left for it to do at its turn.
    ///
    /// # Errors
    /// [`Error::Step`], with the step that the descriptor was for.
    pub(crate) fn open(plan: &InitPlan) -> Result<(Sources, Vec<Later>), Error> {
        let mut sources = Sources::default();
        let mut later = Vec::new();
        // Where the child cannot reach the host's tree any more: without its creator's rights, or in another tree.
        let far = plan.steps.iter().any(|step| {
            matches!(
                step,
                Step::UserNamespace { .. } | Step::JoinNamespace { kind: NamespaceKind::Mount, .. }
            )
        });
        let roots = if far { roots(&plan.steps) } else { Vec::new() };
        let mut devices = MadeDevices::default();
        let privileged = idmap::may_mount();
        for (number, step) in plan.steps.iter().enumerate() {
            let result = match step {
                Step::JoinNamespace { kind, path } => {
                    open_namespace(*kind, path).map(|fd| sources.joins.push((*kind, fd)))
                }
                _ if !privileged => Ok(()),
                // A descriptor's tree may be attached nowhere; then only its own mount namespace may copy it.
                Step::Mount { mount: MountStep::Bind { source, .. } } if apply::is_descriptor(source) => {
                    sources.prepare(number, step)
                }
                // In the child's own tree nothing is any host's slave.
                Step::Root { rootfs, slave } if far || *slave => {
                    rootfs::detached(rootfs, *slave).map(|fd| sources.root = fd)
                }
                Step::Mount { mount: MountStep::Bind { source, options, id_map, .. } }
                    if far && roots.iter().any(|root| Path::new(source).starts_with(root)) =>
                {
                    sources.later.push(number);
                    let map = match id_map {
                        None => Ok(None),
                        Some(map) => sources
                            .maps
                            .find(map)
                            .and_then(|namespace| Ok(Some((namespace.try_clone_to_owned()?, map.recursive)))),
                    };
                    let (source, recursive, follow) = (source.clone(), options.recursive, follows(options));
                    map.map(|map| later.push(Later { step: number, source, recursive, follow, map }))
                }
                Step::BindDevice { device } => devices
                    .tree(device, &plan.steps)
                    .and_then(|made| made.map_or_else(|| open_device(device, devices.lacks), Ok))
                    .map(|tree| drop(sources.trees.insert(number, tree))),
                Step::Mount { .. } | Step::BindInit { .. } if far => sources.prepare(number, step),
                // The child cannot make a namespace for it: it knows no process by the number that procfs shows.
                Step::Mount { mount: MountStep::Bind { id_map: Some(map), .. } } => {
                    sources.maps.find(map).map(drop)
                }
                _ => Ok(()),
            };
            result.map_err(failed(step))?;
        }
        Ok((sources, later))
    }

    /// Opens what has to be before this process's tree is cut off from the host's, unless the creator has.
    pub(crate) fn open_tied(&mut self, plan: &InitPlan) -> Result<(), Fault> {
        for (number, step) in plan.steps.iter().enumerate() {
            if matches!(step, Step::Mount { mount } if mount.is_tied()) {
                self.prepare(number, step)?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, number: usize, step: &Step) -> Result<(), Fault> {
        if self.trees.contains_key(&number) || self.later.contains(&number) {
            return Ok(());
        }
        match self.open_tree(step) {
            Ok(tree) => drop(tree.and_then(|tree| self.trees.insert(number, tree))),
            // An earlier mount may bring it.
            Err(fault) if fault.errno == Some(libc::ENOENT) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// The source of a step as this process sees it; `None` for a step without one.
    fn open_tree(&mut self, step: &Step) -> Result<Option<OwnedFd>, Fault> {
        Ok(Some(match step {
            Step::Mount { mount } => return of_bind(mount, &mut self.maps),
            Step::BindInit { source, .. } => apply::open_source(source, false)?,
            Step::BindDevice { device } => open_device(device, NO_RIGHT)?,
            _ => return Ok(None),
        }))
    }

    /// The source of a step whose turn has come.
    pub(crate) fn tree(&mut self, number: usize, step: &Step, reporter: &Reporter) -> Result<OwnedFd, Fault> {
        if let Some(tree) = self.trees.remove(&number) {
            // A copy comes at its place in mountinfo; before Linux 6.15 there is none of what is attached nowhere, and
            // never one in another mount namespace.
            return match step {
                Step::Mount { mount: MountStep::Bind { options, .. } } => {
                    Ok(apply::clone_of(&tree, options.recursive).unwrap_or(tree))
                }
                _ => Ok(tree),
            };
        }
        if self.later.contains(&number) {
            return reporter.ask_for(Ask::Source(number));
        }
        self.open_tree(step)?.ok_or_else(|| Fault::new(ErrorKind::Internal, "it has no source"))
    }

    /// The namespaces that are to be joined, once more: for a creator that does it before its child.
    pub(crate) fn copy_joins(&self) -> Result<Vec<(NamespaceKind, OwnedFd)>, Error> {
        let copy = |(kind, file): &(NamespaceKind, OwnedFd)| Ok((*kind, file.try_clone()?));
        let all: std::io::Result<Vec<_>> = self.joins.iter().map(copy).collect();
        all.map_err(|e| Error::setup("cannot copy a descriptor", plain(&e)))
    }

    /// The namespace of a kind.
    pub(crate) fn take_namespace(&mut self, wanted: NamespaceKind) -> Result<OwnedFd, Fault> {
        match self.joins.iter().position(|(kind, _)| *kind == wanted) {
            Some(at) => Ok(self.joins.remove(at).1),
            None => Err(Fault::new(ErrorKind::Internal, "the namespace was not opened")),
        }
    }
}

/// The source of a bind mount as this process sees it; `None` for another mount.
pub(crate) fn of_bind(mount: &MountStep, maps: &mut Maps) -> Result<Option<OwnedFd>, Fault> {
    let MountStep::Bind { source, options, id_map, .. } = mount else { return Ok(None) };
    let tree = apply::open_end(source, options.recursive, follows(options))?;
    if let Some(map) = id_map {
        let applied = maps.find(map).and_then(|namespace| idmapped::apply(&tree, namespace, map.recursive));
        applied.map_err(|fault| fault.context(source))?;
    }
    Ok(Some(tree))
}

/// Whether a link at the end of a source is followed.
fn follows(options: &MountOptions) -> bool {
    !(options.links.keep_source || options.links.copy)
}

/// The root's paths, as it is named and as it is.
fn roots(steps: &[Step]) -> Vec<PathBuf> {
    let root = steps.iter().find_map(|step| match step {
        Step::Root { rootfs: Rootfs::Directory(path), .. } | Step::HostRoot { path } => Some(path.clone()),
        _ => None,
    });
    let real = root.as_ref().and_then(|root| root.canonicalize().ok());
    root.into_iter().chain(real).collect()
}

impl Later {
    /// Opens the source of step `wanted` in the tree of the process that asks for it: by a process of its own, since
    /// whoever joins a mount namespace loses his place in the other.
    pub(crate) fn open(all: &[Later], wanted: usize, asker: &OwnedFd) -> Result<OwnedFd, Error> {
        let Some(later) = all.iter().find(|later| later.step == wanted) else {
            return Err(Error::setup("cannot open a source", "no such step waits for one"));
        };
        cloned::fetch("open the source", || {
            creel_sys::ns::setns(asker, creel_sys::clone::NEWNS)?;
            let tree = apply::open_end(&later.source, later.recursive, later.follow)?;
            if let Some((namespace, recursive)) = &later.map {
                idmapped::apply(&tree, namespace.as_fd(), *recursive)
                    .map_err(|fault| fault.context(&later.source))?;
            }
            Ok(tree)
        })
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
        let (Some(uid), Some(gid)) =
            (IdMapping::host_id(uids, device.uid), IdMapping::host_id(gids, device.gid))
        else {
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
        // Its number tells the caller that something made earlier may bring it.
        Some(libc::ENOENT) => {
            Fault { errno: fault.errno, ..other(&format!("the host has no {}", device.path)) }
        }
        _ => fault,
    })?;
    let stat = rustix::fs::fstat(&tree)?;
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::from_raw_mode(device.kind)
        && stat.st_rdev == creel_sys::dev::makedev(device.major, device.minor);
    if same { Ok(tree) } else { Err(other(&format!("the host's {} is another device", device.path))) }
}
