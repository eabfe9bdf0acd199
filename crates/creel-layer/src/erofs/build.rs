//! From an archive to the tree that an image is made of.

use std::io::{BufRead, Read};

use super::tree::{Id, Node, Tree, What};
use crate::error::{Error, Result, printable};
use crate::fs::Xattrs;
use crate::name::{Clean, Wish, is_reserved, wish};
use crate::tar::{Entry, Kind, Reader};
use crate::unpack::attributes::Attributes;
use crate::unpack::{Limits, explain};

/// The tar format's block, and so the image's.
pub(super) const BLOCK: u64 = 512;
/// A node's cost in memory, about, in bytes.
const NODE: u64 = 160;
/// The most memory that a tree may take, in bytes: layers with more files than that are unpacked.
const MOST: u64 = 192 << 20;
/// The largest file that one entry of the image can place, in bytes.
const LARGEST: u64 = 1 << 40;

/// Why a layer is unpacked and not indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Something has to be looked for in the layers below: the name of the entry that wants it.
    Below(String),
    /// Something that an image cannot say, or that is not said in this simple way; in words.
    Other(String),
}

/// What indexing a layer came to.
#[derive(Debug)]
pub struct Indexed {
    /// What the image is made of.
    pub tree: Tree,
    /// Bytes of the files' contents.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Whether the archive has an entry for its root.
    pub root_entry: bool,
}

/// Reads an archive (already decompressed), to its end if it is fit for an image or `drain` says so.
///
/// What [`unpack()`](crate::unpack()) refuses is not fit either: it is for that to say so.
///
/// # Errors
/// The stream cannot be read, is no tar archive, or is longer than the limit.
pub fn index<R: BufRead>(
    tar: R,
    limits: &Limits,
    drain: impl FnOnce(&Unfit) -> bool,
) -> Result<std::result::Result<Indexed, Unfit>> {
    let mut reader = Reader::with_limit(tar, limits.bytes);
    let mut building = Building {
        tree: Tree::new(),
        parent: (Vec::new(), 0),
        memory: 0,
        bytes: 0,
        entries: 0,
        root_entry: false,
    };
    let end = building.read(&mut reader, limits)?;
    if end.as_ref().is_none_or(drain) {
        reader.drain().map_err(explain)?;
    }
    let Building { tree, bytes, entries, root_entry, .. } = building;
    Ok(match end {
        Some(unfit) => Err(unfit),
        None => Ok(Indexed { tree, bytes, entries, root_entry }),
    })
}

struct Building {
    tree: Tree,
    /// The directory that was wanted last: most entries are beside the one before.
    parent: (Vec<u8>, Id),
    memory: u64,
    bytes: u64,
    entries: u64,
    root_entry: bool,
}

type Fit<T> = std::result::Result<T, Unfit>;

fn unfit(entry: &Entry, why: &str) -> Unfit {
    Unfit::Other(format!("`{}`: {why}", printable(&entry.name)))
}

impl Building {
    fn read<R: BufRead>(&mut self, reader: &mut Reader<R>, limits: &Limits) -> Result<Option<Unfit>> {
        while let Some(entry) = reader.next_entry().map_err(explain)? {
            self.entries += 1;
            self.memory += NODE + 2 * entry.name.len() as u64;
            let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
            self.memory += xattrs as u64;
            if limits.entries.is_some_and(|limit| self.entries > limit) || self.memory > MOST {
                return Ok(Some(unfit(&entry, "there are too many entries before it")));
            }
            if let Err(why) = self.entry(&entry, reader.position()) {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    fn entry(&mut self, entry: &Entry, position: u64) -> Fit<()> {
        match wish(&entry.name).map_err(|why| Unfit::Other(why.to_string()))? {
            Wish::Put(name) => self.put(&name, entry, position),
            Wish::Hide(name) => {
                let Some((parent, base)) = name.split() else { return Ok(()) };
                let dir = self.directory(parent, entry)?;
                match self.tree.child(dir, base) {
                    None => self.add(dir, base, Node::plain(0, What::Whiteout), entry),
                    Some(id) => {
                        self.hide_in(id);
                        Ok(())
                    }
                }
            }
            // overlayfs does not look for the mark on a root: what is below must be hidden name by name
            Wish::HideAllIn(name) if name.is_root() => Err(Unfit::Below(printable(&entry.name))),
            Wish::HideAllIn(name) => {
                let id = self.directory(name.bytes(), entry)?;
                self.hide_in(id);
                Ok(())
            }
            Wish::Nothing => Ok(()),
        }
    }

    /// Makes a directory opaque; nothing happens to anything else.
    fn hide_in(&mut self, id: Id) {
        if let What::Directory { opaque, .. } = &mut self.tree.node_mut(id).what {
            *opaque = true;
        }
    }

    fn put(&mut self, name: &Clean, entry: &Entry, position: u64) -> Fit<()> {
        let wanted = Wanted::of(entry)?;
        let Some((parent, base)) = name.split() else {
            if entry.kind != Kind::Directory {
                return Err(unfit(entry, "the root is a directory"));
            }
            self.root_entry = true;
            wanted.give(self.tree.node_mut(0));
            return Ok(());
        };
        let dir = self.directory(parent, entry)?;
        let there = self.tree.child(dir, base);
        if let Kind::HardLink(target) = &entry.kind {
            return self.link(dir, base, entry, target);
        }
        let what = match &entry.kind {
            Kind::Directory => {
                let hidden = there.is_some_and(|id| matches!(self.tree.node(id).what, What::Whiteout));
                if let Some(id) = there.filter(|_| !hidden) {
                    if !self.tree.node(id).is_dir() {
                        return Err(unfit(entry, "it takes the place of something else"));
                    }
                    wanted.give(self.tree.node_mut(id));
                    return Ok(());
                }
                What::Directory { parent: dir, names: Default::default(), opaque: hidden }
            }
            Kind::File => self.file(entry, position)?,
            Kind::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                return Err(unfit(entry, "no link can lead there"));
            }
            Kind::Symlink(target) => What::Symlink(target[..].into()),
            Kind::CharDevice(0, 0) => return Err(unfit(entry, "it would be a whiteout")),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor)
                if *major >= 1 << 12 || *minor >= 1 << 20 =>
            {
                return Err(unfit(entry, "there is no such device"));
            }
            Kind::CharDevice(major, minor) => What::CharDevice(*major, *minor),
            Kind::BlockDevice(major, minor) => What::BlockDevice(*major, *minor),
            Kind::Fifo | Kind::HardLink(_) => What::Fifo,
        };
        if there.is_some_and(|id| self.tree.node(id).is_dir()) {
            return Err(unfit(entry, "it takes a directory's place"));
        }
        let mut node = Node::plain(0, what);
        wanted.give(&mut node);
        if matches!(node.what, What::Symlink(_)) {
            // a link has no mode of its own
            node.mode = 0o777;
        }
        self.add(dir, base, node, entry)
    }

    fn file(&mut self, entry: &Entry, position: u64) -> Fit<What> {
        if entry.sparse.is_some() {
            return Err(unfit(entry, "it is a sparse file"));
        }
        let end = position.saturating_add(entry.size);
        let block = u32::try_from(position / BLOCK).ok().filter(|block| *block != u32::MAX);
        let (Some(block), true) = (block, position.is_multiple_of(BLOCK)) else {
            return Err(unfit(entry, "it lies too far in the archive"));
        };
        if entry.size > LARGEST || end.div_ceil(BLOCK) >= u64::from(u32::MAX) {
            return Err(unfit(entry, "it is too large"));
        }
        self.bytes += entry.size;
        Ok(What::File { size: entry.size, block })
    }

    fn link(&mut self, dir: Id, base: &[u8], entry: &Entry, target: &[u8]) -> Fit<()> {
        let clean = Clean::parse(target).map_err(|why| Unfit::Other(why.to_string()))?;
        let Some((parent, name)) = clean.split() else { return Err(unfit(entry, "it links to the root")) };
        if is_reserved(name) {
            return Err(unfit(entry, "it links to a whiteout"));
        }
        let source = self.directory(parent, entry)?;
        let below = || Unfit::Below(printable(&entry.name));
        let id = self.tree.child(source, name).ok_or_else(below)?;
        if matches!(self.tree.node(id).what, What::Directory { .. } | What::Whiteout) {
            return Err(unfit(entry, "it links to something that has one name only"));
        }
        match self.tree.child(dir, base) {
            Some(there) if there == id => return Ok(()),
            Some(there) if self.tree.node(there).is_dir() => {
                return Err(unfit(entry, "it takes a directory's place"));
            }
            _ => {}
        }
        let links = &mut self.tree.node_mut(id).links;
        *links = links.saturating_add(1);
        self.tree.name(dir, base, id);
        Ok(())
    }

    fn add(&mut self, dir: Id, base: &[u8], node: Node, entry: &Entry) -> Fit<()> {
        let id = self.tree.add(node).ok_or_else(|| unfit(entry, "there are too many entries before it"))?;
        self.tree.name(dir, base, id);
        Ok(())
    }

    /// The directory at a path, which an entry before this one must have made.
    fn directory(&mut self, path: &[u8], entry: &Entry) -> Fit<Id> {
        if self.parent.0 == path {
            return Ok(self.parent.1);
        }
        let mut id = 0;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let Some(child) = self.tree.child(id, part) else {
                return Err(Unfit::Below(printable(&entry.name)));
            };
            if !self.tree.node(child).is_dir() {
                return Err(unfit(entry, "something above it is no directory"));
            }
            id = child;
        }
        // Directories are never replaced or removed, so this stays right.
        self.parent = (path.to_vec(), id);
        Ok(id)
    }
}

/// What an entry says of a file besides its content.
struct Wanted(Attributes);

impl Wanted {
    fn of(entry: &Entry) -> Fit<Self> {
        let (mut wanted, _) =
            Attributes::of_entry(entry, None).map_err(|why: Error| Unfit::Other(why.to_string()))?;
        // On anything but files and directories the kernel lets nobody set or see these.
        let plain = matches!(entry.kind, Kind::File | Kind::Directory);
        wanted.xattrs.retain(|(name, _)| plain || !name.starts_with(b"user."));
        for (name, value) in &wanted.xattrs {
            let known = match &name[..] {
                b"security.capability" => entry.kind == Kind::File && matches!(value.len(), 20 | 24),
                // what access lists do to a mode, and what else the kernel checks, is left to the kernel
                name => name.starts_with(b"user.") && name.len() > 5,
            };
            if !known || name.len() > 255 || value.len() > usize::from(u16::MAX) {
                return Err(unfit(entry, &format!("attribute `{}`", printable(name))));
            }
        }
        // one name twice: the last wins
        wanted.xattrs.reverse();
        wanted.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        wanted.xattrs.dedup_by(|a, b| a.0 == b.0);
        let size: usize = wanted.xattrs.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        if size > 128 << 10 {
            return Err(unfit(entry, "it has too many attributes"));
        }
        Ok(Self(wanted))
    }

    fn give(self, node: &mut Node) {
        let Attributes { mode, uid, gid, mtime, xattrs } = self.0;
        node.mode = (mode & 0o7777) as u16;
        (node.uid, node.gid, node.mtime) = (uid, gid, mtime);
        node.xattrs = (!xattrs.is_empty()).then(|| Box::<Xattrs>::new(xattrs));
    }
}

/// Copies a stream into a writer while it is read: each piece as a whole when it comes, whatever is taken of it then.
#[derive(Debug)]
pub struct Tee<R, W> {
    inner: R,
    out: W,
    /// Bytes of the present piece that were copied and not yet taken.
    ahead: usize,
}

impl<R, W> Tee<R, W> {
    /// Copies what is read from `inner` to `out`.
    pub fn new(inner: R, out: W) -> Self {
        Self { inner, out, ahead: 0 }
    }

    /// Both again.
    pub fn into_parts(self) -> (R, W) {
        (self.inner, self.out)
    }
}

impl<R: BufRead, W: std::io::Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead, W: std::io::Write> BufRead for Tee<R, W> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let piece = self.inner.fill_buf()?;
        if piece.len() > self.ahead {
            self.out.write_all(&piece[self.ahead..])?;
            self.ahead = piece.len();
        }
        Ok(piece)
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.ahead = self.ahead.saturating_sub(count);
    }
}
