//! Paths inside a root that came from an image: resolved and made by descriptors, never leaving the root.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::openat2;
use creel_types::ErrorKind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Fault;

/// What a missing last component is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A directory, mode 0755.
    Directory,
    /// An empty regular file, mode 0644; its parents are directories.
    File,
}

/// How many symbolic links one path may contain, as the kernel's own limit.
const MAX_LINKS: u32 = 40;

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The object that `path` names inside `root`, as an `O_PATH` descriptor; `None` if it does not exist.
pub(crate) fn find(root: impl AsFd, path: &str) -> Result<Option<OwnedFd>, Fault> {
    match openat2::open_in_root(root, relative(path), OFlags::PATH, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A path without its leading slashes; `.` for the root itself.
pub(crate) fn relative(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        rest => rest,
    }
}

/// The last component and what is before it.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some((parent, name)) => (parent, name),
        None => ("", path),
    }
}

/// The object that `path` names inside `root`, made with its parents if it is missing, as an `O_PATH` descriptor: a
/// place to mount on, for those who mount without [`crate::create()`].
///
/// # Errors
/// The kernel's.
pub fn mountpoint(root: BorrowedFd<'_>, path: &str, make: Make) -> std::io::Result<OwnedFd> {
    match ensure(root, path, make) {
        Ok((fd, _)) => Ok(fd),
        Err(fault) => Err(fault
            .errno
            .map_or_else(|| std::io::Error::other(fault.message.clone()), std::io::Error::from_raw_os_error)),
    }
}

/// The object that `path` names inside `root`, made with its parents if it is missing. The second value tells whether
/// it was there already.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &str, make: Make) -> Result<(OwnedFd, bool), Fault> {
    if let Some(fd) = find(root, path)? {
        return Ok((fd, true));
    }
    Ok((walk(root, path, make)?, false))
}

/// As [`ensure`], but a link at the end of the path is the object itself.
pub(crate) fn ensure_itself(root: BorrowedFd<'_>, path: &str, make: Make) -> Result<OwnedFd, Fault> {
    let (dir, name) = ensure_parent(root, path)?;
    match rustix::fs::openat(&dir, name, PATH_ONLY, Mode::empty()) {
        Err(Errno::NOENT) => {
            create(dir.as_fd(), name, make)?;
            Ok(rustix::fs::openat(&dir, name, PATH_ONLY, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Walks component by component, making what is missing. Every step opens one name in a directory that is held, and
/// follows nothing; `..` goes back to a directory that was walked through, so no step can leave the root.
fn walk(root: BorrowedFd<'_>, path: &str, make: Make) -> Result<OwnedFd, Fault> {
    let mut left: VecDeque<String> = components(path).collect();
    let mut above: Vec<OwnedFd> =
        vec![openat2::open_in_root(root, ".", OFlags::PATH | OFlags::DIRECTORY, 0)?];
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let Some(dir) = above.last() else { break };
        let last = left.is_empty();
        let entry = match rustix::fs::openat(dir, &*name, PATH_ONLY, Mode::empty()) {
            Err(Errno::NOENT) => {
                create(dir.as_fd(), &name, if last { make } else { Make::Directory })?;
                rustix::fs::openat(dir, &*name, PATH_ONLY, Mode::empty())?
            }
            other => other?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Directory => above.push(entry),
            FileType::Symlink => {
                links += 1;
                // The text of a link in procfs may name a file of the host: nothing of that name is to be made here.
                if links > MAX_LINKS || crate::mounts::apply::is_procfs(&entry)? {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&entry, c"", Vec::new())?;
                let target = target.to_str().map_err(|_| Fault::from(Errno::ILSEQ))?;
                if target.starts_with('/') {
                    above.truncate(1);
                }
                for component in components(target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(component);
                }
            }
            _ if last => return Ok(entry),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    above.pop().ok_or_else(|| Errno::NOENT.into())
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_string)
}

fn create(dir: BorrowedFd<'_>, name: &str, make: Make) -> Result<(), Fault> {
    let made = match make {
        Make::Directory => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        // Somebody else who shares the directory was faster.
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// The directory that holds `path`'s last component, made if missing, and that component's name.
pub(crate) fn ensure_parent<'p>(root: BorrowedFd<'_>, path: &'p str) -> Result<(OwnedFd, &'p str), Fault> {
    let (parent, name) = split(path);
    if name.is_empty() || name == "." || name == ".." {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("{path} names no entry of a directory")));
    }
    Ok((ensure(root, parent, Make::Directory)?.0, name))
}

/// Whether the object is a directory.
pub(crate) fn is_dir(fd: impl AsFd) -> Result<bool, Fault> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Removes a non-directory, if there is one.
pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &str) -> Result<(), Fault> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let fd = rustix::fs::open(
            dir.path().join("root"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        (dir, fd)
    }

    #[test]
    fn links_never_lead_out() {
        let (dir, fd) = root();
        let root = dir.path().join("root");
        symlink("/", root.join("abs")).unwrap();
        symlink("../../../..", root.join("up")).unwrap();
        symlink("/not/yet/there", root.join("dangling")).unwrap();
        for (path, made) in [
            ("/abs/a", "a"),
            ("/up/b", "b"),
            ("/../../c", "c"),
            ("/dangling/d", "not/yet/there/d"),
            ("/e/../../f/g", "f/g"),
        ] {
            let (_, existed) = ensure(fd.as_fd(), path, Make::Directory).unwrap();
            assert!(!existed, "{path}");
            assert!(root.join(made).is_dir(), "{path} → {made}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made outside");
    }

    /// What a link of procfs says is the host's business: nothing is made where it leads, even if it is there only now.
    #[test]
    fn links_of_procfs_make_nothing() {
        let host = rustix::fs::open("/", PATH_ONLY, Mode::empty()).unwrap();
        let name = format!("made-by-{}", std::process::id());
        let made = walk(host.as_fd(), &format!("/proc/self/cwd/{name}"), Make::Directory);
        let there = std::env::current_dir().unwrap().join(&name);
        let was_made = std::fs::remove_dir(there).is_ok();
        assert_eq!((made.unwrap_err().errno, was_made), (Some(libc::ELOOP), false));
    }

    #[test]
    fn loops_end() {
        let (dir, fd) = root();
        symlink("loop", dir.path().join("root/loop")).unwrap();
        assert!(ensure(fd.as_fd(), "/loop/x", Make::Directory).is_err());
    }

    #[test]
    fn files_are_made_with_their_parents() {
        let (dir, fd) = root();
        let (file, existed) = ensure(fd.as_fd(), "/etc/deep/hosts", Make::File).unwrap();
        assert!(!existed && !is_dir(&file).unwrap());
        assert!(dir.path().join("root/etc/deep/hosts").is_file());
        assert!(ensure(fd.as_fd(), "/etc/deep/hosts/x", Make::File).is_err());
    }
}
