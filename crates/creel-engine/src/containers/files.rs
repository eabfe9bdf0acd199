//! cp, export and diff: what goes through the helper process, and what the layers themselves tell.

use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use creel_types::ErrorKind;
use creel_wire::container::{Change, PathStat};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::container::Container;
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::helper::{self, HelperRequest, HelperRoot, Operation, RestingMount};
use crate::options::{ByteSource, ByteStream, PutOptions};
use crate::record::{MountKind, MountRecord};
use crate::trees;

/// Bytes that are handed on at a time.
const CHUNK: usize = 64 << 10;
/// The most that a helper's complaints are read.
const COMPLAINTS: u64 = 64 << 10;

/// What of a container's files was changed.
pub(crate) async fn changes(core: &Arc<Core>, id: &str) -> Result<Vec<Change>> {
    let container = core.containers.find(id)?;
    let root = core.store.whole_snapshot(&container.id)?;
    let found = blocking(move || Ok(root.changes()?)).await?;
    Ok(found
        .into_iter()
        .map(|change| Change { kind: change.kind as u8, path: change.path.display().to_string() })
        .collect())
}

fn root(core: &Core, container: &Container, writable: bool) -> Result<HelperRoot> {
    if let Some(running) = container.running() {
        let start_time = helper::start_time(running.pid)
            .ok_or_else(|| Error::conflict(format!("container {} has just ended", container.id)))?;
        return Ok(HelperRoot::Running { pid: running.pid, start_time });
    }
    let record = container.record();
    let root = core.store.whole_snapshot(&container.id)?;
    let shown = |mount: &&MountRecord| match (mount.kind, mount.volume().map(|of| core.volumes.get(&of.name)))
    {
        (MountKind::Tmpfs | MountKind::Image, _) => false,
        // What would have to be mounted is seen while the container runs.
        (_, Some(volume)) => volume.is_some_and(|volume| volume.is_plain()),
        _ => true,
    };
    let mounts = record.mounts.iter().filter(shown).map(|mount| RestingMount {
        source: mount.source.clone().into(),
        subpath: mount.of.as_ref().map(|of| of.subpath.clone()).unwrap_or_default(),
        destination: mount.destination.clone().into(),
    });
    // The network's files are there from the first start on; a mount of the user's at their place goes over them.
    let dir = core.dir(&container.id);
    let files = ["resolv.conf", "hostname", "hosts"].into_iter().map(|name| RestingMount {
        source: dir.join(name),
        subpath: String::new(),
        destination: std::path::Path::new("/etc").join(name),
    });
    let mounts = files.filter(|mount| mount.source.exists()).chain(mounts);
    Ok(HelperRoot::Resting { root, mounts: mounts.collect(), writable })
}

fn spawn(core: &Core, root: HelperRoot, operation: Operation, stdin: Stdio) -> Result<Child> {
    let request = serde_json::to_string(&HelperRequest { root, operation })
        .map_err(|e| Error::internal(format!("writing a helper's request: {e}")))?;
    Command::new(core.program.sealed())
        .arg0("creel")
        .arg("rootfs-helper")
        .arg(request)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::io("spawning a helper process", e))
}

/// Waits for a helper's end; its complaint if it failed.
async fn end(mut child: Child) -> Result<()> {
    let mut complaints = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(COMPLAINTS).read_to_end(&mut complaints).await;
    }
    let status = child.wait().await.map_err(|e| Error::io("waiting for a helper process", e))?;
    if status.success() { Ok(()) } else { Err(helper::failure(&complaints)) }
}

fn pipe(child: &mut Child) -> Result<BufReader<ChildStdout>> {
    let stdout = child.stdout.take().ok_or_else(|| Error::internal("a helper process has no stdout"))?;
    Ok(BufReader::with_capacity(CHUNK, stdout))
}

/// Words an error about a path as Docker does.
fn worded(error: Error, container: &Container, path: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Error::not_found(format!("Could not find the file {path} in container {}", container.name()))
        }
        _ => error,
    }
}

async fn first_line(child: &mut Child, out: &mut BufReader<ChildStdout>) -> Option<PathStat> {
    let _ = child;
    let mut line = String::new();
    out.read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// What is at a path.
pub(crate) async fn stat(core: &Arc<Core>, id: &str, path: &str) -> Result<PathStat> {
    let container = core.containers.find(id)?;
    let operation = Operation::Stat { path: path.into() };
    let mut child = spawn(core, root(core, &container, false)?, operation, Stdio::null())?;
    let mut out = pipe(&mut child)?;
    let stat = first_line(&mut child, &mut out).await;
    end(child).await.map_err(|e| worded(e, &container, path))?;
    stat.ok_or_else(|| Error::internal("the helper process said nothing"))
}

/// An archive of a path.
pub(crate) async fn get(core: &Arc<Core>, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
    let container = core.containers.find(id)?;
    let operation = Operation::Get { path: path.into() };
    let mut child = spawn(core, root(core, &container, false)?, operation, Stdio::null())?;
    let mut out = pipe(&mut child)?;
    match first_line(&mut child, &mut out).await {
        Some(stat) => {
            core.tell(&container, "archive-path", &[]);
            Ok((stat, stream(child, out)))
        }
        None => {
            end(child).await.map_err(|e| worded(e, &container, path))?;
            Err(Error::internal("the helper process said nothing"))
        }
    }
}

/// An archive of all files.
pub(crate) async fn export(core: &Arc<Core>, id: &str) -> Result<ByteStream> {
    let container = core.containers.find(id)?;
    let mut child = spawn(core, root(core, &container, false)?, Operation::Export, Stdio::null())?;
    let out = pipe(&mut child)?;
    core.tell(&container, "export", &[]);
    Ok(stream(child, out))
}

/// Hands a helper's output on; a failure in mid-stream is the last item.
fn stream(child: Child, mut out: BufReader<ChildStdout>) -> ByteStream {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
            let piece = match out.read_buf(&mut chunk).await {
                Ok(0) => break,
                Ok(_) => Ok(chunk.freeze()),
                Err(e) => Err(Error::io("reading from a helper process", e)),
            };
            let failed = piece.is_err();
            // Nobody listens any more: dropping the child kills it.
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
        if let Err(e) = end(child).await {
            let _ = sender.send(Err(e)).await;
        }
    });
    receiver
}

/// Unpacks an archive into a container.
pub(crate) async fn put(
    core: &Arc<Core>,
    id: &str,
    path: &str,
    options: PutOptions,
    mut tar: ByteSource,
) -> Result<()> {
    let container = core.containers.find(id)?;
    let record = container.record();
    if record.host_config.readonly_rootfs {
        let volume = record
            .mounts
            .iter()
            .any(|mount| mount.rw && std::path::Path::new(path).starts_with(&mount.destination));
        if !volume {
            return Err(Error::invalid("container rootfs is marked read-only"));
        }
    }
    // While its root is mounted for writing it must not be started.
    let _resting: Option<OwnedMutexGuard<()>> =
        if container.running().is_none() { Some(container.owner.clone().lock_owned().await) } else { None };
    let owner = match (options.copy_uid_gid, record.config.user.as_str()) {
        (false, _) | (_, "") => None,
        (true, user) => {
            let rootfs = trees::rootfs(core.store.whole_snapshot(&container.id)?);
            let user = creel_runtime::resolve_user(&rootfs, user).map_err(|e| Error::of(&e))?;
            Some((user.uid, user.gid))
        }
    };
    let operation =
        Operation::Put { path: path.into(), no_overwrite: options.no_overwrite_dir_non_dir, owner };
    let mut child = spawn(core, root(core, &container, true)?, operation, Stdio::piped())?;
    let mut broken = None;
    if let Some(mut stdin) = child.stdin.take() {
        while let Some(piece) = tar.recv().await {
            let piece: Bytes = match piece {
                Ok(piece) => piece,
                Err(e) => {
                    broken = Some(Error::io("receiving the archive", e));
                    break;
                }
            };
            // A helper that has failed says why on its own.
            if stdin.write_all(&piece).await.is_err() {
                break;
            }
        }
    }
    let done = end(child).await.map_err(|e| worded(e, &container, path));
    if let Some(e) = broken {
        return Err(e);
    }
    done?;
    core.tell(&container, "extract-to-dir", &[]);
    Ok(())
}
