//! The Markdown of a whole document, joined from that of its pages.
//!
//! A comment with the number of each page stands before its text, and a page that failed leaves one with the code of
//! its error, so that a gap is never silent. The texts themselves are joined as they are, with these exceptions: a
//! table that certainly goes on over a page break becomes one table (`table`); code and comments that are open at the
//! end of a page are closed, because they would take in the next page's comment; and a comment of a page's own that
//! looks like one of these has its first character escaped. Lines that all pages begin or end with are reported and
//! left in (`repeated`).

pub mod repeated;

mod table;

use std::borrow::Cow;

use self::repeated::{RepeatedLines, SplitPage};
use self::table::EndingTable;
use super::result::{FailedPage, OcrAnswer, Page, PageOutcome};
use super::warning::{DocumentWarning, PageWarning, RepeatedText};

/// The whole document as Markdown. `code` gives the code of a page's error.
///
/// The pages have comments with their numbers only if the document has several.
pub fn of_document<E>(answer: &OcrAnswer<E>, code: impl Fn(&E) -> &'static str) -> String {
    if let ([PageOutcome::Done(page)], 1) = (&answer.pages[..], answer.facts.document.pages) {
        return page.markdown().into_owned();
    }
    join(answer.pages.iter().map(|page| match page {
        PageOutcome::Done(page) => MarkdownPage::Read {
            number: page.page,
            markdown: page.markdown(),
            is_doubtful: page.warnings.iter().any(PageWarning::doubts_the_end),
        },
        PageOutcome::Failed(FailedPage { page, error, .. }) => {
            MarkdownPage::Failed { number: *page, code: code(error) }
        }
    }))
}

/// Warnings about the lines that all pages begin or end with.
pub(super) fn repeated<E>(pages: &[PageOutcome<Page<E>, E>]) -> Vec<DocumentWarning> {
    let pages: Vec<_> = pages.iter().filter_map(PageOutcome::done).collect();
    let texts: Vec<_> = pages.iter().map(|page| (page.page, page.markdown())).collect();
    let filled = texts.iter().filter(|(_, text)| !text.trim().is_empty());
    let filled: Vec<_> = filled.map(|(number, text)| (*number, &**text)).collect();
    let Some((_, first)) = filled.first() else { return Vec::new() };
    let SplitPage { header, footer, .. } = RepeatedLines::of(&filled).split(first);
    let on_all = |text: &str| RepeatedText {
        pages: filled.iter().map(|(number, _)| *number).collect(),
        text: text.to_owned(),
    };
    let header = (!header.is_empty()).then(|| DocumentWarning::RepeatedHeader(on_all(header)));
    let footer = (!footer.is_empty()).then(|| DocumentWarning::RepeatedFooter(on_all(footer)));
    header.into_iter().chain(footer).collect()
}

/// One page of the document.
#[derive(Debug, Clone)]
enum MarkdownPage<'a> {
    /// It was read.
    Read {
        /// Its number, from 1.
        number: u32,
        /// Its Markdown.
        markdown: Cow<'a, str>,
        /// Whether its end may be missing or wrong, so that a table at its end may not be whole.
        is_doubtful: bool,
    },
    /// It failed.
    Failed {
        /// Its number, from 1.
        number: u32,
        /// The code of its error.
        code: &'a str,
    },
}

/// Joins the pages, which are in ascending order.
fn join<'a>(pages: impl IntoIterator<Item = MarkdownPage<'a>>) -> String {
    let mut document = MarkdownDocument::default();
    for page in pages {
        match page {
            MarkdownPage::Read { number, markdown, is_doubtful } => {
                document.add(number, &markdown, is_doubtful);
            }
            MarkdownPage::Failed { number, code } => document.add_failed(number, code),
        }
    }
    document.close_table();
    document.joined
}

/// The Markdown of the pages so far.
#[derive(Debug, Default)]
struct MarkdownDocument {
    joined: String,
    /// The table at the end of the last page.
    open: Option<OpenTable>,
    /// The pages that begin in the open table. Their comments stand behind the table, because a comment would end it.
    within: Vec<u32>,
    /// What closes the code or the comment at the end.
    closing: Option<String>,
}

/// A table that the next page may continue.
#[derive(Debug)]
struct OpenTable {
    table: EndingTable,
    /// The byte of the Markdown at which further rows are inserted.
    end_of_rows: usize,
    /// The last page that has rows of it.
    page: u32,
}

impl MarkdownDocument {
    fn add(&mut self, number: u32, markdown: &str, is_doubtful: bool) {
        let markdown = without_page_comments(markdown);
        let mut text = without_blank_edges(&markdown);
        if let Some(end) = self.continue_table(number, text) {
            text = without_blank_edges(&text[end..]);
            if text.is_empty() && !is_doubtful {
                return;
            }
            self.close_table();
        } else {
            self.close_table();
            self.add_block(&format!("<!-- page {number} -->"));
        }
        self.add_block(text);
        self.closing = table::end_of_open_block(text);
        if !is_doubtful && self.closing.is_none() {
            self.open_table(number, text);
        }
    }

    fn add_failed(&mut self, number: u32, code: &str) {
        self.close_table();
        self.add_block(&format!("<!-- page {number}: failed, {code} -->"));
    }

    /// Adds the rows to the open table, if the text begins with rows of it. Returns where they end in the text.
    fn continue_table(&mut self, number: u32, text: &str) -> Option<usize> {
        let open = self.open.as_mut()?;
        if open.page + 1 != number {
            return None;
        }
        let further = open.table.continued_by(text)?;
        self.joined.insert_str(open.end_of_rows, &further.rows);
        open.end_of_rows += further.rows.len();
        open.page = number;
        self.within.push(number);
        Some(further.end)
    }

    /// Remembers the table at the end of the text, which was just added.
    fn open_table(&mut self, page: u32, text: &str) {
        let start = self.joined.len() - text.len();
        self.open = EndingTable::of(text).map(|(table, end)| OpenTable {
            table,
            end_of_rows: start + end,
            page,
        });
    }

    /// Ends the open table, and adds the comments of the pages that begin in it.
    fn close_table(&mut self) {
        self.open = None;
        for number in std::mem::take(&mut self.within) {
            self.add_block(&format!("<!-- page {number}: begins in the table above -->"));
        }
    }

    /// Adds a block, with an empty line before it.
    fn add_block(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(closing) = self.closing.take() {
            self.joined.push('\n');
            self.joined.push_str(&closing);
        }
        if !self.joined.is_empty() {
            self.joined.push_str("\n\n");
        }
        self.joined.push_str(text);
    }
}

/// The text with `&lt;` in place of `<` where a comment begins that looks like the comment of a page.
fn without_page_comments(text: &str) -> Cow<'_, str> {
    const START: &str = "<!--";
    const PAGE: &str = "page";
    let looks_alike = |at: &usize| {
        let word = text[at + START.len()..].trim_start().get(..PAGE.len());
        word.is_some_and(|word| word.eq_ignore_ascii_case(PAGE))
    };
    let (mut escaped, mut from) = (String::new(), 0);
    for at in text.match_indices(START).map(|(at, _)| at).filter(looks_alike) {
        escaped.push_str(&text[from..at]);
        escaped.push_str("&lt;");
        from = at + 1;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    escaped.push_str(&text[from..]);
    Cow::Owned(escaped)
}

/// The text without the blank lines before and after it. The spaces before its first word stay, because they may make
/// it code.
fn without_blank_edges(text: &str) -> &str {
    let text = text.trim_end();
    let first = text.find(|character: char| !character.is_whitespace()).unwrap_or(text.len());
    let start = text[..first].rfind('\n').map_or(0, |line_break| line_break + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(number: u32, markdown: &str) -> MarkdownPage<'_> {
        MarkdownPage::Read { number, markdown: markdown.into(), is_doubtful: false }
    }

    fn joined(pages: &[&str]) -> String {
        let numbered = (1..).zip(pages).map(|(number, markdown)| page(number, markdown));
        join(numbered)
    }

    #[test]
    fn each_page_has_its_number_as_a_comment_and_a_failed_one_its_code() {
        let failed = MarkdownPage::Failed { number: 3, code: "budget_exhausted" };
        let pages = [page(2, "\n\n# Two\n"), failed, page(4, ""), page(7, "    code\n\nseven")];
        let expected = "<!-- page 2 -->\n\n# Two\n\n<!-- page 3: failed, budget_exhausted -->\n\n\
                        <!-- page 4 -->\n\n<!-- page 7 -->\n\n    code\n\nseven";
        assert_eq!(join(pages), expected);
    }

    #[test]
    fn a_pipe_table_goes_on_where_the_next_page_repeats_its_header_or_has_none() {
        for next in [
            "| a | b |\n|:--|--:|\n| 3 | 4 |\n\nend",
            "|a|**b**|\n|-|-|\n| 3 | 4 |\n\nend",
            "|  |  |\n|---|---|\n| 3 | 4 |\n\nend",
            "| 3 | 4 |\n\nend",
        ] {
            let whole = joined(&["x\n\n| a | b |\n|---|---|\n| 1 | 2 |", next]);
            let expected = "<!-- page 1 -->\n\nx\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n\
                            <!-- page 2: begins in the table above -->\n\nend";
            assert_eq!(whole, expected, "{next}");
        }
    }

    #[test]
    fn an_html_table_goes_on_where_the_next_page_repeats_its_header_or_has_none() {
        let marked = "x\n\n<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>\
                      <tr><td>1</td><td>2</td></tr></tbody></table>";
        let again = "<table><tr><th> a</th><th>b</th></tr><tr><td>3</td><td>4</td></tr></table>";
        let headless = "<table border=1><tbody><tr><td>3</td><td>4</td></tr></tbody></table>";
        for (first, next) in [(marked, headless), (marked, again)] {
            let whole = joined(&[first, next]);
            assert_eq!(whole.matches("<table").count(), 1, "{whole}");
            assert_eq!(whole.matches(">a<").count(), 1, "{whole}");
            assert!(whole.contains("<td>2</td></tr>\n<tr><td>3</td><td>4</td></tr>"), "{whole}");
            assert!(whole.ends_with("</table>\n\n<!-- page 2: begins in the table above -->"));
        }
    }

    #[test]
    fn a_table_goes_on_over_several_pages() {
        let first = "x\n\n| a | b |\n|---|---|\n| 1 | 2 |";
        let whole = joined(&[first, "| 3 | 4 |", "| a | b |\n|---|---|\n| 5 | 6 |", "after"]);
        let expected = "<!-- page 1 -->\n\nx\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n\n\
                        <!-- page 2: begins in the table above -->\n\n\
                        <!-- page 3: begins in the table above -->\n\n<!-- page 4 -->\n\nafter";
        assert_eq!(whole, expected);
    }

    #[test]
    fn tables_that_may_be_two_stay_two() {
        let pipe = "| a | b |\n|---|---|\n| 1 | 2 |";
        let html = "<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>";
        for (first, next) in [
            // Another header, another number of columns, another notation.
            (pipe, "| c | d |\n|---|---|\n| 3 | 4 |"),
            (pipe, "| 3 | 4 | 5 |"),
            (pipe, html),
            // Text between the tables.
            (pipe, "Page 2\n\n| 3 | 4 |"),
            ("| a | b |\n|---|---|\n| 1 | 2 |\n\nPage 1", "| 3 | 4 |"),
            // Rows of different lengths, or a line that may belong to the table.
            ("| a | b |\n|---|---|\n| 1 |", "| 3 | 4 |"),
            (pipe, "| 3 | 4 |\n| 5 |"),
            (pipe, "| 3 | 4 |\nor text"),
            // Code that looks like a table.
            ("```\n| a | b |\n|---|---|\n| 1 | 2 |\n```", "| 3 | 4 |"),
            // A first row that nothing marks as a header, or that has a digit: it may be data.
            (&format!("x\n\n{html}"), html),
            (
                "x\n\n<table><tr><th>a</th><td>b</td></tr></table>",
                "<table><tr><th>a</th><td>b</td></tr></table>",
            ),
            ("x\n\n| day 1 | fee |\n|---|---|\n| 1 | 2 |", "| day 1 | fee |\n|---|---|\n| 3 | 4 |"),
            // Both pages begin with their table, or the first table ends in its total: two invoices.
            (pipe, pipe),
            ("x\n\n| a | b |\n|---|---|\n| **Total** | 2 |", pipe),
            (
                "x\n\n<table><tr><th>a</th></tr><tr><td>合计 2</td></tr></table>",
                "<table><tr><th>a</th></tr><tr><td>3</td></tr></table>",
            ),
            // A first row that may be a header: this writer marks none.
            (html, "<table><tr><td>3</td><td>4</td></tr></table>"),
            // A caption, a cell that reaches into the next page, a row that is not closed.
            (html, "<table><caption>x</caption><tr><td>a</td><td>b</td></tr></table>"),
            (
                "<table><tr><th>a</th><th>b</th></tr><tr><td rowspan=2>1</td><td>2</td></tr></table>",
                "<table><tr><td>3</td><td>4</td></tr></table>",
            ),
            ("<table><tr><th>a<th>b</table>", "<table><tr><td>3</td><td>4</td></tr></table>"),
        ] {
            let expected = format!("<!-- page 1 -->\n\n{first}\n\n<!-- page 2 -->\n\n{next}");
            assert_eq!(joined(&[first, next]), expected);
        }
    }

    #[test]
    fn a_table_ends_at_its_total_also_if_that_is_on_a_later_page() {
        let pages = ["x\n\n| a | b |\n|---|---|\n| 1 | 2 |", "| total | 3 |", "| 4 | 5 |"];
        let whole = joined(&pages);
        assert!(whole.contains("| 1 | 2 |\n| total | 3 |\n\n"), "{whole}");
        assert!(whole.ends_with("<!-- page 3 -->\n\n| 4 | 5 |"), "{whole}");
    }

    #[test]
    fn what_is_open_at_the_end_of_a_page_is_closed_before_the_next() {
        for (open, closed) in [
            ("```\ncode cut", "```\ncode cut\n```"),
            ("a\n  ~~~~ rs\ncode", "a\n  ~~~~ rs\ncode\n  ~~~~"),
            ("<!-- draft", "<!-- draft\n-->"),
            ("<!-- draft\n```", "<!-- draft\n```\n-->"),
            ("```\n<!-- draft", "```\n<!-- draft\n```"),
            ("<!-- draft -->", "<!-- draft -->"),
        ] {
            let expected = format!("<!-- page 1 -->\n\n{closed}\n\n<!-- page 2 -->\n\ntwo");
            assert_eq!(joined(&[open, "two"]), expected);
        }
    }

    #[test]
    fn a_comment_of_a_page_that_looks_like_the_comment_of_a_page_is_escaped() {
        let whole = joined(&["a <!-- page 2 --> b <!--PAGE 3--> c <!-- note -->", "<!--"]);
        let expected = "<!-- page 1 -->\n\na &lt;!-- page 2 --> b &lt;!--PAGE 3--> c <!-- note -->\n\n\
                        <!-- page 2 -->\n\n<!--";
        assert_eq!(whole, expected);
    }

    #[test]
    fn a_table_ends_at_a_page_that_is_missing_failed_or_doubtful() {
        let (first, next) = ("| a | b |\n|---|---|\n| 1 | 2 |", "| 3 | 4 |");
        let failed = MarkdownPage::Failed { number: 2, code: "internal" };
        let cut = MarkdownPage::Read { number: 1, markdown: first.into(), is_doubtful: true };
        for pages in [
            vec![page(1, first), page(3, next)],
            vec![page(1, first), failed, page(3, next)],
            vec![page(1, first), page(2, ""), page(3, next)],
            vec![cut, page(2, next)],
        ] {
            assert!(join(pages).ends_with("-->\n\n| 3 | 4 |"));
        }
    }

    /// A block of a page. Each `{}` is replaced by a word that is nowhere else. `head` and `tail` are the only words in
    /// marked headers, and `d1` is data that repeats.
    fn block() -> impl Strategy<Value = String> {
        let rows = |row: &'static str| {
            prop::collection::vec(Just(row), 0..3).prop_map(|rows| rows.concat())
        };
        let html = |row| {
            let first = prop::sample::select(vec![
                "<th>head</th><th>tail</th>",
                "<td>d1</td><td>d1</td>",
                "<th>d1</th><td>d1</td>",
            ]);
            (first, rows(row))
                .prop_map(|(first, rows)| format!("<table><tr>{first}</tr>{rows}</table>\n\n"))
        };
        prop_oneof![
            Just("a {} b\n\n".to_owned()),
            Just("```\n| {} | x |\n".to_owned()),
            Just("```\n\n".to_owned()),
            Just("<!-- {}\n".to_owned()),
            Just("<!-- page 1 -->\n".to_owned()),
            rows("| {} | {} |\n").prop_map(|rows| format!("| head | tail |\n|---|---|\n{rows}\n")),
            rows("| {} | {} |\n").prop_map(|rows| format!("| d1 | d1 |\n|---|---|\n{rows}\n")),
            rows("| {} | {} |\n").prop_map(|rows| format!("{rows}\n")),
            rows("| {} |\n").prop_map(|rows| format!("| head |\n|---|\n{rows}\n")),
            html("<tr><td>{}</td><td>{}</td></tr>"),
            html("<tr><td colspan=\"2\">{}</td></tr>"),
            html("<tr><td>{}</td></tr>"),
            html("<TR><TD rowspan=2>{}</TD><td>{}</td></TR>"),
        ]
    }

    proptest! {
        #[test]
        fn joining_neither_loses_nor_doubles_nor_reorders_a_word(
            pages in prop::collection::vec(prop::collection::vec(block(), 0..4), 1..6),
            doubtful in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut words = 0;
            let pages: Vec<String> = pages.iter().map(|blocks| {
                let mut page = blocks.concat();
                while page.contains("{}") {
                    page = page.replacen("{}", &format!("w{words}w"), 1);
                    words += 1;
                }
                page
            }).collect();
            let numbered = (1..).zip(&pages).zip(&doubtful);
            let whole = join(numbered.map(|((number, markdown), &is_doubtful)| {
                MarkdownPage::Read { number, markdown: markdown.into(), is_doubtful }
            }));
            let is_word = |part: &&str| part.starts_with('w') && part.ends_with('w');
            let parts = whole.split(|letter: char| !letter.is_alphanumeric());
            let found: Vec<_> = parts.filter(is_word).map(str::to_owned).collect();
            let expected: Vec<_> = (0..words).map(|word| format!("w{word}w")).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(whole.matches("d1").count(), pages.concat().matches("d1").count());
            for number in 1..=pages.len() {
                prop_assert_eq!(whole.matches(&format!("<!-- page {number}")).count(), 1);
            }
        }
    }
}
