//! The container's log: Docker's json-file format, with Docker's line splitting and rotation.

mod encode;
mod file;
mod split;

pub(crate) use file::{Limits, LogFile};

use jiff::Timestamp;

use encode::encode_line;
use split::Splitter;

/// Which output stream bytes came from. A terminal's output is stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// File descriptor 1, or the terminal.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Cuts both streams into lines and writes them to the log file.
#[derive(Debug)]
pub(crate) struct Logger {
    file: LogFile,
    stdout: Splitter,
    stderr: Splitter,
    line: Vec<u8>,
}

impl Logger {
    /// Writes to `file`.
    pub(crate) fn new(file: LogFile) -> Self {
        Self { file, stdout: Splitter::default(), stderr: Splitter::default(), line: Vec::new() }
    }

    /// Takes output as it was read and writes the lines that it completes.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        let Self { file, stdout, stderr, line } = self;
        if file.is_waiting() {
            // There may be room again: what waits goes first, and makes room for what comes.
            file.flush();
        }
        let splitter = if stream == Stream::Stdout { stdout } else { stderr };
        splitter.push(bytes, now, |text, time| {
            line.clear();
            encode_line(line, stream.name(), text, time);
            file.append(line);
        });
        file.flush();
    }

    /// Writes what has no newline yet; call it when output has ended.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        let Self { file, stdout, stderr, line } = self;
        for (stream, splitter) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            splitter.finish(now, |text, time| {
                line.clear();
                encode_line(line, stream.name(), text, time);
                file.append(line);
            });
        }
        file.flush();
    }

    /// The file below.
    pub(crate) fn file(&mut self) -> &mut LogFile {
        &mut self.file
    }
}

#[cfg(test)]
mod tests;
