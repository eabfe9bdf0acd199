//! What callers hand in.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_cgroup::{Cgroup, Entry};
use creel_types::spec::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::Facts;
use crate::filter::Compiled;

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rootfs {
    /// A directory of the host, bound as it is.
    Directory(PathBuf),
    /// An overlay, mounted inside the container's mount namespace.
    Overlay {
        /// Read-only layers, topmost first: directories, or EROFS images ([`creel_sys::erofs`], called `*.erofs`), which
        /// are mounted where the overlay is.
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

/// Who lets a created process go on to its program.
#[derive(Debug)]
pub enum Gate {
    /// The creator, by [`crate::Created::start`].
    Creator,
    /// Whoever connects to this listening `SOCK_SEQPACKET` socket and calls [`crate::open_gate`] on the connection: the
    /// creator may be gone by then.
    Socket(OwnedFd),
}

/// How long a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is killed when the thread that created it dies.
    WithCreator,
    /// It outlives its creator once it is set up.
    Detached,
}

/// Makes a control group again that somebody has removed while it was empty, and moves the process of this id there. The
/// error is told to the caller.
pub type Again<'a> = &'a mut dyn FnMut(i32) -> Result<(), String>;

/// Finishes the control group of a process; see [`Group::Meanwhile`].
pub type Finish<'a> = &'a mut dyn FnMut(i32, &dyn Fn(Option<&Entry>)) -> Result<(), String>;

/// How a container's process comes into its control group.
pub enum Group<'a> {
    /// It stays in its creator's.
    None,
    /// It joins a group that exists.
    Ready {
        /// The group.
        cgroup: &'a Cgroup,
        /// For the case that it is removed before the process has joined.
        again: Again<'a>,
    },
    /// It is born in a group of the unified hierarchy, if there is one; those of v1 hierarchies are made by its creator,
    /// given its process id, while it makes its namespaces and mounts. The error is told to the caller.
    Meanwhile {
        /// The group's directory in the unified hierarchy.
        unified: Option<OwnedFd>,
        /// Makes the rest, and shows the doors to it once; `None` when somebody has removed them already.
        finish: Finish<'a>,
        /// For the case that it is removed before the process has joined.
        again: Again<'a>,
    },
    /// Somebody else moves it, given its process id (systemd makes scopes that way); the error is told to the caller.
    ByPid(&'a mut dyn FnMut(i32) -> Result<(), String>),
}

impl std::fmt::Debug for Group<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Group::None => f.write_str("None"),
            Group::Ready { cgroup, .. } => {
                f.debug_struct("Ready").field("cgroup", cgroup).finish_non_exhaustive()
            }
            Group::Meanwhile { unified, .. } => {
                f.debug_struct("Meanwhile").field("unified", unified).finish_non_exhaustive()
            }
            Group::ByPid(_) => f.write_str("ByPid"),
        }
    }
}

/// What [`crate::create()`] needs. [`CreateOptions::new`] gives the ordinary values.
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
    pub cgroup: Group<'a>,
    /// `--init`: path of an executable (creel's own) that becomes process 1 as a reaper and runs the program.
    pub init: Option<PathBuf>,
    /// Who opens the gate.
    pub gate: Gate,
    /// How long the process lives.
    pub life: Life,
    /// Whether the root is changed by pivot_root(2); false: by moving the root's mount and chroot(2), which keeps
    /// nothing back that may unmount. For hosts whose root is the initial ramfs only.
    pub pivot: bool,
    /// Whether the container gets a session keyring of its own.
    pub keyring: bool,
    /// Open descriptors from 3 on that the program inherits under the same numbers; all others are closed.
    pub preserve_fds: Vec<i32>,
    /// The system call filter, if it is at hand compiled; it takes the place of the Spec's.
    pub filter: Option<&'a Compiled>,
    /// What is known of the host already; gathered otherwise.
    pub facts: Option<Facts>,
}

impl<'a> CreateOptions<'a> {
    /// A container without a control group of its own, started by its creator and living with it.
    pub fn new(id: &'a str, spec: &'a Spec, bundle: &'a Path, rootfs: &'a Rootfs) -> CreateOptions<'a> {
        CreateOptions {
            id,
            spec,
            bundle,
            rootfs,
            stdio: Stdio::default(),
            cgroup: Group::None,
            init: None,
            gate: Gate::Creator,
            life: Life::WithCreator,
            pivot: true,
            keyring: true,
            preserve_fds: Vec::new(),
            filter: None,
            facts: None,
        }
    }
}

/// What [`crate::exec()`] needs.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its bundle directory.
    pub bundle: &'a Path,
    /// The container's process 1, in the caller's pid namespace.
    pub target_pid: i32,
    /// The same process's pidfd.
    pub target_pidfd: BorrowedFd<'a>,
    /// The container's Spec: its namespaces and its system call filter hold for the new process too.
    pub spec: &'a Spec,
    /// The container's system call filter, if it is at hand; the Spec's is compiled otherwise.
    pub filter: Option<&'a Compiled>,
    /// What to run.
    pub process: &'a Process,
    /// Its standard descriptors.
    pub stdio: Stdio,
    /// The container's control group.
    pub cgroup: Option<&'a Cgroup>,
    /// The doors of another group that the process joins in its place, like one below the container's.
    pub doors: Option<Entry>,
    /// How long the process lives.
    pub life: Life,
    /// Open descriptors from 3 on that the program inherits under the same numbers; all others are closed.
    pub preserve_fds: Vec<i32>,
}
