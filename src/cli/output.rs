//! Output of commands: tables for people and JSON for scripts on standard output, messages on standard error.
//!
//! Tables and messages escape control characters and invisible characters, which could affect a terminal. JSON escapes
//! them in its own way, so that a script reads the stored value.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::label::{is_hidden, shown};

/// The exit code of wrong usage, the same as clap's.
pub(super) const WRONG_USAGE: u8 = 2;

/// The reason why a command failed. The person who typed the command reads it, so the chain of causes suffices.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// A value as a cell of a table; `-` if there is none.
pub(super) fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Writes rows of equal length in aligned columns: the first `texts` columns to the left, the others, which hold
/// numbers, to the right.
pub(super) fn write_table<Row: AsRef<[String]>>(
    out: &mut dyn Write,
    rows: &[Row],
    texts: usize,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for row in rows {
        table.add_row(row.as_ref().iter().map(|cell| shown(cell)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes a value as indented JSON.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escaped(&serde_json::to_string_pretty(value)?))
}

/// Writes a value as JSON on one line.
pub(super) fn write_json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escaped(&serde_json::to_string(value)?))
}

/// The same JSON value with every hidden character escaped. `serde_json` leaves such characters only inside strings;
/// its own line breaks stay.
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

/// Writes a message to standard error, for the person at the terminal.
pub(super) fn say(text: &str) {
    // Nobody reads a closed standard error.
    let _ = writeln!(io::stderr(), "{}", shown_lines(text));
}

/// Text of one or several lines in a form that a terminal can show.
fn shown_lines(text: &str) -> String {
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

/// Prints an error with its causes, and returns the exit code of a failure.
pub(super) fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    say(&format!("error: {}", with_causes(error)));
    ExitCode::FAILURE
}

/// An error and its causes in one line.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error has the same text as its cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
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
        write_table(&mut out, &[row(MISLEADING), row("a")], 2).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| !line.contains(is_hidden)), "{text:?}");
    }

    #[test]
    fn numbers_end_in_one_column_and_wide_characters_take_two() {
        let mut out = Vec::new();
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows =
            [row(["ENDPOINT", "TENANT", "CALLS"]), row(["北京", "a", "7"]), row(["", "", "12"])];
        write_table(&mut out, &rows, 2).unwrap();
        let lines =
            ["ENDPOINT  TENANT  CALLS", "北京      a           7", "                     12", ""];
        assert_eq!(String::from_utf8(out).unwrap(), lines.join("\n"));
    }

    #[test]
    fn a_message_keeps_its_own_lines_and_nothing_else_that_a_terminal_obeys() {
        assert_eq!(shown_lines("one\ntwo\r\u{1b}[31m"), "one\ntwo\\u{d}\\u{1b}[31m");
    }
}
