//! From directories to archives: a container's changes as a layer, and parts of its tree for `cp` and `export`.
//!
//! Archives come out the same for the same tree: names in the order of their bytes, parents first, no time of packing.
//! Times keep their nanoseconds. A file that has more than [`EXPAND_HOLES_UP_TO`] bytes of holes is written as a pax
//! sparse file (format 1.0, which Go's and GNU's tar read), any other is written out with its zeros, because old
//! readers take a sparse file for a strange one. Sockets are left out; tar cannot name them.

mod copied;

pub use copied::pack_copy;

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta};
use crate::name::{is_reserved, join, opaque_marker, wanted, whiteout};
use crate::resolve::true_path;
use crate::tar::{Entry, Kind, Segment, Timestamp, Writer};

/// A file with more bytes of holes than this (1 MiB) is archived as a sparse file.
pub const EXPAND_HOLES_UP_TO: u64 = 1 << 20;
/// Deeper trees are refused; a path of single letters is longer than the kernel takes at twice this depth.
const MAX_DEPTH: usize = 1000;
const BUFFER: usize = 256 << 10;

/// How entries are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// By the last part of the path asked for, and below it: `etc/`, `etc/passwd`; `./` and `./etc` for the root or a
    /// path that ends in `/.`. What Docker's `GET /containers/{id}/archive` does.
    #[default]
    Basename,
    /// By what is in the directory, without an entry for it: `bin/`, `etc/`. What `docker export` does.
    Content,
}

/// How to pack a tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// How entries are called.
    pub naming: Naming,
    /// If the path's last part is a symbolic link: pack what it leads to, under the link's name.
    pub follow_link: bool,
    /// Leave out what is mounted inside the tree: its mount points become empty directories and files.
    pub one_mount: bool,
}

/// What packing came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// Length of the archive in bytes.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// What could not be said in the archive, each with a reason in words: sockets, files called `.wh.*` in a layer.
    pub skipped: Vec<String>,
}

/// What Docker's `X-Docker-Container-Path-Stat` tells about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The path's last part: `/` for the root, `.` for a path that ends in `/.`.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// `st_mode`: file type and permissions as Linux has them.
    pub mode: u32,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// For a symbolic link: where it leads to in the container in the end, as an absolute path. Empty otherwise.
    pub link_target: String,
}

/// Writes what a container has changed (`upper`, overlayfs's upper directory) as a layer in OCI's form.
///
/// overlayfs's marks become whiteouts (OCI image-spec, `layer.md`); hard links are kept within the layer; `trusted.*`
/// attributes are left out. An entry `./` comes first if the root's mode, owner or attributes differ from those that
/// the layers below (`lowers`, topmost first) give it.
///
/// # Errors
/// The directory cannot be read, was made by an overlay with `redirect_dir` or `metacopy`, or `out` fails.
pub fn pack_diff<W: Write>(upper: &Path, lowers: &[PathBuf], out: W) -> Result<Packed> {
    let root = fs::open_root(upper)?;
    let mut packer = Packer::new(out, true, None);
    packer.root_if_changed(&root, upper, lowers.first())?;
    packer.children(root, b"")?;
    packer.finish()
}
/// Writes the file or directory `path` of the tree whose root is `root`, with all that is below it. The path is
/// resolved inside that root, by its letters first (`a/../b` is `b`) and then following links, as Docker does.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::NotADirectory`] if the path ends in a slash and is none; a file cannot be read, or
/// `out` fails. Files that vanish while a running container is read are left out.
pub fn pack_tree<W: Write>(root: &OwnedFd, path: &Path, options: &PackOptions, out: W) -> Result<Packed> {
    let found = find(root, path, options.follow_link)?;
    let mount = options.one_mount.then_some(found.meta.mount);
    let mut packer = Packer::new(out, false, mount);
    let failed = |error: Errno| Error::io("open", path, error);
    if options.naming == Naming::Content {
        if !found.meta.is_dir() {
            return Err(Error::NotADirectory(path.to_owned()));
        }
        let dir = fs::open_dir(&found.dir, &found.name).map_err(failed)?;
        packer.children(dir, b"")?;
    } else if let Some(dir) = packer.file(found.dir.as_fd(), &found.name, &found.base, found.meta)? {
        packer.children(dir, &found.base)?;
    }
    packer.finish()
}

/// What is at `path` of the tree whose root is `root`, resolved as in [`pack_tree`]; a link at the end is not followed.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::NotADirectory`] if the path ends in a slash and is none.
pub fn stat(root: &OwnedFd, path: &Path) -> Result<PathStat> {
    let found = find(root, path, false)?;
    let mut link_target = String::new();
    if found.meta.kind == FileType::Symlink {
        let target = true_path(root, &wanted(path.as_os_str().as_bytes()).path, true)
            .map_err(|error| Error::io("follow", path, error))?;
        link_target = format!("/{}", String::from_utf8_lossy(&target));
    }
    let is_root = found.base == b"." && !path.as_os_str().as_bytes().ends_with(b".");
    let name = if is_root { "/".to_owned() } else { String::from_utf8_lossy(&found.base).into_owned() };
    Ok(PathStat {
        name,
        size: found.meta.size,
        mode: found.meta.raw_mode(),
        mtime: found.meta.mtime,
        link_target,
    })
}

/// A file that was asked for by path.
struct Located {
    dir: OwnedFd,
    /// Its true name in `dir`: `.` for the root.
    name: Vec<u8>,
    /// What the archive calls it.
    base: Vec<u8>,
    meta: Meta,
}

fn find(root: &OwnedFd, path: &Path, follow: bool) -> Result<Located> {
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR => Error::NotFound(path.to_owned()),
        error => Error::io("look for", path, error),
    };
    let asked = wanted(path.as_os_str().as_bytes());
    let true_name = true_path(root, &asked.path, follow || asked.directory).map_err(failed)?;
    let (parent, name) = match true_name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&true_name[..slash], &true_name[slash + 1..]),
        None if true_name.is_empty() => (&[][..], &b"."[..]),
        None => (&[][..], &true_name[..]),
    };
    let dir = fs::open_plain(root, parent).map_err(failed)?;
    let meta = fs::stat(&dir, name).map_err(failed)?;
    if asked.directory && !meta.is_dir() {
        return Err(Error::NotADirectory(path.to_owned()));
    }
    Ok(Located { dir, name: name.to_vec(), base: asked.base, meta })
}

/// A directory that is being read.
struct Level {
    dir: OwnedFd,
    /// Its name in the archive.
    path: Vec<u8>,
    /// What is still to come of it.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Level {
    fn read(dir: OwnedFd, path: Vec<u8>) -> Result<Self> {
        let names = fs::names(&dir).map_err(|error| Error::io("read", shown(&path), error))?.into_iter();
        Ok(Self { dir, path, names })
    }
}

struct Packer<W: Write> {
    writer: Writer<BufWriter<W>>,
    /// Overlay's marks are read, and become whiteouts.
    layer: bool,
    /// The tree is a copy of its layers: overlay's marks in it are the container's own, and mean nothing.
    copy: bool,
    mount: Option<u64>,
    /// The first name of each file that has several.
    links: HashMap<(u32, u32, u64), Vec<u8>>,
    packed: Packed,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    fn new(out: W, layer: bool, mount: Option<u64>) -> Self {
        let writer = Writer::new(BufWriter::with_capacity(BUFFER, out));
        Self {
            writer,
            layer,
            copy: false,
            mount,
            links: HashMap::new(),
            packed: Packed::default(),
            buffer: vec![0; BUFFER],
        }
    }

    /// An entry for the root, if its mode, owner or attributes differ from those of the layer below.
    fn root_if_changed(&mut self, root: &OwnedFd, upper: &Path, lower: Option<&PathBuf>) -> Result<()> {
        let failed = |error: Errno| Error::io("read", upper, error);
        let attributes = |dir: &OwnedFd| -> rustix::io::Result<_> {
            let (meta, mut xattrs) = (fs::stat(dir, b"")?, fs::xattrs(&fs::handle_path(dir))?);
            xattrs.retain(|(name, _)| !name.starts_with(b"trusted."));
            Ok((meta.mode, meta.uid, meta.gid, xattrs))
        };
        let below = match lower {
            Some(lower) => {
                attributes(&fs::open_layer(lower)?).map_err(|error| Error::io("read", lower, error))?
            }
            None => (0o755, 0, 0, Vec::new()),
        };
        if attributes(root).map_err(failed)? != below {
            let meta = fs::stat(root, b"").map_err(failed)?;
            self.directory(root.as_fd(), b"./", &meta)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Packed> {
        let (_, bytes) = self.writer.finish().map_err(Error::Write)?;
        Ok(Packed { bytes, ..self.packed })
    }

    fn skip(&mut self, name: &[u8], why: &str) {
        self.packed.skipped.push(format!("{}: {why}", printable(name)));
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.packed.entries += 1;
        self.writer.entry(entry).map_err(Error::Write)
    }

    /// Everything in a directory; `prefix` is the directory's name in the archive, empty for the root. Not recursive:
    /// a container may nest directories deeper than a thread's stack.
    fn children(&mut self, dir: OwnedFd, prefix: &[u8]) -> Result<()> {
        let mut levels = vec![Level::read(dir, prefix.to_vec())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let failed = |error: Errno| Error::io("read", shown(&level.path), error);
            let Some(meta) = fs::stat_if_any(&level.dir, &name).map_err(failed)? else { continue };
            let path = join(&level.path, &name);
            if self.layer && is_reserved(&name) {
                self.skip(&path, "names that begin with `.wh.` mean deletion in a layer");
            } else if self.layer && meta.is_whiteout() {
                let mark = Entry { mode: 0, ..Entry::new(join(&level.path, &whiteout(&name)), Kind::File) };
                self.entry(&mark)?;
            } else if let Some(child) = self.file(level.dir.as_fd(), &name, &path, meta)? {
                if levels.len() == MAX_DEPTH {
                    return Err(Error::io("read", shown(&path), Errno::NAMETOOLONG));
                }
                levels.push(Level::read(child, path)?);
            }
        }
        Ok(())
    }

    /// The file `name` in `dir`, called `path` in the archive. A directory comes back to be entered.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], meta: Meta) -> Result<Option<OwnedFd>> {
        let failed = |error: Errno| Error::io("read", shown(path), error);
        let foreign = self.mount.is_some_and(|mount| mount != meta.mount);
        if meta.links > 1 && !meta.is_dir() && meta.kind != FileType::Socket {
            if let Some(first) = self.links.get(&meta.inode) {
                let mut link = Entry::new(path, Kind::HardLink(first.clone()));
                describe(&mut link, &meta);
                return self.entry(&link).map(|()| None);
            }
            self.links.insert(meta.inode, path.to_vec());
        }
        let (major, minor) = meta.rdev;
        let kind = match meta.kind {
            FileType::Directory => {
                let child = match fs::open_dir(dir, name) {
                    Ok(child) => child,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(error) => return Err(failed(error)),
                };
                self.directory(child.as_fd(), &[path, b"/"].concat(), &meta)?;
                if self.layer && !self.copy && fs::is_opaque(&child).map_err(failed)? {
                    let mark = Entry { mode: 0, ..Entry::new(join(path, opaque_marker()), Kind::File) };
                    self.entry(&mark)?;
                }
                return Ok((!foreign).then_some(child));
            }
            FileType::RegularFile => return self.regular(dir, name, path, &meta, foreign).map(|()| None),
            FileType::Symlink => match fs::read_link(dir, name) {
                Ok(target) => Kind::Symlink(target),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(failed(error)),
            },
            FileType::CharacterDevice => Kind::CharDevice(major, minor),
            FileType::BlockDevice => Kind::BlockDevice(major, minor),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => {
                self.skip(path, "a socket cannot be archived");
                return Ok(None);
            }
            _ => return Err(failed(Errno::OPNOTSUPP)),
        };
        let mut entry = Entry::new(path, kind);
        describe(&mut entry, &meta);
        let handle = fs::handle(dir, name).map_err(failed)?;
        self.attributes(&mut entry, &handle)?;
        self.entry(&entry).map(|()| None)
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8], meta: &Meta) -> Result<()> {
        let mut entry = Entry::new(path, Kind::Directory);
        describe(&mut entry, meta);
        self.attributes(&mut entry, dir)?;
        self.entry(&entry)
    }

    fn regular(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        meta: &Meta,
        empty: bool,
    ) -> Result<()> {
        let failed = |error: Errno| Error::io("read", shown(path), error);
        let file = match fs::open_file(dir, name) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("open", shown(path), error)),
        };
        let mut entry = Entry::new(path, Kind::File);
        describe(&mut entry, meta);
        self.attributes(&mut entry, &file)?;
        entry.size = if empty { 0 } else { meta.size };
        let mut segments = vec![Segment { offset: 0, length: entry.size }];
        if meta.blocks.saturating_mul(512) < entry.size {
            let found = fs::data_segments(&file, entry.size).map_err(failed)?;
            let data: u64 = found.iter().map(|segment| segment.length).sum();
            if entry.size - data > EXPAND_HOLES_UP_TO && found.len() < crate::tar::MAX_SEGMENTS {
                entry.sparse = Some(found.clone());
                segments = found;
            }
        }
        self.entry(&entry)?;
        for segment in segments {
            self.data(&file, segment).map_err(|error| match error {
                Copy::Read(error) => failed(error),
                Copy::Write(error) => Error::Write(error),
            })?;
        }
        Ok(())
    }

    /// Writes a piece of a file. A file that has become shorter meanwhile is filled up with zeros, because its length
    /// has been announced.
    fn data(&mut self, file: &std::fs::File, segment: Segment) -> std::result::Result<(), Copy> {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let mut count = match rustix::io::pread(file, &mut self.buffer[..want], at) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Copy::Read(error)),
            };
            if count == 0 {
                self.buffer[..want].fill(0);
                count = want;
            }
            self.writer.write_all(&self.buffer[..count]).map_err(Copy::Write)?;
            at += count as u64;
        }
        Ok(())
    }

    fn attributes(&mut self, entry: &mut Entry, handle: impl AsFd) -> Result<()> {
        let xattrs = fs::xattrs(&fs::handle_path(handle))
            .map_err(|error| Error::io("read the attributes of", shown(&entry.name), error))?;
        for (key, value) in xattrs {
            if self.layer
                && !self.copy
                && matches!(&key[..], b"trusted.overlay.redirect" | b"trusted.overlay.metacopy")
            {
                let cause = std::io::Error::new(
                    std::io::ErrorKind::Unsupported,
                    "it was written by an overlay with redirect_dir or metacopy, which a layer cannot say",
                );
                return Err(Error::io("pack", shown(&entry.name), cause));
            }
            if key.starts_with(b"trusted.") || fs::is_overlay_xattr(&key) {
                continue;
            }
            if key.contains(&b'=') {
                self.skip(&entry.name, &format!("attribute `{}` cannot be archived", printable(&key)));
                continue;
            }
            entry.xattrs.push((key, value));
        }
        Ok(())
    }
}

/// Which side of copying failed.
enum Copy {
    Read(Errno),
    Write(std::io::Error),
}

fn describe(entry: &mut Entry, meta: &Meta) {
    entry.mode = meta.mode;
    entry.uid = u64::from(meta.uid);
    entry.gid = u64::from(meta.gid);
    entry.mtime = meta.mtime;
}

fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(printable(path))
}
