//! Looks for the values of fields in the text of their page.
//!
//! A value is called found only if the text holds it as whole tokens ([`text_token`](super::text_token)):
//!
//! - **exact**: the model's text, or the value, as it is written. A number is compared by what it means: the text must
//!   have a number that [`number`] reads as the value, and `exact` says that it has the same digits and signs.
//! - **normalised**: the same words apart from case, width, spaces and punctuation between words; the same number in
//!   another spelling (`1.234,50` and `1,234.50`); a date or a time that the text writes otherwise. A printed date with
//!   two readings (`03/04/2018`) counts as both, because the model may know which one is meant.
//!
//! Anything else is not found: words that the model left out, abbreviated or translated, and numbers that it computed.
//! The first place in the text counts. It is mapped to the lines of the page that hold it.
//!
//! The text is read in three passes, and each token costs a bounded number of steps, whatever the number of values. See
//! [`MOST_READINGS`] for dates.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::fold::{fold, fold_character};
use super::number::{self, Decimal};
use super::phrases::{Phrases, Reader};
use super::text_token::{TextToken, TokenKind, is_unspaced, tokens};
use super::{Extraction, Grounded, date};

/// The most groups of tokens of one page that are read as a date or a time. Each takes some microseconds. A page of print
/// has about a thousand words, so only a made-up text has more groups that might be a wanted date.
const MOST_READINGS: u32 = 10_000;

/// Memory for each value, for each byte of it, and for each byte of the text. A byte of a value may be a token, with a
/// state and entries of tables; two bytes of the text may be a token. `benches/schema.rs` tests this.
const VALUE_BYTES: usize = 640;
const BYTES_FOR_EACH_OF_A_VALUE: usize = 96;
const BYTES_FOR_EACH_OF_THE_TEXT: usize = 24;

/// Signs that a comparison leaves out between words.
const DROPPED_SIGNS: &str = ",.;:'\"()[]{}|/\\-*#_•·“”„«»";

/// The most characters of currency signs, brackets and signs on each side of a number.
const MOST_AFFIXES: usize = 3;

/// The longest word beside a number that may be a currency.
const LONGEST_MONEY_WORD: usize = 6;

/// Counting words that are written behind a number without a space.
const COUNTERS: &str = "元圆圓円원个個件张張";

/// The lines of a page that hold a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLines {
    /// The position of the field in [`Extraction::fields`].
    pub field: usize,
    /// The positions of the lines.
    pub lines: Range<usize>,
}

impl Extraction {
    /// The most memory, in bytes, that is in use while values of page `page` are looked for in a text.
    pub fn grounding_bytes(&self, page: u32, text: &str) -> u64 {
        let origins = self.fields.iter().filter(|(_, origin)| origin.page == Some(page));
        // A value is about as long as what the model wrote.
        let of_value = |raw: &str| VALUE_BYTES + BYTES_FOR_EACH_OF_A_VALUE * raw.len();
        let values = origins.filter_map(|(_, origin)| origin.raw.as_deref()).map(of_value);
        (values.sum::<usize>() + BYTES_FOR_EACH_OF_THE_TEXT * text.len()) as u64
    }

    /// Looks for the values of page `page` in its text, and notes for each whether it was found. Returns the lines that
    /// hold the values that were found.
    ///
    /// `lines` are those of the text, in its order. A text may have others that are not in them.
    ///
    /// Takes time in proportion to the text and the values: about a tenth of a millisecond for a receipt.
    pub fn ground(&mut self, page: u32, text: &str, lines: &[&str]) -> Vec<FieldLines> {
        let origins = self.fields.iter().map(|(_, origin)| origin).enumerate();
        let of_page = origins.filter(|(_, origin)| origin.page == Some(page));
        let fields: Vec<usize> = of_page.map(|(field, _)| field).collect();
        let wanted: Vec<Wanted<'_>> = fields
            .iter()
            .map(|field| {
                let (pointer, origin) = &self.fields[*field];
                let value = self.data.pointer(pointer).unwrap_or(&Value::Null);
                Wanted { raw: origin.raw.as_deref().unwrap_or_default().trim(), value }
            })
            .collect();
        let found = Search::of(&wanted).read(text);
        let ranges = ranges_of(text, lines);
        let mut placed = Vec::new();
        for (field, place) in fields.into_iter().zip(found) {
            let grounded = place.as_ref().map_or(Grounded::None, |place| place.grounded);
            self.fields[field].1.grounded = Some(grounded);
            let lines = place.map(|place| lines_of(&ranges, &place.range));
            placed.extend(lines.map(|lines| FieldLines { field, lines }));
        }
        placed
    }
}

/// The places of lines in a text, in bytes. They follow each other, perhaps with other text between them.
fn ranges_of(text: &str, lines: &[&str]) -> Vec<Range<usize>> {
    let mut from = 0;
    let ranges = lines.iter().map(|line| {
        let start = text[from..].find(line).map_or(text.len(), |at| from + at);
        let range = start..(start + line.len()).min(text.len());
        from = range.end;
        range
    });
    ranges.collect()
}

/// The lines that share a byte with a place.
fn lines_of(ranges: &[Range<usize>], place: &Range<usize>) -> Range<usize> {
    let first = ranges.partition_point(|range| range.end <= place.start);
    let behind = ranges.partition_point(|range| range.start < place.end);
    first..behind.max(first)
}

/// A value to look for.
#[derive(Debug, Clone, Copy)]
struct Wanted<'v> {
    /// What the model wrote.
    raw: &'v str,
    value: &'v Value,
}

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    grounded: Grounded,
    range: Range<usize>,
}

/// Values by a spelling. A value is taken out when it is found.
type Unfound<K> = HashMap<K, Vec<usize>>;

/// The values of one page that are looked for.
#[derive(Debug, Default)]
struct Search<'v> {
    places: Vec<Option<Place>>,
    /// The texts of values that are no numbers.
    texts: Vec<(usize, Cow<'v, str>)>,
    numbers: Numbers,
    moments: Moments,
}

impl<'v> Search<'v> {
    fn of(wanted: &[Wanted<'v>]) -> Self {
        let mut search = Self { places: vec![None; wanted.len()], ..Self::default() };
        for (index, wanted) in wanted.iter().enumerate() {
            search.add(index, wanted);
        }
        search
    }

    fn add(&mut self, index: usize, wanted: &Wanted<'v>) {
        if let Value::Number(number) = wanted.value
            && self.numbers.add(index, wanted.raw, number)
        {
            return;
        }
        self.texts.push((index, wanted.raw.into()));
        if let Value::String(text) = wanted.value {
            if text != wanted.raw {
                self.texts.push((index, text.as_str().into()));
            }
            self.numbers.add_digits(index, text);
            self.moments.add(index, text);
        }
    }

    /// Looks for all values in the text.
    fn read(mut self, text: &str) -> Vec<Option<Place>> {
        self.read_texts(text, Grounded::Exact);
        self.read_numbers_and_moments(text);
        self.read_texts(text, Grounded::Normalised);
        self.places
    }

    /// Looks for texts that were not found so far.
    fn read_texts(&mut self, text: &str, how: Grounded) {
        let Self { places, texts, .. } = self;
        let unfound = texts.iter().filter(|(index, _)| places[*index].is_none());
        let mut phrases =
            Phrases::of(unfound.map(|(index, wanted)| {
                (*index, spellings(wanted, how).map(|(_, spelling)| spelling))
            }));
        let (mut reader, mut starts) = (Reader::default(), Vec::new());
        for (range, spelling) in spellings(text, how) {
            starts.push(range.start);
            for found in phrases.read(&mut reader, &spelling) {
                let start = starts[starts.len() - found.length];
                let place = Place { grounded: how, range: start..range.end };
                places[found.phrase].get_or_insert(place);
            }
        }
    }

    fn read_numbers_and_moments(&mut self, text: &str) {
        if self.numbers.is_empty() && self.moments.is_empty() {
            return;
        }
        let words: Vec<TextToken> =
            tokens(text).filter(|token| token.kind == TokenKind::Word).collect();
        for (at, word) in words.iter().enumerate() {
            if !self.numbers.is_empty() && has_digit(&text[word.range.clone()]) {
                self.numbers.read(text, &word.range, &mut self.places);
            }
            if !self.moments.is_empty() {
                self.moments.read(text, &words[at..], &mut self.places);
            }
        }
    }
}

/// The tokens of a text that count in a comparison, with their spellings.
fn spellings(text: &str, how: Grounded) -> impl Iterator<Item = (Range<usize>, Cow<'_, str>)> {
    tokens(text).filter_map(move |TextToken { range, kind }| {
        let written = &text[range.clone()];
        if how == Grounded::Exact {
            return Some((range, Cow::Borrowed(written)));
        }
        let is_dropped = |character: char| DROPPED_SIGNS.contains(fold_character(character));
        match kind {
            TokenKind::Space => None,
            TokenKind::Sign if written.chars().all(is_dropped) => None,
            TokenKind::Sign | TokenKind::Word => Some((range, normalised(written))),
        }
    })
}

/// A token without differences of case, width and composition.
fn normalised(token: &str) -> Cow<'_, str> {
    if token.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return token.into();
    }
    fold(&token.nfc().collect::<String>()).to_lowercase().into()
}

fn has_digit(text: &str) -> bool {
    text.chars().any(|character| fold_character(character).is_ascii_digit())
}

/// Numbers that are looked for, by what they are.
#[derive(Debug, Default)]
struct Numbers {
    /// By the number without redundant zeros.
    by_value: Unfound<String>,
    /// By the number without redundant zeros, and the token in which the model wrote it.
    as_written: Unfound<(String, String)>,
    /// Texts of digits, by the number with the zeros at its end.
    by_digits: Unfound<String>,
    /// The digits of all, without zeros at both ends. Other numbers of the text need not be read.
    digits: HashSet<String>,
}

impl Numbers {
    fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }

    /// Adds a number. Returns false if the model wrote it in several tokens, such as `1 234`, or in none.
    fn add(&mut self, index: usize, raw: &str, number: &serde_json::Number) -> bool {
        let Some(value) = Decimal::of_json(&number.to_string()) else { return false };
        let mut written = tokens(raw)
            .filter(|token| token.kind == TokenKind::Word && has_digit(&raw[token.range.clone()]));
        let (Some(token), None) = (written.next(), written.next()) else { return false };
        let value = value.plain();
        self.digits.insert(bare_digits(&value));
        let written = (value.clone(), raw[token.range].to_owned());
        self.as_written.entry(written).or_default().push(index);
        self.by_value.entry(value).or_default().push(index);
        true
    }

    /// Adds a text if it is nothing but a number. A number with zeros before it is a name, such as that of a document.
    fn add_digits(&mut self, index: usize, text: &str) {
        let is_plain =
            |character: char| matches!(character, '0'..='9' | '.' | ',' | '\'' | ' ' | '-');
        let plain = fold(text).chars().all(is_plain);
        let number = number::read(text).filter(|number| plain && !number.is_padded());
        if let Some(number) = number {
            self.digits.insert(bare_digits(&number.plain()));
            self.by_digits.entry(number.digits()).or_default().push(index);
        }
    }

    /// Reads a number of the text.
    fn read(&mut self, text: &str, range: &Range<usize>, places: &mut [Option<Place>]) {
        let token = &text[range.clone()];
        if !self.digits.contains(&bare_digits(token)) {
            return;
        }
        for number in readings(text, range) {
            let key = (number.plain(), token.to_owned());
            let place = |grounded| Place { grounded, range: range.clone() };
            for index in self.as_written.remove(&key).unwrap_or_default() {
                places[index] = Some(place(Grounded::Exact));
            }
            let (value, _) = key;
            let by_digits = self.by_digits.remove(&number.digits());
            let by_value = self.by_value.remove(&value);
            for index in by_digits.into_iter().chain(by_value).flatten() {
                places[index].get_or_insert_with(|| place(Grounded::Normalised));
            }
        }
    }
}

/// The digits of a number without zeros at both ends: 1.50, 01,500.0 and 15 have the same.
fn bare_digits(number: &str) -> String {
    let folded = number.chars().map(fold_character);
    let digits: String = folded.filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// The numbers that a token of the text can mean: with the currency signs and brackets around it, and the currency beside
/// it.
fn readings(text: &str, range: &Range<usize>) -> Vec<Decimal> {
    let (before, token, behind) = (&text[..range.start], &text[range.clone()], &text[range.end..]);
    let is_before = |character: char| {
        number::is_currency_sign(character) || matches!(fold_character(character), '(' | '-' | '+')
    };
    let is_behind = |character: char| {
        number::is_currency_sign(character)
            || matches!(fold_character(character), ')' | '-' | '%')
            || COUNTERS.contains(character)
    };
    let leading = before.chars().rev().take(MOST_AFFIXES).take_while(|c| is_before(*c));
    let leading: usize = leading.map(char::len_utf8).sum();
    let trailing = behind.chars().take(MOST_AFFIXES).take_while(|c| is_behind(*c));
    let trailing: usize = trailing.map(char::len_utf8).sum();
    let (before, prefix) = before.split_at(before.len() - leading);
    let (suffix, behind) = behind.split_at(trailing);
    let is_bracket = |bracket| move |character: char| fold_character(character) == bracket;
    let inner_prefix = prefix.rsplit(is_bracket('(')).next().unwrap_or_default();
    let inner_suffix = suffix.split(is_bracket(')')).next().unwrap_or_default();
    let is_bracketed = inner_prefix != prefix && inner_suffix != suffix;
    // A whole number in brackets is a count or a mark as often as it is negative.
    let is_count = token.bytes().all(|byte| byte.is_ascii_digit());
    let whole = is_bracketed.then(|| [prefix, token, suffix].concat());
    let inner = (!is_bracketed || is_count).then(|| [inner_prefix, token, inner_suffix].concat());
    let spelled = whole.into_iter().chain(inner);
    spelled.filter_map(|text| with_money(before, &text, behind)).collect()
}

/// The number, with the currency that stands beside it in its line. It may say that a point groups thousands.
fn with_money(before: &str, number: &str, behind: &str) -> Option<Decimal> {
    let is_word = |character: char| character.is_alphabetic() || matches!(character, '.' | '$');
    let blank = |character: char| character.is_whitespace() && character != '\n';
    let left = before.trim_end_matches(blank);
    let start = left.char_indices().rev().take_while(|(_, c)| is_word(*c) && !is_unspaced(*c));
    let left = start.take(LONGEST_MONEY_WORD + 1).last().map_or("", |(at, _)| &left[at..]);
    let right = behind.trim_start_matches(blank);
    let end = right.char_indices().take_while(|(_, c)| is_word(*c) && !is_unspaced(*c));
    let end = end.take(LONGEST_MONEY_WORD + 1).last().map_or(0, |(at, c)| at + c.len_utf8());
    let right = &right[..end];
    let money =
        |word: &'_ str| word.chars().count() <= LONGEST_MONEY_WORD && number::is_money_word(word);
    let left = if money(left) { left } else { "" };
    let right = if money(right) { right } else { "" };
    number::read(&format!("{left} {number} {right}")).or_else(|| number::read(number))
}

/// Dates and times that are looked for, in ISO 8601.
#[derive(Debug, Default)]
struct Moments {
    dates: Unfound<String>,
    times: Unfound<String>,
    /// By the date and the time.
    both: Unfound<(String, String)>,
    /// The years of the dates, with four digits and with two.
    years: HashSet<String>,
    /// The last date and the last time that were read, with their places.
    last_dates: (Vec<String>, Range<usize>),
    last_time: (String, Range<usize>),
    /// The readings that were made.
    readings: u32,
}

impl Moments {
    fn is_empty(&self) -> bool {
        self.dates.is_empty() && self.times.is_empty() && self.both.is_empty()
    }

    /// Adds a text if it is a date, a time or both, as the fields have them.
    fn add(&mut self, index: usize, text: &str) {
        let is_time = |text| is_of_digits(text, b':', &[2, 2, 2]);
        if is_time(text) {
            self.times.entry(text.to_owned()).or_default().push(index);
            return;
        }
        let (day, time) =
            text.split_once('T').map_or((text, None), |(day, time)| (day, Some(time)));
        if !is_of_digits(day, b'-', &[4, 2, 2]) {
            return;
        }
        let day = day.to_owned();
        self.years.extend([day[..4].to_owned(), day[2..4].to_owned()]);
        match time {
            None => self.dates.entry(day).or_default().push(index),
            Some(time) if is_time(time) => {
                self.both.entry((day, time.to_owned())).or_default().push(index);
            }
            Some(_) => {}
        }
    }

    /// Reads a date or a time that begins with the first of these words.
    fn read(&mut self, text: &str, words: &[TextToken], places: &mut [Option<Place>]) {
        if self.readings >= MOST_READINGS {
            return;
        }
        if let Some(range) = self.date_at(text, words) {
            self.readings += 1;
            let dates = date::readings(&text[range.clone()]);
            for date in &dates {
                note(self.dates.remove(date), &range, places);
                let (time, place) = &self.last_time;
                let key = (date.clone(), time.clone());
                if is_one_line(text, place, &range) {
                    note(self.both.remove(&key), &union(place, &range), places);
                }
            }
            if !dates.is_empty() {
                self.last_dates = (dates, range);
            }
        }
        if !(self.times.is_empty() && self.both.is_empty())
            && let Some(range) = time_at(text, words)
        {
            self.readings += 1;
            let Ok(time) = date::time_of_day(&text[range.clone()]) else { return };
            note(self.times.remove(&time), &range, places);
            let (dates, place) = &self.last_dates;
            if is_one_line(text, place, &range) {
                for date in dates {
                    let key = (date.clone(), time.clone());
                    note(self.both.remove(&key), &union(place, &range), places);
                }
            }
            self.last_time = (time, range);
        }
    }

    /// The place of what may be one of the dates: one token with all parts, or three parts in a line.
    fn date_at(&self, text: &str, words: &[TextToken]) -> Option<Range<usize>> {
        let (first, others) = words.split_first()?;
        let written = fold(&text[first.range.clone()]);
        if is_whole_date(&written) {
            let has_year = written.split(|character: char| !character.is_ascii_digit());
            let is_wanted = self.has_year(has_year) || self.years.contains(written.get(..4)?);
            return is_wanted.then(|| first.range.clone());
        }
        if !is_part_of_a_date(&written) {
            return None;
        }
        let (mut parts, mut end) = (vec![written], first.range.end);
        for word in others.iter().take(MOST_WORDS_OF_A_DATE) {
            let between = &text[end..word.range.start];
            let written = fold(&text[word.range.clone()]);
            if between.contains('\n') || !between.chars().all(is_within_a_date) {
                return None;
            }
            end = word.range.end;
            if is_part_of_a_date(&written) {
                parts.push(written);
            } else if !is_filler(&written) {
                return None;
            }
            if parts.len() == 3 {
                let is_wanted = self.has_year(parts.iter().map(String::as_str));
                return is_wanted.then_some(first.range.start..end);
            }
        }
        None
    }

    fn has_year<'d>(&self, mut parts: impl Iterator<Item = &'d str>) -> bool {
        parts.any(|part| self.years.contains(part))
    }
}

/// The most words of a date behind its first: parts, and what stands between them, such as 年 or "of".
const MOST_WORDS_OF_A_DATE: usize = 5;

/// Whether the text is digits in groups of these lengths with `sign` between them. A time may have a fraction and an
/// offset behind it.
fn is_of_digits(text: &str, sign: u8, lengths: &[usize]) -> bool {
    let mut bytes = text.bytes();
    let groups = lengths.iter().enumerate().all(|(at, length)| {
        (at == 0 || bytes.next() == Some(sign))
            && bytes.by_ref().take(*length).filter(u8::is_ascii_digit).count() == *length
    });
    groups && (sign == b':' || bytes.next().is_none())
}

/// Whether one token may be a whole date: digits in three groups, or eight digits.
fn is_whole_date(token: &str) -> bool {
    let signs = token.bytes().filter(|byte| matches!(byte, b'-' | b'/' | b'.')).count();
    let starts = token.starts_with(|character: char| character.is_ascii_digit());
    starts && (signs >= 2 || token.len() == 8 && token.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether one token may be a day, a month or a year.
fn is_part_of_a_date(token: &str) -> bool {
    let digits = token.bytes().take_while(u8::is_ascii_digit).count();
    match digits {
        0 => date::names_a_month(token),
        1 | 2 => {
            matches!(&token[digits..], "" | "st" | "nd" | "rd" | "th" | "ST" | "ND" | "RD" | "TH")
        }
        4 => token.len() == digits,
        _ => false,
    }
}

/// Whether a word may stand between the parts of a date.
fn is_filler(word: &str) -> bool {
    matches!(word, "年" | "月" | "日" | "년" | "월" | "일" | "of" | "OF" | "Of")
}

fn is_within_a_date(character: char) -> bool {
    character.is_whitespace() || matches!(fold_character(character), ',' | '.' | '/' | '-' | '\'')
}

/// The place of a time of day that begins with the first of these words.
fn time_at(text: &str, words: &[TextToken]) -> Option<Range<usize>> {
    let (first, others) = words.split_first()?;
    let written = fold(&text[first.range.clone()]);
    if !written.contains(':') {
        return None;
    }
    let half = others.first().filter(|word| {
        let is_near = text[first.range.end..word.range.start].len() <= 1;
        is_near && matches!(text[word.range.clone()].to_lowercase().as_str(), "am" | "pm")
    });
    let end = half.map_or(first.range.end, |word| word.range.end);
    let before = &text[..first.range.start];
    let halves = ["上午", "下午", "오전", "오후"];
    let half = halves.into_iter().find(|half| before.trim_end().ends_with(half));
    let start = half.map_or(first.range.start, |half| before.trim_end().len() - half.len());
    Some(start..end)
}

/// Notes that values were found in another spelling.
fn note(found: Option<Vec<usize>>, range: &Range<usize>, places: &mut [Option<Place>]) {
    for index in found.into_iter().flatten() {
        let place = Place { grounded: Grounded::Normalised, range: range.clone() };
        places[index].get_or_insert(place);
    }
}

fn union(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    one.start.min(other.start)..one.end.max(other.end)
}

/// Whether both places were read, in one line and near each other.
fn is_one_line(text: &str, one: &Range<usize>, other: &Range<usize>) -> bool {
    const FURTHEST: usize = 32;
    let between = one.end.min(other.end)..one.start.max(other.start);
    !one.is_empty()
        && !other.is_empty()
        && between.len() <= FURTHEST
        && !text.get(between).unwrap_or_default().contains('\n')
}

#[cfg(test)]
mod tests;
