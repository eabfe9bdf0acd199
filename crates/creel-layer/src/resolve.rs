//! Where a path leads inside a root, followed part by part: for paths that do not exist yet, and to learn a path's
//! true name. What exists is opened by `openat2`, see [`crate::fs`].

use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::fs;

/// As many links as the kernel follows in one path (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// A walk along a path: what is resolved, and what is still to be. Pure; the caller looks the parts up.
pub(crate) struct Walk {
    /// Parts resolved: none of them is a link.
    pub(crate) done: Vec<Vec<u8>>,
    /// Parts to come, the next one last.
    pending: Vec<Vec<u8>>,
    links: u32,
}

/// The next thing to do on a walk.
pub(crate) enum Step {
    /// Look this name up in the directory that is resolved so far, then call [`Walk::enter`] or [`Walk::follow`].
    Name(Vec<u8>),
    /// The walk went up: the directory resolved so far has changed. At the root it stays there.
    Up,
}

impl Walk {
    pub(crate) fn new(path: &[u8]) -> Self {
        let mut walk = Self { done: Vec::new(), pending: Vec::new(), links: 0 };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &[u8]) {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        self.pending.extend(parts.rev().map(<[u8]>::to_vec));
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        let part = self.pending.pop()?;
        if part != b".." {
            return Some(Step::Name(part));
        }
        self.done.pop();
        Some(Step::Up)
    }

    /// Whether parts are still to come.
    pub(crate) fn is_last(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn enter(&mut self, name: Vec<u8>) {
        self.done.push(name);
    }

    /// Follows a link with this target; `true` if it leads to the root first.
    pub(crate) fn follow(&mut self, target: &[u8]) -> Result<bool, Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        self.push(target);
        let absolute = target.starts_with(b"/");
        if absolute {
            self.done.clear();
        }
        Ok(absolute)
    }

    /// The path resolved so far.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.done.join(&b'/')
    }
}

/// The true name of `path` inside `root`: all links followed (the last part's only if `follow_last`), no `..` left.
/// Parts that do not exist are kept as they stand, as Docker does.
pub(crate) fn true_path(root: impl AsFd, path: &[u8], follow_last: bool) -> rustix::io::Result<Vec<u8>> {
    let root = root.as_fd();
    let mut walk = Walk::new(path);
    while let Some(step) = walk.next() {
        let Step::Name(name) = step else { continue };
        if walk.is_last() && !follow_last {
            walk.enter(name);
            continue;
        }
        let link = match fs::open_plain(root, &walk.path()) {
            Ok(dir) => match fs::stat_if_any(&dir, &name)? {
                Some(meta) if meta.kind == FileType::Symlink => Some(fs::read_link(&dir, &name)?),
                _ => None,
            },
            // Nothing can be a link below what is missing or no directory.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(error) => return Err(error),
        };
        match link {
            Some(target) => {
                walk.follow(&target)?;
            }
            None => walk.enter(name),
        }
    }
    Ok(walk.path())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        symlink("/usr/lib", at("lib")).unwrap();
        symlink("../../../../etc", at("usr/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("lib/x", at("last")).unwrap();
        let root = fs::open_root(dir.path()).unwrap();
        let find = |path: &str, follow| {
            true_path(&root, path.as_bytes(), follow).map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(find("lib/a/../b", true).unwrap(), "usr/lib/b");
        assert_eq!(find("/usr/up/passwd", true).unwrap(), "etc/passwd");
        assert_eq!(find("../../..", true).unwrap(), "");
        assert_eq!(find("last", true).unwrap(), "usr/lib/x");
        assert_eq!(find("last", false).unwrap(), "last");
        assert_eq!(find("loop/x", true), Err(Errno::LOOP));
        assert_eq!(find("none/x", true).unwrap(), "none/x");
    }
}
