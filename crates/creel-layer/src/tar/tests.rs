use std::io::{Read, Write};

use proptest::prelude::*;

use super::*;

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.entry(entry).unwrap();
        writer.write_all(data).unwrap();
    }
    let (bytes, length) = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).map_err(TarError::Read)?;
        entries.push((entry, data));
    }
    assert_eq!(reader.drain().unwrap(), bytes.len() as u64);
    Ok(entries)
}

/// Bytes for a name: anything but NUL, with slashes and things that are not UTF-8 among them.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(1..=255u8, 1..300),
        "[a-c/]{1,300}".prop_map(String::into_bytes),
        "(d{1,90}/){1,3}f{1,110}".prop_map(String::into_bytes),
    ]
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Fifo),
        name().prop_map(Kind::HardLink),
        name().prop_map(Kind::Symlink),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice(major, minor)),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice(major, minor)),
    ];
    let xattr = ("[a-z.]{1,40}", proptest::collection::vec(any::<u8>(), 0..200));
    let time = (-(1i64 << 60)..1 << 60, prop_oneof![Just(0), 0..1_000_000_000u32]);
    let data = proptest::collection::vec(any::<u8>(), 0..1500);
    let ids = (any::<u32>(), prop_oneof![any::<u32>(), 0..100_000u32]);
    let sparse = proptest::option::of(proptest::collection::vec((0..1u64 << 40, 1..100u64), 0..60));
    (
        name(),
        kind,
        0..=0o7777u32,
        ids,
        time,
        proptest::collection::btree_map(xattr.0, xattr.1, 0..4),
        data,
        sparse,
    )
        .prop_map(|(name, kind, mode, (uid, gid), (seconds, nanoseconds), xattrs, mut data, gaps)| {
            let mut entry = Entry::new(name, kind);
            (entry.mode, entry.uid, entry.gid) = (mode, u64::from(uid), u64::from(gid));
            entry.mtime = Timestamp { seconds, nanoseconds };
            entry.xattrs = xattrs.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect();
            if entry.kind != Kind::File {
                data.clear();
            }
            entry.size = data.len() as u64;
            if let (Kind::File, Some(gaps)) = (&entry.kind, gaps) {
                let (mut at, mut stored, mut segments) = (0, 0, Vec::new());
                for (gap, length) in gaps {
                    segments.push(Segment { offset: at + gap, length });
                    at += gap + length;
                    stored += length as usize;
                }
                data.resize(stored, 7);
                entry.size = at + 12_345;
                entry.sparse = Some(segments);
            }
            (entry, data)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(entry(), 0..5)) {
        prop_assert_eq!(read(&write(&entries)).unwrap(), entries);
    }

    #[test]
    fn a_cut_is_noticed_or_falls_between_entries(entries in proptest::collection::vec(entry(), 1..4), at in any::<prop::sample::Index>()) {
        let bytes = write(&entries);
        let cut = at.index(bytes.len());
        if let Ok(found) = read(&bytes[..cut]) {
            prop_assert!(cut % BLOCK == 0);
            prop_assert_eq!(&found[..], &entries[..found.len()]);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let _ = read(&bytes);
    }

    /// Random bytes rarely have a right checksum: damage what a writer wrote, and make the checksums right again.
    #[test]
    fn damage_is_read_or_refused(
        entries in proptest::collection::vec(entry(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        reseal in any::<bool>(),
    ) {
        let mut bytes = write(&entries);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if reseal {
            for block in bytes.as_chunks_mut::<BLOCK>().0 {
                if &block[257..262] == b"ustar" {
                    header::seal(block);
                }
            }
        }
        let _ = read(&bytes);
    }
}

#[test]
fn limits_hold() {
    let mut block = [0; BLOCK];
    block[0] = b'x';
    block[header::TYPE] = b'x';
    number::put_octal(&mut block[header::SIZE], MAX_EXTENDED + 1);
    header::seal(&mut block);
    let endless = block.chain(std::io::repeat(b'1'));
    assert!(matches!(
        Reader::new(std::io::BufReader::new(endless)).next_entry(),
        Err(TarError::ExtendedTooLong(_))
    ));

    let mut file = Entry::new("f", Kind::File);
    file.size = 100_000;
    let bytes = write(&[(file, vec![1; 100_000])]);
    let mut reader = Reader::with_limit(&bytes[..], Some(50_000));
    reader.next_entry().unwrap().unwrap();
    assert!(matches!(reader.next_entry(), Err(TarError::Limit(50_000))));
    let mut reader = Reader::with_limit(&bytes[..], Some(bytes.len() as u64));
    while reader.next_entry().unwrap().is_some() {}
    reader.drain().unwrap();
}

#[test]
fn ends_and_faults() {
    assert!(read(b"").unwrap().is_empty());
    assert!(read(&[0; 1024]).unwrap().is_empty());
    assert!(read(&[0; 512]).unwrap().is_empty());
    let one = write(&[(Entry::new("a", Kind::File), Vec::new())]);
    assert_eq!(read(&one[..512]).unwrap().len(), 1);
    let lone = [&[0; 512][..], &one].concat();
    assert!(matches!(read(&lone), Err(TarError::LoneZeroBlock(0))));
    let mut wrong = one.clone();
    wrong[0] = b'b';
    assert!(matches!(read(&wrong), Err(TarError::Checksum(0))));
    assert!(matches!(read(&one[..511]), Err(TarError::Truncated)));
    // What stands behind the end is nobody's entry.
    assert_eq!(read(&[&one[..], &one].concat()).unwrap().len(), 1);
}

#[test]
fn a_hard_link_has_no_data_whatever_its_size_says() {
    let mut bytes = write(&[
        (Entry::new("l", Kind::HardLink(b"f".to_vec())), Vec::new()),
        (Entry::new("next", Kind::File), Vec::new()),
    ]);
    number::put_octal(&mut bytes[header::SIZE], 512);
    header::seal(bytes.first_chunk_mut().unwrap());
    assert_eq!(read(&bytes).unwrap().len(), 2);
}

#[test]
fn writer_counts() {
    let mut file = Entry::new("f", Kind::File);
    file.size = 3;
    let mut writer = Writer::new(Vec::new());
    writer.entry(&file).unwrap();
    assert!(writer.write_all(b"four").is_err());
    assert!(writer.entry(&file).is_err());
    assert!(Writer::new(Vec::new()).entry(&Entry::new("a\0b", Kind::File)).is_err());
}
