//! The EROFS writer, on archives with the checksums of their headers made right: what is indexed makes an image, the same
//! each time, in which every directory's names are in order and once, every number leads to an inode of the kind that the
//! name says, and every content lies within the archive.
#![no_main]

use creel_layer::Limits;
use creel_layer::erofs::index;
use creel_layer::tar::{BLOCK, Reader, TarError};
use libfuzzer_sys::fuzz_target;

/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    for _ in 0..32 {
        match broken(&bytes) {
            Some(at) => seal(&mut bytes[at..][..BLOCK]),
            None => break,
        }
    }
    let limits = Limits { bytes: Some(bytes.len() as u64), ..Limits::default() };
    let Ok(Ok(indexed)) = index(&bytes[..], &limits, |_| true) else { return };
    let length = bytes.len() as u64;
    let mut image = Vec::new();
    assert_eq!(indexed.tree.write(&mut image, [3; 16], length).expect("memory"), image.len() as u64);
    let mut again = Vec::new();
    indexed.tree.write(&mut again, [3; 16], length).expect("memory");
    assert!(image == again, "the image differs from time to time");
    let root = u64::from(u16::from_le_bytes(image[1038..1040].try_into().expect("two bytes")));
    let mut waiting = vec![(root, root, 2)];
    let mut found = 0;
    while let Some((number, parent, kind)) = waiting.pop() {
        found += 1;
        assert!(found <= 3 * bytes.len() as u64 / BLOCK as u64 + 3, "there are more files than headers");
        visit(&image, length, number, parent, kind, &mut waiting);
    }
});

/// The header whose checksum is wrong.
fn broken(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Err(TarError::Checksum(at)) => return Some(at as usize),
            _ => return None,
        }
    }
}

fn seal(header: &mut [u8]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn visit(image: &[u8], archive: u64, at: u64, parent: u64, kind: u8, waiting: &mut Vec<(u64, u64, u8)>) {
    let inode = &image[at as usize * 32..][..64];
    let (mode, size) = (number(&inode[4..6]), number(&inode[8..16]));
    let expected = match mode >> 12 {
        0o10 => 1,
        0o4 => 2,
        0o2 => 3,
        0o6 => 4,
        0o1 => 5,
        0o12 => 7,
        other => panic!("mode {other:o}"),
    };
    assert_eq!(kind, expected);
    let units = number(&inode[2..4]);
    let attributes = if units == 0 { 0 } else { 12 + 4 * (units - 1) };
    if kind == 1 && size > 0 {
        let chunk = (at * 32 + 64 + attributes).next_multiple_of(8) as usize;
        let (device, block) = (number(&image[chunk + 2..][..2]), number(&image[chunk + 4..][..4]));
        assert_eq!(device, 1);
        assert!(block * 512 + size <= archive, "content beyond the archive");
        assert!(512u64 << (inode[16] & 0x1f) >= size, "the chunk is too small");
    }
    if kind != 2 {
        return;
    }
    let start = number(&inode[16..20]) as usize * 512;
    let data = &image[start..][..size as usize];
    let mut last: Option<Vec<u8>> = None;
    let mut own = 0;
    for block in data.chunks(512) {
        let count = number(&block[8..10]) as usize / 12;
        for index in 0..count {
            let entry = &block[index * 12..][..12];
            let from = number(&entry[8..10]) as usize;
            let to = match index + 1 < count {
                true => number(&block[index * 12 + 20..][..2]) as usize,
                false => block.len(),
            };
            let name: Vec<u8> = block[from..to].iter().copied().take_while(|byte| *byte != 0).collect();
            assert!(!name.is_empty() && last.as_ref().is_none_or(|last| *last < name), "names out of order");
            match &name[..] {
                b"." => assert_eq!((number(&entry[..8]), own), (at, own)),
                b".." => assert_eq!(number(&entry[..8]), parent),
                _ => waiting.push((number(&entry[..8]), at, entry[10])),
            }
            own += u32::from(name == b"." || name == b"..");
            last = Some(name);
        }
    }
    assert_eq!(own, 2);
}
