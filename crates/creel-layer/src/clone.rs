//! Copying a file's data with what the file system offers for it: sharing the blocks (FICLONE), copying in the kernel
//! (copy_file_range(2)), and reading and writing. Holes stay holes.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::fs;

/// For reading and writing: large enough that a call's cost does not matter, small enough for the cache.
const BUFFER: usize = 256 << 10;
/// The most bytes that one call is asked for.
const MOST: u64 = 1 << 30;

/// Copies files, and remembers what this file system has refused.
#[derive(Default)]
pub(crate) struct Cloner {
    no_sharing: bool,
    no_range: bool,
    buffer: Vec<u8>,
}

impl Cloner {
    /// Gives the empty file `to` the data of `from`, which has `size` bytes, `blocks` times 512 of which are stored.
    /// Returns how many bytes were copied, holes not counted.
    pub(crate) fn copy(
        &mut self,
        from: impl AsFd,
        to: &OwnedFd,
        size: u64,
        blocks: u64,
    ) -> rustix::io::Result<u64> {
        if size == 0 {
            return Ok(0);
        }
        if !self.no_sharing {
            match rustix::fs::ioctl_ficlone(to, &from) {
                Ok(()) => return Ok(size.min(blocks.saturating_mul(512))),
                Err(error) if is_refusal(error) => self.no_sharing = true,
                Err(error) => return Err(error),
            }
        }
        if blocks.saturating_mul(512) >= size {
            return self.range(&from, to, 0, size);
        }
        rustix::fs::ftruncate(to, size)?;
        let mut copied = 0;
        for segment in fs::data_segments(&from, size)? {
            copied += self.range(&from, to, segment.offset, segment.length)?;
        }
        Ok(copied)
    }

    fn range(&mut self, from: impl AsFd, to: &OwnedFd, offset: u64, length: u64) -> rustix::io::Result<u64> {
        let (mut at, end) = (offset, offset + length);
        while at < end && !self.no_range && length > BUFFER as u64 {
            let (mut read, mut written) = (at, at);
            let want = usize::try_from((end - at).min(MOST)).unwrap_or(BUFFER);
            match rustix::fs::copy_file_range(&from, Some(&mut read), to, Some(&mut written), want) {
                // Files of the kernel's own look empty to it: the loop below finds out.
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(Errno::INTR) => {}
                Err(error) if is_refusal(error) => self.no_range = true,
                Err(error) => return Err(error),
            }
        }
        self.buffer.resize(BUFFER, 0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let count = match rustix::io::pread(&from, &mut self.buffer[..want], at) {
                // Shorter than it was said to be.
                Ok(0) => return Err(Errno::IO),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            fs::write_at(to, &self.buffer[..count], at)?;
            at += count as u64;
        }
        Ok(length)
    }
}

/// What is said where a way of copying is not to be had between these two files.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::NOTSUP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM)
}
