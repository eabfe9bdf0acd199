//! The image itself, as the kernel reads it (`fs/erofs/erofs_fs.h`): all numbers little-endian.
//!
//! ```text
//! 0      nothing
//! 1024   the superblock, 128 bytes
//! 1152   the one further device, 128 bytes
//! 1536   the inodes, each at a multiple of 32: 64 bytes, extended attributes, then
//!          of a file      its one chunk: device and block
//!          of a link      where it leads, if all of it fits into the block
//! …      whole blocks: directories' names, the targets of other links
//! ```
//! An inode's number is its place divided by 32. A directory is a sequence of blocks, each of which begins with 12 bytes
//! for every name in it; all names of all its blocks are in the order of their bytes, `.` and `..` among them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::build::BLOCK;
use super::tree::{Id, Node, Tree, What};

const MAGIC: u32 = 0xE0F5_E1E2;
/// Files are made of chunks (4); there are further devices (8).
const INCOMPATIBLE: u32 = 0x4 | 0x8;
/// Inodes have their own times.
const COMPATIBLE: u32 = 0x2;
const SUPERBLOCK: u64 = 1024;
/// Of the superblock, and of a further device.
const RECORD: usize = 128;
/// Where the inodes begin.
const INODES: u64 = 1536;
/// The unit in which inodes are numbered.
const SLOT: u64 = 32;
const INODE: u64 = 64;
const CHUNK: u64 = 8;
const DIRENT: usize = 12;

/// Mode, owner and group of the root of an image that [`Tree::write`] has made, read without mounting it.
///
/// # Errors
/// The file cannot be read.
pub fn root_of(image: &Path) -> io::Result<(u32, u32, u32)> {
    let mut raw = [0; INODE as usize];
    // It is the first of all.
    File::open(image)?.read_exact_at(&mut raw, INODES)?;
    let number = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    Ok((number(4) & 0o7777, number(24), number(28)))
}

/// How an inode says where its data is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Nothing, or whole blocks of this image.
    Plain = 0,
    /// Right behind the inode.
    Inline = 2,
    /// Chunks of a device.
    Chunks = 4,
}

/// Where something lies.
#[derive(Clone, Copy)]
struct Place {
    /// The inode, in bytes.
    at: u64,
    /// Its data's first block, if it has any in this image.
    block: u32,
    layout: Layout,
}

impl Place {
    fn number(self) -> u64 {
        self.at / SLOT
    }
}

impl Tree {
    /// Writes the image and returns its length in bytes. `archive` is the archive's length; `uuid` is what the file system
    /// is told apart by: overlayfs wants those of its layers to differ.
    ///
    /// The same tree gives the same image, byte for byte.
    ///
    /// # Errors
    /// `out` fails, or the image would be larger than its format allows.
    pub fn write<W: Write>(&self, out: W, uuid: [u8; 16], archive: u64) -> io::Result<u64> {
        let (places, end) = self.places()?;
        let mut out = Counted { out: BufWriter::with_capacity(256 << 10, out), at: 0 };
        let count = self.live().count() as u64;
        out.pad_to(SUPERBLOCK)?;
        out.put(&superblock(places[0].number(), count, end, uuid)?)?;
        let mut device = [0; RECORD];
        let blocks = u32::try_from(archive.div_ceil(BLOCK)).map_err(|_| too_large())?;
        device[64..68].copy_from_slice(&blocks.to_le_bytes());
        out.put(&device)?;
        for id in self.live() {
            self.inode(id, &places, &mut out)?;
        }
        for id in self.live().filter(|id| places[*id as usize].block != 0) {
            let place = places[id as usize];
            out.pad_to(u64::from(place.block) * BLOCK)?;
            match &self.node(id).what {
                What::Symlink(target) => out.put(target)?,
                What::Directory { .. } => self.directory(id, &places, &mut out)?,
                _ => {}
            }
        }
        out.pad_to(end)?;
        out.out.flush()?;
        Ok(end)
    }

    /// The nodes that have a name, and the root.
    fn live(&self) -> impl Iterator<Item = Id> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.links > 0).map(|(id, _)| id)
    }

    /// Decides where everything lies; the second value is the image's length.
    fn places(&self) -> io::Result<(Vec<Place>, u64)> {
        let mut places = vec![Place { at: 0, block: 0, layout: Layout::Plain }; self.nodes.len()];
        let mut at = INODES;
        for id in self.live() {
            let node = self.node(id);
            let head = INODE + xattrs_size(node);
            at = at.next_multiple_of(SLOT);
            let place = &mut places[id as usize];
            let length = match &node.what {
                What::File { size, .. } if *size > 0 => {
                    place.layout = Layout::Chunks;
                    head.next_multiple_of(CHUNK) + CHUNK
                }
                What::Symlink(target) if head + target.len() as u64 <= BLOCK => {
                    place.layout = Layout::Inline;
                    let whole = head + target.len() as u64;
                    // it must not cross into another block
                    if at % BLOCK + whole > BLOCK {
                        at = at.next_multiple_of(BLOCK);
                    }
                    whole
                }
                _ => head,
            };
            place.at = at;
            at += length;
        }
        let mut block = at.div_ceil(BLOCK);
        for id in self.live() {
            let blocks = match &self.node(id).what {
                What::Directory { .. } => self.directory_size(id).div_ceil(BLOCK),
                What::Symlink(target) if places[id as usize].layout == Layout::Plain => {
                    (target.len() as u64).div_ceil(BLOCK)
                }
                _ => continue,
            };
            places[id as usize].block = u32::try_from(block).map_err(|_| too_large())?;
            block += blocks;
        }
        u32::try_from(block).map_err(|_| too_large())?;
        Ok((places, block * BLOCK))
    }

    fn inode<W: Write>(&self, id: Id, places: &[Place], out: &mut Counted<W>) -> io::Result<()> {
        let (node, place) = (self.node(id), places[id as usize]);
        let (kind, size, unit, links): (u16, u64, u32, u32) = match &node.what {
            What::Directory { names, .. } => {
                let below = names.values().filter(|id| self.node(**id).is_dir()).count();
                let links = u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2);
                (0o040_000, self.directory_size(id), place.block, links)
            }
            What::File { size: 0, .. } => (0o100_000, 0, 0, node.links),
            What::File { size, .. } => {
                // One chunk that is at least as long as the file: blocks, as a power of two, and "by index" (0x20).
                let blocks = size.div_ceil(BLOCK).next_power_of_two();
                (0o100_000, *size, blocks.trailing_zeros() | 0x20, node.links)
            }
            What::Symlink(target) => (0o120_000, target.len() as u64, place.block, node.links),
            What::CharDevice(major, minor) => (0o020_000, 0, device(*major, *minor), node.links),
            What::BlockDevice(major, minor) => (0o060_000, 0, device(*major, *minor), node.links),
            What::Fifo => (0o010_000, 0, 0, node.links),
            What::Whiteout => (0o020_000, 0, 0, node.links),
        };
        let xattrs = xattrs_size(node);
        let units = if xattrs == 0 { 0 } else { (xattrs - 12) / 4 + 1 };
        let mut raw = [0; INODE as usize];
        // extended, that is of 64 bytes
        put16(&mut raw, 0, 1 | (place.layout as u16) << 1);
        put16(&mut raw, 2, u16::try_from(units).map_err(|_| too_large())?);
        put16(&mut raw, 4, kind | node.mode);
        raw[8..16].copy_from_slice(&size.to_le_bytes());
        put32(&mut raw, 16, unit);
        put32(&mut raw, 20, id + 1);
        put32(&mut raw, 24, node.uid);
        put32(&mut raw, 28, node.gid);
        raw[32..40].copy_from_slice(&node.mtime.seconds.to_le_bytes());
        put32(&mut raw, 40, node.mtime.nanoseconds);
        put32(&mut raw, 44, links);
        out.pad_to(place.at)?;
        out.put(&raw)?;
        self.xattrs(node, out)?;
        match &node.what {
            What::File { size, block } if *size > 0 => {
                out.pad_to((place.at + INODE + xattrs).next_multiple_of(CHUNK))?;
                let mut chunk = [0; CHUNK as usize];
                put16(&mut chunk, 2, 1);
                put32(&mut chunk, 4, *block);
                out.put(&chunk)
            }
            What::Symlink(target) if place.layout == Layout::Inline => out.put(target),
            _ => Ok(()),
        }
    }

    fn xattrs<W: Write>(&self, node: &Node, out: &mut Counted<W>) -> io::Result<()> {
        if xattrs_size(node) == 0 {
            return Ok(());
        }
        out.put(&[0; 12])?;
        for (prefix, name, value) in xattrs(node) {
            let (name_size, value_size) = (name.len() as u8, value.len() as u16);
            out.put(&[name_size, prefix])?;
            out.put(&value_size.to_le_bytes())?;
            out.put(name)?;
            out.put(value)?;
            out.pad_to(out.at.next_multiple_of(4))?;
        }
        Ok(())
    }

    /// The names of a directory in the order of their bytes, with the node that each means.
    fn names(&self, id: Id) -> impl Iterator<Item = (&[u8], Id)> {
        let (parent, names) = match &self.node(id).what {
            What::Directory { parent, names, .. } => (*parent, Some(names)),
            _ => (id, None),
        };
        let mut own = [(&b"."[..], id), (&b".."[..], parent)].into_iter().peekable();
        let mut names = names.into_iter().flatten().map(|(name, id)| (&name[..], *id)).peekable();
        std::iter::from_fn(move || match (own.peek(), names.peek()) {
            (Some(one), Some(other)) if other.0 < one.0 => names.next(),
            (Some(_), _) => own.next(),
            (None, _) => names.next(),
        })
    }

    /// Calls `each` with the names of each block of a directory.
    fn blocks<'a>(
        &'a self,
        id: Id,
        mut each: impl FnMut(&[(&'a [u8], Id)]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut block, mut used) = (Vec::new(), 0);
        for (name, id) in self.names(id) {
            if used + DIRENT + name.len() > BLOCK as usize {
                each(&block)?;
                block.clear();
                used = 0;
            }
            used += DIRENT + name.len();
            block.push((name, id));
        }
        each(&block)
    }

    /// A directory's length: whole blocks, but what is used of the last.
    fn directory_size(&self, id: Id) -> u64 {
        let (mut whole, mut last) = (0, 0);
        let _ = self.blocks(id, |names| {
            whole += last_to_whole(&mut last);
            last = names.iter().map(|(name, _)| (DIRENT + name.len()) as u64).sum();
            Ok(())
        });
        whole + last
    }

    fn directory<W: Write>(&self, id: Id, places: &[Place], out: &mut Counted<W>) -> io::Result<()> {
        self.blocks(id, |names| {
            out.pad_to(out.at.next_multiple_of(BLOCK))?;
            let mut offset = names.len() * DIRENT;
            for (name, id) in names {
                let mut entry = [0; DIRENT];
                entry[..8].copy_from_slice(&places[*id as usize].number().to_le_bytes());
                put16(&mut entry, 8, offset as u16);
                entry[10] = match self.node(*id).what {
                    What::File { .. } => 1,
                    What::Directory { .. } => 2,
                    What::CharDevice(..) | What::Whiteout => 3,
                    What::BlockDevice(..) => 4,
                    What::Fifo => 5,
                    What::Symlink(_) => 7,
                };
                out.put(&entry)?;
                offset += name.len();
            }
            names.iter().try_for_each(|(name, _)| out.put(name))
        })
    }
}

/// A block that was the last is a whole one now.
fn last_to_whole(last: &mut u64) -> u64 {
    if std::mem::take(last) == 0 { 0 } else { BLOCK }
}

/// A node's extended attributes as the image names them: the number of a prefix, and what follows it.
fn xattrs(node: &Node) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let opaque = matches!(node.what, What::Directory { opaque: true, .. });
    let mark = opaque.then_some((4, &b"overlay.opaque"[..], &b"y"[..]));
    let own = node.xattrs.iter().flat_map(|xattrs| xattrs.iter()).filter_map(|(name, value)| {
        let (prefix, rest) = match (name.strip_prefix(b"user."), name.strip_prefix(b"security.")) {
            (Some(rest), _) => (1, rest),
            (_, Some(rest)) => (6, rest),
            _ => return None,
        };
        Some((prefix, rest, &value[..]))
    });
    mark.into_iter().chain(own)
}

/// The bytes of a node's extended attributes: a head of 12, then each as a multiple of 4.
fn xattrs_size(node: &Node) -> u64 {
    let size: usize =
        xattrs(node).map(|(_, name, value)| (4 + name.len() + value.len()).next_multiple_of(4)).sum();
    if size == 0 { 0 } else { 12 + size as u64 }
}

fn superblock(root: u64, inodes: u64, length: u64, uuid: [u8; 16]) -> io::Result<[u8; RECORD]> {
    let mut raw = [0; RECORD];
    put32(&mut raw, 0, MAGIC);
    put32(&mut raw, 8, COMPATIBLE);
    raw[12] = BLOCK.trailing_zeros() as u8;
    put16(&mut raw, 14, u16::try_from(root).map_err(|_| too_large())?);
    raw[16..24].copy_from_slice(&inodes.to_le_bytes());
    put32(&mut raw, 36, u32::try_from(length / BLOCK).map_err(|_| too_large())?);
    raw[48..64].copy_from_slice(&uuid);
    put32(&mut raw, 80, INCOMPATIBLE);
    // one further device, and where it is told of, in units of its record
    put16(&mut raw, 86, 1);
    put16(&mut raw, 88, ((SUPERBLOCK + RECORD as u64) / RECORD as u64) as u16);
    Ok(raw)
}

/// The kernel's own 32-bit form of a device number (`new_encode_dev`).
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn put16(raw: &mut [u8], at: usize, value: u16) {
    raw[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(raw: &mut [u8], at: usize, value: u32) {
    raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the image would be larger than its format allows")
}

/// A writer that knows where it is.
struct Counted<W> {
    out: W,
    at: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad_to(&mut self, at: u64) -> io::Result<()> {
        const ZEROS: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];
        while self.at < at {
            let count = usize::try_from(at - self.at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.put(&ZEROS[..count])?;
        }
        Ok(())
    }
}
