//! From a compressed stream to the plain one.

use std::io::{BufRead, Chain, Cursor, Read};

use crate::error::{Error, Result};
use crate::gzip::Members;

/// How a layer or an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), of one or more members.
    Gzip,
    /// Zstandard (RFC 8878), of one or more frames.
    Zstd,
}

impl Compression {
    /// Tells the compression from the first bytes of a stream; four are enough, fewer mean [`Compression::None`].
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame (RFC 8878 section 3.1.2) may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The compression that a layer's media type promises (OCI image-spec, `media-types.md`; Docker's schema 2).
    /// `None` if the media type is not a layer's.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            _ => return None,
        })
    }
}

/// The plain stream behind `stream`, whose compression is told from its first bytes, whatever its media type says.
///
/// # Errors
/// Here: the stream cannot be read, or is compressed with bzip2 or xz. While reading: `InvalidData` if it is damaged,
/// `UnexpectedEof` if it ends in the middle of a member or frame, so a cut stream never looks complete.
pub fn decompress<'a, R: BufRead + Send + 'a>(stream: R) -> Result<Box<dyn Read + Send + 'a>> {
    let (compression, whole) = open(stream)?;
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(Members::new(whole)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(whole).map_err(Error::Decompress)?)
        }
    })
}

/// A stream of which the beginning was looked at.
type Begun<R> = Chain<Cursor<Vec<u8>>, R>;

/// Tells the compression and gives the stream back whole.
fn open<R: BufRead>(mut stream: R) -> Result<(Compression, Begun<R>)> {
    let mut start = Vec::with_capacity(6);
    stream.by_ref().take(6).read_to_end(&mut start).map_err(Error::Decompress)?;
    let compression = Compression::detect(&start);
    if start.starts_with(b"BZh") {
        return Err(Error::Compression("bzip2"));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Err(Error::Compression("xz"));
    }
    Ok((compression, Cursor::new(start).chain(stream)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(data: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(data).unwrap().read_to_end(&mut out)?;
        Ok(out)
    }

    /// Bytes that do not compress well, so that a cut falls into the data.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn reads_all_members_and_frames() {
        assert_eq!(plain(b"").unwrap(), b"");
        assert_eq!(plain(b"x").unwrap(), b"x");
        assert_eq!(plain(b"plain text").unwrap(), b"plain text");
        let two = [gzip(b"one,"), gzip(b""), gzip(b"two")].concat();
        assert_eq!(plain(&two).unwrap(), b"one,two");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [
            &skippable[..],
            &zstd::encode_all(&b"one,"[..], 3).unwrap(),
            &zstd::encode_all(&b"two"[..], 3).unwrap(),
        ]
        .concat();
        assert_eq!(plain(&frames).unwrap(), b"one,two");
    }

    #[test]
    fn a_cut_anywhere_is_an_error() {
        let data = noise(3000);
        for whole in [gzip(&data), zstd::encode_all(&data[..], 3).unwrap()] {
            assert_eq!(plain(&whole).unwrap(), data);
            for cut in 7..whole.len() {
                let error = plain(&whole[..cut]).expect_err("a cut stream must not end well");
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "cut at {cut}: {error}");
            }
        }
    }

    #[test]
    fn damage_and_garbage_are_errors() {
        let mut whole = gzip(&noise(3000));
        let last = whole.len() - 6;
        whole[last] ^= 1;
        assert!(plain(&whole).is_err(), "wrong CRC");
        assert!(plain(&[gzip(b"a"), b"garbage behind".to_vec()].concat()).is_err());
        assert!(matches!(decompress(&b"BZh91AY"[..]), Err(Error::Compression("bzip2"))));
        assert!(matches!(decompress(&b"\xfd7zXZ\0\0"[..]), Err(Error::Compression("xz"))));
    }

    #[test]
    fn media_types() {
        let of = Compression::from_media_type;
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd"), Some(Compression::Zstd));
        assert_eq!(of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Some(Compression::Gzip));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar"), Some(Compression::None));
        assert_eq!(of("application/vnd.oci.image.config.v1+json"), None);
    }
}
