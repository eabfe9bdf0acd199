//! Base64 (RFC 4648), the few lines that the registries' credentials need.

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn value(byte: u8) -> Option<u32> {
    match byte {
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => LETTERS.iter().position(|l| *l == byte).and_then(|n| u32::try_from(n).ok()),
    }
}

/// From either alphabet, padded or not; `None` if it is in neither.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut bits = 0;
        for n in 0..4 {
            bits = bits << 6 | chunk.get(n).map_or(Some(0), |b| value(*b))?;
        }
        out.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

/// In the alphabet for addresses, as the API's headers want it.
pub(super) fn encode_url(bytes: &[u8]) -> String {
    encode(bytes, ['-', '_'])
}

/// In the standard alphabet, as Docker's file has it.
pub(super) fn encode_standard(bytes: &[u8]) -> String {
    encode(bytes, ['+', '/'])
}

fn encode(bytes: &[u8], last: [char; 2]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut padded = [0u8; 4];
        padded[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(padded);
        for n in 0..4 {
            let digit = (bits >> (18 - 6 * n) & 63) as usize;
            out.push(match (n > chunk.len(), digit) {
                (true, _) => '=',
                (_, 62) => last[0],
                (_, 63) => last[1],
                (_, digit) => char::from(LETTERS[digit]),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(decode(&encode_standard(&bytes)), Some(bytes.clone()));
                prop_assert_eq!(decode(&encode_url(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = decode(&text);
        }
    }
}
