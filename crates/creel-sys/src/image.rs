//! The file that this process is executed from, and how to let go of it without executing anything (Linux 5.9).
//!
//! `/proc/self/exe` leads to that file for as long as the process lives, and whatever the process executes next may be a
//! link to it. The kernel lets a process name another file there (prctl(2), PR_SET_MM_MAP), once nothing of the old one is
//! mapped by its name any more. So the segments are mapped again, each from the same file by way of another mount: the
//! bytes stay the same, the name is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{check, check_int, kernelfs};

/// Where `/proc/self/stat` has the bounds that [`Map`] repeats, counted as in proc_pid_stat(5).
const STAT: [(usize, usize); 10] =
    [(26, 0), (27, 1), (45, 2), (46, 3), (47, 4), (28, 6), (48, 7), (49, 8), (50, 9), (51, 10)];
/// The end of the heap, which procfs does not show.
const BRK: usize = 5;

const PR_SET_MM: libc::c_int = 35;
const PR_SET_MM_MAP: libc::c_ulong = 14;

/// `struct prctl_mm_map` of `linux/prctl.h`; the bounds are code, data, heap, stack, arguments and environment.
#[repr(C)]
#[derive(Debug, Default)]
struct Map {
    bounds: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// One mapping of the program's file.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    start: usize,
    length: usize,
    protection: libc::c_int,
    offset: i64,
}

/// The mappings of a file in the text of `/proc/self/maps` (proc_pid_maps(5)).
fn segments(maps: &str, device: u64, inode: u64) -> Vec<Segment> {
    let device = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    let read = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let flags = words.next()?;
        let offset = i64::from_str_radix(words.next()?, 16).ok()?;
        (words.next()? == device && words.next()?.parse() == Ok(inode)).then_some(())?;
        let bit = |letter, bit| if flags.contains(letter) { bit } else { 0 };
        let protection = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC);
        Some(Segment { start, length: end.checked_sub(start)?, protection, offset })
    };
    maps.lines().filter_map(read).collect()
}

/// The bounds of this process's memory, in the order of [`Map`].
fn bounds(stat: &str, brk: u64) -> Option<[u64; 11]> {
    // The second field is a name with any characters, in parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let mut bounds = [0; 11];
    for (field, at) in STAT {
        bounds[at] = fields.get(field - 3)?.parse().ok().filter(|bound| *bound > 0)?;
    }
    bounds[BRK] = brk;
    Some(bounds)
}

/// Lets go of the file that this process is executed from: from here on `/proc/self/exe` leads to `instead`, an executable
/// file. `same` is the program's file, opened for reading by way of a mount that it was not executed from (a copy of the
/// mount, open_tree(2)). Children inherit it. Allocates.
///
/// The caller has one thread and has its program's file at most once in each place, as every program that was executed
/// has; it must not have been overwritten meanwhile.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, EINVAL from a kernel without CONFIG_CHECKPOINT_RESTORE; else the
/// kernel's. The process goes on as it was then.
pub fn let_go(same: BorrowedFd<'_>, instead: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(same)?;
    let found = segments(&kernelfs::read_to_string("/proc/self/maps")?, stat.st_dev, stat.st_ino);
    if found.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOEXEC));
    }
    let changed = File::open("/proc/self/pagemap")?;
    for segment in &found {
        map_again(segment, same, &changed)?;
    }
    // SAFETY: brk(0) changes nothing; the kernel answers with the end of the heap.
    let brk = check(unsafe { libc::syscall(libc::SYS_brk, 0) })?.cast_unsigned();
    let bounds =
        bounds(&kernelfs::read_to_string("/proc/self/stat")?, brk).ok_or(io::ErrorKind::InvalidData)?;
    let exe_fd = instead.as_raw_fd().cast_unsigned();
    let map = Map { bounds, exe_fd, ..Map::default() };
    // SAFETY: the kernel reads the structure, which is of the size that is named, and compares the bounds with the
    // mappings; they are the ones that are in force.
    check_int(unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP, &raw const map, size_of::<Map>(), 0) })?;
    Ok(())
}

/// Bits of a page in `/proc/self/pagemap`: it is in memory, it is in swap, and it is the file's (pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_THE_FILE: u64 = 1 << 61;

/// Maps one segment again from `file`, with the pages that this process has changed.
fn map_again(segment: &Segment, file: BorrowedFd<'_>, pagemap: &File) -> io::Result<()> {
    let Segment { start, length, protection, offset } = *segment;
    let page = rustix::param::page_size();
    let code = protection & libc::PROT_EXEC != 0;
    let first = if code { protection } else { libc::PROT_READ | libc::PROT_WRITE };
    // SAFETY: a new private mapping at a place of the kernel's choice touches no memory of this program.
    let place = unsafe {
        libc::mmap(std::ptr::null_mut(), length, first, libc::MAP_PRIVATE, file.as_raw_fd(), offset)
    };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let result = (|| {
        if !code {
            let mut entries = vec![0u8; length / page * 8];
            pagemap.read_exact_at(&mut entries, (start / page * 8) as u64)?;
            for (number, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
                let entry = u64::from_ne_bytes(*entry);
                if entry & (PRESENT | SWAPPED) == 0 || entry & OF_THE_FILE != 0 {
                    continue;
                }
                let from = std::ptr::with_exposed_provenance::<u8>(start + number * page);
                // SAFETY: both are whole pages of mappings of the same length, the one readable, the other fresh and
                // writable, and they do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(from, place.cast::<u8>().add(number * page), page) };
            }
            if protection != first {
                // SAFETY: the fresh mapping is not in use yet.
                check_int(unsafe { libc::mprotect(place, length, protection) })?;
            }
        }
        let target = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start);
        // SAFETY: the fresh mapping takes the place of the old one in one step and holds the same bytes with the same
        // protection, so that code that runs there and data that is used there go on as before. Nothing is written to
        // the segment between the copying above and this call: there is one thread, and what it does between works on
        // the stack and the heap.
        let moved =
            unsafe { libc::mremap(place, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, target) };
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    })();
    if result.is_err() {
        // SAFETY: the fresh mapping is nowhere in use.
        unsafe { libc::munmap(place, length) };
    }
    result
}

/// The descriptor that [`keep`] got, or -1.
static KEPT: AtomicI32 = AtomicI32::new(-1);

/// Keeps the descriptor of a mount that is attached nowhere for [`close_kept`]: with the last one the kernel takes the mount
/// apart and waits for an RCU grace period, a fifth of a millisecond that had better pass while others are at work.
pub fn keep(mount: OwnedFd) {
    close(KEPT.swap(mount.into_raw_fd(), Ordering::Relaxed));
}

/// The number of the descriptor that is kept.
pub fn kept() -> Option<RawFd> {
    Some(KEPT.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Closes the descriptor that is kept, if there is one: in a child, which has a copy, right after it is cloned.
pub fn close_kept() {
    close(KEPT.swap(-1, Ordering::Relaxed));
}

fn close(kept: RawFd) {
    if kept >= 0 {
        // SAFETY: it came from an OwnedFd and was taken out of the static's hands just now.
        drop(unsafe { OwnedFd::from_raw_fd(kept) });
    }
}

/// A descriptor's file as a program that nobody can be hurt by: empty, and this process's alone (allocates).
///
/// # Errors
/// The kernel's (memfd_create(2)); EACCES where files in memory cannot be executed (`vm.memfd_noexec`).
pub fn nothing() -> io::Result<impl AsFd> {
    let file = rustix::fs::memfd_create(c"creel", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o555))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_one_file() {
        let maps = "\
00200000-004f7000 r--p 00000000 fe:00 1311  /usr/bin/creel
004f7000-01051000 r-xp 002f6000 fe:00 1311  /usr/bin/creel
01051000-010d1000 rw-p 00e4f000 fe:00 1311  /usr/bin/creel (deleted)
010da000-010e3000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 r--p 00000000 fe:01 1311  /other
garbage
";
        let found = segments(maps, libc::makedev(0xfe, 0), 1311);
        let starts: Vec<_> = found.iter().map(|s| (s.start, s.length, s.protection, s.offset)).collect();
        assert_eq!(
            starts,
            [
                (0x200_000, 0x2f7_000, libc::PROT_READ, 0),
                (0x4f7_000, 0xb5a_000, libc::PROT_READ | libc::PROT_EXEC, 0x2f6_000),
                (0x1_051_000, 0x80_000, libc::PROT_READ | libc::PROT_WRITE, 0xe4f_000),
            ]
        );
    }

    #[test]
    fn what_is_kept_is_closed_once() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = theirs.as_raw_fd();
        keep(theirs.into());
        assert_eq!(kept(), Some(number));
        close_kept();
        close_kept();
        assert_eq!(kept(), None);
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0, "the other end is closed");
    }

    #[test]
    fn bounds_of_the_own_memory() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let found = bounds(&stat, 7).unwrap();
        assert!(found[0] < found[1] && found[7] < found[8] && found[9] <= found[10], "{found:?}");
        assert_eq!(found[BRK], 7);
        assert!(bounds("1 (a) b) S 1 2", 0).is_none());
    }
}
