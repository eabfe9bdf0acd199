//! Filling small files on a second thread: the first one makes them, in the archive's order, so that all that is decided
//! by names is decided there; what is left to do needs a file's descriptor and nothing else.
//!
//! An archive of small files costs system calls above all, and half of those are on this side.

use std::io::BufRead;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::attributes::{Attributes, Setter};
use crate::error::{Error, Result};
use crate::fs;
use crate::tar::{Entry, Reader, TarError};

/// The largest file that is filled here, in bytes: larger ones are written straight from the stream's buffer.
pub(super) const SMALL: u64 = 32 << 10;
/// Files that are handed over at once. Three times as many descriptors may be open.
const FILES: usize = 24;
/// Bytes that are handed over at once, and a file more.
const BYTES: usize = 256 << 10;

/// A file that waits for its content and its attributes.
struct Small {
    file: OwnedFd,
    name: Vec<u8>,
    content: Range<usize>,
    wanted: Attributes,
}

/// Files that are handed over together.
#[derive(Default)]
struct Batch {
    files: Vec<Small>,
    bytes: Vec<u8>,
}

impl Batch {
    fn fill(&mut self, setter: &mut Setter) -> Result<()> {
        for small in self.files.drain(..) {
            fs::write_at(&small.file, &self.bytes[small.content], 0)
                .map_err(|error| Error::entry(&small.name, "write", error))?;
            setter.file(&small.name, small.file.as_fd(), &small.wanted)?;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// The second thread.
struct Worker {
    batches: SyncSender<Batch>,
    spent: Receiver<Batch>,
    /// Ends with the number of attributes that it had to leave out.
    thread: JoinHandle<Result<u64>>,
}

impl Worker {
    /// `None` if there is no thread to be had.
    fn start(mut setter: Setter) -> Option<Self> {
        let (batches, work) = sync_channel::<Batch>(1);
        let (back, spent) = sync_channel(2);
        let run = move || {
            for mut batch in work {
                batch.fill(&mut setter)?;
                let _ = back.try_send(batch);
            }
            Ok(setter.dropped)
        };
        let thread = Builder::new().name("layer-fill".to_owned()).spawn(run).ok()?;
        Some(Self { batches, spent, thread })
    }

    fn end(self) -> Result<u64> {
        drop(self.batches);
        self.thread.join().unwrap_or_else(|_| {
            Err(Error::Write(std::io::Error::other("the thread that fills files has died")))
        })
    }
}

/// Small files on their way. When it is dropped nobody is at work on them any more.
#[derive(Default)]
pub(super) struct Filler {
    batch: Batch,
    worker: Option<Worker>,
}

impl Filler {
    /// Takes a file that was just made, and its content out of the archive. A failure may come with a later file.
    pub(super) fn add<R: BufRead>(
        &mut self,
        file: OwnedFd,
        entry: &Entry,
        wanted: &Attributes,
        archive: &mut Reader<R>,
        setter: &mut Setter,
    ) -> Result<()> {
        let start = self.batch.bytes.len();
        let end = start + entry.size as usize;
        while self.batch.bytes.len() < end {
            let piece = archive.data().map_err(|error| super::apply::data_error(error, entry))?;
            if piece.is_empty() {
                return Err(Error::Tar(TarError::Truncated));
            }
            let count = piece.len().min(end - self.batch.bytes.len());
            self.batch.bytes.extend_from_slice(&piece[..count]);
            archive.used(count).map_err(|error| super::apply::data_error(error, entry))?;
        }
        self.batch.files.push(Small {
            file,
            name: entry.name.clone(),
            content: start..end,
            wanted: wanted.clone(),
        });
        if self.batch.files.len() < FILES && self.batch.bytes.len() < BYTES {
            return Ok(());
        }
        if self.worker.is_none() {
            self.worker = Worker::start(setter.another());
        }
        let Some(worker) = &self.worker else { return self.batch.fill(setter) };
        let next = worker.spent.try_recv().unwrap_or_default();
        match worker.batches.send(std::mem::replace(&mut self.batch, next)) {
            Ok(()) => Ok(()),
            // It has ended before its time, and says why.
            Err(_) => self.end(setter),
        }
    }

    /// Fills what is left and waits for the thread.
    pub(super) fn end(&mut self, setter: &mut Setter) -> Result<()> {
        if let Some(worker) = self.worker.take() {
            setter.dropped += worker.end()?;
        }
        self.batch.fill(setter)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            let _ = worker.end();
        }
    }
}
