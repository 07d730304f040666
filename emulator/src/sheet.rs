//! A page in reading order: rows from top to bottom, tokens from left to right.
//!
//! An OCR engine groups lines by columns of text, which is right for prose and wrong for a form: there a label is at
//! the left and its value far right at the same height. Here lines of one height become one row, and words are split at
//! the end of a label (`Total:12.00`) and between Chinese characters, so that a label is a run of tokens in either
//! script.

use crate::engine::{Bounds, Reading, TextLine, Word, is_unspaced};

/// The rows of one or more pages, in order.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) rows: Vec<Row>,
}

/// The words at one height.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) tokens: Vec<Token>,
    /// The usual height of its text in pixels.
    pub(crate) height: u32,
}

/// A word or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// In lower case and without surrounding punctuation; the text unchanged if that would leave it empty.
    pub(crate) folded: String,
    pub(crate) bounds: Bounds,
    /// Whether it continues the word before it.
    pub(crate) glued: bool,
}

impl Sheet {
    /// The sheet of one or more readings.
    pub(crate) fn of<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> Self {
        Self { rows: readings.into_iter().flat_map(rows_of).collect() }
    }
}

impl Row {
    /// The row as text.
    pub(crate) fn text(&self) -> String {
        text_of(&self.tokens)
    }

    /// The row, split at gaps that are wider than the spaces between words.
    pub(crate) fn segments(&self) -> Vec<&[Token]> {
        let is_near = |before: &Token, after: &Token| {
            after.glued || is_near(before.bounds, after.bounds, self.height)
        };
        self.tokens.chunk_by(is_near).collect()
    }
}

/// The line of an engine, split like a row: the service gives a line for each column of a table.
pub(crate) fn segments_of(line: &TextLine) -> Vec<TextLine> {
    let height = usual_height(&line.words);
    let segments =
        line.words.chunk_by(|before, after| is_near(before.bounds, after.bounds, height));
    segments.map(|words| TextLine { block: line.block, words: words.to_vec() }).collect()
}

/// Whether the gap between two words of text of this height is a space between words.
fn is_near(before: Bounds, after: Bounds, height: u32) -> bool {
    after.left.saturating_sub(before.right) * 2 <= height * 3
}

/// The usual height of words in pixels.
fn usual_height<'a>(words: impl IntoIterator<Item = &'a Word>) -> u32 {
    let mut heights: Vec<u32> = words.into_iter().map(|word| word.bounds.height()).collect();
    heights.sort_unstable();
    heights.get(heights.len() / 2).copied().unwrap_or(1).max(1)
}

/// Tokens as text, with the original spaces.
pub(crate) fn text_of(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        let unspaced = |character: Option<char>| character.is_some_and(is_unspaced);
        let touches = unspaced(text.chars().next_back()) && unspaced(token.text.chars().next());
        if !text.is_empty() && !token.glued && !touches {
            text.push(' ');
        }
        text.push_str(&token.text);
    }
    text
}

/// The rectangle around all tokens.
pub(crate) fn bounds_of(tokens: &[Token]) -> Option<Bounds> {
    tokens.iter().map(|token| token.bounds).reduce(Bounds::around)
}

fn rows_of(reading: &Reading) -> Vec<Row> {
    let mut lines: Vec<(Bounds, &TextLine)> =
        reading.lines.iter().filter_map(|line| Some((line.bounds()?, line))).collect();
    lines.sort_by_key(|(bounds, _)| bounds.middle_doubled());
    let same_row = |(above, _): &(Bounds, &TextLine), (below, _): &(Bounds, &TextLine)| {
        below.middle_doubled() < 2 * above.bottom
            && above.middle_doubled() > 2 * below.top
            && (above.right <= below.left || below.right <= above.left)
    };
    lines.chunk_by(same_row).map(row_of).collect()
}

fn row_of(lines: &[(Bounds, &TextLine)]) -> Row {
    let mut words: Vec<_> = lines.iter().flat_map(|(_, line)| &line.words).collect();
    words.sort_by_key(|word| word.bounds.left);
    Row {
        height: usual_height(words.iter().copied()),
        tokens: words.iter().flat_map(|word| tokens_of(&word.text, word.bounds)).collect(),
    }
}

/// The tokens of one word; each gets its share of the word's width.
fn tokens_of(word: &str, bounds: Bounds) -> Vec<Token> {
    let characters: Vec<char> = word.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut start = 0;
    for end in 1..=characters.len() {
        if end < characters.len() && !breaks_at(&characters, end) {
            continue;
        }
        let share = |position: usize| {
            let (position, all) = (position as u64, characters.len() as u64);
            let offset = u64::from(bounds.width()) * position / all.max(1);
            bounds.left + u32::try_from(offset).unwrap_or(0)
        };
        let text: String = characters[start..end].iter().collect();
        tokens.push(Token {
            folded: folded(&text),
            text,
            bounds: Bounds { left: share(start), right: share(end), ..bounds },
            glued: start > 0,
        });
        start = end;
    }
    tokens
}

/// Whether a word is split before its character at `at`.
fn breaks_at(characters: &[char], at: usize) -> bool {
    let (before, after) = (characters[at - 1], characters[at]);
    let is_colon = |character: char| matches!(character, ':' | '：');
    if is_colon(before) || is_colon(after) {
        let colon = if is_colon(before) { at - 1 } else { at };
        return !is_within_number(characters, colon);
    }
    let is_edge = |character: char| matches!(character, '(' | ')' | '（' | '）' | '=' | '#');
    is_edge(before) || is_edge(after) || is_unspaced(before) || is_unspaced(after)
}

/// Whether the colon at that position is part of a time.
fn is_within_number(characters: &[char], colon: usize) -> bool {
    let is_digit =
        |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_digit);
    is_digit(colon.checked_sub(1)) && is_digit(Some(colon + 1))
}

/// A word normalised for the comparison of labels: lower case, no surrounding punctuation.
pub(crate) fn folded(text: &str) -> String {
    let bare = text.trim_matches(|character: char| !character.is_alphanumeric());
    if bare.is_empty() { text.to_owned() } else { bare.to_lowercase() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::Word;

    /// A reading of typewritten text: ten pixels a character, twenty a line.
    pub(crate) fn typed(text: &str) -> Reading {
        let mut lines = Vec::new();
        for (row, line) in (0..).zip(text.lines()) {
            let mut words = Vec::new();
            let mut left = 0;
            for part in line.split(' ') {
                let right = left + 10 * u32::try_from(part.chars().count()).unwrap();
                let bounds = Bounds { left, top: row * 20, right, bottom: row * 20 + 16 };
                if !part.is_empty() {
                    words.push(Word { text: part.to_owned(), bounds });
                }
                left = right + 10;
            }
            lines.push(TextLine { block: 1, words });
        }
        Reading { width: 1000, height: 1000, lines }
    }

    fn texts(word: &str) -> Vec<String> {
        let bounds = Bounds { left: 0, top: 0, right: 100, bottom: 10 };
        tokens_of(word, bounds).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_are_split_where_a_label_ends() {
        assert_eq!(texts("Date:12/01/2018"), ["Date", ":", "12/01/2018"]);
        assert_eq!(texts("10:30:05"), ["10:30:05"]);
        assert_eq!(texts("TOTAL(RM)"), ["TOTAL", "(", "RM", ")"]);
        assert_eq!(texts("车次G123"), ["车", "次", "G123"]);
    }

    #[test]
    fn a_line_is_split_where_its_columns_are_far_apart() {
        let line = &typed("Blue pen      3.00").lines[0];
        let texts: Vec<String> = segments_of(line).iter().map(TextLine::text).collect();
        assert_eq!(texts, ["Blue pen", "3.00"]);
    }

    #[test]
    fn columns_of_one_height_become_one_row() {
        let mut reading = typed("TOTAL\n9.00");
        let value = &mut reading.lines[1].words[0].bounds;
        *value = Bounds { left: 500, top: 2, right: 540, bottom: 17 };
        let sheet = Sheet::of([&reading]);
        assert_eq!(sheet.rows.len(), 1);
        assert_eq!(sheet.rows[0].text(), "TOTAL 9.00");
        assert_eq!(sheet.rows[0].segments().len(), 2);
    }
}
