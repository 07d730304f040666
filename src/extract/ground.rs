//! Looks for the values of fields in the text of their page.
//!
//! A value is called found only if the text holds it as whole tokens (`text_token`):
//!
//! - **exact**: the model's text, or the value, as it is written. A number is compared by what it means: the text must
//!   have a number that `number` reads as the value, and `exact` says that it has the same digits and signs.
//! - **normalised**: the same words apart from case, width, spaces and punctuation between words; the same number in
//!   another spelling (`1.234,50` and `1,234.50`); a date or a time that the text writes otherwise. A printed date with
//!   two readings (`03/04/2018`) counts as both, because the model may know which one is meant.
//!
//! Where the text can be read in two ways, nothing is called found: neither part of `5 000`, which is one number or two
//! columns, and not a number beside a dash that may be a minus. Null is no value, whatever the model wrote.
//!
//! Anything else is not found: words that the model left out, abbreviated or translated, and numbers that it computed.
//! The first place in the text counts. It is mapped to the lines of the page that hold it.
//!
//! The text is read in three passes, and each token costs a bounded number of steps, whatever the number of values. See
//! `MOST_READINGS` for dates.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::fold::{fold, fold_character};
use super::number::{self, Decimal};
use super::number_run::{
    cuts_a_group, group_at, grouped_numbers, is_multiplied, is_within_numerals,
};
use super::phrases::{Phrases, Reader};
use super::text_token::{TextToken, TokenKind, is_unspaced, tokens};
use super::{Extraction, Grounded, date};

/// The most groups of tokens of one page that are read as a date or a time. Each takes some microseconds. A page of
/// print has about a thousand words, so only a made-up text has more groups that might be a wanted date.
const MOST_READINGS: u32 = 10_000;

/// The most lines of the text, without a place on the page, that are skipped to find the next line that has one.
const MOST_SKIPPED: usize = 1_000;

/// Memory for each value, for each byte of it, and for each byte of the text. A byte of a value may be a token, with a
/// state and entries of tables; two bytes of the text may be a token. `benches/schema.rs` tests this.
const VALUE_BYTES: usize = 640;
const BYTES_FOR_EACH_OF_A_VALUE: usize = 96;
const BYTES_FOR_EACH_OF_THE_TEXT: usize = 24;

/// Signs that a comparison leaves out between words.
const DROPPED_SIGNS: &str = ",.;:'\"()[]{}|/\\-*#_•·“”„«»";

/// The most currency signs, currency words, brackets and signs on each side of a number.
const MOST_AFFIXES: usize = 4;

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

/// The places of lines in a text, in bytes: each is a whole line of the text, because a part of another line may have
/// the same words. They follow each other, perhaps with up to [`MOST_SKIPPED`] other lines between two. A line that is
/// not found takes no place.
fn ranges_of(text: &str, lines: &[&str]) -> Vec<Range<usize>> {
    let mut end = 0;
    let written: Vec<Range<usize>> = text
        .split('\n')
        .map(|line| {
            let start = end;
            end += line.len() + 1;
            start..start + line.len()
        })
        .collect();
    let (mut next, mut from) = (0, 0);
    let ranges = lines.iter().map(|line| {
        let mut ahead = written[next..].iter().take(MOST_SKIPPED + 1);
        let found = ahead.position(|range| text[range.clone()] == **line);
        let range = found.map_or(from..from, |skipped| written[next + skipped].clone());
        next += found.map_or(0, |skipped| skipped + 1);
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

    /// Adds a value. Null is no value, whatever the model wrote.
    fn add(&mut self, index: usize, wanted: &Wanted<'v>) {
        if wanted.value.is_null() {
            return;
        }
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
        let groups = grouped_numbers(text);
        self.read_texts(text, &groups, Grounded::Exact);
        self.read_numbers_and_moments(text, &groups);
        self.read_texts(text, &groups, Grounded::Normalised);
        self.places
    }

    /// Looks for texts that were not found so far.
    fn read_texts(&mut self, text: &str, groups: &[Range<usize>], how: Grounded) {
        let Self { places, texts, .. } = self;
        let of_numbers = texts.iter().filter(|(_, wanted)| is_plain_number(wanted));
        let of_numbers: HashSet<usize> = of_numbers.map(|(index, _)| *index).collect();
        let unfound = texts.iter().filter(|(index, _)| places[*index].is_none());
        let mut phrases =
            Phrases::of(unfound.map(|(index, wanted)| {
                (*index, spellings(wanted, how).map(|(_, spelling)| spelling))
            }));
        let (mut reader, mut starts) = (Reader::default(), Vec::new());
        for (range, spelling) in spellings(text, how) {
            starts.push(range.start);
            for found in phrases.read(&mut reader, &spelling) {
                let place = starts[starts.len() - found.length]..range.end;
                let is_number = of_numbers.contains(&found.phrase);
                let is_part_of_a_number = is_within_numerals(text, &place)
                    || is_number
                        && (cuts_a_group(groups, &place) || is_multiplied(text, place.end));
                if !is_part_of_a_number {
                    places[found.phrase].get_or_insert(Place { grounded: how, range: place });
                }
            }
        }
    }

    fn read_numbers_and_moments(&mut self, text: &str, groups: &[Range<usize>]) {
        if self.numbers.is_empty() && self.moments.is_empty() {
            return;
        }
        let words: Vec<TextToken> =
            tokens(text).filter(|token| token.kind == TokenKind::Word).collect();
        for (at, word) in words.iter().enumerate() {
            if !self.numbers.is_empty() && has_digit(&text[word.range.clone()]) {
                let group = group_at(groups, &word.range);
                let is_first = group.is_none_or(|group| group.start == word.range.start);
                if is_first {
                    self.numbers.read(text, group.unwrap_or(&word.range), &mut self.places);
                }
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
    /// By the number without redundant zeros, with a percent sign if the model wrote one.
    by_value: Unfound<String>,
    /// By that, the token in which the model wrote the number, and the currency beside it.
    as_written: Unfound<[String; 3]>,
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
        let value = value + if fold(raw).contains('%') { "%" } else { "" };
        let (before, behind) = (&raw[..token.range.start], &raw[token.range.end..]);
        let money = currency(before) + &currency(behind);
        let written = [value.clone(), raw[token.range].to_owned(), money];
        self.as_written.entry(written).or_default().push(index);
        self.by_value.entry(value).or_default().push(index);
        true
    }

    /// Adds a text if it is nothing but a number. A number with zeros before it is a name, such as that of a document.
    fn add_digits(&mut self, index: usize, text: &str) {
        let number = number::read(text);
        let number = number.filter(|number| is_plain_number(text) && !number.is_padded());
        if let Some(number) = number {
            self.digits.insert(bare_digits(&number.plain()));
            self.by_digits.entry(number.digits()).or_default().push(index);
        }
    }

    /// Reads a number of the text.
    fn read(&mut self, text: &str, range: &Range<usize>, places: &mut [Option<Place>]) {
        let token = &text[range.clone()];
        if !self.digits.contains(&bare_digits(token)) || is_multiplied(text, range.end) {
            return;
        }
        let place = |grounded| Place { grounded, range: range.clone() };
        for Reading { number, currencies, is_rate } in readings(text, range) {
            let (plain, rate) = (number.plain(), number.plain() + "%");
            let value = if is_rate { &rate } else { &plain };
            for money in currencies {
                let key = [value.clone(), token.to_owned(), money];
                for index in self.as_written.remove(&key).unwrap_or_default() {
                    places[index] = Some(place(Grounded::Exact));
                }
            }
            let of_rate = is_rate.then(|| self.by_value.remove(&rate)).flatten();
            let by_digits = self.by_digits.remove(&number.digits());
            let by_value = self.by_value.remove(&plain);
            for index in by_digits.into_iter().chain(by_value).chain(of_rate).flatten() {
                places[index].get_or_insert_with(|| place(Grounded::Normalised));
            }
        }
    }
}

/// Whether a text is digits and the signs within a number.
fn is_plain_number(text: &str) -> bool {
    let is_of_one = |character: char| matches!(character, '0'..='9' | '.' | ',' | '\'' | ' ' | '-');
    has_digit(text) && text.chars().map(fold_character).all(is_of_one)
}

/// The digits of a number without zeros at both ends: 1.50, 01,500.0 and 15 have the same.
fn bare_digits(number: &str) -> String {
    let folded = number.chars().map(fold_character);
    let digits: String = folded.filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// The signs and letters of a currency in the text on one side of a number.
fn currency(side: &str) -> String {
    let is_of_one =
        |character: &char| character.is_alphabetic() || number::is_currency_sign(*character);
    fold(side).chars().filter(is_of_one).flat_map(char::to_lowercase).collect()
}

/// One way to read a number of the text.
struct Reading {
    number: Decimal,
    /// The spellings of its currency: none, that before it, that behind it, and both.
    currencies: Vec<String>,
    is_rate: bool,
}

/// The ways to read a number of the text: with the currency, the brackets and the signs around it. None if the number
/// may have a minus that belongs to something else.
fn readings(text: &str, range: &Range<usize>) -> Vec<Reading> {
    let token = &text[range.clone()];
    let sides = prefix(&text[..range.start]).zip(suffix(&text[range.end..]));
    let Some((prefix, suffix)) = sides else { return Vec::new() };
    let is_bracket = |bracket| move |character: char| fold_character(character) == bracket;
    let inner_prefix = prefix.rsplit(is_bracket('(')).next().unwrap_or_default();
    let inner_suffix = suffix.split(is_bracket(')')).next().unwrap_or_default();
    let is_bracketed = inner_prefix != prefix && inner_suffix != suffix;
    // A whole number in brackets is a count or a mark as often as it is negative.
    let is_count = token.bytes().all(|byte| byte.is_ascii_digit());
    let whole = is_bracketed.then(|| [prefix, token, suffix].concat());
    let inner = (!is_bracketed || is_count).then(|| [inner_prefix, token, inner_suffix].concat());
    let [before, behind] = [inner_prefix, inner_suffix].map(currency);
    let mut currencies = vec![String::new(), before.clone(), behind.clone(), before + &behind];
    currencies.dedup();
    let spelled = whole.into_iter().chain(inner);
    let numbers = spelled.filter_map(|text| number::read(&text));
    let is_rate = fold(inner_suffix).contains('%') || fold(inner_prefix).contains('%');
    numbers.map(|number| Reading { number, currencies: currencies.clone(), is_rate }).collect()
}

const fn is_blank(character: char) -> bool {
    character.is_whitespace() && character != '\n'
}

/// What belongs to a number at the end of the text before it: a currency, a bracket and a sign, also with blanks
/// between. None if a sign may belong to the number or to something else: a minus with blanks behind it is one only
/// where a line begins.
fn prefix(before: &str) -> Option<&str> {
    let (mut rest, mut has_word) = (before, false);
    for _ in 0..MOST_AFFIXES {
        let trimmed = rest.trim_end_matches(is_blank);
        let Some(last) = trimmed.chars().next_back() else { break };
        let without = &trimmed[..trimmed.len() - last.len_utf8()];
        let is_detached = before[trimmed.len()..].starts_with(is_blank);
        match fold_character(last) {
            '-' if is_detached => {
                if without.ends_with(char::is_alphanumeric) {
                    break;
                }
                let begins = without.trim_end_matches(is_blank);
                return (begins.is_empty() || begins.ends_with('\n'))
                    .then_some(&before[without.len()..]);
            }
            '-' if without.ends_with(|c: char| c.is_alphanumeric() && !is_unspaced(c)) => {
                return None;
            }
            '(' | '-' | '+' | '%' => rest = without,
            _ if number::is_currency_sign(last) => rest = without,
            _ => {
                let start = trimmed.char_indices().rev().take_while(|(_, c)| is_of_money(*c));
                let start = start.take(LONGEST_MONEY_WORD + 1).last().map(|(at, _)| at);
                let word = start.map_or("", |at| &trimmed[at..]);
                if has_word || !is_money(word) {
                    break;
                }
                has_word = true;
                rest = &trimmed[..trimmed.len() - word.len()];
            }
        }
    }
    Some(&before[rest.trim_end_matches(is_blank).len()..])
}

/// What belongs to a number at the beginning of the text behind it. None if a minus may belong to the number or to
/// something else: one with blanks before it is the number's only where a line ends.
fn suffix(behind: &str) -> Option<&str> {
    let (mut rest, mut has_word) = (behind, false);
    for _ in 0..MOST_AFFIXES {
        let trimmed = rest.trim_start_matches(is_blank);
        let Some(first) = trimmed.chars().next() else { break };
        let without = &trimmed[first.len_utf8()..];
        let length = behind.len() - trimmed.len();
        let is_detached = behind[..length].ends_with(is_blank);
        match fold_character(first) {
            '-' if is_detached => {
                let next = without.trim_start_matches(is_blank);
                if next.is_empty() || next.starts_with('\n') {
                    return Some(&behind[..behind.len() - without.len()]);
                }
                let is_of_next = next.len() == without.len();
                let is_dash = next.starts_with(char::is_alphabetic);
                return (is_of_next || is_dash).then_some(&behind[..length]);
            }
            ')' | '-' | '%' => rest = without,
            _ if number::is_currency_sign(first) || COUNTERS.contains(first) => rest = without,
            _ => {
                let end = trimmed.char_indices().take_while(|(_, c)| is_of_money(*c));
                let end = end.take(LONGEST_MONEY_WORD + 1).last();
                let word = &trimmed[..end.map_or(0, |(at, c)| at + c.len_utf8())];
                if has_word || !is_money(word) {
                    break;
                }
                has_word = true;
                rest = &trimmed[word.len()..];
            }
        }
    }
    Some(&behind[..behind.len() - rest.len()])
}

fn is_of_money(character: char) -> bool {
    (character.is_alphabetic() || matches!(character, '.' | '$')) && !is_unspaced(character)
}

fn is_money(word: &str) -> bool {
    word.chars().count() <= LONGEST_MONEY_WORD && number::is_money_word(word)
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
        if is_in_another_era(&text[..first.range.start]) {
            return None;
        }
        if is_whole_date(&written) {
            let has_year = written.split(|character: char| !character.is_ascii_digit());
            let is_wanted = self.has_year(has_year) || self.years.contains(written.get(..4)?);
            return is_wanted.then(|| first.range.clone());
        }
        if !is_part_of_a_date(&written) {
            return None;
        }
        let (mut parts, mut end) = (vec![written], first.range.end);
        let (mut signs, mut is_named) = (Vec::new(), false);
        for word in others.iter().take(MOST_WORDS_OF_A_DATE) {
            let between = &text[end..word.range.start];
            let written = fold(&text[word.range.clone()]);
            if between.contains('\n') || !between.chars().all(is_within_a_date) {
                return None;
            }
            end = word.range.end;
            signs.push(between.trim());
            if is_part_of_a_date(&written) {
                parts.push(written);
            } else if is_filler(&written) {
                is_named = true;
            } else {
                return None;
            }
            if parts.len() == 3 {
                let is_one = is_named || is_no_row_of_numbers(&parts, &signs);
                let is_wanted = is_one && self.has_year(parts.iter().map(String::as_str));
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

/// Whether three parts without words between them are a date: one names a month, one is a year of four digits, or the
/// same sign stands between them. `1, 2, 13` is a row of numbers.
fn is_no_row_of_numbers(parts: &[String], signs: &[&str]) -> bool {
    let is_long =
        |part: &String| part.len() == 4 || !part.starts_with(|c: char| c.is_ascii_digit());
    let is_sign = |sign: &&str| matches!(fold(sign).as_str(), "." | "/" | "-");
    parts.iter().any(is_long)
        || signs.iter().all(is_sign) && signs.windows(2).all(|pair| pair[0] == pair[1])
}

/// Whether the text ends in the name of a Japanese era or of that of the Republic of China, which count their own
/// years.
fn is_in_another_era(before: &str) -> bool {
    const ERAS: [&str; 9] = ["明治", "大正", "昭和", "平成", "令和", "民國", "民国", "㍻", "㋿"];
    let before = before.trim_end();
    ERAS.iter().any(|era| before.ends_with(era))
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
