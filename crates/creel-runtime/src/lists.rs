//! Lists of processors and memory nodes as the specification writes them: `0-3,7`.

/// The highest number that is taken: as many as the kernel's largest configurations have.
const MAX: u32 = 8191;

/// A set of small numbers as words of 64 bits, the lowest first.
pub(crate) fn parse(text: &str) -> Option<Vec<u64>> {
    let mut words: Vec<u64> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number <= MAX)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        for number in first..=last {
            let at = (number / 64) as usize;
            if words.len() <= at {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (number % 64);
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::*;

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,7"), Some(vec![0x8f]));
        assert_eq!(parse("64, 0"), Some(vec![1, 1]));
        for wrong in ["", ",", "3-1", "1-", "-1", "a", "1,,2", "8192", "99999999999", "+1", "0-4294967295"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(numbers in proptest::collection::btree_set(0u32..8192, 1..20)) {
            let text = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let words = parse(&text).unwrap();
            let back = (0u32..).zip(words.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1)));
            let back: Vec<u32> = back.filter(|(_, set)| *set).map(|(number, _)| number).collect();
            prop_assert!(back.iter().eq(numbers.iter()));
        }

        #[test]
        fn any_text_ends(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
