//! How commands write what they found: tables for people, JSON for scripts.
//!
//! A table shows characters that a terminal would obey or not show escaped. JSON escapes them too, in its own way,
//! so that a script reads what is stored.

use std::io::{self, Write};

use serde::Serialize;

use crate::label::{is_hidden, shown};

/// A value as a cell of a table; `-` where there is none.
pub(super) fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Writes rows with aligned columns.
pub(super) fn write_table<const COLUMNS: usize>(
    out: &mut dyn Write,
    rows: &[[String; COLUMNS]],
) -> io::Result<()> {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Writes a value as indented JSON.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escaped(&serde_json::to_string_pretty(value)?))
}

/// Writes a value as JSON on one line.
pub(super) fn write_json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escaped(&serde_json::to_string(value)?))
}

/// JSON that means the same, with every hidden character escaped. What `serde_json` leaves as it is stands
/// inside a string, but for the line breaks of its own.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter == '\n' || !is_hidden(letter) {
            text.push(letter);
        } else {
            let units = &mut [0; 2];
            text.extend(letter.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Text of one or several lines as a terminal can show it.
pub(super) fn shown_lines(text: &str) -> String {
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISLEADING: &str = "a\u{202e}\u{1b}[2J\u{2028}\u{85}\u{7f}\u{e0041}\n发票";

    #[test]
    fn json_escapes_what_a_terminal_would_obey_and_means_the_same() {
        let (mut indented, mut line) = (Vec::new(), Vec::new());
        write_json(&mut indented, &[MISLEADING]).unwrap();
        write_json_line(&mut line, &[MISLEADING]).unwrap();
        for text in [indented, line] {
            let text = String::from_utf8(text).unwrap();
            assert!(text.lines().all(|line| !line.contains(is_hidden)), "{text:?}");
            assert!(text.contains("发票") && text.contains(r"\udb40\udc41"), "{text:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [MISLEADING]);
        }
    }

    #[test]
    fn a_cell_of_a_table_cannot_leave_its_place() {
        let mut out = Vec::new();
        let row = |cell: &str| [cell.to_owned(), "x".to_owned()];
        write_table(&mut out, &[row(MISLEADING), row("a")]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| !line.contains(is_hidden)), "{text:?}");
    }

    #[test]
    fn a_message_keeps_its_own_lines_and_nothing_else_that_a_terminal_obeys() {
        assert_eq!(shown_lines("one\ntwo\r\u{1b}[31m"), "one\ntwo\\u{d}\\u{1b}[31m");
    }
}
