//! The keys that detach from a terminal.
//!
//! They are looked for here, in the client, as Docker's does: the client then knows that the user detached, and
//! need not guess from a closed connection whether the container has ended.

/// Docker's default: Ctrl-P, Ctrl-Q.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Bytes of a key sequence like `ctrl-p,ctrl-q` or `a,b`.
///
/// # Errors
/// For an unknown key, in Docker's words.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| {
            let unknown = || format!("Unknown character: '{key}'");
            match key.as_bytes() {
                [byte] => Ok(*byte),
                _ => match key.strip_prefix("ctrl-").map(str::as_bytes) {
                    Some([byte @ b'a'..=b'z']) => Ok(byte - b'a' + 1),
                    Some(b"@") => Ok(0),
                    Some([byte @ b'['..=b'_']) => Ok(byte - b'[' + 27),
                    _ => Err(unknown()),
                },
            }
        })
        .collect()
}

/// Looks for the sequence in what the user types; holds back what may be its beginning.
#[derive(Debug)]
pub(crate) struct Scanner {
    keys: Vec<u8>,
    held: usize,
}

impl Scanner {
    /// A scanner for these bytes; for none it finds nothing.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, held: 0 }
    }

    /// Takes what was typed and appends to `out` what goes on to the container. True when the sequence is complete:
    /// what follows it in `input` is dropped.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for byte in input {
            if *byte == self.keys[self.held] {
                self.held += 1;
                if self.held == self.keys.len() {
                    self.held = 0;
                    return true;
                }
                continue;
            }
            // What was held is no sequence from its beginning; a later part of it may still be one.
            let mut pending: Vec<u8> = self.keys[..self.held].to_vec();
            pending.push(*byte);
            let keep = (0..pending.len())
                .rev()
                .take_while(|n| *n < self.keys.len() || self.keys.is_empty())
                .map(|from| &pending[from..])
                .filter(|tail| self.keys.starts_with(tail))
                .map(<[u8]>::len)
                .max()
                .unwrap_or(0);
            out.extend_from_slice(&pending[..pending.len() - keep]);
            self.held = keep;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_are_read() {
        assert_eq!(parse(DEFAULT), Ok(vec![16, 17]));
        assert_eq!(parse("a,ctrl-[,ctrl-@"), Ok(vec![b'a', 27, 0]));
        for wrong in ["", "ctrl-", "ctrl-A1", "ab", "ctrl-é"] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut scanner = Scanner::new(vec![16, 17]);
        let mut out = Vec::new();
        assert!(!scanner.feed(b"ab\x10", &mut out));
        assert_eq!(out, b"ab");
        assert!(!scanner.feed(b"\x10c", &mut out));
        assert_eq!(out, b"ab\x10\x10c");
        assert!(!scanner.feed(b"\x10", &mut out));
        assert!(scanner.feed(b"\x11rest", &mut out));
        assert_eq!(out, b"ab\x10\x10c");
    }

    proptest! {
        #[test]
        fn the_first_occurrence_detaches_and_all_before_it_is_passed_on(
            input in prop::collection::vec(0u8..3, 0..30),
            keys in prop::collection::vec(0u8..3, 1..4),
            cut in 1usize..8,
        ) {
            let mut scanner = Scanner::new(keys.clone());
            let mut out = Vec::new();
            let found = input.chunks(cut).any(|chunk| scanner.feed(chunk, &mut out));
            let at = input.windows(keys.len()).position(|window| window == keys);
            prop_assert_eq!(found, at.is_some());
            match at {
                Some(at) => prop_assert_eq!(&out, &input[..at]),
                None => prop_assert!(input.starts_with(&out) && input.len() - out.len() < keys.len()),
            }
        }
    }
}
