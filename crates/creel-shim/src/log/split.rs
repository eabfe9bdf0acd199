//! Cuts a stream of bytes into log lines as Docker does.

use jiff::Timestamp;

/// Bytes without a newline after which a piece of a line is logged by itself, without a newline.
pub(crate) const PIECE: usize = 16 * 1024;

/// Holds the beginning of a line until its end comes.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: Vec<u8>,
    /// When the first piece of a line in pieces was logged: all its pieces carry that time.
    since: Option<Timestamp>,
}

impl Splitter {
    /// Hands each line (newline included), or piece of one, to `sink` with its time.
    ///
    /// The pieces put together are exactly the bytes that were pushed. A piece never ends inside a UTF-8 character.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now: Timestamp, mut sink: impl FnMut(&[u8], Timestamp)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n');
            let (segment, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            bytes = rest;
            let mut content = segment;
            while self.held.len() + content.len() - usize::from(content.ends_with(b"\n")) >= PIECE {
                let (head, tail) = content.split_at(PIECE.saturating_sub(self.held.len()));
                self.held.extend_from_slice(head);
                let cut = character_boundary(&self.held);
                let time = *self.since.get_or_insert(now);
                sink(&self.held[..cut], time);
                self.held.drain(..cut);
                content = tail;
            }
            if end.is_some() {
                let time = self.since.take().unwrap_or(now);
                if self.held.is_empty() {
                    sink(content, time);
                } else {
                    self.held.extend_from_slice(content);
                    sink(&self.held, time);
                    self.held.clear();
                }
            } else {
                self.held.extend_from_slice(content);
            }
        }
    }

    /// Hands over what is held: output ended without a newline.
    pub(crate) fn finish(&mut self, now: Timestamp, mut sink: impl FnMut(&[u8], Timestamp)) {
        if !self.held.is_empty() {
            sink(&self.held, self.since.take().unwrap_or(now));
        }
        self.held = Vec::new();
    }
}

/// Where to cut so that a character that has begun at the very end stays whole; bytes that are no UTF-8 are cut anywhere.
fn character_boundary(bytes: &[u8]) -> usize {
    let len = bytes.len();
    for back in 1..=3.min(len) {
        let width = match bytes[len - back] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 1,
        };
        return if width > back && len > back { len - back } else { len };
    }
    len
}
