//! The log file: whole lines only, rotation, and a full disk that stops nobody.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// When the log is rotated and how much of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Size in bytes at which the next line goes to a new file.
    pub(crate) max_size: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub(crate) max_files: u32,
}

/// Encoded lines that wait for room, in bytes; what comes on top is counted and dropped.
const PENDING: usize = 64 * 1024;

/// An append-only file of whole lines.
///
/// A write that fails leaves no half line behind, and its lines wait (up to [`PENDING`] bytes) for the next flush.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    limits: Limits,
    file: Option<File>,
    /// Size of the file, all of it whole lines.
    size: u64,
    pending: Vec<u8>,
    lost_lines: u64,
    failing: bool,
    notes: Vec<String>,
}

impl LogFile {
    /// Will write to `path`; the file is opened, and made, with the first flush.
    pub(crate) fn new(path: PathBuf, limits: Limits) -> Self {
        Self {
            path,
            limits,
            file: None,
            size: 0,
            pending: Vec::new(),
            lost_lines: 0,
            failing: false,
            notes: Vec::new(),
        }
    }

    /// Opens, and makes, the file now.
    pub(crate) fn open(&mut self) {
        let result = self.reopen();
        self.outcome(result);
    }

    /// Takes one encoded line, newline included.
    pub(crate) fn append(&mut self, line: &[u8]) {
        if self.failing && self.pending.len() + line.len() > PENDING {
            self.lost_lines += 1;
            return;
        }
        let full = self.limits.max_size.is_some_and(|max| self.size + self.pending.len() as u64 >= max);
        if full && self.size + self.pending.len() as u64 > 0 {
            self.flush();
            if self.pending.is_empty() {
                let result = self.rotate();
                self.outcome(result);
            }
        } else if self.pending.len() >= PENDING {
            self.flush();
        }
        self.pending.extend_from_slice(line);
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let result = self.try_flush();
        self.outcome(result);
    }

    /// Whether lines wait for room: flush again now and then.
    pub(crate) fn is_waiting(&self) -> bool {
        self.failing && !self.pending.is_empty()
    }

    /// Lines lost since they were last told of.
    #[cfg(test)]
    pub(crate) fn lost_lines(&self) -> u64 {
        self.lost_lines
    }

    /// Troubles since the last call, to be noted by the shim.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn outcome(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                let (path, lost) = (self.path.display(), std::mem::take(&mut self.lost_lines));
                self.notes.push(format!("log {path}: writing again; {lost} lines were lost meanwhile"));
            }
            Ok(()) => {}
            Err(error) if !self.failing => {
                self.failing = true;
                let path = self.path.display();
                self.notes.push(format!("log {path}: cannot write: {error}; the container goes on without"));
            }
            Err(_) => {}
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut written = 0;
        let result = loop {
            match file.write(&self.pending[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
            if written == self.pending.len() {
                break Ok(());
            }
        };
        if result.is_err() {
            let whole = self.pending[..written].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            // If the half line cannot be cut off, its rest is what comes next.
            if file.set_len(self.size + whole as u64).is_ok() {
                written = whole;
            }
        }
        self.size += written as u64;
        self.pending.drain(..written);
        if self.pending.is_empty() && self.pending.capacity() > PENDING / 2 {
            self.pending = Vec::new();
        }
        result
    }

    /// Opens the file for appending, cutting off half a line that a killed writer may have left.
    fn reopen(&mut self) -> io::Result<()> {
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&self.path)?;
        let size = file.seek(SeekFrom::End(0))?;
        self.size = whole_lines(&mut file, size)?;
        if self.size < size {
            file.set_len(self.size)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.limits.max_files < 2 {
            if let Some(file) = &self.file {
                file.set_len(0)?;
            }
            self.size = 0;
            return Ok(());
        }
        self.file = None;
        for number in (1..self.limits.max_files - 1).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename(&self.path, &numbered(&self.path, 1))?;
        self.reopen()
    }
}

/// The length of the file up to its last newline.
fn whole_lines(file: &mut File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut buffer = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let part = &mut buffer[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
