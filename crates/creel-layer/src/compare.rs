//! Two unpacked layers held against each other, entry by entry: whether a directory still is what its archive says.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::FileType;

use crate::error::{Error, Result, printable};
use crate::fs::{self, Meta};
use crate::name::{is_reserved, join};
use crate::tar::Segment;

/// How much of two files is read at a time, in bytes.
const PIECE: usize = 128 << 10;

/// What [`differences`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// How many entries differ, are missing or are too many. What lies in a directory that is missing is not counted.
    pub count: u64,
    /// The first of them in words: the path and what is wrong with it.
    pub first: Vec<String>,
    /// Bytes of file data that were compared.
    pub bytes: u64,
}

/// Compares the unpacked layer `found` with `expected`, another unpacking of the same archive, and lists at most
/// `most` differences: names, kinds, modes, owners, device numbers, extended attributes (overlayfs's own as well),
/// links' targets, hard links among each other, times of modification, and all data; where one has a hole the other may
/// have zeros.
///
/// Not compared is what an unpacking does not set: change and access times, sizes of directories, the times of
/// whiteouts, and that of the root unless `root_time` says that the archive has an entry for it.
///
/// # Errors
/// Something of `expected` cannot be read. What cannot be read of `found` is a difference.
pub fn differences(expected: &Path, found: &Path, root_time: bool, most: usize) -> Result<Differences> {
    let roots = (fs::open_layer(expected)?, fs::open_layer(found)?);
    let mut comparing = Comparing {
        roots,
        most,
        links: HashMap::new(),
        links_back: HashMap::new(),
        buffers: (vec![0; PIECE], vec![0; PIECE]),
        out: Differences::default(),
    };
    comparing.root(root_time)?;
    // By paths and not by open directories: a layer may be deeper than descriptors go.
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        comparing.directory(&path, &mut waiting)?;
    }
    Ok(comparing.out)
}

type Inode = (u32, u32, u64);

struct Comparing {
    /// The expected tree and the one that was found.
    roots: (OwnedFd, OwnedFd),
    most: usize,
    /// Which file of the one tree is which of the other, for those with several names.
    links: HashMap<Inode, Inode>,
    links_back: HashMap<Inode, Inode>,
    buffers: (Vec<u8>, Vec<u8>),
    out: Differences,
}

impl Comparing {
    fn differs(&mut self, path: &[u8], what: impl Into<String>) {
        self.out.count += 1;
        if self.out.first.len() < self.most {
            let path = if path.is_empty() { "/".to_owned() } else { printable(path) };
            self.out.first.push(format!("{path}: {}", what.into()));
        }
    }

    fn root(&mut self, root_time: bool) -> Result<()> {
        let failed = |error: rustix::io::Errno| Error::io("compare", "/", error);
        let (expected, found) =
            (fs::stat(&self.roots.0, b"").map_err(failed)?, fs::stat(&self.roots.1, b"").map_err(failed)?);
        let attributes = (
            fs::xattrs(&fs::handle_path(&self.roots.0)).map_err(failed)?,
            fs::xattrs(&fs::handle_path(&self.roots.1)).map_err(failed)?,
        );
        let what = attribute_difference(&expected, &found, root_time)
            .or_else(|| (attributes.0 != attributes.1).then(|| "its extended attributes differ".to_owned()));
        if let Some(what) = what {
            self.differs(b"", what);
        }
        Ok(())
    }

    /// Compares what is in one directory, and adds those below that are in both.
    fn directory(&mut self, path: &[u8], waiting: &mut Vec<Vec<u8>>) -> Result<()> {
        let failed = |error: rustix::io::Errno| Error::io("compare", printable(path), error);
        let expected = fs::open_plain(&self.roots.0, path).map_err(failed)?;
        let found = match fs::open_plain(&self.roots.1, path) {
            Ok(found) => found,
            Err(error) => {
                self.differs(path, unreadable(error));
                return Ok(());
            }
        };
        let mut wanted = fs::names(&expected).map_err(failed)?;
        let mut there = match fs::names(&found) {
            Ok(there) => there,
            Err(error) => {
                self.differs(path, unreadable(error));
                return Ok(());
            }
        };
        wanted.sort_unstable();
        there.sort_unstable();
        let mut there = there.into_iter().peekable();
        for name in wanted {
            while let Some(more) = there.next_if(|more| *more < name) {
                self.differs(&join(path, &more), "it is not in the archive");
            }
            let child = join(path, &name);
            if there.next_if_eq(&name).is_none() {
                self.differs(&child, "it is missing");
                continue;
            }
            match self.entry(&expected, &found, &name).map_err(failed)? {
                Outcome::Same { directory: true } => waiting.push(child),
                Outcome::Same { directory: false } => {}
                Outcome::Differs { what, directory } => {
                    self.differs(&child, what);
                    if directory {
                        waiting.push(child);
                    }
                }
            }
        }
        for more in there {
            self.differs(&join(path, &more), "it is not in the archive");
        }
        Ok(())
    }

    /// Compares one name of two directories. An error is one of the expected tree.
    fn entry(&mut self, expected: &OwnedFd, found: &OwnedFd, name: &[u8]) -> rustix::io::Result<Outcome> {
        let want = fs::stat(expected, name)?;
        let differs = |what: String| Ok(Outcome::Differs { what, directory: false });
        let have = match fs::stat(found, name) {
            Ok(have) => have,
            Err(error) => return differs(unreadable(error)),
        };
        if want.kind != have.kind {
            return differs(format!("it is a {}, not a {}", kind(&have), kind(&want)));
        }
        let directory = want.is_dir();
        if !directory && (want.links > 1 || have.links > 1) {
            let (to, back) = (
                *self.links.entry(want.inode).or_insert(have.inode),
                *self.links_back.entry(have.inode).or_insert(want.inode),
            );
            if to != have.inode || back != want.inode {
                return differs("it is not linked to the files that it should be one with".to_owned());
            }
        }
        let timed = !want.is_whiteout() && !is_reserved(name);
        if let Some(what) = attribute_difference(&want, &have, timed) {
            return Ok(Outcome::Differs { what, directory });
        }
        let handles = (fs::handle(expected, name)?, fs::handle(found, name));
        let handles = match handles {
            (want, Ok(have)) => (want, have),
            (_, Err(error)) => return differs(unreadable(error)),
        };
        let attributes = fs::xattrs(&fs::handle_path(&handles.0))?;
        match fs::xattrs(&fs::handle_path(&handles.1)) {
            Ok(have) if have == attributes => {}
            Ok(_) => {
                let what = "its extended attributes differ".to_owned();
                return Ok(Outcome::Differs { what, directory });
            }
            Err(error) => return Ok(Outcome::Differs { what: unreadable(error), directory }),
        }
        match want.kind {
            FileType::Symlink => {
                let target = fs::read_link(expected, name)?;
                if fs::read_link(found, name).is_ok_and(|have| have == target) {
                    return Ok(Outcome::Same { directory });
                }
                differs("it leads elsewhere".to_owned())
            }
            FileType::RegularFile => match self.data(expected, found, name, want.size)? {
                None => Ok(Outcome::Same { directory }),
                Some(what) => differs(what),
            },
            _ => Ok(Outcome::Same { directory }),
        }
    }

    /// Compares two files of the same length; says where they differ.
    fn data(
        &mut self,
        expected: &OwnedFd,
        found: &OwnedFd,
        name: &[u8],
        size: u64,
    ) -> rustix::io::Result<Option<String>> {
        let broken = |error: std::io::Error| {
            error.raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
        };
        let want = fs::open_file(expected, name).map_err(broken)?;
        let have = match fs::open_file(found, name) {
            Ok(have) => have,
            Err(error) => return Ok(Some(unreadable(broken(error)))),
        };
        let mut pieces = fs::data_segments(&want, size)?;
        match fs::data_segments(&have, size) {
            Ok(more) => pieces.extend(more),
            Err(error) => return Ok(Some(unreadable(error))),
        }
        for piece in joined(pieces) {
            let (mut at, end) = (piece.offset, piece.offset + piece.length);
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let (one, other) = (&mut self.buffers.0[..length], &mut self.buffers.1[..length]);
                read_at(&want, one, at)?;
                if let Err(error) = read_at(&have, other, at) {
                    return Ok(Some(unreadable(error)));
                }
                if let Some(offset) = (0..length).find(|i| one[*i] != other[*i]).filter(|_| one != other) {
                    return Ok(Some(format!("its data differs at byte {}", at + offset as u64)));
                }
                at += length as u64;
                self.out.bytes += length as u64;
            }
        }
        Ok(None)
    }
}

/// Whether the files of this name in two directories, both of `size` bytes, have different data.
pub(crate) fn data_differs(
    one: &OwnedFd,
    other: &OwnedFd,
    name: &[u8],
    size: u64,
) -> rustix::io::Result<bool> {
    let open = |dir| {
        fs::open_file(dir, name).map_err(|error| {
            error.raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
        })
    };
    let (one, other) = (open(one)?, open(other)?);
    let mut buffers = (vec![0; PIECE], vec![0; PIECE]);
    let mut pieces = fs::data_segments(&one, size)?;
    pieces.extend(fs::data_segments(&other, size)?);
    for piece in joined(pieces) {
        let (mut at, end) = (piece.offset, piece.offset + piece.length);
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            read_at(&one, &mut buffers.0[..length], at)?;
            match read_at(&other, &mut buffers.1[..length], at) {
                Err(rustix::io::Errno::NODATA) => return Ok(true),
                read => read?,
            }
            if buffers.0[..length] != buffers.1[..length] {
                return Ok(true);
            }
            at += length as u64;
        }
    }
    Ok(false)
}

enum Outcome {
    Same { directory: bool },
    Differs { what: String, directory: bool },
}

fn unreadable(error: rustix::io::Errno) -> String {
    format!("it cannot be read: {}", std::io::Error::from(error))
}

fn kind(meta: &Meta) -> &'static str {
    match meta.kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        _ if meta.is_whiteout() => "whiteout",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "named pipe",
        _ => "socket",
    }
}

fn attribute_difference(want: &Meta, have: &Meta, times: bool) -> Option<String> {
    if want.mode != have.mode {
        return Some(format!("its mode is {:04o}, not {:04o}", have.mode, want.mode));
    }
    if (want.uid, want.gid) != (have.uid, have.gid) {
        return Some(format!("its owner is {}:{}, not {}:{}", have.uid, have.gid, want.uid, want.gid));
    }
    if want.rdev != have.rdev {
        let ((a, b), (c, d)) = (have.rdev, want.rdev);
        return Some(format!("its device number is {a}:{b}, not {c}:{d}"));
    }
    if !want.is_dir() && want.size != have.size {
        return Some(format!("it has {} bytes, not {}", have.size, want.size));
    }
    if times && want.mtime != have.mtime {
        return Some("its time of modification differs".to_owned());
    }
    None
}

/// Pieces in their order, none of which touches another.
fn joined(mut pieces: Vec<Segment>) -> Vec<Segment> {
    pieces.sort_unstable_by_key(|piece| piece.offset);
    let mut out: Vec<Segment> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match out.last_mut() {
            Some(last) if piece.offset <= last.offset + last.length => {
                last.length = last.length.max(piece.offset + piece.length - last.offset);
            }
            _ => out.push(piece),
        }
    }
    out
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> rustix::io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file.as_fd(), &mut buffer[done..], at + done as u64) {
            // Somebody has just cut it.
            Ok(0) => return Err(rustix::io::Errno::NODATA),
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
