//! OCI image layouts as directories (image-spec, `image-layout.md`): the daemon speaks archives, so one is packed on
//! the way to it and unpacked on the way back.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use creel_layer::tar::{Entry, Kind, Reader, Writer};
use tokio::sync::mpsc;

/// The documents of a layout.
const DOCUMENTS: [&str; 2] = ["oci-layout", "index.json"];

/// Whether a directory is a layout.
pub(crate) fn is_layout(directory: &Path) -> bool {
    directory.is_dir() && DOCUMENTS.iter().all(|name| directory.join(name).is_file())
}

/// Whether a layout has content under this name; nothing else of a directory is packed, and nothing else unpacked.
fn is_blob(name: &str) -> bool {
    name.strip_prefix("blobs/sha256/").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Packs a layout as an archive.
///
/// # Errors
/// Something of it cannot be read, or `out` not be written.
pub(crate) fn pack(directory: &Path, out: impl Write) -> io::Result<()> {
    let mut writer = Writer::new(out);
    let mut names: Vec<String> = DOCUMENTS.map(str::to_owned).to_vec();
    let blobs = directory.join("blobs/sha256");
    if blobs.is_dir() {
        let mut found = Vec::new();
        for entry in fs::read_dir(&blobs)? {
            found.push(format!("blobs/sha256/{}", entry?.file_name().to_string_lossy()));
        }
        found.retain(|name| is_blob(name));
        found.sort_unstable();
        names.extend(found);
    }
    for name in names {
        let mut file = File::open(directory.join(&name))?;
        let size = file.metadata()?.len();
        writer.entry(&Entry { size, ..Entry::new(name.as_str(), Kind::File) })?;
        let copied = io::copy(&mut Read::take(&mut file, size), &mut writer)?;
        if copied != size {
            return Err(io::Error::other(format!("{name} changed while it was read")));
        }
    }
    writer.finish()?.0.flush()
}

/// Unpacks an archive that the daemon saved into a directory, which is made, or must be empty.
///
/// # Errors
/// The directory holds something, the archive is damaged, or a file cannot be written.
pub(crate) fn unpack(archive: impl Read, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    if fs::read_dir(directory)?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the directory is not empty"));
    }
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    let mut reader = Reader::new(BufReader::new(archive));
    while let Some(entry) = reader.next_entry().map_err(|e| io::Error::other(e.to_string()))? {
        let Ok(name) = String::from_utf8(entry.name.clone()) else { continue };
        // `manifest.json` and `repositories` beside them are Docker's, and no part of a layout.
        if entry.kind == Kind::File && (is_blob(&name) || DOCUMENTS.contains(&name.as_str())) {
            let mut file = File::create_new(directory.join(&name))?;
            io::copy(&mut reader, &mut file)?;
        }
    }
    match is_layout(directory) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ended early")),
    }
}

/// Pieces of a body for a thread that may block; the other end says whether all came.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl Pieces {
    /// A reader, and where the pieces go; `None` is the end.
    pub(crate) fn new() -> (mpsc::Sender<Option<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(8);
        (sender, Self { receiver, current: Bytes::new(), ended: false })
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(piece)) => self.current = piece,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Packs a layout from a thread of its own.
pub(crate) fn upload(directory: PathBuf) -> mpsc::Receiver<io::Result<Bytes>> {
    struct Sender(mpsc::Sender<io::Result<Bytes>>);
    impl Write for Sender {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let piece = Ok(Bytes::copy_from_slice(data));
            self.0.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let out = io::BufWriter::with_capacity(256 << 10, Sender(sender.clone()));
        if let Err(why) = pack(&directory, out) {
            let _ = sender.blocking_send(Err(why));
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_comes_back_as_it_was_and_nothing_else_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let blob = format!("blobs/sha256/{}", "ab".repeat(32));
        fs::create_dir_all(from.join("blobs/sha256")).unwrap();
        assert!(!is_layout(&from));
        for (name, text) in [("oci-layout", "{}"), ("index.json", "[]"), (&blob, "content"), ("secret", "x")]
        {
            fs::write(from.join(name), text).unwrap();
        }
        fs::write(from.join("blobs/sha256/short"), "x").unwrap();
        assert!(is_layout(&from));
        let mut archive = Vec::new();
        pack(&from, &mut archive).unwrap();
        unpack(&archive[..], &to).unwrap();
        assert_eq!(fs::read_to_string(to.join(&blob)).unwrap(), "content");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 3);
        assert_eq!(fs::read_dir(to.join("blobs/sha256")).unwrap().count(), 1);
        assert_eq!(unpack(&archive[..], &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(unpack(&archive[..700], &dir.path().join("cut")).is_err());
    }

    #[test]
    fn no_name_of_an_archive_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(Vec::new());
        for name in
            ["../evil", "/tmp/evil", "blobs/sha256/../../evil", "blobs/sha256/x", "index.json/../evil"]
        {
            writer.entry(&Entry::new(name, Kind::File)).unwrap();
        }
        let link = Kind::Symlink(b"../..".to_vec());
        writer.entry(&Entry::new(format!("blobs/sha256/{}", "ab".repeat(32)), link)).unwrap();
        let archive = writer.finish().unwrap().0;
        let to = dir.path().join("to");
        assert_eq!(unpack(&archive[..], &to).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(to.join("blobs/sha256")).unwrap().count(), 0);
    }
}
