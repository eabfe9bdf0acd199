//! Blobs: content as it came over the wire, named by its digest, whole or absent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use creel_types::Digest;
use ring::digest::{Context, SHA256};
use rusqlite::params;

use crate::db::sql;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::files::{self, Temp};
use crate::layers::finish;
use crate::partial;
use crate::store::Store;

/// Writes one blob: to a temporary file first, hashing on the way. Dropping it before [`BlobWriter::commit`]
/// leaves nothing behind.
pub struct BlobWriter {
    unfinished: Unfinished,
    file: File,
    context: Context,
    size: Option<u64>,
}

/// What is written of a blob; if that ends too early, it is kept for whoever asked for that, and else deleted.
struct Unfinished {
    store: Arc<Store>,
    temp: Option<Temp>,
    path: PathBuf,
    written: u64,
    expected: Option<Digest>,
    /// Whether what was written is known not to be the blob's beginning.
    spoiled: std::cell::Cell<bool>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (Some(temp), Some(digest), false) = (self.temp.take(), self.expected, self.spoiled.get())
            && let Err(why) = self.store.keep_unfinished(temp, &digest, self.written)
        {
            tracing::warn!("{why}");
        }
    }
}

impl BlobWriter {
    /// How many bytes were written so far.
    pub fn written(&self) -> u64 {
        self.unfinished.written
    }

    fn what(&self) -> String {
        match &self.unfinished.expected {
            Some(digest) => format!("blob {digest}"),
            None => "blob".to_owned(),
        }
    }

    /// What a failed write to this writer means.
    pub(crate) fn failure(&self, why: io::Error) -> Error {
        match why.downcast::<Error>() {
            Ok(error) => error,
            Err(why) => Error::io("write", &self.unfinished.path, why),
        }
    }

    /// Holds what was written against the promised size and digest; returns the digest.
    pub(crate) fn check(&self) -> Result<Digest> {
        let actual = finish(self.context.clone());
        if let Some(expected) = self.size
            && expected != self.unfinished.written
        {
            self.unfinished.spoiled.set(self.unfinished.written > expected);
            return Err(Error::SizeMismatch { what: self.what(), expected, actual: self.unfinished.written });
        }
        if let Some(expected) = self.unfinished.expected
            && expected != actual
        {
            self.unfinished.spoiled.set(true);
            return Err(Error::DigestMismatch { what: self.what(), expected, actual });
        }
        Ok(actual)
    }

    /// Verifies size and digest, syncs, moves the blob to its place and writes its row. On an error nothing is
    /// left behind; a digest that does not fit is [`Error::DigestMismatch`], which names both.
    pub fn commit(self) -> Result<Digest> {
        let actual = self.check()?;
        let Self { mut unfinished, file, .. } = self;
        let (store, written) = (unfinished.store.clone(), unfinished.written);
        let Some(temp) = unfinished.temp.take() else { return Err(Error::Closed) };
        failpoint("blob-before-sync");
        file.sync_data().map_err(|why| Error::io("sync", temp.path(), why))?;
        drop(file);
        let _content = store.content_in_use();
        store.leases.touch_blob(actual);
        if store.view().blob_size(&actual).is_some() {
            return Ok(actual);
        }
        failpoint("blob-before-rename");
        let directory = store.paths.blobs();
        temp.rename_to(&store.paths.blob(&actual))?;
        failpoint("blob-before-dir-sync");
        files::sync_dir(&directory)?;
        failpoint("blob-before-row");
        let row = store.db.write(move |connection, view| {
            sql(connection, "write a blob", |c| {
                c.prepare_cached("INSERT OR REPLACE INTO blobs (digest, size) VALUES (?1, ?2)")?
                    .execute(params![actual.to_string(), written as i64])
            })?;
            view.insert_blob(actual, written);
            Ok(())
        });
        if let Err(why) = row {
            if store.view().blob_size(&actual).is_none() {
                let _ = std::fs::remove_file(store.paths.blob(&actual));
            }
            return Err(why);
        }
        failpoint("blob-after-row");
        Ok(actual)
    }
}

impl Write for BlobWriter {
    /// Writes through to the temporary file. More bytes than promised are refused at once, so that an endless
    /// stream cannot fill the disk.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Some(expected) = self.size
            && self.unfinished.written + data.len() as u64 > expected
        {
            self.unfinished.spoiled.set(true);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                Error::SizeMismatch {
                    what: self.what(),
                    expected,
                    actual: self.unfinished.written + data.len() as u64,
                },
            ));
        }
        // A disk that is full is not filled with parts.
        let count = self.file.write(data).inspect_err(|_| self.unfinished.spoiled.set(true))?;
        self.context.update(&data[..count]);
        self.unfinished.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Begins to write a blob. With `expected` and `size` (bytes), [`BlobWriter::commit`] holds the content
    /// against them.
    pub fn blob_writer(self: &Arc<Self>, expected: Option<Digest>, size: Option<u64>) -> Result<BlobWriter> {
        // By this name the next process finds what a killed one has written.
        let temp = match expected.filter(|digest| self.partials.wanted(digest)) {
            Some(digest) => self.temp(&partial::unfinished_name(&digest))?,
            None => self.temp("blob")?,
        };
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(temp.path())
            .map_err(|why| Error::io("create", temp.path(), why))?;
        let unfinished = Unfinished {
            store: self.clone(),
            path: temp.path().to_owned(),
            temp: Some(temp),
            written: 0,
            expected,
            spoiled: std::cell::Cell::new(false),
        };
        Ok(BlobWriter { unfinished, file, context: Context::new(&SHA256), size })
    }

    /// Stores some bytes as a blob: for configurations and manifests.
    pub fn put_blob(self: &Arc<Self>, content: &[u8]) -> Result<Digest> {
        let mut writer = self.blob_writer(None, Some(content.len() as u64))?;
        match writer.write_all(content) {
            Ok(()) => writer.commit(),
            Err(why) => Err(writer.failure(why)),
        }
    }

    /// Stores a stream as a blob, verified against its digest and size where given.
    pub fn copy_blob<R: Read>(
        self: &Arc<Self>,
        mut content: R,
        expected: Option<Digest>,
        size: Option<u64>,
    ) -> Result<Digest> {
        let mut writer = self.blob_writer(expected, size)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return writer.commit(),
                Ok(count) => writer.write_all(&buffer[..count]).map_err(|why| writer.failure(why))?,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(Error::Read { why }),
            }
        }
    }

    /// Whether a blob is stored. Held by every [`Lease`](crate::Lease) that is open now.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        let _content = self.content_in_use();
        let found = self.view().blob_size(digest).is_some();
        if found {
            self.leases.touch_blob(*digest);
        }
        found
    }

    /// A blob's size in bytes.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.view().blob_size(digest)
    }

    /// Opens a blob to read it. The file stays readable even if the blob is collected meanwhile.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        if !self.has_blob(digest) {
            return Err(Error::NoSuchBlob(*digest));
        }
        let path = self.paths.blob(digest);
        File::open(&path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => Error::NoSuchBlob(*digest),
            _ => Error::io("open", &path, why),
        })
    }

    /// Reads a whole blob of at most `limit` bytes and verifies its digest again: for documents.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.paths.blob(digest);
        let size = file.metadata().map_err(|why| Error::io("read", &path, why))?.size();
        if size > limit {
            return Err(Error::TooLarge { digest: *digest, size, limit });
        }
        let mut content = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut content).map_err(|why| Error::io("read", &path, why))?;
        let actual = crate::layers::sha256(&content);
        if actual != *digest {
            return Err(Error::DigestMismatch {
                what: format!("the stored blob {}", path.display()),
                expected: *digest,
                actual,
            });
        }
        Ok(content)
    }
}
