//! The log that callers read: lines as logrus writes them, which is what containerd, conmon and Docker parse to learn
//! why a verb failed.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Only with `--debug`.
    Debug,
    /// Something could not be done as asked, and the verb went on.
    Warning,
    /// The verb failed.
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Where lines go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    /// Lines to standard error.
    pub(crate) fn new(format: Format, debug: bool) -> Log {
        Log { file: None, format, debug }
    }

    /// From here on lines go to this file, appended.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(&mut self, path: &Path) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, 0o644.into()).map_err(|e| Error::on("open", path, e))?;
        self.file = Some(fd.into());
        Ok(())
    }

    /// Writes one line. A log that cannot be written is no reason to fail.
    pub(crate) fn write(&self, level: Level, message: &str) {
        if level == Level::Debug && !self.debug {
            return;
        }
        let line = line(self.format, level, message, Timestamp::now());
        match &self.file {
            Some(file) => {
                let mut file: &File = file;
                let _ = file.write_all(line.as_bytes());
            }
            None => to_stderr(&line),
        }
    }

    /// The verb failed: says so in the log, and on standard error too when the log is a file.
    pub(crate) fn fail(&self, message: &str) {
        self.write(Level::Error, message);
        if self.file.is_some() {
            to_stderr(&format!("{message}\n"));
        }
    }

    /// As [`Log::fail`], for an error that has no line of its own on standard error.
    pub(crate) fn fail_bare(&self, message: &str, bare: &str) {
        match self.file {
            Some(_) => self.fail(message),
            None => to_stderr(&format!("{bare}\n")),
        }
    }

    /// Something could not be done exactly as asked.
    pub(crate) fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// What only a developer wants to know.
    pub(crate) fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }
}

fn to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// One line, its newline included.
fn line(format: Format, level: Level, message: &str, time: Timestamp) -> String {
    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
    let level = level.word();
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", quoted(message)),
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
    }
}

/// A value as logrus quotes it: plain words stay bare, everything else gets Go's quotes.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(bare) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logrus_s() {
        let time = Timestamp::from_second(1_795_269_721).unwrap();
        let text = |message| line(Format::Text, Level::Error, message, time);
        assert_eq!(
            text("container does not exist"),
            "time=\"2026-11-21T14:02:01Z\" level=error msg=\"container does not exist\"\n"
        );
        assert_eq!(
            text("exec: \"x\": not\n"),
            "time=\"2026-11-21T14:02:01Z\" level=error msg=\"exec: \\\"x\\\": not\\n\"\n"
        );
        assert_eq!(text("word"), "time=\"2026-11-21T14:02:01Z\" level=error msg=word\n");
        let json = line(Format::Json, Level::Warning, "a \"b\"\n", time);
        assert_eq!(
            json,
            "{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\n\",\"time\":\"2026-11-21T14:02:01Z\"}\n"
        );
    }

    #[test]
    fn a_file_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let mut log = Log::new(Format::Json, false);
        log.open(&path).unwrap();
        log.debug("not shown");
        log.warn("shown");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n{\"level\":\"warning\",\"msg\":\"shown\""), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
