//! Columns, aligned as Docker's client aligns them (Go's text/tabwriter).

/// Least width of a column, and blanks after its widest cell.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Least width of a column.
    pub min: usize,
    /// Blanks after the widest cell.
    pub padding: usize,
}

/// The layout of lists.
pub const LIST: Layout = Layout { min: 10, padding: 3 };
/// The layout of `top`.
pub const TOP: Layout = Layout { min: 20, padding: 3 };

/// Aligns the tab-separated cells of a text's lines. What follows a line's last tab belongs to no column. A column
/// reaches over neighbouring lines that have it.
pub fn align(text: &str, layout: Layout) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut at = 0;
        while at < lines.len() {
            let end = (at..lines.len()).find(|n| widths[*n].len() <= column).unwrap_or(lines.len());
            if end > at {
                let widest = (at..end).map(|n| lines[n][column].chars().count()).max().unwrap_or(0);
                let width = (widest + layout.padding).max(layout.min);
                widths[at..end].iter_mut().for_each(|row| row[column] = width);
            }
            at = end.max(at + 1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (n, cells) in lines.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths[n].get(column) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn columns_are_aligned() {
        let text = "ID\tNAME\tSTATUS\n0123456789ab\tß\tUp\n\n1\t2\t3\n";
        expect![[r#"
            ID             NAME      STATUS
            0123456789ab   ß         Up

            1         2         3
        "#]]
        .assert_eq(&align(text, LIST));
    }

    proptest! {
        #[test]
        fn cells_survive(rows in prop::collection::vec(prop::collection::vec("[a-z]{1,8}", 3), 1..5)) {
            let text = rows.iter().map(|r| r.join("\t")).collect::<Vec<_>>().join("\n");
            let aligned = align(&text, LIST);
            for (line, row) in aligned.lines().zip(&rows) {
                prop_assert_eq!(line.split_whitespace().collect::<Vec<_>>(), row.clone());
            }
        }
    }
}
