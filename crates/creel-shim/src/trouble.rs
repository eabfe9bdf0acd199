//! The shim's own troubles: `shim.log`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

/// Bytes after which nothing more is written: the run directory is memory.
const LIMIT: usize = 64 * 1024;

/// Writes one line per trouble; the file appears with the first.
#[derive(Debug)]
pub(crate) struct Troubles {
    path: PathBuf,
    file: Option<File>,
    written: usize,
}

impl Troubles {
    /// Will write to `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, written: 0 }
    }

    /// Notes one trouble. If even that fails, nobody can be told.
    pub(crate) fn note(&mut self, text: &str) {
        if self.written > LIMIT {
            return;
        }
        if self.file.is_none() {
            self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).ok();
        }
        let line = format!("{} {text}\n", Timestamp::now());
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
        self.written += line.len();
    }
}
