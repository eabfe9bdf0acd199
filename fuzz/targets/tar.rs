//! The tar reader, on bytes as they are and with the checksums of their headers made right: it ends, takes no more
//! than there is, and what it read comes back when it is written.
#![no_main]

use std::io::{Read, Write};

use creel_layer::tar::{BLOCK, Entry, Kind, Reader, TarError, Writer};
use libfuzzer_sys::fuzz_target;

/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    for _ in 0..32 {
        match read(&bytes) {
            Err(TarError::Checksum(at)) => seal(&mut bytes[at as usize..][..BLOCK]),
            Err(_) => return,
            Ok(entries) => return compare(&bytes, &entries),
        }
    }
});

fn seal(header: &mut [u8]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::with_limit(bytes, Some(bytes.len() as u64));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        check(&entry);
        let mut data = Vec::new();
        reader.read_to_end(&mut data).map_err(TarError::Read)?;
        assert_eq!(data.len() as u64, entry.stored());
        entries.push((entry, data));
        assert!(reader.position() <= bytes.len() as u64);
        assert!(entries.len() <= bytes.len() / BLOCK, "an entry without a header");
    }
    assert_eq!(reader.drain()?, bytes.len() as u64);
    assert!(reader.next_entry()?.is_none());
    Ok(entries)
}

fn check(entry: &Entry) {
    assert!(!entry.name.contains(&0));
    if let Kind::HardLink(link) | Kind::Symlink(link) = &entry.kind {
        assert!(!link.contains(&0));
    }
    assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
    assert!(entry.kind == Kind::File || entry.size == 0 && entry.sparse.is_none());
    let mut end = 0;
    for segment in entry.sparse.iter().flatten() {
        assert!(segment.offset >= end && segment.length > 0);
        end = segment.offset.checked_add(segment.length).expect("the end of a segment");
    }
    assert!(end <= entry.size);
    for (index, (name, _)) in entry.xattrs.iter().enumerate() {
        assert!(!name.is_empty() && !name.contains(&0));
        assert!(entry.xattrs[..index].iter().all(|(other, _)| other != name));
    }
}

fn compare(bytes: &[u8], entries: &[(Entry, Vec<u8>)]) {
    // Data that nobody reads is skipped to the same effect.
    let mut reader = Reader::new(bytes);
    for (entry, _) in entries {
        assert_eq!(reader.next_entry().expect("it was read before").as_ref(), Some(entry));
    }
    assert!(reader.next_entry().expect("it was read before").is_none());

    // A limit one byte too small is noticed.
    if let Some(limit) = bytes.len().checked_sub(1) {
        let mut reader = Reader::with_limit(bytes, Some(limit as u64));
        let all = |reader: &mut Reader<&[u8]>| {
            while reader.next_entry()?.is_some() {}
            reader.drain()
        };
        assert!(matches!(all(&mut reader), Err(TarError::Limit(_))));
    }

    // A sparse file without a name has none in the one format for sparse files that is written.
    if entries.iter().any(|(entry, _)| entry.name.is_empty() && entry.sparse.is_some()) {
        return;
    }
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.entry(entry).expect("what was read can be written");
        writer.write_all(data).expect("as much data as was read");
    }
    let (written, length) = writer.finish().expect("all data was written");
    assert_eq!(written.len() as u64, length);
    assert_eq!(read(&written).expect("what was written can be read"), entries);
}
