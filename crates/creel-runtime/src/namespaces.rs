//! Which namespaces are made and which are joined.

use creel_sys::clone;
use creel_types::spec::{Namespace, NamespaceKind};

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
