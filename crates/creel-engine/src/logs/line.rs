//! One line of a json-file log, and what of it is shown. Pure.

use std::borrow::Cow;

use creel_wire::stream::{STDERR, STDOUT, header};
use jiff::Timestamp;
use serde::Deserialize;

use crate::options::LogOptions;

#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    time: Timestamp,
}

/// What is to be shown, and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) options: LogOptions,
    /// Whether Docker's frames are put around lines.
    pub(super) framed: bool,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Shown or passed over.
    Done,
    /// Later than all that is wanted.
    PastUntil,
    /// It is no line of a log.
    Damaged,
}

/// A time with nine digits after the point, as Docker writes it.
pub(crate) fn nanoseconds(time: Timestamp) -> String {
    format!("{time:.9}")
}

impl Filter {
    /// Appends to `out` what a raw line (without its newline) shows.
    pub(super) fn show(&self, raw: &[u8], out: &mut Vec<u8>) -> Shown {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(raw) else { return Shown::Damaged };
        let options = &self.options;
        if options.since.is_some_and(|since| line.time < since) {
            return Shown::Done;
        }
        if options.until.is_some_and(|until| line.time > until) {
            return Shown::PastUntil;
        }
        let (number, wanted) = match &*line.stream {
            "stderr" => (STDERR, options.stderr),
            _ => (STDOUT, options.stdout),
        };
        if !wanted {
            return Shown::Done;
        }
        let time = if options.timestamps { nanoseconds(line.time) + " " } else { String::new() };
        if self.framed {
            let len = u32::try_from(time.len() + line.log.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&header(number, len));
        }
        out.extend_from_slice(time.as_bytes());
        out.extend_from_slice(line.log.as_bytes());
        Shown::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(options: LogOptions, framed: bool, raw: &str) -> (Shown, Vec<u8>) {
        let mut out = Vec::new();
        let shown = Filter { options, framed }.show(raw.as_bytes(), &mut out);
        (shown, out)
    }

    const LINE: &str = r#"{"log":"a\u003cb\n","stream":"stderr","time":"2026-01-02T03:04:05.6Z"}"#;

    #[test]
    fn lines_are_framed_and_timed() {
        let both = LogOptions { stdout: true, stderr: true, timestamps: true, ..LogOptions::default() };
        let (_, plain) = shown(both.clone(), false, LINE);
        assert_eq!(plain, b"2026-01-02T03:04:05.600000000Z a<b\n");
        let (_, framed) = shown(both, true, LINE);
        assert_eq!(&framed[..8], &[2, 0, 0, 0, 0, 0, 0, 35]);
    }

    #[test]
    fn times_and_streams_select() {
        let all = LogOptions { stderr: true, ..LogOptions::default() };
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(shown(LogOptions { stdout: true, ..LogOptions::default() }, false, LINE).1, b"");
        assert_eq!(
            shown(LogOptions { since: at("2026-01-02T03:04:06Z"), ..all.clone() }, false, LINE).1,
            b""
        );
        assert_eq!(
            shown(LogOptions { until: at("2026-01-02T03:04:05Z"), ..all.clone() }, false, LINE).0,
            Shown::PastUntil
        );
        assert_eq!(shown(all, false, r#"{"log":"x"#).0, Shown::Damaged);
    }

    proptest! {
        #[test]
        fn what_was_written_is_shown(text in "\\PC{0,40}", seconds in 0i64..4_000_000_000) {
            let time = Timestamp::from_second(seconds).unwrap();
            let raw = serde_json::json!({"log": text, "stream": "stdout", "time": time.to_string()}).to_string();
            let (_, out) = shown(LogOptions { stdout: true, ..LogOptions::default() }, false, &raw);
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }

        #[test]
        fn no_line_makes_it_panic(raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Filter::default().show(&raw, &mut Vec::new());
        }
    }
}
