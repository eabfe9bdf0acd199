//! What callers hand in.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_cgroup::Cgroup;
use creel_types::spec::{Process, Spec};
use serde::{Deserialize, Serialize};

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rootfs {
    /// A directory of the host, bound as it is.
    Directory(PathBuf),
    /// An overlay, mounted inside the container's mount namespace.
    Overlay {
        /// Read-only directories, topmost first.
        lower: Vec<PathBuf>,
        /// The writable directory.
        upper: PathBuf,
        /// overlayfs's scratch directory, empty and on the file system of `upper`.
        work: PathBuf,
    },
}

/// The three standard descriptors of a process; `None` is `/dev/null`. Ignored when it has a terminal.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// What [`crate::create()`] needs.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its OCI runtime configuration.
    pub spec: &'a Spec,
    /// The bundle directory: relative paths of the Spec start here.
    pub bundle: &'a Path,
    /// The root file system; it takes the place of the Spec's `root.path`.
    pub rootfs: &'a Rootfs,
    /// The process's standard descriptors.
    pub stdio: Stdio,
    /// The control group to start in.
    pub cgroup: Option<&'a Cgroup>,
    /// `--init`: path of an executable (creel's own) that becomes process 1 as a reaper and runs the program.
    pub init: Option<PathBuf>,
}

/// What [`crate::exec()`] needs.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The container's process 1, in the caller's pid namespace.
    pub target_pid: i32,
    /// The same process's pidfd.
    pub target_pidfd: BorrowedFd<'a>,
    /// The container's Spec: its namespaces and its system call filter hold for the new process too.
    pub spec: &'a Spec,
    /// What to run.
    pub process: &'a Process,
    /// Its standard descriptors.
    pub stdio: Stdio,
    /// The container's control group.
    pub cgroup: Option<&'a Cgroup>,
}
