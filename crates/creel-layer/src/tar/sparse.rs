//! Maps of sparse files: from numbers to checked segments.

use super::header::{GNU_EXTENDED, GNU_SPARSE, Header};
use super::number;
use super::{BLOCK, MAX_SEGMENTS, Segment};

/// Where a part of an old GNU map is: four entries in the header, 21 in each block that follows.
const ENTRY: usize = 24;

/// Collects the segments of an old GNU sparse file.
#[derive(Default)]
pub(super) struct OldGnu {
    numbers: Vec<u64>,
}

impl OldGnu {
    /// Takes the part in the header; `true` if a block of more follows.
    pub(super) fn header(&mut self, header: &Header) -> Result<bool, &'static str> {
        self.part(&header.block[GNU_SPARSE])?;
        Ok(header.block[GNU_EXTENDED] != 0)
    }

    /// Takes an extension block; `true` if another follows.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        self.part(&block[..21 * ENTRY])?;
        Ok(block[504] != 0)
    }

    fn part(&mut self, entries: &[u8]) -> Result<(), &'static str> {
        for entry in entries.chunks_exact(ENTRY) {
            if entry[0] == 0 {
                break;
            }
            for field in [&entry[..12], &entry[12..]] {
                let value = number::parse(field).and_then(|value| u64::try_from(value).ok());
                self.numbers.push(value.ok_or("a number is malformed")?);
            }
            if self.numbers.len() > 2 * MAX_SEGMENTS {
                return Err("it has too many segments");
            }
        }
        Ok(())
    }

    /// All numbers: offset and length in turn.
    pub(super) fn finish(self) -> Vec<u64> {
        self.numbers
    }
}

/// Reads the map of format 1.0, which stands in decimal lines at the start of the data.
#[derive(Default)]
pub(super) struct Decimal {
    expected: Option<usize>,
    numbers: Vec<u64>,
    current: Option<u64>,
}

impl Decimal {
    /// Takes one block; `true` if the map is complete with it.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        for byte in block {
            if *byte == b'\n' {
                let value = self.current.take().ok_or("a line is empty")?;
                match self.expected {
                    Some(_) => self.numbers.push(value),
                    None if value > MAX_SEGMENTS as u64 => return Err("it has too many segments"),
                    None => self.expected = Some(value as usize * 2),
                }
                if self.expected == Some(self.numbers.len()) {
                    return Ok(true);
                }
                continue;
            }
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err("it has more than digits");
            }
            let sum =
                self.current.unwrap_or(0).checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit)));
            self.current = Some(sum.ok_or("a number is too large")?);
        }
        Ok(false)
    }

    /// All numbers: offset and length in turn.
    pub(super) fn finish(self) -> Vec<u64> {
        self.numbers
    }
}

/// Checks a map: pairs, ascending, not overlapping, within `size`, and as much data as `stored`. Empty segments, which
/// GNU tar uses to mark the end, are left out.
pub(super) fn segments(numbers: &[u64], size: u64, stored: u64) -> Result<Vec<Segment>, &'static str> {
    if size > i64::MAX as u64 {
        return Err("the file is too large");
    }
    let (pairs, odd) = numbers.as_chunks::<2>();
    if !odd.is_empty() {
        return Err("an offset has no length");
    }
    let (mut end, mut sum, mut segments) = (0u64, 0u64, Vec::with_capacity(pairs.len()));
    for [offset, length] in pairs.iter().copied() {
        let next = offset.checked_add(length).ok_or("a segment is too large")?;
        if offset < end || next > size {
            return Err("segments overlap or lie beyond the end of the file");
        }
        (end, sum) = (next, sum + length);
        if length > 0 {
            segments.push(Segment { offset, length });
        }
    }
    if sum != stored {
        return Err("it speaks of more or less data than there is");
    }
    Ok(segments)
}
