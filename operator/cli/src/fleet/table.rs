//! Columns for people, as kubectl aligns them.

use std::io::Write;

use tabwriter::TabWriter;

use crate::text::without_control_characters;

/// Aligns rows below their headings. An empty cell is shown as `-`.
pub fn table<const N: usize>(
    headings: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3);
    let lines = std::iter::once(headings.map(str::to_owned)).chain(rows);
    for line in lines {
        let cells = line.map(|cell| {
            if cell.is_empty() { "-".to_owned() } else { without_control_characters(&cell) }
        });
        // A write to memory cannot fail.
        let _ = writeln!(writer, "{}", cells.join("\t"));
    }
    let aligned = writer.into_inner().unwrap_or_default();
    let text = String::from_utf8_lossy(&aligned).into_owned();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_is_missing_or_moves_the_cursor_is_replaced() {
        let rows =
            [["a".to_owned(), String::new()], ["long".to_owned(), "x\u{1b}[2J\ty".to_owned()]];
        let text = table(["NAME", "VALUE"], rows.into_iter());
        assert_eq!(text, "NAME   VALUE\na      -\nlong   x [2J y");
    }
}
