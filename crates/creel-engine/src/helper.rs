//! The helper process that reads and writes a container's files: `creel rootfs-helper REQUEST`.
//!
//! It works through one descriptor of the container's root, never through paths of the host. For a container that
//! runs, the root is that of its mount namespace, fetched by a short visit; for one at rest, its root is mounted in a
//! mount namespace of the helper's own, which ends with it. Data goes over stdin and stdout; a failure is one JSON line
//! on stderr and exit code 1.

use std::ffi::OsString;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_layer::{ExtractOptions, Naming, PackOptions};
use creel_store::Root;
use creel_sys::mount as sys;
use creel_types::ErrorKind;
use creel_wire::container::PathStat;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::trees;

/// What the helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelperRequest {
    pub(crate) root: HelperRoot,
    pub(crate) operation: Operation,
}

/// Where the container's root is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HelperRoot {
    /// It runs: the mount namespace of this process, which was started at this time (field 22 of its `stat`).
    Running { pid: i32, start_time: u64 },
    /// It is at rest.
    Resting { root: Root, mounts: Vec<RestingMount>, writable: bool },
}

/// A bind that a container at rest would have.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RestingMount {
    pub(crate) source: PathBuf,
    /// What of it is mounted, if not all: links in it lead nowhere else.
    pub(crate) subpath: String,
    pub(crate) destination: PathBuf,
}

/// One operation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// What is at a path: one JSON line.
    Stat { path: PathBuf },
    /// The same line, then an archive of it.
    Get { path: PathBuf },
    /// Unpacks the archive on stdin.
    Put { path: PathBuf, no_overwrite: bool, owner: Option<(u32, u32)> },
    /// An archive of everything, mounts left out.
    Export,
}

/// A failure as it crosses stderr.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    not_found: bool,
    invalid: bool,
    message: String,
}

/// When a process was started, in clock ticks since the boot: with its id it names it for good.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Reads what a helper that failed said.
pub(crate) fn failure(stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    match text.lines().rev().find_map(|line| serde_json::from_str::<Failure>(line).ok()) {
        Some(failure) => {
            let kind = match (failure.not_found, failure.invalid) {
                (true, _) => ErrorKind::NotFound,
                (_, true) => ErrorKind::InvalidArgument,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, failure.message)
        }
        None => Error::internal(format!("the helper process failed: {}", text.trim())),
    }
}

/// The `main` of a helper process: `args` are those after `rootfs-helper`. Returns the exit code.
pub fn rootfs_helper_main(mut args: impl Iterator<Item = OsString>) -> i32 {
    let done = args
        .next()
        .and_then(|text| text.into_string().ok())
        .ok_or_else(|| Error::invalid("creel rootfs-helper is started by creel itself, with a request"))
        .and_then(|text| serde_json::from_str(&text).map_err(|e| Error::invalid(format!("the request: {e}"))))
        .and_then(run);
    match done {
        Ok(()) => 0,
        Err(e) => {
            let failure = Failure {
                not_found: e.kind() == ErrorKind::NotFound,
                invalid: e.kind() == ErrorKind::InvalidArgument,
                message: e.to_string(),
            };
            let line = serde_json::to_string(&failure).unwrap_or_else(|_| e.to_string());
            let _ = writeln!(std::io::stderr(), "{line}");
            1
        }
    }
}

fn run(request: HelperRequest) -> Result<()> {
    let root = match &request.root {
        HelperRoot::Running { pid, start_time } => running_root(*pid, *start_time)?,
        resting => resting_root(resting)?,
    };
    let mut out = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
    let layer = |e: creel_layer::Error| Error::of(&e);
    match request.operation {
        Operation::Stat { path } => stat_line(&root, &path, &mut out)?,
        Operation::Get { path } => {
            stat_line(&root, &path, &mut out)?;
            creel_layer::pack_tree(&root, &path, &PackOptions::default(), &mut out).map_err(layer)?;
        }
        Operation::Export => {
            let options = PackOptions { naming: Naming::Content, one_mount: true, ..PackOptions::default() };
            creel_layer::pack_tree(&root, Path::new("/"), &options, &mut out).map_err(layer)?;
        }
        Operation::Put { path, no_overwrite, owner } => {
            let stdin = BufReader::with_capacity(256 << 10, std::io::stdin());
            let mut tar = creel_layer::decompress(stdin).map_err(layer)?;
            let options =
                ExtractOptions { no_overwrite_dir_non_dir: no_overwrite, owner, ..ExtractOptions::default() };
            creel_layer::extract(&mut tar, &root, &path, &options).map_err(layer)?;
            // The sender may still fill the pipe with the archive's padding.
            let _ = std::io::copy(&mut tar.take(1 << 20), &mut std::io::sink());
        }
    }
    out.flush().map_err(|e| Error::io("writing", e))
}

fn stat_line(root: &OwnedFd, path: &Path, out: &mut impl Write) -> Result<()> {
    let stat = creel_layer::stat(root, path).map_err(|e| Error::of(&e))?;
    let nanoseconds = i32::try_from(stat.mtime.nanoseconds).unwrap_or(0);
    let mtime = jiff::Timestamp::new(stat.mtime.seconds, nanoseconds).unwrap_or_default();
    let stat = PathStat {
        name: stat.name,
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: go_mode(stat.mode),
        mtime: mtime.to_string(),
        link_target: stat.link_target,
    };
    serde_json::to_writer(&mut *out, &stat).map_err(|e| Error::internal(e.to_string()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(|e| Error::io("writing", e))
}

/// Linux's `st_mode` in the bits of Go's `fs.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |sum, (_, go)| sum | go);
    kind | special | (mode & 0o777)
}

const HERE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    rustix::fs::open(path, HERE, Mode::empty())
        .map_err(|e| Error::io(format_args!("opening {}", path.display()), e))
}

/// The root of a running container's mount namespace: whatever its first process has changed its own root to.
fn running_root(pid: i32, started: u64) -> Result<OwnedFd> {
    let gone = || Error::new(ErrorKind::Conflict, "the container has just ended");
    let pidfd = creel_sys::pidfd::open(pid).map_err(|_| gone())?;
    if start_time(pid) != Some(started) {
        return Err(gone());
    }
    let own = std::fs::File::open("/proc/self/ns/mnt")
        .map_err(|e| Error::io("opening the own mount namespace", e))?;
    let visit = "visiting the container's mount namespace";
    creel_sys::ns::setns(&pidfd, creel_sys::clone::NEWNS).map_err(|e| Error::io(visit, e))?;
    let root = open("/");
    // Back at once: /proc must be the host's, which the container cannot have prepared.
    creel_sys::ns::setns(&own, creel_sys::clone::NEWNS)
        .map_err(|e| Error::io("leaving the container's mount namespace", e))?;
    root
}

fn resting_root(root: &HelperRoot) -> Result<OwnedFd> {
    let HelperRoot::Resting { root, mounts, writable } = root else {
        return Err(Error::internal("a container at rest is wanted"));
    };
    creel_sys::ns::unshare(creel_sys::clone::NEWNS).map_err(|e| Error::io("making a mount namespace", e))?;
    let private = sys::MountPropagationFlags::PRIVATE | sys::MountPropagationFlags::REC;
    sys::mount_change("/", private).map_err(|e| Error::io("making mounts private", e))?;
    let tree = trees::mounted(root, *writable)?;
    let place = open(&root.upper)?;
    attach(&tree, place.as_fd()).map_err(|e| Error::io("mounting the container's root", e))?;
    for mount in mounts {
        let inside = mount.destination.strip_prefix("/").unwrap_or(&mount.destination);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // A container that never ran has no mount point yet, and a source may be gone: then there is nothing to see.
        let Ok(place) = creel_sys::openat2::open_in_root(&tree, inside, flags, 0) else { continue };
        let flags = sys::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | sys::OpenTreeFlags::OPEN_TREE_CLONE
            | sys::OpenTreeFlags::AT_RECURSIVE;
        let source = match mount.subpath.as_str() {
            "" => sys::open_tree(rustix::fs::CWD, &mount.source, flags),
            subpath => {
                let Ok(root) = open(&mount.source) else { continue };
                let beneath = creel_sys::openat2::open_beneath(&root, subpath, OFlags::PATH, 0);
                let Ok(place) = beneath else { continue };
                sys::open_tree(&place, c"", flags | sys::OpenTreeFlags::AT_EMPTY_PATH)
            }
        };
        let Ok(source) = source else { continue };
        if let Err(e) = attach(&source, place.as_fd()) {
            return Err(Error::io(format_args!("mounting {}", mount.destination.display()), e));
        }
    }
    Ok(tree)
}

fn attach(tree: &OwnedFd, place: std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = sys::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | sys::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    sys::move_mount(tree, c"", place, c"", flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o020_620), 1 << 26 | 1 << 21 | 0o620);
    }

    #[test]
    fn a_process_has_a_start_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).is_some());
        assert_eq!(start_time(i32::MAX), None);
    }

    #[test]
    fn failures_are_read_from_the_last_line() {
        let e = failure(b"noise\n{\"not_found\":true,\"invalid\":false,\"message\":\"gone\"}\n");
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::NotFound, "gone"));
        assert_eq!(failure(b"killed").to_string(), "the helper process failed: killed");
    }
}
