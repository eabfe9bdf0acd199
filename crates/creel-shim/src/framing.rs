//! How bytes are cut into messages: JSON lines on control connections, Docker's frames on stream connections.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proto::MAX_MESSAGE;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// No newline came within [`MAX_MESSAGE`] bytes.
    #[error("a message is longer than {MAX_MESSAGE} bytes; the connection cannot go on")]
    TooLong,
    /// The line is not the JSON that was expected.
    #[error("a message is not what the shim protocol has here: {0}")]
    NotJson(serde_json::Error),
}

/// One message as a line of JSON, newline included.
///
/// # Errors
/// Fails only if the value cannot be written as JSON at all, which no protocol type does.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FramingError> {
    let mut line = serde_json::to_vec(value).map_err(FramingError::NotJson)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line, with or without its newline.
///
/// # Errors
/// [`FramingError::NotJson`] if it is not a `T`.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, FramingError> {
    serde_json::from_slice(line).map_err(FramingError::NotJson)
}

/// Gathers bytes until they make lines; holds nothing when idle.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no newline.
    scanned: usize,
}

impl Lines {
    /// Adds bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its newline, if there is one.
    ///
    /// # Errors
    /// [`FramingError::TooLong`] when more than [`MAX_MESSAGE`] bytes came without a newline.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        match self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
            Some(at) => {
                let end = self.scanned + at;
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                self.scanned = 0;
                if end >= MAX_MESSAGE {
                    return Err(FramingError::TooLong);
                }
                Ok(Some(line))
            }
            None => {
                self.scanned = self.buffer.len();
                if self.scanned >= MAX_MESSAGE { Err(FramingError::TooLong) } else { Ok(None) }
            }
        }
    }

    /// What was pushed and is not part of a returned line: the first stream bytes after an opening line.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}

/// Docker's stream multiplexing, as a shim's clients check it: [`creel_types::stream`] knows the header.
pub mod mux {
    pub use creel_types::stream::{HEADER, STDERR, STDOUT, header};

    /// A header that no Docker daemon sends.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    #[error("{0:?} is not the header of a multiplexed frame")]
    pub struct BadHeader(pub [u8; HEADER]);

    /// Takes frames apart again, however the bytes are cut; keeps no payload.
    #[derive(Debug, Default)]
    pub struct Decoder {
        header: [u8; HEADER],
        have: usize,
        left: u32,
    }

    impl Decoder {
        /// Hands each piece of payload with its stream number (0, 1 or 2) to `sink`, in order.
        ///
        /// # Errors
        /// [`BadHeader`] on a stream number over 2 or on non-zero filling; pieces before it were handed out.
        pub fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(u8, &[u8])) -> Result<(), BadHeader> {
            while !bytes.is_empty() {
                if self.left == 0 {
                    let take = bytes.len().min(HEADER - self.have);
                    self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                    self.have += take;
                    bytes = &bytes[take..];
                    if self.have < HEADER {
                        return Ok(());
                    }
                    let [stream, x, y, z, a, b, c, d] = self.header;
                    if stream > 2 || [x, y, z] != [0, 0, 0] {
                        return Err(BadHeader(self.header));
                    }
                    self.have = 0;
                    self.left = u32::from_be_bytes([a, b, c, d]);
                } else {
                    let take = bytes.len().min(self.left as usize);
                    sink(self.header[0], &bytes[..take]);
                    self.left -= take as u32;
                    bytes = &bytes[take..];
                }
            }
            Ok(())
        }

        /// Whether the bytes so far end at the end of a frame.
        pub fn is_whole(&self) -> bool {
            self.left == 0 && self.have == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in_however_they_are_cut(
            lines in prop::collection::vec("[^\n]{0,40}", 0..20),
            rest in "[^\n]{0,10}",
            cuts in prop::collection::vec(1usize..17, 1..50),
        ) {
            let mut bytes = Vec::new();
            for line in &lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(rest.as_bytes());
            let mut reader = Lines::default();
            let mut got = Vec::new();
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = bytes.len().min(at + cut.next().unwrap());
                reader.push(&bytes[at..end]);
                at = end;
                while let Some(line) = reader.next_line().unwrap() {
                    got.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(got, lines);
            prop_assert_eq!(reader.into_rest(), rest.into_bytes());
        }

        #[test]
        fn frames_come_apart_as_they_were_put_together(
            frames in prop::collection::vec((0u8..=2, prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            cut in 1usize..30,
        ) {
            let (mut bytes, mut want) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
            for (stream, payload) in &frames {
                bytes.extend_from_slice(&mux::header(*stream, payload.len() as u32));
                bytes.extend_from_slice(payload);
                want[*stream as usize].extend_from_slice(payload);
            }
            let (mut decoder, mut got) = (mux::Decoder::default(), [Vec::new(), Vec::new(), Vec::new()]);
            for piece in bytes.chunks(cut) {
                decoder.push(piece, |stream, data| got[stream as usize].extend_from_slice(data)).unwrap();
            }
            prop_assert_eq!(got, want);
            prop_assert!(decoder.is_whole());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = mux::Decoder::default().push(&bytes, |_, _| {});
            let mut lines = Lines::default();
            lines.push(&bytes);
            while let Ok(Some(line)) = lines.next_line() {
                let _ = decode::<crate::proto::Request>(&line);
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_MESSAGE]);
        assert!(matches!(lines.next_line(), Err(FramingError::TooLong)));
    }
}
