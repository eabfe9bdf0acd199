//! Mode, owner, extended attributes and times: setting what a file must have, with as few calls as will do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::{self, Meta, Xattrs};
use crate::tar::{Entry, Timestamp};

/// A directory with this attribute would hand it on to what is made in it, so it is set last.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// All that a file has besides its content.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    /// What an entry says, without the attributes that an archive must not set; their number comes with it.
    pub(crate) fn of_entry(entry: &Entry, owner: Option<(u32, u32)>) -> Result<(Self, u64)> {
        let id = |value: u64, what: &str| match u32::try_from(value) {
            // The highest number means "leave it as it is" to chown(2).
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(Error::refused(&entry.name, format!("its {what} {value} is not an id that Linux has"))),
        };
        let (uid, gid) = match owner {
            Some(owner) => owner,
            None => (id(entry.uid, "uid")?, id(entry.gid, "gid")?),
        };
        let mut xattrs = Xattrs::new();
        for (name, value) in &entry.xattrs {
            if !name.starts_with(b"trusted.") && !fs::is_overlay_xattr(name) {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        let dropped = (entry.xattrs.len() - xattrs.len()) as u64;
        Ok((Self { mode: entry.mode, uid, gid, mtime: entry.mtime, xattrs }, dropped))
    }

    /// What a file of a lower layer has.
    pub(crate) fn of_file(meta: &Meta, handle: impl AsFd) -> rustix::io::Result<Self> {
        let mut xattrs = fs::xattrs(&fs::handle_path(handle))?;
        xattrs.retain(|(name, _)| !fs::is_overlay_xattr(name));
        Ok(Self { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs })
    }

    /// A directory that nobody has described: root's, open to all.
    pub(crate) fn implied(mtime: Timestamp) -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }
}

/// What can be set on a directory only when nothing is made in it any more.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    mtime: Timestamp,
    /// The whole mode, if it has the bit that hands the group on.
    setgid: Option<u32>,
    acl: Option<Vec<u8>>,
}

/// Sets attributes and knows what is right without setting.
pub(crate) struct Setter {
    /// What a new file is without asking.
    ids: (u32, u32),
    umask: u32,
    /// New files may inherit a group or an access list from directories that are not ours: ask for everything.
    foreign: bool,
    pub(crate) dropped: u64,
}

impl Setter {
    pub(crate) fn new(foreign: bool) -> Self {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { ids, umask: umask(), foreign, dropped: 0 }
    }

    /// One like this for another thread, which has left nothing out yet.
    pub(crate) fn another(&self) -> Self {
        Self { dropped: 0, ..*self }
    }

    fn owner(&self, wanted: &Attributes) -> Option<(Option<Uid>, Option<Gid>)> {
        let change = self.foreign || (wanted.uid, wanted.gid) != self.ids;
        change.then(|| (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid))))
    }

    /// Whether `open` or `mknod` with this mode has not given it.
    fn needs_mode(&self, mode: u32) -> bool {
        self.foreign || mode & !0o777 != 0 || mode & self.umask != 0
    }

    /// For a file just made with the mode's lower nine bits and filled: writing would have taken setuid and
    /// capabilities away, and so does a change of owner.
    pub(crate) fn file(&mut self, name: &[u8], file: BorrowedFd<'_>, wanted: &Attributes) -> Result<()> {
        if let Some((uid, gid)) = self.owner(wanted) {
            rustix::fs::fchown(file, uid, gid).map_err(|error| Error::entry(name, "set owner", error))?;
        }
        if self.needs_mode(wanted.mode) {
            let mode = Mode::from_raw_mode(wanted.mode);
            rustix::fs::fchmod(file, mode).map_err(|error| Error::entry(name, "set mode", error))?;
        }
        for (key, value) in &wanted.xattrs {
            let result = rustix::fs::fsetxattr(file, &key[..], value, XattrFlags::empty());
            self.xattr(name, key, result)?;
        }
        rustix::fs::futimens(file, &fs::timestamps(wanted.mtime))
            .map_err(|error| Error::entry(name, "set times", error))
    }

    /// For a link, device or pipe just made.
    pub(crate) fn node(
        &mut self,
        name: &[u8],
        dir: BorrowedFd<'_>,
        base: &[u8],
        wanted: &Attributes,
        is_link: bool,
    ) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = self.owner(wanted) {
            rustix::fs::chownat(dir, base, uid, gid, nofollow)
                .map_err(|error| Error::entry(name, "set owner", error))?;
        }
        let mode = !is_link && self.needs_mode(wanted.mode);
        if mode || !wanted.xattrs.is_empty() {
            let handle = fs::handle(dir, base).map_err(|error| Error::entry(name, "open", error))?;
            let path = fs::handle_path(&handle);
            let kind = fs::stat(&handle, b"").map_err(|error| Error::entry(name, "stat", error))?.kind;
            // A link has no mode of its own; if one stands here now, somebody else put it there.
            if mode && kind != rustix::fs::FileType::Symlink {
                rustix::fs::chmod(&path, Mode::from_raw_mode(wanted.mode))
                    .map_err(|error| Error::entry(name, "set mode", error))?;
            }
            for (key, value) in &wanted.xattrs {
                let result = rustix::fs::setxattr(&path, &key[..], value, XattrFlags::empty());
                self.xattr(name, key, result)?;
            }
        }
        rustix::fs::utimensat(dir, base, &fs::timestamps(wanted.mtime), nofollow)
            .map_err(|error| Error::entry(name, "set times", error))
    }

    /// For a directory, new (made with the mode's lower nine bits) or old. What must wait is returned.
    pub(crate) fn directory(
        &mut self,
        name: &[u8],
        dir: BorrowedFd<'_>,
        wanted: &Attributes,
        is_new: bool,
    ) -> Result<Late> {
        let mut late = Late { mtime: wanted.mtime, setgid: None, acl: None };
        let (uid, gid) = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
        if !is_new || self.owner(wanted).is_some() {
            rustix::fs::fchown(dir, uid, gid).map_err(|error| Error::entry(name, "set owner", error))?;
        }
        if !is_new || self.needs_mode(wanted.mode) {
            let now = if self.foreign { wanted.mode } else { wanted.mode & !0o2000 };
            rustix::fs::fchmod(dir, Mode::from_raw_mode(now))
                .map_err(|error| Error::entry(name, "set mode", error))?;
            late.setgid = (now != wanted.mode).then_some(wanted.mode);
        }
        for (key, value) in &wanted.xattrs {
            if key == DEFAULT_ACL {
                late.acl = Some(value.clone());
                continue;
            }
            let result = rustix::fs::fsetxattr(dir, &key[..], value, XattrFlags::empty());
            self.xattr(name, key, result)?;
        }
        Ok(late)
    }

    /// Whether a new directory is right as `mkdir` made it, but for its time.
    pub(crate) fn is_plain(&self, wanted: &Attributes) -> bool {
        wanted.xattrs.is_empty() && !self.needs_mode(wanted.mode) && self.owner(wanted).is_none()
    }

    /// Sets what had to wait.
    pub(crate) fn late(&mut self, name: &[u8], dir: BorrowedFd<'_>, late: &Late) -> Result<()> {
        if let Some(mode) = late.setgid {
            rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))
                .map_err(|error| Error::entry(name, "set mode", error))?;
        }
        if let Some(acl) = &late.acl {
            let result = rustix::fs::fsetxattr(dir, DEFAULT_ACL, acl, XattrFlags::empty());
            self.xattr(name, DEFAULT_ACL, result)?;
        }
        rustix::fs::futimens(dir, &fs::timestamps(late.mtime))
            .map_err(|error| Error::entry(name, "set times", error))
    }

    /// Judges the outcome of setting one attribute: what cannot be had on this file system is counted and left out.
    fn xattr(&mut self, name: &[u8], key: &[u8], result: rustix::io::Result<()>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            // PERM: `user.*` on a link or device, or a privilege that root here lacks.
            Err(Errno::NOTSUP | Errno::PERM) => {
                self.dropped += 1;
                Ok(())
            }
            Err(error) => {
                let cause = io::Error::from(error);
                let text = format!("{}: {cause}", crate::error::printable(key));
                // RANGE: its name is longer than any may be.
                let kind = if error == Errno::RANGE { io::ErrorKind::InvalidInput } else { cause.kind() };
                Err(Error::entry(name, "set extended attribute", io::Error::new(kind, text)))
            }
        }
    }
}

impl Late {
    /// The time and nothing else: for a directory that `mkdir` made right.
    pub(crate) fn only(mtime: Timestamp) -> Self {
        Self { mtime, setgid: None, acl: None }
    }
}

/// Takes all attributes off an old directory but overlayfs's own, which are ours.
pub(crate) fn clear_xattrs(dir: impl AsFd) -> rustix::io::Result<()> {
    let path = fs::handle_path(&dir);
    for (key, _) in fs::xattrs(&path)? {
        if fs::is_overlay_xattr(&key) {
            continue;
        }
        match rustix::fs::fremovexattr(&dir, &key[..]) {
            // Some of `security.*` and `system.*` are made up by the kernel and cannot go.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The process's umask, which cannot be asked for without changing it but by procfs. Unknown is taken for "all".
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
