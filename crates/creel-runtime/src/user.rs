//! Users and groups, resolved in the image's own passwd and group files.
//!
//! The files come from an image: they are opened without following anything out of the root, must be regular (a fifo
//! would make the reader hang), and are read up to a limit. An overlay need not be mounted: its layers are looked
//! through as overlayfs would.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::{openat2, xattr};
use creel_types::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::{Error, Rootfs, path};

/// The largest passwd or group file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The largest id that Docker takes.
const MAX_ID: u32 = i32::MAX as u32;

/// A user as a process needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, from the group file; empty when a group was named.
    pub additional_gids: Vec<u32>,
    /// Home directory; `/` if the passwd file does not know the user.
    pub home: String,
}

/// Resolves `user`, `uid`, `user:group`, … as Docker does (an empty text is user 0), in a root that need not be
/// mounted.
///
/// # Errors
/// [`Error::Invalid`] for a name that the files do not have or an id out of range, [`Error::Setup`] when the files
/// cannot be read or are no regular files.
pub fn resolve_user(rootfs: &Rootfs, user: &str) -> Result<ResolvedUser, Error> {
    match rootfs {
        Rootfs::Directory(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = || rustix::fs::open(path, flags, Mode::empty());
            resolve(|name| read_in_root(open()?.as_fd(), name), user)
        }
        Rootfs::Overlay { lower, upper, .. } => {
            let layers = std::cell::OnceCell::new();
            let read = |name: &str| {
                if layers.get().is_none() {
                    let paths = [upper].into_iter().chain(lower);
                    let _ = layers.set(paths.map(|path| open_layer(path)).collect::<Result<Vec<_>, _>>()?);
                }
                let layers = layers.get().into_iter().flatten();
                read_in_layers(layers.map(OwnedFd::try_clone).collect::<Result<_, _>>()?, name)
            };
            let found = resolve(read, user);
            // The kernel takes milliseconds to unmount a file system, and nobody needs to wait for that.
            if lower.iter().any(|path| creel_sys::erofs::is_image(path)) {
                std::thread::spawn(move || drop(layers.into_inner()));
            }
            found
        }
    }
}

/// A layer's root: a directory, or an image, which is mounted for as long as the descriptor is there.
fn open_layer(path: &std::path::Path) -> Result<OwnedFd, Fault> {
    if creel_sys::erofs::is_image(path) {
        return creel_sys::erofs::mount(path).map_err(|e| Fault::from(e).context(path.display()));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Fault::from(e).context(path.display()))
}

/// Resolves a user in a root that is there: for an exec, `/proc/PID/root` of the container's process 1.
///
/// # Errors
/// As for [`resolve_user`].
pub fn resolve_user_at(root: BorrowedFd<'_>, user: &str) -> Result<ResolvedUser, Error> {
    resolve(|name| read_in_root(root, name), user)
}

fn resolve(read: impl Fn(&str) -> Result<Option<String>, Fault>, user: &str) -> Result<ResolvedUser, Error> {
    let text = |name: &str| {
        read(name).map(Option::unwrap_or_default).map_err(|fault| Error::Setup {
            what: format!("cannot read /{name} of the image"),
            message: fault.message,
            kind: fault.kind,
        })
    };
    lookup(&text("etc/passwd")?, &text("etc/group")?, user)
}

/// The home directory that the passwd file inside `root` gives a user id.
pub(crate) fn home_of(root: BorrowedFd<'_>, uid: u32) -> Option<String> {
    let passwd = read_in_root(root, "etc/passwd").ok()??;
    let found = entries(&passwd).find(|entry| entry.get(2).and_then(|id| id.parse().ok()) == Some(uid))?;
    found.get(5).filter(|home| !home.is_empty()).map(ToString::to_string)
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3)
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u32::MAX))
}

/// The pure part of [`resolve_user`].
fn lookup(passwd: &str, group: &str, user: &str) -> Result<ResolvedUser, Error> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let out_of_range =
        || Error::invalid("user", format!("{user}: uids and gids must be in range 0-{MAX_ID}"));
    let wanted = if name.is_empty() { Some(0) } else { number(name) };
    if wanted.is_some_and(|id| id > MAX_ID) {
        return Err(out_of_range());
    }
    let entry = entries(passwd).find(|entry| {
        let id = entry[2].parse::<u32>().ok();
        (!name.is_empty() && entry[0] == name) || (wanted.is_some() && id == wanted)
    });
    let (uid, gid, home, known_as) = match (&entry, wanted) {
        (Some(entry), _) => {
            let field = |index: usize| entry.get(index).and_then(|text| text.parse::<u32>().ok());
            let (Some(uid), gid) = (field(2), field(3).unwrap_or(0)) else {
                return Err(Error::invalid(
                    "user",
                    format!("the passwd file's entry of {name} has no valid id"),
                ));
            };
            (uid, gid, entry.get(5).copied().unwrap_or(""), Some(entry[0]))
        }
        (None, Some(uid)) => (uid, 0, "", None),
        (None, None) => {
            return Err(Error::invalid(
                "user",
                format!("unable to find user {name}: no matching entries in passwd file"),
            ));
        }
    };
    let home = if home.is_empty() { "/" } else { home }.to_string();
    let Some(group_name) = group_name else {
        let mut additional_gids: Vec<u32> = Vec::new();
        if let Some(known_as) = known_as {
            for entry in entries(group) {
                let member =
                    entry.get(3).is_some_and(|members| members.split(',').any(|name| name == known_as));
                if let (true, Ok(id)) = (member, entry[2].parse::<u32>())
                    && !additional_gids.contains(&id)
                {
                    additional_gids.push(id);
                }
            }
        }
        return Ok(ResolvedUser { uid, gid, additional_gids, home });
    };
    let wanted = number(group_name);
    let found = entries(group)
        .find(|entry| entry[0] == group_name || (wanted.is_some() && entry[2].parse::<u32>().ok() == wanted))
        .and_then(|entry| entry[2].parse::<u32>().ok());
    let gid = match (found, wanted) {
        (Some(gid), _) => gid,
        (None, Some(gid)) if gid <= MAX_ID => gid,
        (None, Some(_)) => return Err(out_of_range()),
        (None, None) => {
            let text = format!("unable to find group {group_name}: no matching entries in group file");
            return Err(Error::invalid("user", text));
        }
    };
    Ok(ResolvedUser { uid, gid, additional_gids: Vec::new(), home })
}

/// Opens without blocking and refuses whatever is no regular file.
fn read_regular(file: OwnedFd) -> Result<String, Fault> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Fault::new(ErrorKind::InvalidArgument, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Fault::new(ErrorKind::InvalidArgument, format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

fn read_in_root(root: BorrowedFd<'_>, name: &str) -> Result<Option<String>, Fault> {
    // Looked at first: opening a device or a fifo can have effects.
    let Some(found) = path::find(root, name)? else { return Ok(None) };
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Fault::new(ErrorKind::InvalidArgument, "it is no regular file"));
    }
    match openat2::open_in_root(root, name, READ, 0) {
        Ok(file) => read_regular(file).map(Some),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What one name is in a stack of directories, topmost first.
enum Entry {
    Missing,
    Directories(Vec<OwnedFd>),
    Other(OwnedFd, FileType),
}

fn look(stack: &[OwnedFd], name: &str) -> Result<Entry, Fault> {
    let mut directories = Vec::new();
    for dir in stack {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let stat = rustix::fs::fstat(&entry)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let opaque =
                    xattr::get(&entry, c"trusted.overlay.opaque")?.is_some_and(|value| value == b"y");
                directories.push(entry);
                if opaque {
                    break;
                }
            }
            // A whiteout: what is below is gone.
            FileType::CharacterDevice if stat.st_rdev == 0 => break,
            _ if !directories.is_empty() => break,
            kind => return Ok(Entry::Other(entry, kind)),
        }
    }
    Ok(if directories.is_empty() { Entry::Missing } else { Entry::Directories(directories) })
}

/// Reads a file of an overlay that is not mounted.
fn read_in_layers(layers: Vec<OwnedFd>, name: &str) -> Result<Option<String>, Fault> {
    let mut left: VecDeque<String> = name.split('/').map(str::to_string).collect();
    let mut above: Vec<Vec<OwnedFd>> = vec![layers];
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            _ => {}
        }
        let Some(stack) = above.last() else { break };
        match look(stack, &part)? {
            Entry::Missing => return Ok(None),
            Entry::Directories(directories) => above.push(directories),
            Entry::Other(link, FileType::Symlink) => {
                links += 1;
                if links > 40 {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&link, c"", Vec::new())?;
                let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
                if target.starts_with('/') {
                    above.truncate(1);
                }
                for component in target.split('/').rev() {
                    left.push_front(component.to_string());
                }
            }
            Entry::Other(file, FileType::RegularFile) if left.is_empty() => {
                let stack_dir = above.last().into_iter().flatten();
                let want = rustix::fs::fstat(&file)?;
                for dir in stack_dir {
                    let flags = READ | OFlags::NOFOLLOW;
                    let Ok(file) = rustix::fs::openat(dir, part.as_str(), flags, Mode::empty()) else {
                        continue;
                    };
                    let have = rustix::fs::fstat(&file)?;
                    if (have.st_dev, have.st_ino) == (want.st_dev, want.st_ino) {
                        return read_regular(file).map(Some);
                    }
                }
                return Ok(None);
            }
            Entry::Other(..) if left.is_empty() => {
                return Err(Fault::new(ErrorKind::InvalidArgument, "it is no regular file"));
            }
            Entry::Other(..) => return Ok(None),
        }
    }
    Err(Fault::new(ErrorKind::InvalidArgument, "it is no regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/bin:\nweb:x:33:44:W:/var/www:/bin/sh\nbad\n";
    const GROUP: &str = "root:x:0:root\ndisk:x:6:root,web\nweb:x:44:\nstaff:x:50:web\n";

    fn found(user: &str) -> String {
        match lookup(PASSWD, GROUP, user) {
            Ok(u) => format!("{}:{} {:?} {}", u.uid, u.gid, u.additional_gids, u.home),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn as_docker_resolves() {
        for (user, result) in [
            ("", "0:0 [0, 6] /root"),
            ("root", "0:0 [0, 6] /root"),
            ("web", "33:44 [6, 50] /var/www"),
            ("33", "33:44 [6, 50] /var/www"),
            ("33:0", "33:0 [] /var/www"),
            ("web:staff", "33:50 [] /var/www"),
            ("1000", "1000:0 [] /"),
            ("1000:1000", "1000:1000 [] /"),
            ("nobody", "user: unable to find user nobody: no matching entries in passwd file"),
            ("web:none", "user: unable to find group none: no matching entries in group file"),
            ("4294967296", "user: 4294967296: uids and gids must be in range 0-2147483647"),
            ("-1", "user: unable to find user -1: no matching entries in passwd file"),
        ] {
            assert_eq!(found(user), result, "{user:?}");
        }
    }

    fn overlay(layers: &[&[(&str, &str)]]) -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut paths = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let root = dir.path().join(index.to_string());
            std::fs::create_dir(&root).unwrap();
            for (name, content) in *layer {
                let file = root.join(name);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                match content.strip_prefix("-> ") {
                    Some(target) => symlink(target, file).unwrap(),
                    None => std::fs::write(file, content).unwrap(),
                }
            }
            paths.push(root);
        }
        let upper = paths.remove(0);
        let rootfs = Rootfs::Overlay { lower: paths, upper, work: PathBuf::from("/nowhere") };
        (dir, rootfs)
    }

    #[test]
    fn layers_are_looked_through() {
        let (_dir, rootfs) = overlay(&[
            &[],
            &[("etc/group", "g:x:7:u\n")],
            &[("etc/passwd", "-> ../usr/lib/../lib/passwd")],
            &[("usr/lib/passwd", "u:x:5:6::/home/u:\n"), ("etc/passwd", "u:x:1:1::/wrong:\n")],
        ]);
        let user = resolve_user(&rootfs, "u").unwrap();
        assert_eq!((user.uid, user.gid, &*user.home), (5, 6, "/home/u"));
        assert_eq!(user.additional_gids, [7]);
    }

    #[test]
    fn a_link_does_not_lead_to_the_host() {
        let (_dir, rootfs) = overlay(&[&[("etc/passwd", "-> ../../../../../../../etc/passwd")]]);
        assert!(
            resolve_user(&rootfs, "root").is_err(),
            "an endless chain inside the root, never the host's file"
        );
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_hang() {
        let (dir, rootfs) = overlay(&[&[("etc/x", "")]]);
        let etc = std::fs::File::open(dir.path().join("0/etc")).unwrap();
        creel_sys::dev::mknodat(&etc, c"passwd", libc::S_IFIFO | 0o644, 0).unwrap();
        let error = resolve_user(&rootfs, "root").unwrap_err();
        assert_eq!(error.to_string(), "cannot read /etc/passwd of the image: it is no regular file");
        let plain = Rootfs::Directory(dir.path().join("0"));
        assert_eq!(resolve_user(&plain, "root").unwrap_err().to_string(), error.to_string());
    }

    proptest! {
        #[test]
        fn any_files_and_users(passwd in "([a-z0-9:,]{0,12}\n){0,4}", group in "([a-z0-9:,]{0,12}\n){0,4}", user in "[a-z0-9:-]{0,10}") {
            if let Ok(user) = lookup(&passwd, &group, &user) {
                prop_assert!(!user.home.is_empty());
            }
        }
    }
}
