//! User namespaces that only carry a map: for idmapped mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::clone::{Clone, Cloned, NEWUSER, clone};
use creel_sys::mount::{self as sys, EMPTY_PATH, MountAttr, RECURSIVE};
use creel_sys::pidfd;
use creel_sys::process::{Whom, exit_now, set_pdeathsig, wait};
use creel_types::ErrorKind;
use creel_types::spec::NamespaceKind;
use rustix::fs::{Mode, OFlags};

use super::IdMap;
use crate::error::Fault;
use crate::{idmap, sources};

/// The namespaces made so far: mounts with the same map share one.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    made: Vec<(IdMap, OwnedFd)>,
}

impl Maps {
    /// The namespace of a map.
    pub(crate) fn find(&mut self, map: &IdMap) -> Result<BorrowedFd<'_>, Fault> {
        let same =
            |known: &IdMap| (&known.uids, &known.gids, &known.joined) == (&map.uids, &map.gids, &map.joined);
        if !self.made.iter().any(|(known, _)| same(known)) {
            let made = match &map.joined {
                Some(path) => sources::open_namespace(NamespaceKind::User, path),
                None => namespace(map),
            };
            let made = made.map_err(|fault| fault.context("cannot make the map of ids"))?;
            self.made.push((map.clone(), made));
        }
        let found = self.made.iter().find(|(known, _)| same(known));
        found
            .map(|(_, namespace)| namespace.as_fd())
            .ok_or_else(|| Fault::new(ErrorKind::Internal, "the map of ids was lost"))
    }
}

/// Has the mount `tree`, which is attached nowhere, show owners through the map of a user namespace.
pub(crate) fn apply(tree: &OwnedFd, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Fault> {
    let flags = EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
    let attr = MountAttr { set: sys::ATTR_IDMAP, userns: Some(namespace), ..MountAttr::default() };
    sys::mount_setattr(tree, c"", flags, &attr).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => Fault {
            message: "its file system does not take a map of ids, or has one already".into(),
            ..Fault::new(ErrorKind::Unsupported, "")
        },
        _ => Fault::from(e).context("cannot map its ids"),
    })
}

/// A user namespace is made by a process; this one lives until its map is written.
fn namespace(map: &IdMap) -> Result<OwnedFd, Fault> {
    let (pid, process) = match clone(&Clone { flags: NEWUSER, cgroup: None })? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            let _ = set_pdeathsig(libc::SIGKILL);
            // Killed below; or by the kernel, with its parent.
            std::thread::sleep(std::time::Duration::from_secs(60));
            exit_now(0)
        }
    };
    let made = idmap::write_maps(pid, &map.uids, &map.gids)
        .map_err(|e| Fault::new(ErrorKind::Internal, e.to_string()))
        .and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())?)
        });
    let _ = pidfd::send_signal(&process, libc::SIGKILL);
    let _ = wait(Whom::Pidfd(process.as_fd()), true);
    made
}
