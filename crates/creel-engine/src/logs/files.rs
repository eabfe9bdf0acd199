//! The files of one log in their order: `x-json.log.2`, `x-json.log.1`, `x-json.log`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::line::{Filter, Shown};
use crate::error::{Error, Result};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// A line longer than this is no line of a log; the shim splits what programs write at 16 KiB.
const LONGEST: usize = 1 << 20;
/// So many rotated files at most are looked for.
const MOST_FILES: u32 = 1000;

/// Reads a log on and on, over rotations.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    filter: Filter,
    /// What is still to be read, the oldest first; the first one is being read.
    files: VecDeque<File>,
    inode: u64,
    position: u64,
    pending: Vec<u8>,
    past_until: bool,
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    name.into()
}

fn inode(file: &File) -> Result<u64> {
    file.metadata().map(|meta| meta.ino()).map_err(|e| Error::io("reading the log's attributes", e))
}

/// Opens the files that are there, the newest first, up to one whose inode is `known` (which is not returned).
fn open_until(path: &Path, known: Option<u64>) -> Result<(Vec<File>, bool)> {
    let mut files: Vec<File> = Vec::new();
    let mut seen = Vec::new();
    for n in 0..MOST_FILES {
        let name = numbered(path, n);
        let file = match File::open(&name) {
            Ok(file) => file,
            // Between two renames of a rotation the newest name may be free for a moment.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && n == 0 => continue,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            Err(e) => return Err(Error::io(format_args!("opening the log {}", name.display()), e)),
        };
        let id = inode(&file)?;
        if Some(id) == known {
            return Ok((files, true));
        }
        // A rotation that went on meanwhile shows the same file under its next name.
        if !seen.contains(&id) {
            seen.push(id);
            files.push(file);
        }
    }
    Ok((files, false))
}

impl Reader {
    pub(super) fn open(path: &Path, filter: Filter) -> Result<Self> {
        let (mut files, _) = open_until(path, None)?;
        let mut position = 0;
        if let Some(lines) = filter.options.tail {
            let (keep, start) = tail(&files, lines)?;
            files.truncate(keep);
            position = start;
        }
        files.reverse();
        let mut reader = Self {
            path: path.to_owned(),
            filter,
            files: files.into(),
            inode: 0,
            position: 0,
            pending: Vec::new(),
            past_until: false,
        };
        reader.begin(position)?;
        Ok(reader)
    }

    /// Whether all that is wanted was shown.
    pub(super) fn is_past_until(&self) -> bool {
        self.past_until
    }

    fn begin(&mut self, position: u64) -> Result<()> {
        if let Some(file) = self.files.front_mut() {
            file.seek(SeekFrom::Start(position)).map_err(|e| Error::io("reading the log", e))?;
            self.inode = inode(file)?;
            self.position = position;
        }
        Ok(())
    }

    /// The next piece of what is to be shown, perhaps empty; `None` at the end of what is there. With `last`, an
    /// unfinished line at the very end is shown if it can be.
    pub(super) fn next_batch(&mut self, last: bool) -> Result<Option<Bytes>> {
        if self.past_until {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK];
        let n = match self.files.front_mut() {
            Some(file) => file.read(&mut chunk).map_err(|e| Error::io("reading the log", e))?,
            None => 0,
        };
        if n == 0 {
            return if self.advance()? { Ok(Some(Bytes::new())) } else { Ok(self.unfinished(last)) };
        }
        self.position += n as u64;
        self.pending.extend_from_slice(&chunk[..n]);
        let mut out = Vec::new();
        let mut begin = 0;
        while let Some(at) = self.pending[begin..].iter().position(|b| *b == b'\n') {
            let line = &self.pending[begin..begin + at];
            begin += at + 1;
            if !line.is_empty() && self.filter.show(line, &mut out) == Shown::PastUntil {
                self.past_until = true;
                break;
            }
        }
        self.pending.drain(..begin);
        if self.pending.len() > LONGEST {
            self.pending.clear();
        }
        Ok(Some(out.into()))
    }

    fn unfinished(&mut self, last: bool) -> Option<Bytes> {
        if !last || self.pending.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        let _ = self.filter.show(&pending, &mut out);
        Some(out.into())
    }

    /// At the end of a file: goes on to the next, or back to the beginning of one that was emptied in place.
    fn advance(&mut self) -> Result<bool> {
        if self.files.len() > 1 {
            self.files.pop_front();
            self.begin(0)?;
            return Ok(true);
        }
        let Some(current) = self.files.front() else {
            let (mut files, _) = open_until(&self.path, None)?;
            files.reverse();
            self.files = files.into();
            self.begin(0)?;
            return Ok(!self.files.is_empty());
        };
        let size = current.metadata().map_err(|e| Error::io("reading the log's attributes", e))?.len();
        if size < self.position {
            self.pending.clear();
            self.begin(0)?;
            return Ok(true);
        }
        if std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            return Ok(false);
        }
        let (newer, _) = open_until(&self.path, Some(self.inode))?;
        if newer.is_empty() {
            return Ok(false);
        }
        // What came into the current file before it was renamed is read first: it is followed by the newer ones.
        self.files.extend(newer.into_iter().rev());
        Ok(true)
    }
}

/// Finds the last `lines` lines in files, the newest first: how many files are needed, and the offset in the oldest.
fn tail(files: &[File], lines: usize) -> Result<(usize, u64)> {
    let mut left = lines;
    for (index, file) in files.iter().enumerate() {
        let failed = |e| Error::io("reading the log from its end", e);
        let mut end = file.metadata().map_err(failed)?.len();
        if left == 0 {
            return Ok((index + 1, end));
        }
        let mut chunk = vec![0; CHUNK];
        let mut last = true;
        while end > 0 {
            let begin = end.saturating_sub(CHUNK as u64);
            let piece = &mut chunk[..(end - begin) as usize];
            file.read_exact_at(piece, begin).map_err(failed)?;
            for (at, byte) in piece.iter().enumerate().rev() {
                if *byte != b'\n' {
                    last = false;
                    continue;
                }
                // The newline at the very end of the file ends its last line and begins none.
                if std::mem::take(&mut last) {
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return Ok((index + 1, begin + at as u64 + 1));
                }
            }
            end = begin;
        }
        if file.metadata().map_err(failed)?.len() > 0 {
            left -= 1;
            if left == 0 {
                return Ok((index + 1, 0));
            }
        }
    }
    Ok((files.len(), 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::options::LogOptions;
    use proptest::prelude::*;

    fn line(text: &str) -> String {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}}\n")
    }

    fn filter(tail: Option<usize>) -> Filter {
        Filter { options: LogOptions { stdout: true, tail, ..LogOptions::default() }, framed: false }
    }

    fn drain(reader: &mut Reader) -> String {
        let mut text = String::new();
        while let Some(bytes) = reader.next_batch(true).unwrap() {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    }

    #[test]
    fn rotated_files_are_read_oldest_first_and_tailed_over_the_seam() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::fs::write(numbered(&path, 2), line("a") + &line("b")).unwrap();
        std::fs::write(numbered(&path, 1), line("c") + &line("d")).unwrap();
        std::fs::write(&path, line("e")).unwrap();
        let read = |tail| drain(&mut Reader::open(&path, filter(tail)).unwrap());
        assert_eq!(read(None), "a\nb\nc\nd\ne\n");
        assert_eq!(read(Some(0)), "");
        assert_eq!(read(Some(1)), "e\n");
        assert_eq!(read(Some(2)), "d\ne\n");
        assert_eq!(read(Some(4)), "b\nc\nd\ne\n");
        assert_eq!(read(Some(99)), "a\nb\nc\nd\ne\n");
    }

    #[test]
    fn a_reader_goes_on_over_a_rotation_and_a_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::fs::write(&path, line("a")).unwrap();
        let mut reader = Reader::open(&path, filter(None)).unwrap();
        assert_eq!(drain(&mut reader), "a\n");
        let mut old = File::options().append(true).open(&path).unwrap();
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        old.write_all(line("b").as_bytes()).unwrap();
        std::fs::write(&path, line("c")).unwrap();
        assert_eq!(drain(&mut reader), "b\nc\n");
        std::fs::rename(numbered(&path, 1), numbered(&path, 2)).unwrap();
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        std::fs::rename(numbered(&path, 1), numbered(&path, 2)).unwrap();
        std::fs::write(numbered(&path, 1), line("d")).unwrap();
        std::fs::write(&path, line("e")).unwrap();
        assert_eq!(drain(&mut reader), "d\ne\n");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(drain(&mut reader), "");
        File::options().append(true).open(&path).unwrap().write_all(line("f").as_bytes()).unwrap();
        assert_eq!(drain(&mut reader), "f\n");
    }

    #[test]
    fn an_unfinished_line_waits_and_damage_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let text = line("b");
        std::fs::write(&path, format!("garbage\n{}", &text[..10])).unwrap();
        let mut reader = Reader::open(&path, filter(None)).unwrap();
        while let Some(bytes) = reader.next_batch(false).unwrap() {
            assert!(bytes.is_empty());
        }
        File::options().append(true).open(&path).unwrap().write_all(&text.as_bytes()[10..]).unwrap();
        assert_eq!(drain(&mut reader), "b\n");
    }

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_the_whole(cuts in prop::collection::vec(0usize..200, 1..4), tail in 0usize..700) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.log");
            let mut all = Vec::new();
            let files = cuts.len() as u32;
            for (n, count) in cuts.iter().enumerate() {
                let mut text = String::new();
                for _ in 0..*count {
                    let word = format!("{}{}", all.len(), "x".repeat(all.len() % 500));
                    text.push_str(&line(&word));
                    all.push(word);
                }
                std::fs::write(numbered(&path, files - 1 - n as u32), text).unwrap();
            }
            let got = drain(&mut Reader::open(&path, filter(Some(tail))).unwrap());
            let want: String = all[all.len().saturating_sub(tail)..].iter().map(|w| format!("{w}\n")).collect();
            prop_assert_eq!(got, want);
        }
    }
}
