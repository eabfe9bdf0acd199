//! The multiplexed stream of attach, exec and logs without a terminal: frames of an 8-byte header and data (Docker
//! Engine API, "Attach to a container", "Stream format"). Shims write it, and daemon and clients pass it on.

/// Standard output's number in a header.
pub const STDOUT: u8 = 1;
/// Standard error's number in a header.
pub const STDERR: u8 = 2;
/// Length of a header in bytes: the stream's number, three zeros, the data's length (big endian).
pub const HEADER: usize = 8;

/// The header for `len` bytes of one stream.
pub fn header(stream: u8, len: u32) -> [u8; HEADER] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// Splits a multiplexed stream into its parts, however the bytes arrive.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    header: [u8; HEADER],
    have: usize,
    left: usize,
}

impl Demultiplexer {
    /// Takes the next bytes and calls `sink` with each piece of data and its stream's number.
    pub fn feed(&mut self, mut input: &[u8], mut sink: impl FnMut(u8, &[u8])) {
        while !input.is_empty() {
            if self.left > 0 {
                let n = self.left.min(input.len());
                sink(self.header[0], &input[..n]);
                self.left -= n;
                input = &input[n..];
                continue;
            }
            let n = (HEADER - self.have).min(input.len());
            self.header[self.have..self.have + n].copy_from_slice(&input[..n]);
            self.have += n;
            input = &input[n..];
            if self.have == HEADER {
                let [_, _, _, _, a, b, c, d] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.have = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_cut_gives_the_same_streams(
            frames in prop::collection::vec((1u8..3, prop::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1usize..20,
        ) {
            let mut wire = Vec::new();
            let (mut want, mut got): ([Vec<u8>; 2], [Vec<u8>; 2]) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for (stream, data) in &frames {
                wire.extend(header(*stream, data.len() as u32));
                wire.extend(data);
                want[usize::from(*stream) - 1].extend(data);
            }
            let mut demultiplexer = Demultiplexer::default();
            for chunk in wire.chunks(cut) {
                demultiplexer.feed(chunk, |stream, data| got[usize::from(stream) - 1].extend(data));
            }
            prop_assert_eq!(want, got);
        }
    }
}
