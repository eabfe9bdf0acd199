//! Decompression: what is not compressed passes as it is, what we compress comes back whole, and a cut stream is
//! never taken for a whole one.
#![no_main]

use std::io::{self, BufReader, Read, Write};

use creel_layer::{Compression, decompress};
use libfuzzer_sys::fuzz_target;

/// A little input may become very much output: as its callers do, read no more than this.
const LIMIT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let whole = plain(data, 64);
    let bytewise = plain(data, 1);
    assert_eq!(whole.is_ok(), bytewise.is_ok(), "{whole:?}, in small pieces {bytewise:?}");
    if let (Ok(whole), Ok(bytewise)) = (&whole, &bytewise) {
        assert_eq!(whole, bytewise);
    }
    let refused = data.starts_with(b"BZh") || data.starts_with(b"\xfd7zXZ\0");
    if Compression::detect(data) == Compression::None && !refused {
        assert_eq!(whole.expect("nothing to be wrong with"), &data[..data.len().min(LIMIT as usize)]);
    }

    let packed = if data.len().is_multiple_of(2) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data).and_then(|()| gzip.finish())
    } else {
        zstd::encode_all(data, 1)
    };
    let packed = packed.expect("a write into memory");
    assert_eq!(plain(&packed, 64).expect("a whole stream"), data);
    // From here on the first bytes tell what it is.
    let cut = 7 + data.first().map_or(0, |byte| usize::from(*byte)) % (packed.len() - 7);
    let error = plain(&packed[..cut], 64).expect_err("a cut stream");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}: {error}");
});

fn plain(data: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let stream = BufReader::with_capacity(piece, data);
    let mut out = Vec::new();
    decompress(stream).map_err(io::Error::other)?.take(LIMIT).read_to_end(&mut out)?;
    Ok(out)
}
