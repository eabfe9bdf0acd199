//! Which namespaces are made and which are joined.

use std::os::fd::OwnedFd;

use creel_sys::clone;
use creel_types::spec::{Namespace, NamespaceKind, Spec};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Fault, plain};
use crate::{process, validate};

/// The kernel's bit of a kind.
pub fn bit(kind: NamespaceKind) -> u64 {
    match kind {
        NamespaceKind::Pid => clone::NEWPID,
        NamespaceKind::Network => clone::NEWNET,
        NamespaceKind::Mount => clone::NEWNS,
        NamespaceKind::Ipc => clone::NEWIPC,
        NamespaceKind::Uts => clone::NEWUTS,
        NamespaceKind::User => clone::NEWUSER,
        NamespaceKind::Cgroup => clone::NEWCGROUP,
        NamespaceKind::Time => clone::NEWTIME,
    }
}

/// The bits of several kinds.
pub fn bits(kinds: impl IntoIterator<Item = NamespaceKind>) -> u64 {
    kinds.into_iter().fold(0, |all, kind| all | bit(kind))
}

/// Joins a namespace; its creator may have done so before, where only he had the right to.
pub(crate) fn join(kind: NamespaceKind, file: &OwnedFd) -> Result<(), Fault> {
    match creel_sys::ns::setns(file, bit(kind)) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && is_own(kind, file)? => Ok(()),
        other => Ok(other?),
    }
}

fn own(kind: NamespaceKind) -> String {
    format!("/proc/self/ns/{}", kind.proc_name())
}

/// Whether it is the namespace that this process is in.
fn is_own(kind: NamespaceKind, file: &OwnedFd) -> Result<bool, Fault> {
    let (own, wanted) = (rustix::fs::stat(own(kind))?, rustix::fs::fstat(file)?);
    Ok((own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino))
}

/// Runs `body` in existing namespaces (their files, or pidfds of processes in them), and comes back; `body` gets the bits
/// of those that could be joined. A child that is born into a user namespace there is in them too,
/// although it could not have joined those that belong to another user namespace. What this process may not join either
/// is left to the child.
pub(crate) fn inside<T>(
    joins: &[(NamespaceKind, OwnedFd)],
    body: impl FnOnce(u64) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut left = Vec::new();
    for (kind, file) in joins {
        if !matches!(kind, NamespaceKind::Network | NamespaceKind::Ipc | NamespaceKind::Uts) {
            continue;
        }
        let failed = |e: std::io::Error| {
            Error::setup(format!("cannot join the {} namespace", kind.proc_name()), plain(&e))
        };
        let own = rustix::fs::open(own(*kind), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(e.into()))?;
        match creel_sys::ns::setns(file, bit(*kind)) {
            Ok(()) => left.push((*kind, own)),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let result = body(bits(left.iter().map(|(kind, _)| *kind)));
    for (kind, own) in left {
        creel_sys::ns::setns(own, bit(kind)).map_err(|e| {
            Error::setup(format!("cannot return to the own {} namespace", kind.proc_name()), plain(&e))
        })?;
    }
    result
}

/// Whether the list asks for a new namespace of the kind.
pub fn is_new(list: &[Namespace], kind: NamespaceKind) -> bool {
    list.iter().any(|space| space.kind == kind && space.path.is_none())
}

/// Whether the container has a namespace of the kind that may differ from the host's.
pub fn has(list: &[Namespace], kind: NamespaceKind) -> bool {
    list.iter().any(|space| space.kind == kind)
}

/// Refuses names and kernel parameters for a namespace that is joined by a path, and is the caller's own: they would
/// change the host, as without the namespace.
pub(crate) fn refuse_host_changes(spec: &Spec) -> Result<(), Error> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let same = |kind: NamespaceKind| {
        let joined = linux.namespaces.iter().find(|space| space.kind == kind)?.path.as_deref()?;
        let there = rustix::fs::stat(joined).ok()?;
        let own = rustix::fs::stat(format!("/proc/self/ns/{}", kind.proc_name())).ok()?;
        Some((there.st_dev, there.st_ino) == (own.st_dev, own.st_ino))
    };
    let named = [("hostname", &spec.hostname), ("domainname", &spec.domainname)];
    let names = named.into_iter().filter(|(_, name)| name.as_deref().is_some_and(|name| !name.is_empty()));
    let parameters = linux.sysctl.keys().filter_map(|name| {
        let kind = validate::sysctl_namespace(&process::sysctl_path(name).replace('/', "."))?;
        Some((format!("linux.sysctl.{name}"), kind))
    });
    for (field, kind) in names.map(|(field, _)| (field.to_string(), NamespaceKind::Uts)).chain(parameters) {
        if same(kind) == Some(true) {
            let text = format!("the {} namespace that is joined is the host's own", kind.proc_name());
            return Err(Error::invalid(field, text));
        }
    }
    Ok(())
}
