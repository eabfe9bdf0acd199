//! SHA-256 of what passes by.

use std::io::{self, Read, Write};

use creel_types::Digest;
use ring::digest::{Context, SHA256};

/// Reads from another reader and computes the SHA-256 of all bytes that it handed out.
pub struct HashingReader<R> {
    inner: R,
    hash: Context,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read from `inner` from now on.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Context::new(&SHA256), bytes: 0 }
    }

    /// How many bytes have been read.
    pub fn count(&self) -> u64 {
        self.bytes
    }

    /// The digest of what has been read so far, and its length in bytes. To hash a whole stream, read it to its end first.
    pub fn finish(self) -> (Digest, u64) {
        (digest(self.hash), self.bytes)
    }

    /// The digest of what has been read so far; reading can go on.
    pub fn digest(&self) -> Digest {
        digest(self.hash.clone())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Writes to another writer and computes the SHA-256 of all bytes that it took.
pub struct HashingWriter<W> {
    inner: W,
    hash: Context,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what is written to `inner` from now on.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Context::new(&SHA256), bytes: 0 }
    }

    /// How many bytes have been written.
    pub fn count(&self) -> u64 {
        self.bytes
    }

    /// The writer below, the digest of what was written, and its length in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, digest(self.hash), self.bytes)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn digest(hash: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Digest::from_sha256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_empty_digest_and_counts() {
        let (digest, bytes) = HashingReader::new(&b""[..]).finish();
        assert_eq!(
            (digest.to_string().as_str(), bytes),
            ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
        );
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let (out, written, bytes) = writer.finish();
        let mut reader = HashingReader::new(&out[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!((reader.digest(), reader.count()), (written, bytes));
        assert_eq!(written.short(), "ba7816bf8f01");
    }
}
