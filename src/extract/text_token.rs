//! Splits text into tokens, so that a value is found only as whole tokens.
//!
//! A token is a run of letters and digits, with the signs that belong to a number or a code: `1,234.50`, `-5`, `.50`,
//! `14:05`, `29/06/2013`, `A-12`, `McDonald's`. So `5` is not in `15.00`, and `art` is not in `party`. Scripts without
//! spaces between words, such as Chinese, have no word boundaries: each of their characters is a token. A character
//! that changes the size of the number before it, as in `3万`, belongs to the number.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::fold::fold_character;

/// Characters that multiply the number before them, or make it a fraction.
pub(super) const MULTIPLIERS: &str = "万萬亿億千仟百佰十拾角折成倍만억천백십";

/// Characters between the whole and the fraction of an amount, as in `53元5角`.
const YUAN: &str = "元圆圓円";

/// Spaces that group digits. Others separate numbers.
const GROUPING_SPACES: &str = "\u{a0}\u{2007}\u{2009}\u{202f}";

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextToken {
    /// Its place, in bytes.
    pub(super) range: Range<usize>,
    pub(super) kind: TokenKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A word, a number, or a character of a script without spaces.
    Word,
    /// One character that is neither.
    Sign,
    /// A run of spaces and line breaks.
    Space,
}

/// The tokens of a text, in their order. Together they are the text.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = TextToken> {
    let (mut at, mut before) = (0, None);
    std::iter::from_fn(move || {
        let (kind, length) = token_at(&text[at..], before)?;
        let range = at..at + length;
        at = range.end;
        before = text[range.clone()].chars().next_back().map(fold_character);
        Some(TextToken { range, kind })
    })
}

/// Whether the character belongs to a script that does not separate words by spaces.
pub(super) const fn is_unspaced(character: char) -> bool {
    matches!(
        character,
        // Thai to Myanmar, Hangul, Khmer.
        '\u{0e00}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        // Radicals, kana, ideographs, Hangul syllables.
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}' | '\u{20000}'..='\u{3ffff}'
    )
}

/// Kind and length of the token at the beginning of `rest`. `before` is the character before it.
fn token_at(rest: &str, before: Option<char>) -> Option<(TokenKind, usize)> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        let length = rest.find(|character: char| !character.is_whitespace());
        return Some((TokenKind::Space, length.unwrap_or(rest.len())));
    }
    if is_unspaced(first) {
        return Some((TokenKind::Word, first.len_utf8()));
    }
    let sign = sign_length(rest, before);
    let run = run_length(&rest[sign..]);
    if run == 0 {
        return Some((TokenKind::Sign, first.len_utf8()));
    }
    Some((TokenKind::Word, sign + run))
}

/// Length of a minus or of a leading decimal sign that belongs to the number behind it. Repeated signs are leaders, as
/// in a table of contents.
fn sign_length(rest: &str, before: Option<char>) -> usize {
    let mut length = 0;
    let mut before = before;
    for signs in [&['-'][..], &['.', ',']] {
        let mut characters = rest[length..].chars().map(fold_character);
        let Some(sign) = characters.next().filter(|sign| signs.contains(sign)) else { continue };
        let is_leader = before == Some(sign);
        let follows_a_word = before.is_some_and(is_of_a_run);
        let is_before_a_number = match characters.next() {
            Some('.' | ',') if sign == '-' => true,
            next => next.is_some_and(|next| next.is_ascii_digit()),
        };
        if is_leader || follows_a_word || !is_before_a_number {
            break;
        }
        length += rest[length..].chars().next().map_or(0, char::len_utf8);
        before = Some(sign);
    }
    // A minus before a sign that turned out to be none.
    if rest[length..].chars().next().map(fold_character).is_some_and(|next| next.is_ascii_digit()) {
        length
    } else {
        0
    }
}

/// Length of the run of letters and digits at the beginning of `rest`, with the signs within it and behind its last
/// digit.
fn run_length(rest: &str) -> usize {
    let (mut length, mut last) = (0, None);
    let mut characters = rest.chars().peekable();
    while let Some(character) = characters.next() {
        let folded = fold_character(character);
        let next = characters.peek().copied();
        if is_of_a_run(folded) && !is_unspaced(character) {
            last = Some(folded);
        } else if !last.zip(next).is_some_and(|(last, next)| joins(last, character, next)) {
            let follows_a_digit = last.is_some_and(|last| last.is_ascii_digit());
            let is_its_end = follows_a_digit && ends_a_number(character, next);
            return length + if is_its_end { character.len_utf8() } else { 0 };
        }
        length += character.len_utf8();
    }
    length
}

fn is_of_a_run(character: char) -> bool {
    character.is_alphanumeric() && !is_unspaced(character)
        || character == '_'
        || is_combining_mark(character)
}

/// Whether `sign` between these characters is within a number, a code or a word.
fn joins(last: char, sign: char, next: char) -> bool {
    let next_folded = fold_character(next);
    if is_unspaced(next) || !is_of_a_run(next_folded) {
        return false;
    }
    let digits = [last, next_folded].map(|character| character.is_ascii_digit());
    match fold_character(sign) {
        '.' | ',' | ':' => digits == [true, true],
        '\'' => digits[0] == digits[1],
        '-' | '/' => digits != [false, false],
        _ => (GROUPING_SPACES.contains(sign) || YUAN.contains(sign)) && digits == [true, true],
    }
}

/// Whether the character behind a digit belongs to the number: a minus behind it, or a multiplier.
fn ends_a_number(character: char, next: Option<char>) -> bool {
    let is_minus = fold_character(character) == '-' && next.map(fold_character) != Some('-');
    is_minus || MULTIPLIERS.contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The words of a text.
    fn words(text: &str) -> Vec<&str> {
        let words = tokens(text).filter(|token| token.kind == TokenKind::Word);
        words.map(|token| &text[token.range]).collect()
    }

    #[test]
    fn a_number_is_one_token_with_its_signs() {
        for number in [
            "1,234.50",
            "1.234,50",
            "1'234.50",
            "1\u{202f}234,50",
            "-5",
            "−5.00",
            ".50",
            "-.50",
            "5.00-",
            "14:05:33",
            "29/06/2013",
            "2013-06-29T14:05",
            "A-12",
            "INV-0042",
            "12.3.4",
            "１，２３４．５０",
            "3万",
            "53元5角",
            "RM12.00",
        ] {
            assert_eq!(words(number), [number]);
        }
    }

    #[test]
    fn signs_that_belong_to_no_number_are_tokens_of_their_own() {
        assert_eq!(words("TOTAL:12.00."), ["TOTAL", "12.00"]);
        assert_eq!(words("Rs.50, $.50"), ["Rs", "50", ".50"]);
        assert_eq!(words("Total.....12.00"), ["Total", "12.00"]);
        assert_eq!(words("a --5"), ["a", "5"]);
        assert_eq!(words("(5.00) $-5 5%"), ["5.00", "-5", "5"]);
        assert_eq!(words("5 - 3, 12.00"), ["5", "3", "12.00"]);
        assert_eq!(words("-. 5"), ["5"]);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("McDonald's co-operation"), ["McDonald's", "co", "operation"]);
        assert_eq!(words("cafe\u{301} a_b"), ["cafe\u{301}", "a_b"]);
    }

    #[test]
    fn each_character_of_a_script_without_spaces_is_a_token() {
        assert_eq!(words("总额12.00元"), ["总", "额", "12.00", "元"]);
        assert_eq!(
            words("2013年6月29日G123次"),
            ["2013", "年", "6", "月", "29", "日", "G123", "次"]
        );
    }

    proptest! {
        #[test]
        fn the_tokens_of_any_text_are_the_text(text in any::<String>()) {
            let joined: String = tokens(&text).map(|token| text[token.range].to_owned()).collect();
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn a_token_alone_is_the_same_token(text in "[-a5.,:/'元万 ]{0,12}") {
            for token in tokens(&text) {
                let alone = &text[token.range.clone()];
                let again: Vec<_> = tokens(alone).collect();
                prop_assert_eq!(again.len(), 1, "{:?} of {:?}", alone, text);
                prop_assert_eq!(again[0].kind, token.kind);
            }
        }
    }
}
