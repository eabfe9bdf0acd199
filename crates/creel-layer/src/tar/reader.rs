//! From a stream of bytes to entries.

use std::io::{self, BufRead, Read};

use super::header::{self, Header};
use super::pax::Pax;
use super::sparse;
use super::{BLOCK, Entry, Kind, MAX_EXTENDED, TarError, Timestamp};

/// Reads an archive entry by entry.
///
/// [`Reader::next_entry`] gives the next entry, and reading from the reader itself gives that entry's stored data (a
/// sparse file's without its holes, see [`Entry::sparse`]) until it ends. Data that is not read is skipped.
pub struct Reader<R> {
    inner: R,
    /// Bytes taken from the stream.
    at: u64,
    limit: u64,
    /// Bytes of the present entry's data not yet read.
    data: u64,
    /// Zeros behind that data.
    padding: u64,
    global: Pax,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the archive that `stream` holds. Headers are read 512 bytes at a time, so the stream's buffer decides
    /// how many calls that takes.
    pub fn new(inner: R) -> Self {
        Self { inner, at: 0, limit: u64::MAX, data: 0, padding: 0, global: Pax::default(), ended: false }
    }

    /// The same, refusing an archive of more than `limit` bytes with [`TarError::Limit`].
    pub fn with_limit(stream: R, limit: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(u64::MAX), ..Self::new(stream) }
    }

    /// How many bytes of the archive have been read.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next entry, or `None` at the archive's end: two blocks of zeros, or the stream's end between two entries.
    ///
    /// # Errors
    /// The archive is damaged, truncated or not a tar archive, see [`TarError`]. Reading on after an error is useless.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.data + self.padding)?;
        (self.data, self.padding) = (0, 0);
        let (mut pax, mut long_name, mut long_link) = (None::<Pax>, None, None);
        while !self.ended {
            let Some(header) = self.header()? else {
                self.ended = true;
                // A header that speaks of the next entry must have one.
                if pax.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(TarError::Truncated);
                }
                break;
            };
            match header.block[header::TYPE] {
                b'x' => {
                    let data = self.extended(&header)?;
                    // Each header stands for itself: a second one before the same entry replaces the first.
                    let mut fresh = self.global.clone();
                    fresh.read(&data, false).map_err(|why| TarError::Pax { at: self.at, why })?;
                    pax = Some(fresh);
                }
                b'g' => {
                    let data = self.extended(&header)?;
                    self.global.read(&data, true).map_err(|why| TarError::Pax { at: self.at, why })?;
                }
                b'L' => long_name = Some(until_nul(self.extended(&header)?)),
                b'K' => long_link = Some(until_nul(self.extended(&header)?)),
                // A volume's label says nothing about files.
                b'V' => self.skip(padded(header.unsigned(header::SIZE, "size")?, header.at)?)?,
                _ => {
                    let pax = pax.unwrap_or_else(|| self.global.clone());
                    return self.entry(&header, pax, long_name, long_link).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Reads on to the end of the stream, so that whoever hashes what passes has seen all of it, and returns how many
    /// bytes the stream has. What stands behind the archive's end counts towards the limit and is not looked at.
    ///
    /// # Errors
    /// The stream cannot be read, or is longer than the limit.
    pub fn drain(&mut self) -> Result<u64, TarError> {
        loop {
            let count = match self.inner.fill_buf() {
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarError::Read(error)),
            };
            if count == 0 {
                return Ok(self.at);
            }
            self.inner.consume(count);
            self.advance(count as u64)?;
        }
    }

    /// What is at hand of the present entry's stored data, without copying it: a piece of the stream's own buffer. Empty
    /// at the data's end. [`Reader::used`] says how much of it was taken.
    ///
    /// # Errors
    /// As reading: `UnexpectedEof` if the archive ends before the data does.
    pub fn data(&mut self) -> io::Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        while let Err(error) = self.inner.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        // Nothing is read by this second call: it gives what the first one has found.
        let piece = self.inner.fill_buf()?;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated));
        }
        Ok(&piece[..usize::try_from(self.data).unwrap_or(usize::MAX).min(piece.len())])
    }

    /// Takes `count` bytes of what [`Reader::data`] gave.
    ///
    /// # Errors
    /// The archive is longer than its limit.
    pub fn used(&mut self, count: usize) -> io::Result<()> {
        let count = usize::try_from(self.data).unwrap_or(usize::MAX).min(count);
        self.inner.consume(count);
        self.data -= count as u64;
        self.advance(count as u64).map_err(io::Error::other)
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let at = header.at;
        let size = match pax.size {
            Some(size) => size,
            None => header.unsigned(header::SIZE, "size")?,
        };
        let mut name = pax.path.or(long_name).unwrap_or_else(|| header.name());
        let link = || pax.linkpath.or(long_link).unwrap_or_else(|| header.text(header::LINK).to_vec());
        let device = || -> Result<(u32, u32), TarError> {
            let number = |range, what| {
                let value = header.unsigned(range, what)?;
                u32::try_from(value).map_err(|_| TarError::Field { what, at })
            };
            Ok((number(header::MAJOR, "device major")?, number(header::MINOR, "device minor")?))
        };
        let flag = header.block[header::TYPE];
        let kind = match flag {
            // Before ustar a directory was a file with a slash behind its name.
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link()),
            b'2' => Kind::Symlink(link()),
            b'3' => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => return Err(TarError::Type { flag, at }),
        };
        // As in Go's reader, only files have data, whatever the size of another entry says.
        let mut stored = if kind == Kind::File { size } else { 0 };
        let padding = padded(stored, at)? - stored;
        let (mut real, mut segments) = (stored, None);
        let bad = |why| TarError::Sparse { at, why };
        if flag == b'S' {
            if !header.is_gnu() {
                return Err(TarError::Type { flag, at });
            }
            real = header.unsigned(header::GNU_REALSIZE, "real size")?;
            let mut map = sparse::OldGnu::default();
            let mut more = map.header(header).map_err(bad)?;
            while more {
                more = map.block(&self.block()?.ok_or(TarError::Truncated)?).map_err(bad)?;
            }
            segments = Some(sparse::segments(&map.finish(), real, stored).map_err(bad)?);
        } else if kind == Kind::File {
            let sparse = pax.sparse;
            let numbers = match (sparse.major, sparse.minor, sparse.map) {
                (Some(1), Some(0), _) => {
                    let mut map = sparse::Decimal::default();
                    loop {
                        stored = stored.checked_sub(BLOCK as u64).ok_or(bad("it is longer than the data"))?;
                        if map.block(&self.block()?.ok_or(TarError::Truncated)?).map_err(bad)? {
                            break;
                        }
                    }
                    Some(map.finish())
                }
                (None | Some(0), None | Some(0 | 1), Some(map)) => Some(map),
                (None, None, None) | (Some(0), Some(0 | 1), None) => None,
                _ => return Err(bad("its format is unknown")),
            };
            if let Some(numbers) = numbers {
                real = sparse.size.ok_or(bad("the file's size is missing"))?;
                segments = Some(sparse::segments(&numbers, real, stored).map_err(bad)?);
                name = sparse.name.unwrap_or(name);
            }
        }
        if real > i64::MAX as u64 {
            return Err(TarError::Field { what: "size", at });
        }
        let id = |value: Option<u64>, range, what| value.map_or_else(|| header.unsigned(range, what), Ok);
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp { seconds: header.signed(header::MTIME, "mtime")?, nanoseconds: 0 },
        };
        (self.data, self.padding) = (stored, padding);
        Ok(Entry {
            name,
            kind,
            mode: (header.unsigned(header::MODE, "mode")? & 0o7777) as u32,
            uid: id(pax.uid, header::UID, "uid")?,
            gid: id(pax.gid, header::GID, "gid")?,
            mtime,
            size: real,
            xattrs: pax.xattrs,
            sparse: segments,
        })
    }

    /// The next header; `None` at the archive's end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let at = self.at;
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            let header = Header { block, at };
            header.verify()?;
            return Ok(Some(header));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(TarError::LoneZeroBlock(at)),
            _ => Ok(None),
        }
    }

    /// The data of an extended header, which may have 1 MiB.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.unsigned(header::SIZE, "size")?;
        if size > MAX_EXTENDED {
            return Err(TarError::ExtendedTooLong(size));
        }
        let mut data = vec![0; padded(size, header.at)? as usize];
        if self.fill(&mut data)? < data.len() {
            return Err(TarError::Truncated);
        }
        data.truncate(size as usize);
        Ok(data)
    }

    /// One block; `None` if the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::Truncated),
        }
    }

    /// Reads until `buffer` is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.advance(count as u64)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(filled)
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let step = match self.inner.fill_buf() {
                Ok([]) => return Err(TarError::Truncated),
                Ok(buffer) => (buffer.len() as u64).min(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarError::Read(error)),
            };
            self.inner.consume(step as usize);
            self.advance(step)?;
            count -= step;
        }
        Ok(())
    }

    fn advance(&mut self, count: u64) -> Result<(), TarError> {
        self.at = self.at.saturating_add(count);
        if self.at > self.limit { Err(TarError::Limit(self.limit)) } else { Ok(()) }
    }
}

/// The present entry's stored data; `UnexpectedEof` if the archive ends before it does.
impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated));
        }
        self.data -= count as u64;
        self.advance(count as u64).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// `size` rounded up to whole blocks.
fn padded(size: u64, at: u64) -> Result<u64, TarError> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or(TarError::Field { what: "size", at })
}

/// GNU's long names have a NUL behind.
fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    data.truncate(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    data
}
