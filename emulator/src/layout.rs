//! Pages as markup: tables as HTML, documents as LaTeX.
//!
//! Both are simple. A table is a run of rows with gaps in them; its columns are the horizontal ranges that its text
//! covers, and no cell spans two. A document consists of its blocks of text as escaped paragraphs.

use std::fmt::Write as _;

use crate::engine::{Bounds, Reading, TextLine};
use crate::sheet::{Row, Sheet, Token, bounds_of, text_of};

/// The tables of a sheet as HTML; a sheet without tables is one column of its lines.
pub(crate) fn html(sheet: &Sheet) -> String {
    let is_tabular = |row: &Row| row.segments().len() >= 2;
    let mut tables = String::new();
    for run in sheet.rows.chunk_by(|one, other| is_tabular(one) == is_tabular(other)) {
        if run.len() >= 2 && run.iter().all(is_tabular) {
            write_table(&mut tables, run);
        }
    }
    if tables.is_empty() {
        write_table(&mut tables, &sheet.rows);
    }
    tables
}

/// The pages as one LaTeX document.
pub(crate) fn latex<'a>(readings: impl Iterator<Item = &'a Reading>) -> String {
    let mut document = String::from("\\documentclass{article}\n\\begin{document}\n");
    for reading in readings {
        for block in reading.lines.chunk_by(|one, other| one.block == other.block) {
            let lines: Vec<String> =
                block.iter().map(TextLine::text).map(|line| escaped_latex(&line)).collect();
            document.push('\n');
            document.push_str(&lines.join("\n"));
            document.push('\n');
        }
    }
    document.push_str("\n\\end{document}");
    document
}

fn write_table(html: &mut String, rows: &[Row]) {
    let columns = columns(rows);
    html.push_str("<table>\n");
    for row in rows {
        html.push_str("<tr>");
        for column in &columns {
            let cell: Vec<Token> = row
                .segments()
                .into_iter()
                .filter(|segment| bounds_of(segment).is_some_and(|bounds| meets(*column, bounds)))
                .flatten()
                .cloned()
                .collect();
            // Writing to a string does not fail.
            let _ = write!(html, "<td>{}</td>", escaped_html(&text_of(&cell)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

/// The horizontal ranges that the segments of the rows cover, from left to right.
fn columns(rows: &[Row]) -> Vec<(u32, u32)> {
    let mut covered: Vec<(u32, u32)> = rows
        .iter()
        .flat_map(Row::segments)
        .filter_map(bounds_of)
        .map(|bounds| (bounds.left, bounds.right))
        .collect();
    covered.sort_unstable();
    let mut columns: Vec<(u32, u32)> = Vec::new();
    for (left, right) in covered {
        match columns.last_mut() {
            Some(column) if left < column.1 => column.1 = column.1.max(right),
            _ => columns.push((left, right)),
        }
    }
    columns
}

fn meets((left, right): (u32, u32), bounds: Bounds) -> bool {
    (left..right.max(left + 1)).contains(&bounds.left)
}

fn escaped_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn escaped_latex(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(character);
            }
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::typed;

    #[test]
    fn rows_with_gaps_become_the_cells_of_a_table() {
        let sheet = Sheet::of([&typed("A report\nName     Sum\nA & B     <1\nThe end")]);
        let expected = "<table>\n<tr><td>Name</td><td>Sum</td></tr>\n\
            <tr><td>A &amp; B</td><td>&lt;1</td></tr>\n</table>\n";
        assert_eq!(html(&sheet), expected);
    }

    #[test]
    fn text_cannot_become_latex_commands() {
        let document = latex([typed("50% of \\input{x}")].iter());
        assert!(document.contains("50\\% of \\textbackslash{}input\\{x\\}"), "{document}");
    }
}
