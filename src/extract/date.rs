//! Reads printed dates and writes them in ISO 8601.
//!
//! The parser makes every reading of a text (year, month and day in each order in use, and a two-digit year in each
//! century) and keeps the readings that are valid dates. One date is the result; several make the text ambiguous. There
//! is no tie-break: `03/04/2018` is a different day in Europe and in the United States, and `25/12/18` may be in two
//! centuries. A point as the separator excludes the American order, which is never written that way. A month name
//! excludes most other readings.
//!
//! A time of day without an offset keeps no offset. RFC 3339 requires one, but tickets do not print it, and appending
//! `Z` would change the departure time. `format` is an annotation in JSON Schema 2020-12, so the value validates. Month
//! names are read in English only; the hint sent to the model asks for digits.

use jiff::civil::Date;

use super::FieldErrorCode;
use super::fold::fold;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const HALVES: [&str; 2] = ["am", "pm"];
/// A shorter word is not read as an abbreviation.
const SHORTEST_ABBREVIATION: usize = 3;

/// Reads a date as `YYYY-MM-DD`. A time of day after it is dropped.
pub(super) fn date(text: &str) -> Result<String, FieldErrorCode> {
    let moment = Moment::read(text).ok_or(FieldErrorCode::NotADate)?;
    moment.date(FieldErrorCode::NotADate).map(|date| date.to_string())
}

/// Every day that a text can mean, as `YYYY-MM-DD`.
pub(super) fn readings(text: &str) -> Vec<String> {
    let dates = Moment::read(text).and_then(|moment| moment.readings());
    dates.unwrap_or_default().iter().map(Date::to_string).collect()
}

/// Whether a word names a month or abbreviates its name.
pub(super) fn names_a_month(word: &str) -> bool {
    let word = word.to_lowercase();
    MONTHS.iter().any(|month| abbreviates(&word, month))
}

/// Reads a date and time as `YYYY-MM-DDTHH:MM:SS`, with the offset if the text has one.
pub(super) fn date_time(text: &str) -> Result<String, FieldErrorCode> {
    let moment = Moment::read(text).ok_or(FieldErrorCode::NotADateTime)?;
    let time = moment.time.as_deref().ok_or(FieldErrorCode::NotADateTime)?;
    Ok(format!("{}T{time}", moment.date(FieldErrorCode::NotADateTime)?))
}

/// Reads a time of day as `HH:MM:SS`, with the offset if the text has one. A date before it is dropped.
pub(super) fn time_of_day(text: &str) -> Result<String, FieldErrorCode> {
    let moment = Moment::read(text).ok_or(FieldErrorCode::NotATime)?;
    let is_alone = moment.date.is_empty() || moment.date(FieldErrorCode::NotATime).is_ok();
    moment.time.filter(|_| is_alone).ok_or(FieldErrorCode::NotATime)
}

/// The tokens of a text, separated into date tokens and an already parsed time.
struct Moment {
    date: Vec<Token>,
    /// `HH:MM:SS`, with the fraction and the offset if present.
    time: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Digits(String),
    Word(String),
    Sign(char),
}

impl Token {
    fn as_word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Digits(_) | Self::Sign(_) => None,
        }
    }
}

impl Moment {
    fn read(text: &str) -> Option<Self> {
        let mut tokens = tokens(&plain(text))?;
        let Some(colon) = tokens.iter().position(|token| *token == Token::Sign(':')) else {
            return Some(Self { date: tokens, time: None });
        };
        let hour = colon.checked_sub(1)?;
        let before = hour.checked_sub(1).and_then(|at| tokens[at].as_word());
        let half = before.filter(|word| HALVES.contains(word));
        let (time, length) = time(&tokens[hour..], half)?;
        let start = if half.is_some() || before == Some("t") { hour - 1 } else { hour };
        tokens.drain(start..hour + length);
        Some(Self { date: tokens, time: Some(time) })
    }

    fn date(&self, unreadable: FieldErrorCode) -> Result<Date, FieldErrorCode> {
        let mut dates = self.readings().ok_or(unreadable)?;
        dates.sort_unstable();
        dates.dedup();
        match dates.as_slice() {
            [] => Err(unreadable),
            [date] => Ok(*date),
            _ => Err(FieldErrorCode::AmbiguousDate),
        }
    }

    /// Every date that the tokens can mean; `None` if they do not form a date.
    fn readings(&self) -> Option<Vec<Date>> {
        let in_use = |token: &Token| {
            !matches!(token, Token::Sign('-' | '/' | '.' | ',' | '\'')) && !is_weekday(token)
        };
        let parts: Vec<&Token> = self.date.iter().filter(|token| in_use(token)).collect();
        let is_pointed = !self.date.iter().any(|token| matches!(token, Token::Sign('-' | '/')))
            && self.date.contains(&Token::Sign('.'));
        match parts.as_slice() {
            [Token::Digits(compact)] if compact.len() == 8 => {
                let (year, day) = compact.split_at(4);
                let (month, day) = day.split_at(2);
                Some(day_of(year, &digits(month), &digits(day)))
            }
            [first, second, third] => {
                let mut dates = days(first, second, third);
                dates.extend(days(third, second, first));
                if !is_pointed || matches!(first, Token::Word(_)) {
                    dates.extend(days(third, first, second));
                }
                Some(dates)
            }
            _ => None,
        }
    }
}

fn days(year: &Token, month: &Token, day: &Token) -> Vec<Date> {
    let Token::Digits(year) = year else { return Vec::new() };
    day_of(year, month, day)
}

/// The days that a year, a month and a day can mean: none, one, or one in each century.
fn day_of(year: &str, month: &Token, day: &Token) -> Vec<Date> {
    let years: Vec<i16> = match (year.len(), year.parse::<i16>()) {
        (4, Ok(year)) if year >= 1000 => vec![year],
        (2, Ok(year)) => vec![1900 + year, 2000 + year],
        _ => return Vec::new(),
    };
    let (Some(month), Some(day)) = (month_number(month), short_number(day)) else {
        return Vec::new();
    };
    years.into_iter().filter_map(|year| Date::new(year, month, day).ok()).collect()
}

fn month_number(token: &Token) -> Option<i8> {
    let Token::Word(name) = token else { return short_number(token) };
    let index = MONTHS.iter().position(|month| abbreviates(name, month))?;
    i8::try_from(index + 1).ok()
}

fn short_number(token: &Token) -> Option<i8> {
    match token {
        Token::Digits(digits) if digits.len() <= 2 => digits.parse().ok(),
        _ => None,
    }
}

fn is_weekday(token: &Token) -> bool {
    matches!(token, Token::Word(name) if WEEKDAYS.iter().any(|day| abbreviates(name, day)))
}

fn abbreviates(word: &str, name: &str) -> bool {
    word.len() >= SHORTEST_ABBREVIATION && name.starts_with(word)
}

/// Reads the time at the start of `tokens` (an hour followed by a colon). Also returns the number of tokens read.
///
/// `half` is AM or PM if it precedes the hour.
fn time(tokens: &[Token], half: Option<&str>) -> Option<(String, usize)> {
    let [Token::Digits(hour), Token::Sign(':'), Token::Digits(minute), rest @ ..] = tokens else {
        return None;
    };
    let (second, rest) = match rest {
        [Token::Sign(':'), Token::Digits(second), rest @ ..] => (second.as_str(), rest),
        _ => ("00", rest),
    };
    let (fraction, rest) = match rest {
        [Token::Sign('.' | ','), Token::Digits(fraction), rest @ ..] if second.len() == 2 => {
            (fraction.trim_end_matches('0'), rest)
        }
        _ => ("", rest),
    };
    let (half, rest) = match rest {
        [Token::Word(word), rest @ ..] if HALVES.contains(&word.as_str()) => {
            (Some(word.as_str()), rest)
        }
        _ => (half, rest),
    };
    let (offset, rest) = offset(rest)?;
    let hour = hour_of_day(two_digits(hour, 23)?, half)?;
    let (minute, second) = (two_digits(minute, 59)?, two_digits(second, 59)?);
    let point = if fraction.is_empty() { "" } else { "." };
    let time = format!("{hour:02}:{minute:02}:{second:02}{point}{fraction}{offset}");
    Some((time, tokens.len() - rest.len()))
}

/// Reads an offset only at the end of the text: `14:05 - 29/06/2013` has no offset.
fn offset(tokens: &[Token]) -> Option<(String, &[Token])> {
    let (sign, hour, minute) = match tokens {
        [Token::Word(zone)] if matches!(zone.as_str(), "z" | "utc" | "gmt") => {
            return Some(("Z".to_owned(), &[]));
        }
        [
            Token::Sign(sign @ ('+' | '-')),
            Token::Digits(hour),
            Token::Sign(':'),
            Token::Digits(minute),
        ] => (sign, hour.as_str(), minute.as_str()),
        [Token::Sign(sign @ ('+' | '-')), Token::Digits(both)] if both.len() == 4 => {
            (sign, &both[..2], &both[2..])
        }
        [Token::Sign(sign @ ('+' | '-')), Token::Digits(hour)] if hour.len() == 2 => {
            (sign, hour.as_str(), "00")
        }
        _ => return Some((String::new(), tokens)),
    };
    let (hour, minute) = (two_digits(hour, 23)?, two_digits(minute, 59)?);
    Some((format!("{sign}{hour:02}:{minute:02}"), &[]))
}

fn hour_of_day(hour: u8, half: Option<&str>) -> Option<u8> {
    match (half, hour) {
        (Some("am"), 12) => Some(0),
        (Some("am"), 13..) => None,
        (Some("pm"), 1..=11) => Some(hour + 12),
        _ => Some(hour),
    }
}

fn two_digits(digits: &str, most: u8) -> Option<u8> {
    let number = digits.parse().ok().filter(|number| *number <= most)?;
    (digits.len() <= 2).then_some(number)
}

/// Splits a text into digits, words and signs; `None` if it contains a character that no date contains.
fn tokens(text: &str) -> Option<Vec<Token>> {
    const FILLERS: [&str; 3] = ["of", "at", "on"];
    const ORDINALS: [&str; 4] = ["st", "nd", "rd", "th"];
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same_kind = |character: char| match first {
            '0'..='9' => character.is_ascii_digit(),
            'a'..='z' => character.is_ascii_lowercase(),
            _ => false,
        };
        let length = rest.find(|character| !same_kind(character)).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(length.max(first.len_utf8()));
        let behind_digits = matches!(tokens.last(), Some(Token::Digits(_)));
        match first {
            ' ' | '(' | ')' => {}
            '0'..='9' => tokens.push(digits(run)),
            'a'..='z' if FILLERS.contains(&run) => {}
            'a'..='z' if ORDINALS.contains(&run) && behind_digits => {}
            'a'..='z' => tokens.push(word(run)),
            '-' | '/' | '.' | ',' | '\'' | ':' | '+' => tokens.push(Token::Sign(first)),
            _ => return None,
        }
        rest = behind;
    }
    Some(tokens)
}

/// Replaces East Asian date characters with signs and words.
fn plain(text: &str) -> String {
    const SPELLINGS: [(&[&str], &str); 6] = [
        (&["a.m.", "上午", "오전"], " am "),
        (&["p.m.", "下午", "오후"], " pm "),
        (&["年", "月", "년", "월"], "-"),
        (&["时", "時", "点", "點", "시"], ":"),
        (&["분"], "分"),
        // The last two end the departure time on a Chinese train ticket.
        (&["日", "号", "號", "秒", "일", "초", "开", "開"], " "),
    ];
    let mut plain = without_weekday(&fold(text).to_lowercase());
    for (spellings, written) in SPELLINGS {
        for spelling in spellings {
            plain = plain.replace(spelling, written);
        }
    }
    with_minutes(&plain)
}

/// Replaces the minute character with a colon if seconds follow, and with a space otherwise.
fn with_minutes(text: &str) -> String {
    let mut pieces = text.split('分');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let seconds_follow = piece.starts_with(|character: char| character.is_ascii_digit());
        text + if seconds_follow { ":" } else { " " } + piece
    })
}

/// Removes an East Asian day of the week, with or without brackets. Its characters also occur in months and days.
fn without_weekday(text: &str) -> String {
    const PREFIXES: [&str; 4] = ["星期", "礼拜", "周", "週"];
    let bracketed = text.split_once('(').and_then(|(before, rest)| {
        let (inside, behind) = rest.split_once(')')?;
        let foreign = !inside.contains(|character: char| character.is_ascii_alphanumeric());
        foreign.then(|| format!("{before} {behind}"))
    });
    let text = bracketed.unwrap_or_else(|| text.to_owned());
    let alone = PREFIXES.iter().find_map(|prefix| {
        let (before, rest) = text.split_once(prefix)?;
        let mut behind = rest.chars();
        behind.next();
        Some(format!("{before} {}", behind.as_str()))
    });
    alone.unwrap_or(text)
}

fn word(text: &str) -> Token {
    Token::Word(text.to_owned())
}

fn digits(text: &str) -> Token {
    Token::Digits(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_are(
        expected: &Result<String, FieldErrorCode>,
        read: fn(&str) -> Result<String, FieldErrorCode>,
        texts: &[&str],
    ) {
        for text in texts {
            assert_eq!(&read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_usual_spelling_of_a_day_is_read() {
        let day = Ok("2013-06-29".to_owned());
        all_are(&day, date, &["2013-06-29", "2013/6/29", "2013.06.29", "29/06/2013", "06/29/2013"]);
        all_are(
            &day,
            date,
            &["29-6-2013", "29.6.2013", "20130629", "2013年6月29日", "２０１３年０６月２９日"],
        );
        all_are(&day, date, &["29 Jun 2013", "Jun 29, 2013", "29th of June 2013", "29-JUN-2013"]);
        all_are(
            &day,
            date,
            &["Sat, 29 June 2013", "Saturday 29.6.2013", "2013年6月29日(土)", "2013-06-29 星期六"],
        );
        all_are(&day, date, &["2013-06-29T14:05:00Z", "29/06/2013 2:05 PM", "2013년 6월 29일"]);
    }

    #[test]
    fn a_date_with_two_readings_is_ambiguous() {
        let ambiguous = Err(FieldErrorCode::AmbiguousDate);
        all_are(&ambiguous, date, &["03/04/2018", "3-4-2018", "25/12/18", "25 Dec 18", "18-12-25"]);
        all_are(&ambiguous, date, &["31/12/99", "Dec 31, 99", "31.12.99", "99年12月31日"]);
        all_are(&ambiguous, date_time, &["03/04/2018 10:00"]);
    }

    #[test]
    fn a_pointed_date_has_the_day_first() {
        all_are(&Ok("2018-04-03".to_owned()), date, &["03.04.2018", "3.4.2018", "3. April 2018"]);
    }

    #[test]
    fn a_day_named_twice_the_same_is_clear() {
        all_are(&Ok("2018-05-05".to_owned()), date, &["05/05/2018"]);
    }

    #[test]
    fn what_is_no_day_of_the_calendar_is_no_date() {
        let no_date = Err(FieldErrorCode::NotADate);
        all_are(
            &no_date,
            date,
            &["", "soon", "2013-02-30", "31/04/2018", "2018-25-12", "12.25.2018"],
        );
        all_are(
            &no_date,
            date,
            &["2013", "06/2013", "20131329", "1 2 3 4", "2013-0?-29", "令和6年6月29日"],
        );
        all_are(&no_date, date, &["June June 2013", "29/06/2013x", "0013-06-29", "May"]);
    }

    #[test]
    fn a_time_of_day_keeps_the_offset_it_has_and_gets_none() {
        let local = Ok("2013-06-29T14:05:00".to_owned());
        all_are(
            &local,
            date_time,
            &["2013-06-29 14:05", "2013-06-29T14:05:00", "29/06/2013 2:05 p.m."],
        );
        all_are(
            &local,
            date_time,
            &["2013年06月29日14:05开", "2013年6月29日 下午2时5分", "14:05 29.6.2013"],
        );
        let east = Ok("2013-06-29T14:05:09.25+08:00".to_owned());
        all_are(
            &east,
            date_time,
            &["2013-06-29T14:05:09.250+08:00", "2013-06-29 14:05:09.25 +0800"],
        );
        all_are(&Ok("2013-06-29T00:05:00Z".to_owned()), date_time, &["2013-06-29 12:05 AM UTC"]);
    }

    #[test]
    fn a_day_without_a_time_is_no_date_time() {
        let no_time = Err(FieldErrorCode::NotADateTime);
        all_are(
            &no_time,
            date_time,
            &["2013-06-29", "14:05", "2013-06-29 25:00", "2013-06-29 10:61"],
        );
        all_are(
            &no_time,
            date_time,
            &["2013-06-29 14:05 +99:00", "2013-06-29 14:05 CET", "13:00 am"],
        );
    }
}
