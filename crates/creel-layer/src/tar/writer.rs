//! From entries to a stream of bytes.

use std::io::{self, Write};

use super::header;
use super::number::{put_base256, put_octal};
use super::pax;
use super::{BLOCK, Entry, Kind};

/// Writes an archive entry by entry.
///
/// [`Writer::entry`] writes an entry's header; then exactly [`Entry::stored`] bytes of data are to be written to the
/// writer itself (of a sparse file the segments only, one after the other). [`Writer::finish`] ends the archive. The
/// same entries always give the same bytes.
pub struct Writer<W> {
    inner: W,
    data: u64,
    padding: usize,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// A writer of an archive to `stream`. It writes small pieces: give it something buffered.
    pub fn new(stream: W) -> Self {
        Self { inner: stream, data: 0, padding: 0, written: 0 }
    }

    /// Begins an entry: a pax header for whatever ustar cannot say, and the header itself.
    ///
    /// # Errors
    /// `InvalidInput` if the previous entry's data is not complete, or the entry cannot be written: a NUL in a name, a
    /// `=` in an attribute's name. Otherwise what the stream says.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_entry()?;
        let mut block = [0; BLOCK];
        let mut records = Vec::new();
        let link = match &entry.kind {
            Kind::HardLink(link) | Kind::Symlink(link) => &link[..],
            _ => &[],
        };
        if entry.name.contains(&0) || link.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name with a NUL byte cannot be archived",
            ));
        }
        let (flag, file) = match entry.kind {
            Kind::File => (b'0', true),
            Kind::HardLink(_) => (b'1', false),
            Kind::Symlink(_) => (b'2', false),
            Kind::CharDevice(..) => (b'3', false),
            Kind::BlockDevice(..) => (b'4', false),
            Kind::Directory => (b'5', false),
            Kind::Fifo => (b'6', false),
        };
        block[header::TYPE] = flag;
        block[header::MAGIC].copy_from_slice(header::USTAR);

        let map =
            entry.sparse.as_ref().filter(|_| file).map(|segments| pax::sparse_map(segments, entry.size));
        let stored = if file { entry.stored() } else { 0 };
        let size = stored + map.as_ref().map_or(0, |map| map.len() as u64);
        if map.is_some() {
            pax::push(&mut records, b"GNU.sparse.major", b"1");
            pax::push(&mut records, b"GNU.sparse.minor", b"0");
            pax::push(&mut records, b"GNU.sparse.name", &entry.name);
            pax::push(&mut records, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
            // What a reader that knows no sparse files sees: the map and the data, under a name that says so.
            put_text(&mut block[header::NAME], &[b"GNUSparseFile.0/", tail(&entry.name)].concat());
        } else if !put_name(&mut block, &entry.name) {
            pax::push(&mut records, b"path", &entry.name);
            put_text(&mut block[header::NAME], &entry.name);
        }
        put_text(&mut block[header::LINK], link);
        if link.len() > header::LINK.len() {
            pax::push(&mut records, b"linkpath", link);
        }
        put_octal(&mut block[header::MODE], u64::from(entry.mode & 0o7777));
        for (range, key, value) in
            [(header::UID, "uid", entry.uid), (header::GID, "gid", entry.gid), (header::SIZE, "size", size)]
        {
            if !put_octal(&mut block[range], value) {
                pax::push(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(entry.mtime.seconds);
        let exact = put_octal(&mut block[header::MTIME], seconds.unwrap_or(0));
        if !exact || seconds.is_err() || entry.mtime.nanoseconds != 0 {
            pax::push(&mut records, b"mtime", pax::time_text(entry.mtime).as_bytes());
        }
        if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = entry.kind {
            for (range, value) in [(header::MAJOR, major), (header::MINOR, minor)] {
                // pax has no key for device numbers.
                if !put_octal(&mut block[range.clone()], u64::from(value)) {
                    put_base256(&mut block[range], u64::from(value));
                }
            }
        }
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
                let text = format!("an attribute called `{}` cannot be archived", name.escape_ascii());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            pax::push_xattr(&mut records, name, value);
        }
        if !records.is_empty() {
            self.extended(&entry.name, &records)?;
        }
        header::seal(&mut block);
        self.raw(&block)?;
        if let Some(map) = map {
            self.raw(&map)?;
        }
        self.data = stored;
        self.padding = (BLOCK - (stored % BLOCK as u64) as usize) % BLOCK;
        Ok(())
    }

    /// Ends the archive with two blocks of zeros, flushes, and returns the stream and the archive's length in bytes.
    ///
    /// # Errors
    /// `InvalidInput` if the last entry's data is not complete; otherwise what the stream says.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_entry()?;
        self.raw(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok((self.inner, self.written))
    }

    fn extended(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        put_text(&mut block[header::NAME], &[b"PaxHeaders.0/", tail(name)].concat());
        put_octal(&mut block[header::MODE], 0o644);
        for range in [header::UID, header::GID, header::MTIME] {
            put_octal(&mut block[range], 0);
        }
        put_octal(&mut block[header::SIZE], records.len() as u64);
        block[header::TYPE] = b'x';
        block[header::MAGIC].copy_from_slice(header::USTAR);
        header::seal(&mut block);
        self.raw(&block)?;
        self.raw(records)?;
        self.raw(&[0; BLOCK][..(BLOCK - records.len() % BLOCK) % BLOCK])
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.data > 0 {
            let text = format!("{} bytes of an entry's data are missing", self.data);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let padding = std::mem::take(&mut self.padding);
        self.raw(&[0; BLOCK][..padding])
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// The present entry's data; more than the entry announced is `InvalidInput`.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.len() as u64 > self.data {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more data than the entry's header says",
            ));
        }
        let count = self.inner.write(buffer)?;
        self.data -= count as u64;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Puts a name into the header, split at a slash if it must be; `false` if it does not fit.
fn put_name(block: &mut [u8; BLOCK], name: &[u8]) -> bool {
    if name.len() <= header::NAME.len() {
        put_text(&mut block[header::NAME], name);
        return true;
    }
    if name.len() > header::PREFIX.len() + 1 + header::NAME.len() {
        return false;
    }
    // The rest must not be empty, and an empty prefix would lose a leading slash.
    let from = (name.len() - 1 - header::NAME.len()).max(1);
    let to = header::PREFIX.len().min(name.len() - 2);
    let Some(slash) = (from..=to).find(|index| name[*index] == b'/') else { return false };
    put_text(&mut block[header::PREFIX], &name[..slash]);
    put_text(&mut block[header::NAME], &name[slash + 1..]);
    true
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// The last bytes of a name's last part: enough to recognise it by.
fn tail(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    &name[name.len().saturating_sub(80)..]
}
