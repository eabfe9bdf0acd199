//! Giving memory back to the kernel.

use std::io;

unsafe extern "C" {
    // Set by the linker (ld(1)): the first byte of the program's image and the one after its code.
    static __executable_start: u8;
    static etext: u8;
}

/// Lets go of the pages of this program's own code and constants that are mapped now (madvise(2),
/// `MADV_DONTNEED`). What is needed again comes back from the page cache by minor faults of a microsecond or less.
///
/// The kernel maps 16 pages around each one that is touched, or 2 MiB where the page cache holds a file in huge pages
/// (which is refused for this program from then on, `MADV_NOHUGEPAGE`), so a program that was busy once and then
/// waits for months keeps megabytes mapped that it never looks at again.
///
/// # Errors
/// The kernel's; nothing is lost then.
pub fn release_code() -> io::Result<()> {
    let page = rustix::param::page_size();
    let start = (&raw const __executable_start).addr();
    // The last page may be shared with what follows the code: it stays.
    let end = (&raw const etext).addr() / page * page;
    if !start.is_multiple_of(page) || end <= start {
        return Ok(());
    }
    let advise = |advice| {
        // SAFETY: the range lies between two symbols of this program's own image and covers only its read-only,
        // file backed segments: relocations are applied behind `etext`, so no page in it differs from the file, and
        // reading or executing a dropped page maps the same bytes again.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, advice) }
    };
    // EINVAL where the kernel knows no huge pages: then there are none to refuse.
    let _ = advise(libc::MADV_NOHUGEPAGE);
    let status = advise(libc::MADV_DONTNEED);
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less() {
        let before = resident_file_kib();
        release_code().unwrap();
        let after = resident_file_kib();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert_eq!(format!("{:?}", [1, 2, 3]), "[1, 2, 3]");
    }
}
