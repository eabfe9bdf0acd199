//! Standard output.

use std::io::Write;

use crate::error::{Error, Result};

/// Prints a text as it is.
///
/// # Errors
/// It cannot be written; a reader that has gone is none.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::call("write to standard output", e))
        }
        _ => Ok(()),
    }
}

/// A table as Go's tabwriter sets it for runc: columns at least 12 wide, three blanks between, the last one ragged.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (longest.unwrap_or(0) + 3).max(12)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let blanks = widths[column].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    #[test]
    fn a_table_is_runc_s() {
        let row = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let text = super::table(&[
            row("ID|PID|STATUS|BUNDLE|CREATED|OWNER"),
            row("a|93|created|/tmp/v/b|2026-11-21T14:02:01.601789021Z|root"),
        ]);
        expect![[r#"
            ID          PID         STATUS      BUNDLE      CREATED                          OWNER
            a           93          created     /tmp/v/b    2026-11-21T14:02:01.601789021Z   root
        "#]]
        .assert_eq(&text);
    }
}
