//! The engine's own copy of its program, from which shims, inits and helpers are made.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes written at once. The page cache keeps a file in pieces as large as it was written in, and the kernel maps a
/// whole piece (up to 2 MiB, since Linux 6.18) where a process touches one page of it: a shim that runs a few
/// functions would count megabytes as its own.
const PIECE: usize = 4096;

/// A program that stays as it is for as long as the daemon runs, whatever happens to the file it was started from.
///
/// It is a copy in the root directory, so that an upgrade that removes or replaces the installed file breaks no
/// `--init`; and shims execute it through a read-only mount that is attached nowhere, so that nothing in a container
/// can ever write to it through `/proc/PID/exe` (CVE-2019-5736).
#[derive(Debug)]
pub(crate) struct Program {
    plain: PathBuf,
    sealed: PathBuf,
    /// Keeps the mount.
    _mount: Option<OwnedFd>,
}

impl Program {
    /// Copies and seals `executable`. What cannot be had is logged, and the plain file serves.
    pub(crate) fn new(executable: &Path, root: &Path) -> Self {
        let plain = copy(executable, &root.join("bin")).unwrap_or_else(|e| {
            tracing::warn!("shims run from {}: copying it failed: {e}", executable.display());
            executable.to_owned()
        });
        match creel_runtime::seal::sealed_executable(&plain) {
            Ok(mount) => {
                let sealed = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
                Self { plain, sealed, _mount: Some(mount) }
            }
            // Kernels before 5.12.
            Err(e) => {
                tracing::warn!(
                    "shims run from a file that root could write to: sealing {}: {e}",
                    plain.display()
                );
                Self { sealed: plain.clone(), plain, _mount: None }
            }
        }
    }

    /// What to execute as a shim; a path for this process and its children.
    pub(crate) fn sealed(&self) -> &Path {
        &self.sealed
    }

    /// The copy by its path.
    pub(crate) fn plain(&self) -> &Path {
        &self.plain
    }
}

/// The copy of this very version, made if it is not there; those of other versions go. Shims that run hold theirs.
fn copy(executable: &Path, dir: &Path) -> io::Result<PathBuf> {
    let source = File::open(executable)?;
    let meta = source.metadata()?;
    let name = format!("creel-{:x}-{:x}{:09}", meta.len(), meta.mtime(), meta.mtime_nsec());
    let target = dir.join(&name);
    fs::create_dir_all(dir)?;
    if fs::metadata(&target).is_ok_and(|found| found.len() == meta.len()) {
        return Ok(target);
    }
    for other in fs::read_dir(dir)? {
        fs::remove_file(other?.path())?;
    }
    let temporary = dir.join("new");
    let written = write(source, &temporary).and_then(|()| fs::rename(&temporary, &target));
    if written.is_err() {
        // On a full disk half a program would take the last room for nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| target)
}

fn write(mut source: File, target: &Path) -> io::Result<()> {
    let mut file = File::create(target)?;
    let mut piece = [0; PIECE];
    loop {
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => file.write_all(&piece[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_is_copied_once_and_the_old_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let executable = dir.path().join("program");
        fs::write(&executable, vec![7; 10_000]).unwrap();
        let bin = dir.path().join("bin");
        let first = copy(&executable, &bin).unwrap();
        assert_eq!(fs::read(&first).unwrap(), vec![7; 10_000]);
        let inode = fs::metadata(&first).unwrap().ino();
        assert_eq!(copy(&executable, &bin).unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().ino(), inode, "it was copied again");
        fs::write(&executable, "new version").unwrap();
        let second = copy(&executable, &bin).unwrap();
        assert_eq!(fs::read(&second).unwrap(), b"new version");
        assert!(!first.exists());
    }
}
