//! Hashing beside the work: SHA-256 of a stream on a second thread, while the first one unpacks it.
//!
//! On processors without SHA instructions the hash takes as long as everything else together, so a layer that is
//! unpacked alone would leave a core idle.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use creel_types::Digest;
use ring::digest::{Context, SHA256};

use crate::layers::finish;

/// Bytes that go over at once.
const PIECE: usize = 128 << 10;
/// Pieces on their way at most.
const QUEUE: usize = 8;

/// Who hashes.
enum Worker<'scope> {
    Thread {
        pieces: SyncSender<Vec<u8>>,
        spent: Receiver<Vec<u8>>,
        thread: ScopedJoinHandle<'scope, Context>,
    },
    /// There was no second thread to be had.
    Inline(Context),
}

/// Reads from another reader and hashes all bytes that it handed out.
pub(crate) struct Hashed<'scope, R> {
    inner: R,
    piece: Vec<u8>,
    worker: Worker<'scope>,
}

impl<'scope, R: Read> Hashed<'scope, R> {
    /// Hashes what is read from `inner` on a thread of `scope`.
    pub(crate) fn new<'env>(inner: R, scope: &'scope Scope<'scope, 'env>) -> Self {
        let (pieces, work) = sync_channel::<Vec<u8>>(QUEUE);
        let (back, spent) = sync_channel::<Vec<u8>>(QUEUE + 2);
        let thread = Builder::new().name("layer-hash".to_owned()).spawn_scoped(scope, move || {
            let mut context = Context::new(&SHA256);
            for piece in work {
                context.update(&piece);
                let _ = back.try_send(piece);
            }
            context
        });
        let worker = match thread {
            Ok(thread) => Worker::Thread { pieces, spent, thread },
            Err(_) => Worker::Inline(Context::new(&SHA256)),
        };
        Self { inner, piece: Vec::with_capacity(PIECE), worker }
    }

    /// The digest of all that was read; `None` if the hashing thread has died.
    pub(crate) fn finish(self) -> Option<Digest> {
        match self.worker {
            Worker::Inline(context) => Some(finish(context)),
            Worker::Thread { pieces, thread, .. } => {
                pieces.send(self.piece).ok()?;
                drop(pieces);
                thread.join().ok().map(finish)
            }
        }
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match &mut self.worker {
            Worker::Inline(context) => context.update(&buffer[..count]),
            Worker::Thread { pieces, spent, .. } => {
                self.piece.extend_from_slice(&buffer[..count]);
                if self.piece.len() >= PIECE {
                    let mut next = spent.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
                    next.clear();
                    pieces
                        .send(std::mem::replace(&mut self.piece, next))
                        .map_err(|_| io::Error::other("the hashing thread has ended"))?;
                }
            }
        }
        Ok(count)
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
        fn the_digest_is_that_of_the_whole_stream(length in 0usize..2_000_000, step in 1usize..300_000) {
            let content = crate::tests::noise(length as u64, length);
            let digest = std::thread::scope(|scope| {
                let mut hashed = Hashed::new(&content[..], scope);
                let mut buffer = vec![0; step];
                while hashed.read(&mut buffer).unwrap() > 0 {}
                hashed.finish()
            });
            prop_assert_eq!(digest, Some(sha256(&content)));
        }
    }
}
