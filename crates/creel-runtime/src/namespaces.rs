//! Which namespaces are made and which are joined.

use creel_sys::clone;
use creel_types::spec::{Namespace, NamespaceKind, Spec};

use crate::{Error, process, validate};

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
