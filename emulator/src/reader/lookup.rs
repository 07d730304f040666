//! Finds a label on a sheet and its value: to the right of the label, or else below it.

use crate::engine::is_unspaced;
use crate::reader::concepts::Kind;
use crate::reader::patterns;
use crate::reader::vocabulary::{concept, is_label};
use crate::sheet::{Sheet, Token, bounds_of, folded, text_of};

/// The most continuation lines of a labelled address.
const ADDRESS_LINES: usize = 3;

/// The longest label in tokens.
const LONGEST_LABEL: usize = 6;

/// The position of a label: a row and its tokens from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) row: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The value for any label in `names`, tried in order.
pub(crate) fn labelled(sheet: &Sheet, names: &[&str], kind: Kind) -> Option<String> {
    let places: Vec<(&str, Place)> = names
        .iter()
        .flat_map(|name| places(sheet, name).into_iter().map(|place| (*name, place)))
        .collect();
    let right =
        |(name, place): &(&str, Place)| value_right(sheet, *place, kind, is_vague(name, kind));
    let below = |(_, place): &(&str, Place)| value_below(sheet, *place, kind);
    places.iter().find_map(right).or_else(|| places.iter().find_map(below))
}

/// All positions of a label.
pub(crate) fn places(sheet: &Sheet, name: &str) -> Vec<Place> {
    let label = label_tokens(name);
    let mut places = Vec::new();
    for (row, tokens) in sheet.rows.iter().map(|row| &row.tokens).enumerate() {
        for start in 0..tokens.len() {
            let end = start + label.len();
            let matches = tokens.get(start..end).is_some_and(|window| {
                window.iter().zip(&label).all(|(token, word)| is_like(&token.folded, word))
            });
            if matches && !is_part_of_another(tokens, start, end, name) {
                places.push(Place { row, start, end });
            }
        }
    }
    places
}

/// A text as a value of a kind, if it has that form.
pub(crate) fn value_of(text: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Text | Kind::Address => {
            let text = text.trim_matches(|c: char| c.is_whitespace() || is_separator_char(c));
            text.contains(char::is_alphanumeric).then(|| text.to_owned())
        }
        Kind::Date => patterns::date(text).map(|date| date.text),
        Kind::Time => patterns::time(text),
        Kind::Amount => patterns::amounts(text).pop().or_else(|| patterns::number(text)),
        Kind::Number => patterns::number(text),
        Kind::Phone => patterns::phone(text),
        Kind::Email => patterns::email(text),
        Kind::Identifier => patterns::identifier(text),
        Kind::Sex => text
            .split(|character: char| !character.is_alphanumeric())
            .find(|word| {
                matches!(*word, "M" | "F" | "Male" | "Female" | "MALE" | "FEMALE" | "男" | "女")
            })
            .map(str::to_owned),
    }
}

/// Tokens up to the next label with a colon.
pub(crate) fn before_next_label(tokens: &[Token]) -> &[Token] {
    let colon = (1..tokens.len()).find(|at| is_colon(&tokens[*at]));
    let Some(colon) = colon else { return tokens };
    let starts_label = |length: usize| {
        let start = colon.checked_sub(length)?;
        is_label(&phrase(&tokens[start..colon])).then_some(start)
    };
    let start = (1..=LONGEST_LABEL).rev().find_map(starts_label).unwrap_or(colon - 1);
    &tokens[..start]
}

/// Whether a token is a colon.
pub(crate) fn is_colon(token: &Token) -> bool {
    matches!(token.text.as_str(), ":" | "：")
}

/// Tokens as the words of a name: normalised, with spaces unless Chinese.
pub(crate) fn phrase(tokens: &[Token]) -> String {
    let words: Vec<&str> = tokens.iter().map(|token| token.folded.as_str()).collect();
    crate::engine::joined(words.into_iter())
}

/// Whether the two differ in at most one letter and are long enough for that to mean a misreading.
fn is_like(read: &str, word: &str) -> bool {
    if read == word {
        return true;
    }
    if word.len() < 5 || !word.is_ascii() || !read.is_ascii() {
        return false;
    }
    let common = |one: &mut dyn Iterator<Item = u8>, other: &mut dyn Iterator<Item = u8>| {
        one.zip(other).take_while(|(one, other)| one == other).count()
    };
    let front = common(&mut read.bytes(), &mut word.bytes());
    let longest = read.len().max(word.len());
    let rest = longest.saturating_sub(front + 1);
    let back = common(&mut read.bytes().rev(), &mut word.bytes().rev());
    read.len().abs_diff(word.len()) <= 1 && back >= rest
}

fn label_tokens(name: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in name.split(' ') {
        if word.contains(is_unspaced) {
            tokens.extend(word.chars().map(String::from));
        } else {
            tokens.push(folded(word));
        }
    }
    tokens
}

/// Whether the words around a label make it another label: the `date` of `due date`, the `gst` of `gst no`, the `日期` of
/// a longer Chinese word.
fn is_part_of_another(tokens: &[Token], start: usize, end: usize, name: &str) -> bool {
    let own = concept(name);
    let is_other = |from: usize, to: usize| {
        let wider = tokens.get(from..to).and_then(|wider| concept(&phrase(wider)));
        wider.is_some_and(|wider| own.is_none_or(|own| !std::ptr::eq(wider, own)))
    };
    if (1..=3).any(|more| is_other(start.saturating_sub(more), end) || is_other(start, end + more))
    {
        return true;
    }
    let touches = |one: usize, other: usize| {
        let unspaced = |at: usize| tokens[at].text.contains(is_unspaced);
        tokens[other].glued && unspaced(one) && unspaced(other)
    };
    start > 0 && touches(start - 1, start)
}

/// Whether a label is a common word, which names a value only if a colon follows.
fn is_vague(name: &str, kind: Kind) -> bool {
    matches!(kind, Kind::Text | Kind::Identifier | Kind::Address)
        && !name.contains([' '])
        && name.is_ascii()
}

fn is_separator_char(character: char) -> bool {
    matches!(character, ':' | '：' | '#' | '=' | '-' | '.' | ',' | ';' | '|' | '_' | '~' | '*')
}

fn is_separator(token: &Token) -> bool {
    token.text.chars().all(is_separator_char)
}

fn value_right(sheet: &Sheet, place: Place, kind: Kind, needs_separator: bool) -> Option<String> {
    let row = sheet.rows.get(place.row)?;
    let after = row.tokens.get(place.end..)?;
    let value = without_separators(without_note(after));
    let has_separator = value.len() < without_note(after).len();
    if needs_separator && !has_separator {
        return None;
    }
    let value = before_next_label(value);
    if !matches!(kind, Kind::Text | Kind::Address) {
        return value_of(&text_of(value), kind);
    }
    let first = segment_of(value, row.height);
    let is_beside =
        has_separator || !is_spaced_prose(row.tokens.get(place.end - 1)?, first, row.height);
    let text = value_of(&text_of(first), kind).filter(|_| is_beside)?;
    if kind == Kind::Text {
        return Some(text);
    }
    Some(with_continuation(sheet, place.row, first, text))
}

/// Whether a Latin label continues into the following words, as in a sentence.
fn is_spaced_prose(label: &Token, value: &[Token], height: u32) -> bool {
    let Some(first) = value.first() else { return true };
    let gap = first.bounds.left.saturating_sub(label.bounds.right);
    !label.text.contains(is_unspaced) && gap < height
}

/// An address with its continuation lines below.
fn with_continuation(sheet: &Sheet, row: usize, first: &[Token], mut text: String) -> String {
    let Some(start) = bounds_of(first) else { return text };
    for next in sheet.rows.iter().skip(row + 1).take(ADDRESS_LINES) {
        let is_aligned = next.tokens.first().is_some_and(|token| {
            token.bounds.left + 2 * next.height >= start.left && token.bounds.left <= start.right
        });
        let is_other = next.tokens.iter().any(is_colon) || patterns::date(&next.text()).is_some();
        if !is_aligned || is_other {
            break;
        }
        text = crate::engine::joined([text.as_str(), &next.text()].into_iter());
    }
    text
}

fn value_below(sheet: &Sheet, place: Place, kind: Kind) -> Option<String> {
    let label = sheet.rows.get(place.row)?;
    let bounds = bounds_of(label.tokens.get(place.start..place.end)?)?;
    let next = sheet.rows.get(place.row + 1)?;
    let is_alone = label.segments().iter().any(|segment| {
        segment.len() == place.end - place.start && bounds_of(segment) == Some(bounds)
    });
    if !is_alone {
        return None;
    }
    let is_under = |segment: &&&[Token]| {
        bounds_of(segment)
            .is_some_and(|under| under.left < bounds.right && under.right > bounds.left)
    };
    let segments = next.segments();
    let value = segments.iter().find(is_under)?;
    let is_label = value.iter().any(is_colon) || is_label(&phrase(value));
    value_of(&text_of(value), kind).filter(|_| !is_label)
}

/// Tokens after a note in parentheses, as in `Total (RM)`.
fn without_note(tokens: &[Token]) -> &[Token] {
    let opens = tokens.first().is_some_and(|token| matches!(token.text.as_str(), "(" | "（"));
    let closes = |token: &Token| matches!(token.text.as_str(), ")" | "）");
    match tokens.iter().take(4).position(closes) {
        Some(end) if opens => &tokens[end + 1..],
        _ => tokens,
    }
}

fn without_separators(tokens: &[Token]) -> &[Token] {
    let skipped = tokens.iter().take_while(|token| is_separator(token)).count();
    &tokens[skipped..]
}

/// The first group of adjacent tokens.
fn segment_of(tokens: &[Token], height: u32) -> &[Token] {
    let is_apart = |pair: &[Token]| {
        pair[1].bounds.left.saturating_sub(pair[0].bounds.right) > 3 * height && !pair[1].glued
    };
    let end = tokens.windows(2).position(is_apart).map_or(tokens.len(), |at| at + 1);
    &tokens[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::typed;

    fn found(text: &str, names: &[&str], kind: Kind) -> Option<String> {
        labelled(&Sheet::of([&typed(text)]), names, kind)
    }

    #[test]
    fn a_value_is_found_right_of_its_label_up_to_the_next_label() {
        let text = "Date: 27/03/2018 Time: 8:17\nInvoice No : CS0042 Cashier: Ann Lee";
        assert_eq!(found(text, &["date"], Kind::Date).as_deref(), Some("27/03/2018"));
        assert_eq!(found(text, &["invoice no"], Kind::Identifier).as_deref(), Some("CS0042"));
        assert_eq!(found(text, &["cashier"], Kind::Text).as_deref(), Some("Ann Lee"));
    }

    #[test]
    fn a_value_is_found_below_its_label() {
        let text = "Invoice Date      Due Date\n2018-01-02        2018-02-03";
        assert_eq!(found(text, &["due date"], Kind::Date).as_deref(), Some("2018-02-03"));
        assert_eq!(found(text, &["invoice date"], Kind::Date).as_deref(), Some("2018-01-02"));
    }

    #[test]
    fn a_label_within_another_is_not_taken_for_it() {
        assert_eq!(found("Due Date: 2018-02-03", &["date"], Kind::Date), None);
        assert_eq!(found("GST No : 000111222", &["gst"], Kind::Amount), None);
    }

    #[test]
    fn an_everyday_word_is_no_label_without_a_colon() {
        assert_eq!(found("please come to our shop again", &["shop"], Kind::Text), None);
    }

    #[test]
    fn chinese_labels_need_no_space_behind_them() {
        assert_eq!(found("姓名张三", &["姓名"], Kind::Text).as_deref(), Some("张三"));
        assert_eq!(
            found("发票号码：10283819", &["发票号码"], Kind::Identifier).as_deref(),
            Some("10283819")
        );
    }

    #[test]
    fn one_misread_letter_does_not_hide_a_long_label() {
        assert!(
            is_like("lnvoice", "invoice") && is_like("totall", "total") && is_like("tota", "total")
        );
        assert!(!is_like("data", "date") && !is_like("subtotal", "total"));
    }
}
