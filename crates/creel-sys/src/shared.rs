//! A word of memory that another process changes, for when no system call may be made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::MemfdFlags;

/// A word at the beginning of a memory file: who has the file can write(2) it, and who has this sees it change without
/// asking the kernel. It stays mapped until the next execve or the end of the process.
#[derive(Debug)]
pub struct Word {
    word: &'static AtomicU32,
    file: OwnedFd,
}

impl Word {
    /// Makes one that is 0, in a new memory file (close-on-exec).
    ///
    /// # Errors
    /// The kernel's (memfd_create(2), mmap(2)).
    pub fn new() -> io::Result<Word> {
        let file = rustix::fs::memfd_create(c"creel", MemfdFlags::CLOEXEC)?;
        let size = size_of::<AtomicU32>();
        rustix::fs::ftruncate(&file, size as u64)?;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of this program.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is page-aligned, as large as the word, never unmapped, and only read here; others write
        // it through the file only, in one piece.
        let word = unsafe { &*at.cast::<AtomicU32>() };
        Ok(Word { word, file })
    }

    /// The file: bytes 0 to 3 are the word in the machine's order; what comes after them is free.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Spins until the word is not 0, without any system call; false when that took more than `turns`.
    pub fn wait(&self, turns: u64) -> bool {
        for _ in 0..turns {
            if self.word.load(Ordering::Acquire) != 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_write_to_the_file_is_seen() {
        let word = super::Word::new().unwrap();
        assert!(!word.wait(10));
        rustix::io::pwrite(word.file(), &1u32.to_ne_bytes(), 0).unwrap();
        assert!(word.wait(10));
    }
}
