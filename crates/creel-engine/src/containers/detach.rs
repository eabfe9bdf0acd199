//! Detach keys: `ctrl-p,ctrl-q`, looked for in what a client types.

use crate::error::{Error, Result};

/// The keys of clients that name none.
const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Reads keys: single characters and `ctrl-` with a letter or one of `@ [ \ ] ^ _`, joined by commas. `None` is the
/// default; an empty text is that, too, as with Docker.
pub(crate) fn parse(text: Option<&str>) -> Result<Vec<u8>> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT);
    text.split(',')
        .map(|key| match key.as_bytes() {
            [one] => Some(*one),
            _ => match key.to_ascii_lowercase().strip_prefix("ctrl-")?.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                b"@" => Some(0),
                b"[" => Some(27),
                b"\\" => Some(28),
                b"]" => Some(29),
                b"^" => Some(30),
                b"_" => Some(31),
                _ => None,
            },
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| {
            Error::invalid(format!(
                "invalid detach keys (\"{text}\"): keys like `a`, `ctrl-p` joined by commas are wanted"
            ))
        })
}

/// Looks for the keys in a stream. What may be their beginning is held back until it is known not to be.
#[derive(Debug)]
pub(crate) struct Detector {
    keys: Vec<u8>,
    matched: usize,
}

impl Detector {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes input and appends to `out` what is to be passed on. True when the keys are complete: what follows them is
    /// not taken any more.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in input {
            let mut held = self.keys[..self.matched].to_vec();
            held.push(*byte);
            // The longest end of what is held that begins the keys goes on being held.
            let keep = (0..=held.len().min(self.keys.len()))
                .rev()
                .find(|n| held[held.len() - n..] == self.keys[..*n])
                .unwrap_or(0);
            out.extend_from_slice(&held[..held.len() - keep]);
            self.matched = keep;
            if !self.keys.is_empty() && self.matched == self.keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// What is held back when the input ends.
    pub(crate) fn rest(&mut self) -> &[u8] {
        let held = &self.keys[..self.matched];
        self.matched = 0;
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_as_dockers() {
        assert_eq!(parse(None).unwrap(), [16, 17]);
        assert_eq!(parse(Some("ctrl-a,x,ctrl-@,ctrl-_")).unwrap(), [1, b'x', 0, 31]);
        for wrong in ["ctrl-", "ctrl-ab", "ab", "a,,b", "ctrl-1"] {
            assert!(parse(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_keys_end_the_input_wherever_they_are_cut() {
        let mut detector = Detector::new(vec![16, 17]);
        let mut out = Vec::new();
        assert!(!detector.feed(b"a\x10", &mut out));
        assert!(!detector.feed(b"\x10b\x10", &mut out));
        assert!(detector.feed(b"\x11rest", &mut out));
        assert_eq!(out, b"a\x10\x10b");
    }

    proptest! {
        #[test]
        fn what_passes_is_the_input_up_to_the_keys(
            keys in prop::collection::vec(0u8..3, 1..4),
            input in prop::collection::vec(0u8..3, 0..40),
            cut in 1usize..7,
        ) {
            let mut detector = Detector::new(keys.clone());
            let mut out = Vec::new();
            let mut found = false;
            for chunk in input.chunks(cut) {
                if detector.feed(chunk, &mut out) {
                    found = true;
                    break;
                }
            }
            let at = input.windows(keys.len()).position(|window| window == keys);
            prop_assert_eq!(found, at.is_some());
            if !found {
                out.extend_from_slice(detector.rest());
            }
            prop_assert_eq!(&out[..], &input[..at.unwrap_or(input.len())]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = parse(Some(&text));
        }
    }
}
