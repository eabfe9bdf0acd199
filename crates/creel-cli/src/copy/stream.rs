//! Archives on their way: between threads that read and write files, and the connection.

use std::io::{self, Read, Write};

use bytes::Bytes;
use creel_layer::tar::{Kind, Reader, Writer};
use tokio::sync::mpsc;

/// Writes pieces into a channel that an upload is fed from; for use in a thread of its own.
#[derive(Debug)]
pub(crate) struct Feed(pub mpsc::Sender<io::Result<Bytes>>);

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map(|()| bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the daemon takes no more"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the pieces of a channel; for use in a thread of its own.
#[derive(Debug)]
pub(crate) struct Channel {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Channel {
    /// Reads what comes out of this channel.
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, rest: Bytes::new() }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

/// Copies an archive and gives its first directory or file another name, also where hard links name it.
///
/// # Errors
/// When the archive is damaged, or either side fails.
pub(crate) fn rename(from: impl Read, to: impl Write, old: &str, new: &str) -> io::Result<()> {
    let mut reader = Reader::new(io::BufReader::with_capacity(64 << 10, from));
    let mut writer = Writer::new(io::BufWriter::with_capacity(64 << 10, to));
    while let Some(mut entry) = reader.next_entry().map_err(io::Error::other)? {
        entry.name = renamed(&entry.name, old, new);
        if let Kind::HardLink(target) = &mut entry.kind {
            *target = renamed(target, old, new);
        }
        writer.entry(&entry)?;
        io::copy(&mut reader, &mut writer)?;
    }
    writer.finish().map(drop)
}

/// A name whose first part is `old` with `new` in its place; any other name as it is.
fn renamed(name: &[u8], old: &str, new: &str) -> Vec<u8> {
    match name.strip_prefix(old.as_bytes()) {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => [new.as_bytes(), rest].concat(),
        _ => name.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use creel_layer::tar::Entry;

    #[test]
    fn archives_are_renamed_whole() {
        let mut writer = Writer::new(Vec::new());
        for (name, kind, data) in [
            ("a/", Kind::Directory, ""),
            ("a/f", Kind::File, "hello"),
            ("a/l", Kind::HardLink(b"a/f".to_vec()), ""),
            ("a/s", Kind::Symlink(b"a/f".to_vec()), ""),
            ("ab", Kind::File, ""),
        ] {
            writer.entry(&Entry { size: data.len() as u64, ..Entry::new(name, kind) }).unwrap();
            writer.write_all(data.as_bytes()).unwrap();
        }
        let (archive, _) = writer.finish().unwrap();
        let mut out = Vec::new();
        rename(&archive[..], &mut out, "a", "b").unwrap();
        let mut reader = Reader::new(&out[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut data = String::new();
            reader.read_to_string(&mut data).unwrap();
            let link = match &entry.kind {
                Kind::HardLink(t) | Kind::Symlink(t) => format!("->{}", String::from_utf8_lossy(t)),
                _ => data,
            };
            names.push(format!("{} {link}", String::from_utf8_lossy(&entry.name)));
        }
        assert_eq!(names, ["b/ ", "b/f hello", "b/l ->b/f", "b/s ->a/f", "ab "]);
    }

    #[test]
    fn contents_get_a_name() {
        assert_eq!(renamed(b"./", ".", "new"), b"new/");
        assert_eq!(renamed(b"./f", ".", "new"), b"new/f");
        assert_eq!(renamed(b".hidden", ".", "new"), b".hidden");
    }
}
