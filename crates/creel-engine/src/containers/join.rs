//! Namespaces of other containers: found, held open, and proved to be theirs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use creel_types::spec::NamespaceKind;
use rustix::fs::{Mode, OFlags};

use crate::containers::Container;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::record::ContainerRecord;

/// What a container takes over from others when it starts.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Paths of namespaces by kind. They lead to [`Joined::held`], so they are good as long as this value lives.
    pub(crate) paths: Vec<(NamespaceKind, String)>,
    /// Whose network it is: the directory with the network's three files, host name and domain name.
    pub(crate) network: Option<Network>,
    /// The namespaces, open.
    held: Vec<OwnedFd>,
}

/// What goes with a network namespace.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) dir: PathBuf,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
}

/// The kinds that can be joined, with the words for them and the mode that asks for it.
fn wishes(record: &ContainerRecord) -> [(NamespaceKind, &str, &str); 2] {
    let host = &record.host_config;
    [(NamespaceKind::Network, "network", &host.network_mode), (NamespaceKind::Pid, "PID", &host.pid_mode)]
}

/// Opens the namespaces of other containers that this one joins.
pub(crate) fn open(core: &Core, record: &ContainerRecord) -> Result<Joined> {
    let mut joined = Joined::default();
    for (kind, word, mode) in wishes(record) {
        let Some(other) = mode.strip_prefix("container:") else { continue };
        let container = core.containers.find(other)?;
        if container.id == record.id {
            return Err(Error::invalid(format!("cannot join own {word} namespace")));
        }
        let namespace = namespace(core, &container, kind, word)?;
        joined.paths.push((kind, format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())));
        joined.held.push(namespace);
        if kind == NamespaceKind::Network {
            let of = container.record();
            joined.network = Some(Network {
                dir: core.dir(&container.id),
                hostname: of.config.hostname.clone(),
                domainname: of.config.domainname.clone(),
            });
        }
    }
    Ok(joined)
}

/// Opens one namespace of a running container. The number of its first process may be another's by now, so a pidfd
/// holds on to the process, its control group says whose it is, and it must be alive after the namespace was opened.
fn namespace(core: &Core, container: &Container, kind: NamespaceKind, word: &str) -> Result<OwnedFd> {
    let gone = || match kind {
        NamespaceKind::Network => Error::conflict(format!(
            "cannot join network namespace of a non running container: container {} is {}",
            container.name(),
            container.state_word()
        )),
        _ => Error::conflict(format!(
            "failed to join {word} namespace: container {} is not running",
            container.id
        )),
    };
    let running = container.running().ok_or_else(gone)?;
    let pidfd = creel_sys::pidfd::open(running.pid).map_err(|_| gone())?;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).map_err(|_| gone())?;
    let group = core.cgroup_path(&container.record());
    if !groups.lines().any(|line| line.contains(&group)) {
        return Err(gone());
    }
    let path = format!("/proc/{}/ns/{}", running.pid, kind.proc_name());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(&path, flags, Mode::empty()).map_err(|_| gone())?;
    creel_sys::pidfd::send_signal(&pidfd, 0).map_err(|_| gone())?;
    Ok(namespace)
}
