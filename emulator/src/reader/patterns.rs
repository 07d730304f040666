//! Values that are recognised by their form alone: dates, times, amounts, phone and document numbers.
//!
//! The scanners are hand-written and work on runs of digits, letters and signs. Each finds the first piece of a text
//! that has the form, and returns it as printed.

use crate::engine::is_unspaced;

/// A date that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Date {
    /// The date as printed.
    pub(crate) text: String,
    /// Year, month and day, if they are unambiguous. Of `03/04/2018` the first number is taken as the day.
    pub(crate) calendar: (u32, u32, u32),
}

impl Date {
    /// The date in ISO 8601.
    pub(crate) fn iso(&self) -> String {
        let (year, month, day) = self.calendar;
        format!("{year:04}-{month:02}-{day:02}")
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Signs and names of currencies, as written before or after an amount.
pub(crate) const CURRENCIES: [&str; 16] = [
    "RM", "USD", "EUR", "GBP", "CNY", "MYR", "JPY", "SGD", "HKD", "RMB", "US$", "$", "€", "£", "¥",
    "￥",
];

/// A stretch of one kind of character.
#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    text: &'a str,
    start: usize,
}

impl Run<'_> {
    fn end(self) -> usize {
        self.start + self.text.len()
    }

    fn number(self) -> Option<u32> {
        self.text.bytes().all(|byte| byte.is_ascii_digit()).then(|| self.text.parse().ok())?
    }

    fn month(self) -> Option<u32> {
        let name = self.text.to_lowercase();
        let known = |month: &&str| name.len() >= 3 && name.starts_with(*month);
        (1..).zip(&MONTHS).find(|(_, month)| known(month)).map(|(number, _)| number)
    }
}

/// The runs of a text without its spaces.
fn runs(text: &str) -> Vec<Run<'_>> {
    #[derive(PartialEq)]
    enum Kind {
        Digit,
        Letter,
        Sign(usize),
    }
    let kind = |at: usize, character: char| match character {
        '0'..='9' => Kind::Digit,
        _ if character.is_alphabetic() => Kind::Letter,
        _ => Kind::Sign(at),
    };
    let mut runs: Vec<(Kind, Run<'_>)> = Vec::new();
    for (at, character) in text.char_indices() {
        let kind = kind(at, character);
        let end = at + character.len_utf8();
        match runs.last_mut() {
            Some((last, run)) if *last == kind && run.end() == at => {
                run.text = &text[run.start..end];
            }
            _ => runs.push((kind, Run { text: &text[at..end], start: at })),
        }
    }
    runs.into_iter().map(|(_, run)| run).filter(|run| !run.text.trim().is_empty()).collect()
}

/// The first date.
pub(crate) fn date(text: &str) -> Option<Date> {
    let runs = runs(text);
    (0..runs.len()).find_map(|at| date_at(text, &runs[at..]))
}

fn date_at(text: &str, runs: &[Run<'_>]) -> Option<Date> {
    let (length, calendar) =
        chinese_date(runs).or_else(|| numeric_date(runs)).or_else(|| named_date(runs))?;
    let end = runs.get(length.checked_sub(1)?)?.end();
    let (year, month, day) = calendar;
    let is_real =
        (1900..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    is_real.then(|| Date { text: text[runs[0].start..end].to_owned(), calendar })
}

/// `2013年06月29日`: the number of runs, and the date.
fn chinese_date(runs: &[Run<'_>]) -> Option<(usize, (u32, u32, u32))> {
    let [year, nian, month, yue, day, rest @ ..] = runs else { return None };
    if nian.text != "年" || yue.text != "月" {
        return None;
    }
    let has_sign = rest.first().is_some_and(|sign| sign.text == "日");
    let calendar = (year.number()?, month.number()?, day.number()?);
    Some((if has_sign { 6 } else { 5 }, calendar))
}

/// `29/06/2013`, `2013-06-29`, `6.29.13`.
fn numeric_date(runs: &[Run<'_>]) -> Option<(usize, (u32, u32, u32))> {
    let [first, one, second, other, third, ..] = runs else { return None };
    let separates = matches!(one.text, "/" | "-" | "." | "\\") && one.text == other.text;
    // A date has no gaps, or one on both sides of each sign.
    let is_tight =
        third.end() - first.start <= first.text.len() + second.text.len() + third.text.len() + 6;
    let (a, b, c) = (first.number()?, second.number()?, third.number()?);
    if !separates || !is_tight || second.text.len() > 2 {
        return None;
    }
    let calendar = match (first.text.len(), third.text.len()) {
        (4, 1 | 2) => (a, b, c),
        (1 | 2, 2 | 4) => {
            let year = if third.text.len() == 2 { 2000 + c } else { c };
            if b > 12 { (year, a, b) } else { (year, b, a) }
        }
        _ => return None,
    };
    Some((5, calendar))
}

/// `29 Jun 2013`, `29-JUN-13`, `Jun 29, 2013`.
fn named_date(runs: &[Run<'_>]) -> Option<(usize, (u32, u32, u32))> {
    let is_sign = |run: &&Run<'_>| matches!(run.text, "-" | "/" | "." | "," | "'" | "’");
    let mut parts = runs.iter().take(7).enumerate().filter(|(_, run)| !is_sign(run));
    let [(_, first), (_, second), (last, third)] = [parts.next()?, parts.next()?, parts.next()?];
    let (month, day) = match (first.month(), second.month()) {
        (Some(month), None) => (month, second.number()?),
        (None, Some(month)) => (month, first.number()?),
        _ => return None,
    };
    let year = third.number()?;
    let year = match third.text.len() {
        2 => 2000 + year,
        4 => year,
        _ => return None,
    };
    Some((last + 1, (year, month, day)))
}

/// The first time of day.
pub(crate) fn time(text: &str) -> Option<String> {
    let runs = runs(text);
    (0..runs.len()).find_map(|at| {
        let [hour, colon, minute, rest @ ..] = &runs[at..] else { return None };
        let is_time = matches!(colon.text, ":" | "：")
            && hour.end() == colon.start
            && colon.end() == minute.start
            && minute.text.len() == 2
            && hour.number()? < 24
            && minute.number()? < 60;
        if !is_time {
            return None;
        }
        let mut end = minute.end();
        let mut rest = rest;
        if let [sign, second, after @ ..] = rest
            && sign.text == ":"
            && sign.start == end
            && second.text.len() == 2
        {
            end = second.end();
            rest = after;
        }
        if let Some(half) =
            rest.first().filter(|half| matches!(half.text, "AM" | "PM" | "am" | "pm"))
        {
            end = half.end();
        }
        Some(text[hour.start..end].to_owned())
    })
}

/// All amounts of money, without their currency: numbers with two decimals, or any number beside a currency. A year, a
/// date or a longer number does not count.
pub(crate) fn amounts(text: &str) -> Vec<String> {
    numbers(text)
        .filter(|(range, number)| has_cents(number) || is_priced(text, range))
        .map(|(_, number)| number)
        .collect()
}

/// The first number of any form, for a value whose label already identifies it as an amount.
pub(crate) fn number(text: &str) -> Option<String> {
    let mut numbers = numbers(text).map(|(_, number)| number);
    numbers.find(|number| number.len() <= 12)
}

/// Numbers with their positions: digits, with `.` and `,` between them, not part of a longer word.
fn numbers(text: &str) -> impl Iterator<Item = (std::ops::Range<usize>, String)> + '_ {
    let is_inner = |character: char| character.is_ascii_digit() || matches!(character, '.' | ',');
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find(|character: char| character.is_ascii_digit())?;
            let end =
                text[start..].find(|c| !is_inner(c)).map_or(text.len(), |length| start + length);
            at = end;
            let number = text[start..end].trim_end_matches(['.', ',']);
            if stands_alone(text, start, start + number.len()) {
                let is_negative = text[..start].ends_with('-')
                    && !text[..start - 1].ends_with(|c: char| c.is_alphanumeric());
                let sign = if is_negative { "-" } else { "" };
                return Some((start..start + number.len(), format!("{sign}{number}")));
            }
        }
    })
}

/// Whether nothing next to a number makes it a date, a code or a percentage.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    let joins = |character: char| matches!(character, '/' | ':' | '%' | '-' | '\\');
    let is_currency = CURRENCIES.iter().any(|currency| text[..start].ends_with(currency));
    let bad_before = before.is_some_and(|character| {
        !is_currency
            && (character.is_alphanumeric() && !is_unspaced(character)
                || matches!(character, '/' | ':' | '\\'))
    });
    let bad_after = after.is_some_and(|character| {
        joins(character) || (character.is_alphanumeric() && !is_unspaced(character))
    });
    !bad_before && !bad_after
}

fn has_cents(number: &str) -> bool {
    let cents = number.rsplit(['.', ',']).next().unwrap_or_default();
    cents.len() == 2 && number.contains(['.', ','])
}

fn is_priced(text: &str, range: &std::ops::Range<usize>) -> bool {
    let before = text[..range.start].trim_end_matches([' ', '-']);
    let after = text[range.end..].trim_start();
    CURRENCIES.iter().any(|currency| before.ends_with(currency) || after.starts_with(currency))
        || after.starts_with('元')
}

/// The first currency.
pub(crate) fn currency(text: &str) -> Option<&'static str> {
    let is_bounded = |currency: &str, at: usize| {
        let letter = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphabetic());
        let is_word = currency.starts_with(|c: char| c.is_ascii_alphabetic());
        let (before, after) =
            (text[..at].chars().next_back(), text[at + currency.len()..].chars().next());
        !is_word || (!letter(before) && !letter(after))
    };
    let found =
        |currency: &&&str| text.match_indices(**currency).any(|(at, _)| is_bounded(currency, at));
    CURRENCIES.iter().find(found).copied()
}

/// The first telephone number: seven to fifteen digits with the usual separators.
pub(crate) fn phone(text: &str) -> Option<String> {
    let is_inner = |character: char| {
        character.is_ascii_digit() || matches!(character, '+' | '-' | '(' | ')' | ' ' | '.')
    };
    let mut pieces = text.split(|character| !is_inner(character));
    let digits = |piece: &str| piece.bytes().filter(u8::is_ascii_digit).count();
    let piece = pieces.find(|piece| (7..=15).contains(&digits(piece)) && date(piece).is_none())?;
    Some(piece.trim_matches([' ', '-', '.']).to_owned())
}

/// The first word that could be a document number: it contains a digit.
pub(crate) fn identifier(text: &str) -> Option<String> {
    let trimmed = text
        .split_whitespace()
        .map(|word| word.trim_matches(|character: char| !character.is_alphanumeric()));
    let mut words = trimmed.filter(|word| word.bytes().any(|byte| byte.is_ascii_digit()));
    words.find(|word| word.len() >= 2 && date(word).is_none()).map(str::to_owned)
}

/// The first e-mail address.
pub(crate) fn email(text: &str) -> Option<String> {
    let is_address = |word: &&str| {
        word.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
    };
    text.split_whitespace().find(is_address).map(|word| word.trim_matches([',', ';']).to_owned())
}

/// The first Chinese train number: a letter and up to four digits.
pub(crate) fn train(text: &str) -> Option<String> {
    let is_train = |word: &&str| {
        let digits = word.strip_prefix(['G', 'D', 'C', 'Z', 'T', 'K', 'L', 'Y', 'S']).unwrap_or("");
        (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_train).map(str::to_owned)
}

/// The first Chinese identity card number: 17 digits and a digit or X.
pub(crate) fn identity_number(text: &str) -> Option<String> {
    let is_number = |word: &&str| {
        word.len() == 18
            && word.bytes().take(17).all(|byte| byte.is_ascii_digit())
            && word.ends_with(|last: char| last.is_ascii_digit() || matches!(last, 'X' | 'x'))
    };
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_found_in_their_common_forms() {
        for (text, iso) in [
            ("Date : 27/03/2018 8:17 PM", "2018-03-27"),
            ("2013年06月29日18:30开", "2013-06-29"),
            ("12-JAN-18", "2018-01-12"),
            ("issued Jan 12, 2018", "2018-01-12"),
            ("2026-07-10", "2026-07-10"),
            ("03/25/2018", "2018-03-25"),
        ] {
            assert_eq!(date(text).map(|date| date.iso()).as_deref(), Some(iso), "{text}");
        }
        for text in ["1.2.3", "tel 03-1234-5678", "27.55", "99/99/2018", ""] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_numbers_with_cents_or_beside_a_currency() {
        assert_eq!(amounts("TOTAL RM27.55 on 27/03/2018 at 8:17"), ["27.55"]);
        assert_eq!(amounts("1 x 1,234.50 = $1234"), ["1,234.50", "1234"]);
        assert_eq!(amounts("￥54.5元 6.00%"), ["54.5"]);
        assert_eq!(amounts("-0.02"), ["-0.02"]);
        assert!(amounts("item 12 of 2018, A1234.50").is_empty());
    }

    #[test]
    fn times_are_not_taken_from_the_middle_of_other_numbers() {
        assert_eq!(time("at 8:17:39 PM").as_deref(), Some("8:17:39 PM"));
        assert_eq!(time("18:30开").as_deref(), Some("18:30"));
        assert_eq!(time("1:2"), None);
    }

    #[test]
    fn other_numbers_are_found_by_their_form() {
        assert_eq!(phone("TEL : 03-3271 9922").as_deref(), Some("03-3271 9922"));
        assert_eq!(identifier("# INV-0042, thanks").as_deref(), Some("INV-0042"));
        assert_eq!(train("车次 G1234 次").as_deref(), Some("G1234"));
        assert_eq!(
            identity_number("号码11010519491231002X").as_deref(),
            Some("11010519491231002X")
        );
        assert_eq!(currency("TOTAL (RM)"), Some("RM"));
        assert_eq!(currency("FARM"), None);
    }
}
