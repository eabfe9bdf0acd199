//! What tells one build of this program from every other.

use std::sync::OnceLock;

/// `NT_GNU_BUILD_ID` of `elf.h`.
const NT_GNU_BUILD_ID: u32 = 3;

/// The identity that the linker gave to this program (ld(1), `--build-id`); `None` if it gave none.
pub fn build_id() -> Option<&'static [u8]> {
    static FOUND: OnceLock<Option<&'static [u8]>> = OnceLock::new();
    *FOUND.get_or_init(|| notes().find_map(|notes| among(notes)))
}

/// The notes that the kernel has mapped with the program.
fn notes() -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: getauxval(3) reads what the kernel has put on the stack; 0 where it has put nothing.
    let (at, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    let headers = match std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(at as usize) {
        none if none.is_null() => &[],
        // SAFETY: that many program headers of this size lie there, mapped from the executable and never unmapped or
        // written (getauxval(3); this program is of 64 bits).
        headers => unsafe { std::slice::from_raw_parts(headers, count as usize) },
    };
    // By how much everything lies elsewhere than it was linked to: nothing, unless position-independent. Every linker puts
    // the program headers right after the file's own, with which the first segment begins.
    let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0);
    let moved = first.map(|first| at.wrapping_sub(size_of::<libc::Elf64_Ehdr>() as u64 + first.p_vaddr));
    let moved = moved.filter(|moved| moved.is_multiple_of(4096));
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE);
    notes.zip(std::iter::repeat(moved)).filter_map(|(note, moved)| {
        let start = std::ptr::with_exposed_provenance::<u8>(note.p_vaddr.wrapping_add(moved?) as usize);
        // SAFETY: the linker puts notes into a segment that is loaded, readable and never written, of this size.
        Some(unsafe { std::slice::from_raw_parts(start, note.p_memsz as usize) })
    })
}

/// The build id among notes (elf(5), "Notes").
fn among(mut notes: &[u8]) -> Option<&[u8]> {
    while let Some((header, rest)) = notes.split_first_chunk::<12>() {
        let word = |at: usize| header[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
        let (name_size, size, kind) = (word(0) as usize, word(4) as usize, word(8));
        let (name, rest) = rest.split_at_checked(name_size.checked_next_multiple_of(4)?)?;
        let (padded, after) = rest.split_at_checked(size.checked_next_multiple_of(4)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return padded.get(..size).filter(|id| !id.is_empty());
        }
        notes = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(kind: u32, name: &[u8], text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, text.len() as u32, kind] {
            bytes.extend(word.to_ne_bytes());
        }
        for part in [name, text] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn one_among_several() {
        let all =
            [note(1, b"GNU\0", &[7; 16]), note(3, b"Go\0", b"no"), note(3, b"GNU\0", b"abcde")].concat();
        assert_eq!(among(&all), Some(&b"abcde"[..]));
        assert_eq!(among(&all[..all.len() - 8]), None);
    }

    #[test]
    fn own() {
        let id = build_id().unwrap();
        let file = std::fs::read("/proc/self/exe").unwrap();
        let name = [b"\x03\0\0\0GNU\0", id].concat();
        assert!(file.windows(name.len()).any(|bytes| bytes == name), "{id:02x?}");
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_panic(bytes: Vec<u8>) {
            among(&bytes);
        }
    }
}
