//! Lines that all pages of a document begin or end with: headers and footers.
//!
//! A line repeats if it is the same on every page, except for numbers that grow with the page: `Page 1 of 3`, `Page 2
//! of 3`. Blank pages have neither header nor footer, so they do not count. Nothing else is assumed. In particular a
//! line that one page lacks is no header.

/// The most lines of a header or a footer.
const MOST_LINES: usize = 5;

/// The longest line of a header or a footer, in bytes. A longer one is a paragraph.
const LONGEST_LINE: usize = 300;

/// The fewest pages that show that a line repeats.
const FEWEST_PAGES: usize = 2;

/// The most digits of a number that grows with the page.
const MOST_DIGITS: usize = 9;

/// The number of lines that repeat on all pages. Blank lines do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepeatedLines {
    /// At the start.
    pub header: usize,
    /// At the end.
    pub footer: usize,
}

/// A page in three parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SplitPage<'a> {
    /// The repeated lines at the start.
    pub header: &'a str,
    /// All between them.
    pub body: &'a str,
    /// The repeated lines at the end.
    pub footer: &'a str,
}

impl RepeatedLines {
    /// The lines that repeat on these pages, which come with their numbers.
    pub fn of(pages: &[(u32, &str)]) -> Self {
        let pages: Vec<_> = pages.iter().filter(|(_, text)| !text.trim().is_empty()).collect();
        let lines = |text: &str| filled_lines(text).take(2 * MOST_LINES + 1).count();
        let fewest = pages.iter().map(|(_, text)| lines(text)).min().unwrap_or(0);
        if pages.len() < FEWEST_PAGES || fewest < 2 {
            return Self::default();
        }
        // Each page keeps one line of its own, also where all pages are the same.
        let repeats = |line: &dyn Fn(&str) -> Option<String>| {
            let lines: Option<Vec<_>> =
                pages.iter().map(|(number, text)| Some((*number, line(text)?))).collect();
            lines.is_some_and(|lines| is_repeated(&lines))
        };
        let from_start =
            |at: usize| move |text: &str| filled_lines(text).nth(at).map(str::to_owned);
        let from_end =
            |at: usize| move |text: &str| filled_lines(text).rev().nth(at).map(str::to_owned);
        let header =
            (0..MOST_LINES.min(fewest - 1)).take_while(|&at| repeats(&from_start(at))).count();
        let left = fewest - 1 - header;
        let footer = (0..MOST_LINES.min(left)).take_while(|&at| repeats(&from_end(at))).count();
        Self { header, footer }
    }

    /// Splits a page of the document.
    pub fn split(self, text: &str) -> SplitPage<'_> {
        if text.trim().is_empty() {
            return SplitPage::default();
        }
        let place = |line: &str| line.as_ptr().addr() - text.as_ptr().addr();
        let header = self.header.checked_sub(1).and_then(|at| filled_lines(text).nth(at));
        let header = header.map_or(0, |line| place(line) + line.len());
        let footer = self.footer.checked_sub(1).and_then(|at| filled_lines(text).rev().nth(at));
        let footer = footer.map_or(text.len(), place).max(header);
        SplitPage {
            header: text[..header].trim(),
            body: text[header..footer].trim_matches(['\r', '\n']),
            footer: text[footer..].trim(),
        }
    }
}

/// The lines that are not blank.
fn filled_lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

/// Whether a line of each page, with the number of the page, is the same header or footer.
fn is_repeated(lines: &[(u32, String)]) -> bool {
    if lines.iter().any(|(_, line)| line.len() > LONGEST_LINE || is_structure(line)) {
        return false;
    }
    let parts: Vec<_> = lines.iter().map(|(page, line)| (*page, parts(line))).collect();
    let Some((first_page, first)) = parts.first() else { return false };
    if parts.iter().any(|(_, other)| other.len() != first.len()) {
        return false;
    }
    (0..first.len()).all(|at| {
        let is_same = parts.iter().all(|(_, other)| other[at] == first[at]);
        let grows = |(page, other): &(u32, Vec<String>)| {
            let (number, start) = (number(&other[at])?, number(&first[at])?);
            Some(number - i64::from(*page) == start - i64::from(*first_page))
        };
        is_same || parts.iter().all(|page| grows(page) == Some(true))
    })
}

/// Whether a line is a part of a table, code or a rule.
fn is_structure(line: &str) -> bool {
    let line = line.trim_start();
    ["|", "<", "```", "~~~"].iter().any(|start| line.starts_with(start))
        || !line.contains(char::is_alphanumeric)
}

/// The line as runs of digits and of other characters, without the marks of a heading or of emphasis.
fn parts(line: &str) -> Vec<String> {
    let words: Vec<_> = line.trim_start_matches('#').split_whitespace().collect();
    let line = words.join(" ");
    let mut parts: Vec<String> = Vec::new();
    let mut was_digit = None;
    for character in line.trim_matches(['*', '_']).chars() {
        let is_digit = character.is_ascii_digit();
        match parts.last_mut().filter(|_| was_digit == Some(is_digit)) {
            Some(part) => part.push(character),
            None => parts.push(character.into()),
        }
        was_digit = Some(is_digit);
    }
    parts
}

fn number(part: &str) -> Option<i64> {
    let is_number = part.len() <= MOST_DIGITS && part.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| part.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repeated(pages: &[&str]) -> (usize, usize) {
        let numbered: Vec<_> = (1..).zip(pages.iter().copied()).collect();
        let RepeatedLines { header, footer } = RepeatedLines::of(&numbered);
        (header, footer)
    }

    #[test]
    fn lines_repeat_where_only_the_page_number_differs() {
        let pages = [
            "# ACME\nInvoice 77\n\none\n\nPage 1 of 3",
            "ACME\nInvoice 77\ntwo\n2 and 3\nPage 2 of 3",
        ];
        assert_eq!(repeated(&pages), (2, 1));
        assert_eq!(repeated(&["one\n- 7 -", "two\n\n\n- 8 -\n", "", "four\n- 10 -"]), (0, 1));
    }

    #[test]
    fn a_line_that_one_page_lacks_or_whose_numbers_do_not_grow_with_the_page_does_not_repeat() {
        for pages in [
            &["ACME\none", "ACME\ntwo", "three\nx"][..],
            &["Total 10\none", "Total 20\ntwo"],
            &["Page 2\none", "Page 1\ntwo"],
            &["| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 3 | 4 |"],
            &["<table>\none", "<table>\ntwo"],
            &["---\none", "---\ntwo"],
            &["ACME", "ACME"],
            &["ACME\none"],
            &["", "ACME\none"],
        ] {
            assert_eq!(repeated(pages), (0, 0), "{pages:?}");
        }
        let long = "a ".repeat(LONGEST_LINE);
        assert_eq!(repeated(&[&format!("{long}\none"), &format!("{long}\ntwo")]), (0, 0));
    }

    #[test]
    fn pages_that_are_all_the_same_keep_a_line_of_their_own() {
        assert_eq!(repeated(&["a\nb\nc", "a\nb\nc"]), (2, 0));
        assert_eq!(repeated(&["x\n1\n2\n3\n4\n5\n6\n7", "x\n1\n2\n3\n4\n5\n6\n7"]), (5, 2));
    }

    proptest! {
        #[test]
        fn a_page_is_split_without_losing_a_word(
            pages in prop::collection::vec("([a-c1-3 ]{0,3}\n){0,6}", 0..4),
        ) {
            let numbered: Vec<_> = (1..).zip(pages.iter().map(String::as_str)).collect();
            let lines = RepeatedLines::of(&numbered);
            for page in &pages {
                let SplitPage { header, body, footer } = lines.split(page);
                let words = [header, body, footer].join("\n");
                let words: Vec<_> = words.split_whitespace().collect();
                prop_assert_eq!(words, page.split_whitespace().collect::<Vec<_>>());
            }
        }
    }
}
