//! Mounts that a running container gets, and loses (crun's `mounts`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use creel_types::ErrorKind;
use creel_types::spec::{Linux, Mount, NamespaceKind, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::child::become_root;
use crate::error::{Error, Fault};
use crate::mounts::idmapped::Maps;
use crate::mounts::{self, MountStep, apply};
use crate::{Facts, Rootfs, cloned, namespaces, path, sources};

/// A container that runs.
#[derive(Debug)]
pub struct Target<'a> {
    /// The pidfd of its process 1.
    pub pidfd: BorrowedFd<'a>,
    /// The Spec that it was made from.
    pub spec: &'a Spec,
    /// Its bundle: relative sources begin there.
    pub bundle: &'a Path,
    /// Its root file system on the host.
    pub rootfs: &'a Path,
}

/// Mounts file systems and paths of the host in a running container, in this order. What was mounted before one that
/// fails stays.
///
/// # Errors
/// [`Error::Invalid`] for what could not be in a Spec, and for mounts that only a new container can get: over its root,
/// of control groups, and changes of other mounts; [`Error::Setup`] for what the kernel refuses.
pub fn add(target: &Target<'_>, list: &[Mount]) -> Result<(), Error> {
    let spec = Spec { mounts: list.to_vec(), ..target.spec.clone() };
    let rootfs = Rootfs::Directory(target.rootfs.to_path_buf());
    let steps = mounts::plan(&spec, target.bundle, &rootfs, &Facts::default())?;
    let (mut maps, mut work) = (Maps::default(), Vec::new());
    for (index, step) in steps.into_iter().enumerate() {
        let fits = matches!(step, MountStep::New { .. } | MountStep::Bind { .. });
        if !fits || step.destination() == "/" || step.destination().starts_with("/proc") {
            let text = "a container that runs cannot be given this mount; give it to a new one";
            return Err(Error::invalid(format!("mounts[{index}]"), text));
        }
        // With the caller's rights, and in his tree.
        let source = sources::of_bind(&step, &mut maps).map_err(|fault| failed("mount", &step, fault))?;
        work.push((step, source));
    }
    inside(target, |root, in_user_namespace| {
        for (step, source) in work {
            let named = |fault: Fault| fault.context(step.destination());
            let made = apply::mount(root, &step, source, in_user_namespace).map_err(named)?;
            if step.is_sealed_later() {
                apply::set_attributes(&made, creel_sys::mount::ATTR_RDONLY, 0, false)?;
            }
        }
        Ok(())
    })
}

/// Takes mounts away from a running container by their destinations, in this order, with all that is mounted below them.
///
/// # Errors
/// As [`add`]; also for a destination where nothing is mounted.
pub fn remove(target: &Target<'_>, list: &[Mount]) -> Result<(), Error> {
    let rootfs = Rootfs::Directory(target.rootfs.to_path_buf());
    let places: Vec<String> = list
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            mounts::place(&format!("mounts[{index}].destination"), &mount.destination, &rootfs)
        })
        .collect::<Result<_, _>>()?;
    for (index, place) in places.iter().enumerate() {
        if place == "/" || place == "/dev" || place.starts_with("/proc") {
            let text = "it is what a container cannot be without";
            return Err(Error::invalid(format!("mounts[{index}].destination"), text));
        }
    }
    inside(target, |root, _| places.iter().try_for_each(|place| detach(root, place)))
}

fn detach(root: BorrowedFd<'_>, place: &str) -> Result<(), Fault> {
    let (parent, name) = path::split(place);
    let missing = || Fault::new(ErrorKind::NotFound, format!("{place}: there is no such path"));
    let parent = path::find(root, parent)?.ok_or_else(missing)?;
    if apply::is_procfs(&parent)? {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("{place} leads into /proc")));
    }
    // By one name in a directory that is held: nothing on the way can be exchanged.
    rustix::process::fchdir(&parent)?;
    rustix::mount::unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|e| Fault::from(e).context(format!("cannot unmount {place}")))
}

fn failed(what: &str, step: &MountStep, fault: Fault) -> Error {
    let what = format!("cannot {what} {} on {}", step.label(), step.destination());
    Error::Setup { what, message: fault.message, kind: fault.kind }
}

/// Has a process of its own do something with the container's root, in its namespaces.
fn inside(
    target: &Target<'_>,
    work: impl FnOnce(BorrowedFd<'_>, bool) -> Result<(), Fault>,
) -> Result<(), Error> {
    let nothing = Linux::default();
    let list = &target.spec.linux.as_ref().unwrap_or(&nothing).namespaces;
    // Not the pid namespace: nobody there is to see this process.
    let kinds = [NamespaceKind::User, NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::Ipc];
    let joined = kinds.into_iter().filter(|kind| namespaces::has(list, *kind));
    let (bits, user) = (namespaces::bits(joined), namespaces::has(list, NamespaceKind::User));
    if !namespaces::has(list, NamespaceKind::Mount) {
        let text = "the container has no mount namespace of its own: the host would be changed";
        return Err(Error::invalid("linux.namespaces", text));
    }
    let open_root = || -> Result<OwnedFd, Fault> {
        creel_sys::ns::setns(target.pidfd, bits)?;
        if user {
            become_root()?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open("/", flags, Mode::empty())?)
    };
    cloned::fetch("change the container's mounts", || {
        let root = open_root().map_err(|fault| fault.context("cannot join the container's namespaces"))?;
        work(root.as_fd(), user)?;
        Ok(root)
    })
    .map(drop)
}
