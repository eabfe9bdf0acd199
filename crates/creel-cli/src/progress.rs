//! Pulls, pushes and loads as they go on: a line for each layer on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use creel_client::Lines;
use creel_wire::image::{ProgressDetail, ProgressMessage};

use crate::failure::Failure;
use crate::output::write_all;
use crate::units::human_size;

/// A display of progress messages.
pub(crate) struct Display<'a> {
    out: BorrowedFd<'a>,
    /// Columns of the terminal; `None` elsewhere.
    columns: Option<usize>,
    quiet: bool,
    lines: HashMap<String, usize>,
}

impl<'a> Display<'a> {
    /// A display on a descriptor; on a terminal of so many columns if given.
    pub(crate) fn new(out: BorrowedFd<'a>, columns: Option<usize>) -> Self {
        Self { out, columns, quiet: false, lines: HashMap::new() }
    }

    /// The same, which shows nothing but errors.
    pub(crate) fn quiet(self, quiet: bool) -> Self {
        Self { quiet, ..self }
    }

    /// Shows messages to their end and hands those with data for programs on.
    ///
    /// # Errors
    /// The failure that the daemon tells in a message, or the connection's.
    pub(crate) async fn show(
        &mut self,
        messages: &mut Lines<ProgressMessage>,
        mut aux: impl FnMut(&serde_json::Value),
    ) -> Result<(), Failure> {
        while let Some(message) = messages.next().await {
            let message = message?;
            if let Some(text) = message.error_detail.as_ref().map(|e| &e.message).or(message.error.as_ref()) {
                return Err(Failure::new(text.trim_end()));
            }
            if let Some(value) = &message.aux {
                aux(value);
                continue;
            }
            if !self.quiet {
                let text = self.render(&message);
                let _ = write_all(self.out, text.as_bytes());
            }
        }
        Ok(())
    }

    /// What to write for a message.
    pub(crate) fn render(&mut self, message: &ProgressMessage) -> String {
        if let Some(stream) = &message.stream {
            self.lines.clear();
            return stream.clone();
        }
        let status = message.status.as_deref().unwrap_or_default();
        let detail = message.progress_detail.unwrap_or_default();
        let moves = detail.current.is_some_and(|n| n > 0) || detail.total.is_some_and(|n| n > 0);
        let Some(columns) = self.columns else {
            // Bars are for eyes: elsewhere only the steps are told.
            if moves || message.progress.as_ref().is_some_and(|text| !text.is_empty()) {
                return String::new();
            }
            return match message.id.as_deref() {
                Some(id) if !id.is_empty() => format!("{id}: {status}\n"),
                _ => format!("{status}\n"),
            };
        };
        let Some(id) = message.id.as_deref().filter(|id| !id.is_empty()) else {
            self.lines.clear();
            return format!("{status}\n");
        };
        let bar = if moves { bar(detail, columns) } else { String::new() };
        let mut line = format!("{id}: {status} {bar}");
        if line.chars().count() >= columns {
            line = line.chars().take(columns.saturating_sub(1)).collect();
        }
        let line = line.trim_end();
        let count = self.lines.len();
        match self.lines.get(id) {
            Some(at) => {
                let up = count - at;
                format!("\x1b[{up}A\r\x1b[2K{line}\x1b[{up}B\r")
            }
            None => {
                self.lines.insert(id.to_owned(), count);
                format!("{line}\n")
            }
        }
    }
}

/// `[=====>     ]  1.2MB/3MB`, without the bar on narrow terminals.
fn bar(detail: ProgressDetail, columns: usize) -> String {
    let current = detail.current.unwrap_or(0).max(0);
    let total = detail.total.unwrap_or(0);
    if total <= 0 {
        return format!("{:>8}", human_size(current as f64));
    }
    let numbers = if current > total {
        format!("{:>8}", human_size(current as f64))
    } else {
        format!("{:>8}/{}", human_size(current as f64), human_size(total as f64))
    };
    let width: usize = match columns {
        111.. => 50,
        80..=110 => 25,
        _ => return numbers,
    };
    let done =
        usize::try_from(i128::from(current.min(total)) * width as i128 / i128::from(total)).unwrap_or(0);
    let head = if done < width { ">" } else { "" };
    let rest = width.saturating_sub(done + head.len());
    format!("[{}{head}{}] {numbers}", "=".repeat(done), " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::os::fd::AsFd as _;

    fn message(id: &str, status: &str, current: i64, total: i64) -> ProgressMessage {
        ProgressMessage {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail {
                current: (current > 0).then_some(current),
                total: (total > 0).then_some(total),
            }),
            ..ProgressMessage::default()
        }
    }

    fn messages() -> Vec<ProgressMessage> {
        vec![
            ProgressMessage {
                status: Some("Pulling from library/x".into()),
                id: Some("latest".into()),
                ..Default::default()
            },
            message("aaa", "Pulling fs layer", 0, 0),
            message("bbb", "Pulling fs layer", 0, 0),
            message("aaa", "Downloading", 500_000, 2_000_000),
            message("bbb", "Downloading", 7, 0),
            message("aaa", "Pull complete", 0, 0),
            ProgressMessage { status: Some("Digest: sha256:1".into()), ..Default::default() },
        ]
    }

    #[test]
    fn plain_lines() {
        let file = std::io::stdout();
        let mut display = Display::new(file.as_fd(), None);
        let text: String = messages().iter().map(|m| display.render(m)).collect();
        expect![[r#"
            latest: Pulling from library/x
            aaa: Pulling fs layer
            bbb: Pulling fs layer
            aaa: Pull complete
            Digest: sha256:1
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn lines_that_move() {
        let file = std::io::stdout();
        let mut display = Display::new(file.as_fd(), Some(90));
        let text: String = messages().iter().map(|m| display.render(m)).collect();
        expect![[r#"
            latest: Pulling from library/x
            aaa: Pulling fs layer
            bbb: Pulling fs layer
            ^[2A<^[2Kaaa: Downloading [======>                  ]    500kB/2MB^[2B<^[1A<^[2Kbbb: Downloading       7B^[1B<^[2A<^[2Kaaa: Pull complete^[2B<Digest: sha256:1
        "#]].assert_eq(&text.replace('\x1b', "^").replace('\r', "<"));
    }

    #[test]
    fn bars_fit() {
        for columns in [20, 80, 120] {
            for (current, total) in [(0, 10), (5, 10), (10, 10), (11, 10), (i64::MAX, i64::MAX), (-1, 5)] {
                let text = bar(ProgressDetail { current: Some(current), total: Some(total) }, columns);
                assert!(text.chars().count() < 80, "{text}");
            }
        }
    }
}
