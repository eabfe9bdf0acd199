//! The 512-byte header block: where its fields are, and its checksum.

use std::ops::Range;

use super::number;
use super::{BLOCK, TarError};

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// star has its access and change times in the rest of the prefix.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
/// Old GNU format: four sparse segments, a flag for more, the whole size.
pub(super) const GNU_SPARSE: Range<usize> = 386..482;
pub(super) const GNU_EXTENDED: usize = 482;
pub(super) const GNU_REALSIZE: Range<usize> = 483..495;

/// Magic and version of POSIX ustar, which pax keeps.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// A header block, and where in the archive it begins.
pub(super) struct Header {
    pub(super) block: [u8; BLOCK],
    pub(super) at: u64,
}

impl Header {
    /// Checks the checksum: the sum of all bytes, its own eight taken as spaces. Some old tars summed signed bytes.
    pub(super) fn verify(&self) -> Result<(), TarError> {
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (index, byte) in self.block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        match number::parse(&self.block[CHECKSUM]) {
            Some(sum) if sum == unsigned || sum == signed => Ok(()),
            _ => Err(TarError::Checksum(self.at)),
        }
    }

    /// A field of text: up to its first NUL, or all of it.
    pub(super) fn text(&self, range: Range<usize>) -> &[u8] {
        let field = &self.block[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        &field[..end]
    }

    /// A number that may be negative.
    pub(super) fn signed(&self, range: Range<usize>, what: &'static str) -> Result<i64, TarError> {
        number::parse(&self.block[range]).ok_or(TarError::Field { what, at: self.at })
    }

    /// A number that must not be negative.
    pub(super) fn unsigned(&self, range: Range<usize>, what: &'static str) -> Result<u64, TarError> {
        u64::try_from(self.signed(range, what)?).map_err(|_| TarError::Field { what, at: self.at })
    }

    /// The name with the prefix that ustar and star may have split off.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let magic = &self.block[MAGIC];
        let prefix = if magic == GNU || !magic.starts_with(b"ustar\0") {
            &[][..]
        } else if &self.block[STAR_TRAILER] == b"tar\0" {
            self.text(STAR_PREFIX)
        } else {
            self.text(PREFIX)
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    /// Whether this is GNU's own format, the only one that has old sparse files.
    pub(super) fn is_gnu(&self) -> bool {
        &self.block[MAGIC] == GNU
    }
}

/// Puts the checksum into a finished header.
pub(super) fn seal(block: &mut [u8; BLOCK]) {
    block[CHECKSUM].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    // Six digits, NUL, space: as POSIX wants it and every tar writes it.
    number::put_octal(&mut block[148..155], sum);
    block[155] = b' ';
}
