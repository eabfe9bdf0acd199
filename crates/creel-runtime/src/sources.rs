//! What a container takes from its host, opened while the host's tree is what it was: the sources of bind mounts, the
//! root, the namespaces to join.
//!
//! The creator opens them where it may, with its own rights, since in a user namespace the child has lost those; a
//! creator without rights leaves it to the child, who has them in its own mount namespace.

use std::os::fd::OwnedFd;

use creel_types::ErrorKind;
use creel_types::spec::NamespaceKind;
use rustix::fs::{FileType, Mode, OFlags};

use crate::devices::DeviceNode;
use crate::error::{Error, Fault, plain};
use crate::mounts::MountStep;
use crate::mounts::apply;
use crate::mounts::idmapped::Maps;
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
                Step::BindDevice { device } => open_device(device)?,
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

/// The host's node of the same name, if it is that device.
fn open_device(device: &DeviceNode) -> Result<OwnedFd, Fault> {
    let tree = apply::open_source(&device.path, false)?;
    let stat = rustix::fs::fstat(&tree)?;
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::from_raw_mode(device.kind)
        && stat.st_rdev == creel_sys::dev::makedev(device.major, device.minor);
    if !same {
        let text = format!(
            "the host's {} is not the device {}:{}, and no other can be given to a user namespace",
            device.path, device.major, device.minor
        );
        return Err(Fault::new(ErrorKind::InvalidArgument, text));
    }
    Ok(tree)
}
