//! A container's root as what reads or runs it wants it.

use std::os::fd::OwnedFd;

use creel_runtime::Rootfs;
use creel_store::{Root, RootForm};
use creel_sys::mount::{self as sys, OpenTreeFlags};

use crate::error::{Error, Result};
use crate::overlay;

/// For the runtime, which mounts it inside the container's mount namespace.
pub(crate) fn rootfs(root: Root) -> Rootfs {
    match root.form {
        RootForm::Overlay => Rootfs::Overlay { lower: root.lower, upper: root.upper, work: root.work },
        RootForm::Copy => Rootfs::Directory(root.upper),
    }
}

/// As a mount that is attached nowhere and ends with its descriptor.
pub(crate) fn mounted(root: &Root, writable: bool) -> Result<OwnedFd> {
    match (root.form, writable) {
        (RootForm::Overlay, true) => overlay::writable(&root.lower, &root.upper, &root.work),
        (RootForm::Overlay, false) => overlay::read_only(&root.lower, &root.upper),
        (RootForm::Copy, _) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            sys::open_tree(rustix::fs::CWD, &root.upper, flags)
                .map_err(|e| Error::io(format_args!("opening {}", root.upper.display()), e))
        }
    }
}
