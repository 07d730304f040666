//! Finds where a number goes on over a blank, so that a part of it is not taken for a number of its own.
//!
//! `1 234,56` may be one number with a blank between its groups, or two columns. Neither part is then called found. The
//! whole is.

use std::ops::Range;

use super::fold::fold_character;
use super::number;
use super::text_token::{MULTIPLIERS, TextToken, TokenKind, tokens};

/// Digits and units of Chinese numbers.
const NUMERALS: &str = "〇零一二三四五六七八九十百千万萬亿億两兩壹贰貳叁參肆伍陆陸柒捌玖拾佰仟廿卅";

/// Words that multiply the number before them, in lower case.
const MULTIPLIER_WORDS: [&str; 34] = [
    "k",
    "hundred",
    "thousand",
    "thousands",
    "million",
    "millions",
    "billion",
    "billions",
    "trillion",
    "trillions",
    "mio",
    "mrd",
    "mn",
    "mln",
    "bn",
    "bln",
    "tsd",
    "tausend",
    "millionen",
    "milliarden",
    "mille",
    "milliard",
    "milliards",
    "mil",
    "millón",
    "millones",
    "lakh",
    "lakhs",
    "lac",
    "crore",
    "crores",
    "ribu",
    "juta",
    "dozen",
];

/// The places of numbers whose groups of three digits may have one blank between them.
pub(super) fn grouped_numbers(text: &str) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut last: Option<(Range<usize>, bool)> = None;
    for TextToken { range, kind } in tokens(text) {
        if kind == TokenKind::Space {
            continue;
        }
        let written = &text[range.clone()];
        let joined = last.take().filter(|(before, goes_on)| {
            *goes_on && is_one_blank(&text[before.end..range.start]) && begins_with_a_group(written)
        });
        let goes_on = match &joined {
            Some((before, _)) => {
                match groups.last_mut().filter(|group| group.end == before.end) {
                    Some(group) => group.end = range.end,
                    None => groups.push(before.start..range.end),
                }
                written.chars().all(is_digit)
            }
            None => kind == TokenKind::Word && may_begin_a_group(written),
        };
        last = Some((range, goes_on));
    }
    groups
}

/// The group that holds this place, or a part of it.
pub(super) fn group_at<'g>(
    groups: &'g [Range<usize>],
    place: &Range<usize>,
) -> Option<&'g Range<usize>> {
    let first = groups.partition_point(|group| group.end <= place.start);
    groups.get(first).filter(|group| group.start < place.end)
}

/// Whether the place ends within a group or begins within one.
pub(super) fn cuts_a_group(groups: &[Range<usize>], place: &Range<usize>) -> bool {
    let is_cut = |group: &Range<usize>| group.start < place.start || place.end < group.end;
    group_at(groups, place).is_some_and(is_cut)
}

/// Whether the number that ends here is multiplied by what stands behind it, perhaps after a blank: `3 万`, `5 million`,
/// `5 ½`.
pub(super) fn is_multiplied(text: &str, end: usize) -> bool {
    let is_blank = |character: char| character.is_whitespace() && character != '\n';
    let behind = text[end..].trim_start_matches(is_blank);
    let word_end =
        behind.find(|character: char| !character.is_alphabetic()).unwrap_or(behind.len());
    let longest = 12;
    let is_word = word_end <= longest
        && MULTIPLIER_WORDS.contains(&behind[..word_end].to_lowercase().as_str());
    let is_sign = |character: char| {
        MULTIPLIERS.contains(character) || character.is_numeric() && !is_digit(character)
    };
    is_word || behind.starts_with(is_sign)
}

/// Whether a place begins or ends within a Chinese number.
pub(super) fn is_within_numerals(text: &str, place: &Range<usize>) -> bool {
    let is_numeral = |character: Option<char>| character.is_some_and(|c| NUMERALS.contains(c));
    let inside = &text[place.clone()];
    let (before, behind) = (&text[..place.start], &text[place.end..]);
    is_numeral(inside.chars().next()) && is_numeral(before.chars().next_back())
        || is_numeral(inside.chars().next_back()) && is_numeral(behind.chars().next())
}

fn is_digit(character: char) -> bool {
    fold_character(character).is_ascii_digit()
}

fn is_one_blank(between: &str) -> bool {
    let mut characters = between.chars();
    let blank = characters.next();
    blank.is_some_and(|blank| fold_character(blank) == ' ' && !matches!(blank, '\n' | '\r' | '\t'))
        && characters.next().is_none()
}

/// Whether the token may be the first group of a number: up to three digits, perhaps behind a sign or a currency.
fn may_begin_a_group(token: &str) -> bool {
    let head = token.trim_end_matches(is_digit);
    let digits = &token[head.len()..];
    let before = head.trim_matches(|character: char| fold_character(character) == '-');
    (1..=3).contains(&digits.chars().count())
        && digits.chars().next().map(fold_character) != Some('0')
        && (before.is_empty() || number::is_money_word(before))
}

/// Whether the token is a later group of a number: three digits, perhaps with a fraction.
fn begins_with_a_group(token: &str) -> bool {
    let behind = token.trim_start_matches(is_digit);
    let digits = token[..token.len() - behind.len()].chars().count();
    digits == 3
        && !behind.starts_with(|character: char| matches!(fold_character(character), ':' | '/'))
}
