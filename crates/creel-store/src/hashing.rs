//! A layer's stream on three threads: one takes the archive in and inflates it, one hashes what comes out, and the
//! caller's unpacks it. Pieces go round in a fixed number of buffers and are never copied.
//!
//! Inflating, hashing and making files take about as long as each other, so a layer that comes alone would leave a
//! processor idle; and the buffers are what bounds the memory of a pull, however large its layers are.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use creel_types::Digest;
use ring::digest::{Context, SHA256};

use crate::layers::finish;

/// Bytes of one buffer: large enough that handing it over costs nothing, small enough to stay in a processor's cache.
const PIECE: usize = 256 << 10;
/// How many buffers there are.
const BUFFERS: usize = 8;

/// A plain stream that other threads inflate and hash.
pub(crate) struct Plain<'scope> {
    /// `None` when it is dropped.
    pieces: Option<Receiver<io::Result<Arc<Vec<u8>>>>>,
    spent: SyncSender<Vec<u8>>,
    current: Option<Arc<Vec<u8>>>,
    at: usize,
    ended: bool,
    hasher: Option<ScopedJoinHandle<'scope, Context>>,
}

impl Drop for Plain<'_> {
    /// The inflating thread may be waiting for a buffer: with this one it finds out that nobody wants it filled.
    fn drop(&mut self) {
        self.pieces = None;
        let _ = self.spent.try_send(Vec::new());
    }
}

impl<'scope> Plain<'scope> {
    /// Has `inner` read, by way of `open` (which decompresses it), and hashed on threads of `scope`.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(crate) fn new<'env, R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'scope,
        scope: &'scope Scope<'scope, 'env>,
    ) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(BUFFERS);
        let (hashing, work) = sync_channel::<Arc<Vec<u8>>>(BUFFERS);
        let (spent, empty) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            // They are made as they are needed: most layers are small.
            let _ = spent.send(Vec::new());
        }
        let back = spent.clone();
        let hasher = Builder::new().name("layer-hash".to_owned()).spawn_scoped(scope, move || {
            let mut context = Context::new(&SHA256);
            for piece in work {
                context.update(&piece);
                give_back(&back, piece);
            }
            context
        })?;
        Builder::new().name("layer-inflate".to_owned()).spawn_scoped(scope, move || {
            let failure = match open() {
                Ok(stream) => inflate(stream, &empty, &hashing, &sender).err(),
                Err(error) => Some(error),
            };
            if let Some(error) = failure {
                let _ = sender.send(Err(error));
            }
        })?;
        Ok(Self { pieces: Some(pieces), spent, current: None, at: 0, ended: false, hasher: Some(hasher) })
    }

    /// The digest of the whole stream, which must have been read to its end; `None` if a thread has died.
    pub(crate) fn finish(mut self) -> Option<Digest> {
        let hasher = self.hasher.take().filter(|_| self.ended)?;
        hasher.join().ok().map(finish)
    }
}

/// Fills buffers and hands each to both threads. That one of them is gone is no failure: somebody has lost interest.
fn inflate(
    mut stream: impl Read,
    empty: &Receiver<Vec<u8>>,
    hashing: &SyncSender<Arc<Vec<u8>>>,
    pieces: &SyncSender<io::Result<Arc<Vec<u8>>>>,
) -> io::Result<()> {
    loop {
        let Ok(mut piece) = empty.recv() else { return Ok(()) };
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match stream.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        piece.truncate(filled);
        // An empty piece is the end.
        let piece = Arc::new(piece);
        if filled > 0 && hashing.send(piece.clone()).is_err()
            || pieces.send(Ok(piece)).is_err()
            || filled == 0
        {
            return Ok(());
        }
    }
}

/// Whoever is the last to have looked at a piece returns its buffer.
fn give_back(spent: &SyncSender<Vec<u8>>, piece: Arc<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(piece) {
        let _ = spent.try_send(buffer);
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Plain<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let used_up = self.current.as_ref().is_none_or(|piece| self.at == piece.len());
        if used_up && !self.ended {
            if let Some(piece) = self.current.take() {
                give_back(&self.spent, piece);
            }
            let next = self.pieces.as_ref().and_then(|pieces| pieces.recv().ok());
            let next = next.ok_or_else(|| io::Error::other("the inflating thread has ended"))??;
            self.ended = next.is_empty();
            (self.current, self.at) = (Some(next), 0);
        }
        Ok(self.current.as_ref().map_or(&[][..], |piece| &piece[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at = self.current.as_ref().map_or(0, |piece| piece.len().min(self.at + count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::sha256;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn the_digest_is_that_of_the_whole_stream_and_every_byte_comes_through(
            length in 0usize..5_000_000,
            step in 1usize..300_000,
        ) {
            let content = crate::tests::noise(length as u64, length);
            let (digest, read) = std::thread::scope(|scope| {
                let mut plain = Plain::new(|| Ok(&content[..]), scope).unwrap();
                let mut read = Vec::new();
                loop {
                    let piece = plain.fill_buf().unwrap();
                    let count = piece.len().min(step);
                    read.extend_from_slice(&piece[..count]);
                    plain.consume(count);
                    if count == 0 {
                        break (plain.finish(), read);
                    }
                }
            });
            prop_assert_eq!(digest, Some(sha256(&content)));
            prop_assert!(read == content);
        }
    }

    #[test]
    fn a_failure_comes_after_what_came_before_it_and_an_end_too_early_has_no_digest() {
        struct Fails(usize);
        impl Read for Fails {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.min(buffer.len());
                self.0 -= count;
                if count == 0 { Err(io::Error::other("cut")) } else { Ok(count) }
            }
        }
        std::thread::scope(|scope| {
            let mut plain = Plain::new(|| Ok(Fails(3 * PIECE)), scope).unwrap();
            let mut count = 0;
            let error = loop {
                match plain.fill_buf() {
                    Ok(piece) => {
                        let length = piece.len();
                        count += length;
                        plain.consume(length);
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!((count, error.to_string().as_str()), (3 * PIECE, "cut"));
            assert_eq!(plain.finish(), None);
        });
    }

    #[test]
    fn whoever_stops_reading_stops_the_others() {
        std::thread::scope(|scope| {
            let mut plain = Plain::new(|| Ok(io::repeat(1)), scope).unwrap();
            assert_eq!(plain.fill_buf().unwrap().len(), PIECE);
            drop(plain);
        });
    }
}
