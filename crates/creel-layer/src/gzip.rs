//! gzip members (RFC 1952) around zlib-rs's inflate.
//!
//! flate2 has a reader of its own. This one computes the checksum by another library (the one that flate2 takes was measured
//! at a tenth of unpacking a layer) and hands what is inflated straight into the caller's buffer.

use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

/// Flags of a member's header (RFC 1952, section 2.3.1).
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Where in a member the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first member.
    Start,
    /// In a member's data.
    Data,
    /// Behind a member: another one may follow.
    Between,
}

/// The plain content of one or more gzip members.
pub(crate) struct Members<R> {
    inner: R,
    inflate: Decompress,
    checksum: Hasher,
    at: At,
}

impl<R: BufRead> Members<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, inflate: Decompress::new(false), checksum: Hasher::new(), at: At::Start }
    }

    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.inner.read_exact(&mut fixed)?;
        let flags = fixed[3];
        if !fixed.starts_with(&[0x1f, 0x8b, 8]) || flags & RESERVED != 0 {
            return Err(damaged("what stands there is no gzip member"));
        }
        if flags & EXTRA != 0 {
            let mut length = [0; 2];
            self.inner.read_exact(&mut length)?;
            self.skip(u16::from_le_bytes(length).into())?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                while self.byte()? != 0 {}
            }
        }
        self.skip(if flags & HEADER_CRC != 0 { 2 } else { 0 })
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.inner.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The checksum, and the length of the data modulo 2³².
    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.inner.read_exact(&mut trailer)?;
        let [c0, c1, c2, c3, l0, l1, l2, l3] = trailer;
        if u32::from_le_bytes([c0, c1, c2, c3]) != std::mem::take(&mut self.checksum).finalize() {
            return Err(damaged("a gzip member has another checksum than it says"));
        }
        if u32::from_le_bytes([l0, l1, l2, l3]) != self.inflate.total_out() as u32 {
            return Err(damaged("a gzip member has another length than it says"));
        }
        self.inflate.reset(false);
        Ok(())
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.at {
                At::Between if self.inner.fill_buf()?.is_empty() => return Ok(0),
                At::Start | At::Between => {
                    self.header()?;
                    self.at = At::Data;
                }
                At::Data => {
                    let input = self.inner.fill_buf()?;
                    let is_end = input.is_empty();
                    let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
                    let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
                    let status = status.map_err(|error| damaged(&error.to_string()))?;
                    let taken = (self.inflate.total_in() - taken) as usize;
                    let given = (self.inflate.total_out() - given) as usize;
                    self.inner.consume(taken);
                    self.checksum.update(&buffer[..given]);
                    if status == Status::StreamEnd {
                        self.trailer()?;
                        self.at = At::Between;
                    } else if given == 0 && is_end {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    if given > 0 {
                        return Ok(given);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder};
    use proptest::prelude::*;

    use super::*;

    fn plain(packed: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Members::new(BufReader::with_capacity(at_once, packed)).read_to_end(&mut out)?;
        Ok(out)
    }

    fn member(content: &[u8], builder: GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn headers_of_every_form_are_skipped() {
        let builder = || GzBuilder::new().filename("a name").comment("and more").extra(vec![7; 300]).mtime(5);
        let mut packed = member(b"one,", builder());
        packed.extend(member(b"", GzBuilder::new()));
        packed.extend(member(b"two", builder()));
        // With a checksum of the header, which no writer here makes.
        let mut third = member(b",three", GzBuilder::new());
        third[3] |= HEADER_CRC;
        third.splice(10..10, [0, 0]);
        packed.extend(third);
        for at_once in [1, 2, 7, 4096] {
            assert_eq!(plain(&packed, at_once).unwrap(), b"one,two,three");
        }
        packed[3] |= 0x80;
        assert!(plain(&packed, 64).is_err());
    }

    #[test]
    fn a_wrong_checksum_and_a_wrong_length_are_damage() {
        let packed = member(b"content", GzBuilder::new());
        assert_eq!(plain(&packed, 64).unwrap(), b"content");
        for behind in [8, 4] {
            let mut packed = packed.clone();
            let at = packed.len() - behind;
            packed[at] ^= 1;
            assert_eq!(plain(&packed, 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    proptest! {
        /// Both readers agree, also on what is cut.
        #[test]
        fn reads_what_flate2_reads(
            parts in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..3000), 1..4),
            at_once in 1usize..5000,
            cut in 0usize..4000,
        ) {
            let packed: Vec<u8> = parts.iter().flat_map(|part| member(part, GzBuilder::new())).collect();
            prop_assert_eq!(plain(&packed, at_once).unwrap(), parts.concat());
            let cut = &packed[..cut.min(packed.len())];
            let mut theirs = Vec::new();
            let expected = MultiGzDecoder::new(cut).read_to_end(&mut theirs);
            match (plain(cut, at_once), expected) {
                (Ok(ours), Ok(_)) => prop_assert_eq!(ours, theirs),
                (Err(ours), Err(theirs)) => prop_assert_eq!(ours.kind(), theirs.kind()),
                (ours, theirs) => prop_assert!(false, "{ours:?} {theirs:?}"),
            }
        }
    }
}
