//! Reads printed numbers with currencies, digit groups and either decimal sign.
//!
//! A number is kept as decimal digits until the end, so nothing is rounded and `12.50` keeps both decimals. Text around
//! the digits is accepted only if it is known not to change the number (a currency, a count of pieces). Any other
//! letters, such as the `k` of `12k`, the `kg` of a weight or the `A` of `A-12`, make the text not a number.
//!
//! Two spellings are ambiguous. A single comma before three digits, `1,234`, groups thousands, because nearly all
//! prices with a decimal comma have two decimals. A single point before three digits, `1.234`, is a decimal sign, as in
//! JSON, fuel prices and weights. The exception is a currency without cents in use (`Rp 50.000`).

use serde_json::Number;

use super::fold::{fold, fold_character};

/// Codes and words in lower case that mean only a currency or a count.
const WORDS: &str = "\
    aed ars aud bdt bgn bhd brl cad chf cny czk dkk egp eur gbp hkd hrk ils inr jod kes kwd \
    lkr mad mop mxn myr ngn nok nzd omr pen php pkr pln qar rmb ron rsd rub sar sek sgd thb \
    try tnd twd uah usd zar a$ c$ hk$ mex$ nt$ nz$ r$ s$ us$ us rm rs s/ fr sfr kr kč zł lei tl \
    лв руб р грн dollar dollars euro euros pound pounds rupees yuan 元 元整 圆 圆整 人民币 pc pcs 个 件 张";
/// Currencies without a smaller unit in use. In these a point groups thousands.
const WITHOUT_CENTS: &str = "\
    idr rp vnd vnđ ₫ đ jpy krw ₩ 원 clp cop pyg isk ugx 円 huf ft";
const SYMBOLS: [char; 16] =
    ['$', '€', '£', '¥', '₹', '₩', '₽', '₫', '฿', '₺', '₴', '₦', '₱', '₪', '₡', '₸'];

/// The largest power of ten that is written out. The range of a double ends at 308 and -324.
const LARGEST_EXPONENT: isize = 400;

/// A number as decimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    whole: String,
    fraction: String,
}

/// Reads a text that contains exactly one number; `None` if it has none, has several or is ambiguous.
pub(super) fn read(text: &str) -> Option<Decimal> {
    let text = fold(text).replace(['"', '\u{201c}', '\u{201d}'], "'");
    let text = text.trim_matches([' ', '\'', '*']);
    let first = text.find(|character: char| character.is_ascii_digit())?;
    let last = text.rfind(|character: char| character.is_ascii_digit())?;
    let (before, digits, behind) = (&text[..first], &text[first..=last], &text[last + 1..]);
    let (before, leading_sign) = split_leading_sign(before);
    let around = Surroundings::read(before, without_empty_cents(behind))?;
    let (whole, fraction) = if leading_sign {
        ("0".to_owned(), plain_digits(digits)?)
    } else {
        split(digits, around.without_cents)?
    };
    Some(Decimal { negative: around.negative, whole, fraction })
}

/// Whether the character is the sign of a currency.
pub(super) fn is_currency_sign(character: char) -> bool {
    SYMBOLS.contains(&fold_character(character))
}

/// Whether the word means only a currency or a count, so that a number beside it stays the same.
pub(super) fn is_money_word(word: &str) -> bool {
    !word.is_empty() && words_without_cents(word).is_some()
}

impl Decimal {
    /// The number without its fraction; `None` if the fraction is not zero.
    pub(super) fn whole(&self) -> Option<Self> {
        let integral = self.fraction.bytes().all(|digit| digit == b'0');
        integral.then(|| Self { fraction: String::new(), ..self.clone() })
    }

    /// Reads a JSON number; `None` if it is far outside the range of a double.
    pub(super) fn of_json(text: &str) -> Option<Self> {
        let unsigned = text.trim_start_matches(['-', '+']);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let exponent: isize = exponent.parse().ok()?;
        if exponent.unsigned_abs() > LARGEST_EXPONENT.unsigned_abs() {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let zeros = |count: isize| "0".repeat(count.max(0).unsigned_abs());
        // Zeros on both sides allow the point to move by any exponent.
        let whole = format!("{}{whole}", zeros(-exponent));
        let fraction = format!("{fraction}{}", zeros(exponent - fraction.len().cast_signed()));
        let digits = format!("{whole}{fraction}");
        let (whole, fraction) =
            digits.split_at_checked(whole.len().checked_add_signed(exponent)?)?;
        let negative = text.starts_with('-');
        Some(Self { negative, whole: whole.to_owned(), fraction: fraction.to_owned() })
    }

    /// Whether both are the same number.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.plain() == other.plain()
    }

    /// The digits of the number as an integer, and the length of its fraction. None if it has more than 28 digits.
    pub(super) fn scaled(&self) -> Option<(i128, u32)> {
        const LONGEST: usize = 28;
        let digits = format!("{}{}", self.whole.trim_start_matches('0'), self.fraction);
        if digits.len() > LONGEST {
            return None;
        }
        let digits: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        let scale = u32::try_from(self.fraction.len()).ok()?;
        Some((if self.negative { -digits } else { digits }, scale))
    }

    /// Whether the number has leading zeros, as document numbers do.
    pub(super) fn is_padded(&self) -> bool {
        self.whole.len() > 1 && self.whole.starts_with('0')
    }

    /// The number as text with all digits of its fraction: `12.50`.
    pub(super) fn digits(&self) -> String {
        let plain = self.plain();
        let (whole, _) = plain.split_once('.').unwrap_or((&plain, ""));
        let point = if self.fraction.is_empty() { "" } else { "." };
        format!("{whole}{point}{}", self.fraction)
    }

    /// The number without redundant zeros: `-12.5`, `0`.
    pub(super) fn plain(&self) -> String {
        let (whole, fraction) =
            (self.whole.trim_start_matches('0'), self.fraction.trim_end_matches('0'));
        let sign =
            if self.negative && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}")
    }

    /// Converts to a JSON number; `None` if a caller that reads numbers as doubles (IEEE 754 binary64), as most do,
    /// would see a different number.
    ///
    /// A number is converted if it is the shortest decimal that parses to its double. This includes all integers up to
    /// 2^53 and all decimals of 15 digits.
    pub(super) fn to_number(&self) -> Option<Number> {
        let text = self.plain();
        let double: f64 = text.parse().ok()?;
        if double.to_string().trim_start_matches('-') != text.trim_start_matches('-') {
            return None;
        }
        if self.fraction.is_empty() {
            let unsigned = || text.parse::<u64>().ok().map(Number::from);
            let whole = text.parse::<i64>().ok().map(Number::from).or_else(unsigned);
            return whole.or_else(|| Number::from_f64(double));
        }
        Number::from_f64(double)
    }
}

/// The text before and after the digits.
struct Surroundings {
    negative: bool,
    without_cents: bool,
}

impl Surroundings {
    /// `None` if the text could change the number.
    fn read(before: &str, behind: &str) -> Option<Self> {
        let bracketed = before.contains('(') && behind.contains(')');
        let minus = before.matches('-').count() + behind.matches('-').count();
        let brackets = before.matches(['(', ')']).count() + behind.matches(['(', ')']).count();
        let percent = before.matches('%').count() + behind.matches('%').count();
        let plus = before.matches('+').count();
        let fits = brackets == 2 * usize::from(bracketed)
            && minus + plus + usize::from(bracketed) <= 1
            && percent <= 1;
        let without_cents = [before, behind].map(words_without_cents);
        match without_cents {
            [Some(before), Some(behind)] if fits => {
                Some(Self { negative: minus == 1 || bracketed, without_cents: before || behind })
            }
            _ => None,
        }
    }
}

/// Whether a currency without cents is named; `None` if a word is unknown.
fn words_without_cents(text: &str) -> Option<bool> {
    let mut found = false;
    for word in text.split([' ', '-', '+', '(', ')', '%']).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        let word = word.trim_end_matches(['.', ',', ':']);
        let bare = word.trim_matches(SYMBOLS);
        let known = |list: &str| list.split(' ').any(|known| known == word || known == bare);
        if known(WITHOUT_CENTS) {
            found = true;
        } else if word.is_empty() || !(bare.is_empty() || known(WORDS)) {
            return None;
        }
    }
    Some(found)
}

/// A decimal sign without a digit before it (`.50`, `$.50`) belongs to the number. The point of an abbreviation
/// (`Rs.50`) does not.
fn split_leading_sign(before: &str) -> (&str, bool) {
    let Some(rest) = before.strip_suffix(['.', ',']) else { return (before, false) };
    match rest.chars().next_back() {
        Some(character) if character.is_alphabetic() => (before, false),
        _ => (rest, true),
    }
}

/// Removes a dash that means "no cents", as in `53,-`, `53.--` and `500/-`. It is not a minus sign.
fn without_empty_cents(behind: &str) -> &str {
    match behind.strip_prefix([',', '.', '/']) {
        Some(rest) => rest.trim_start_matches(['-', '=']),
        None => behind,
    }
}

/// Splits digits and separators into the integer part and the fraction.
fn split(digits: &str, without_cents: bool) -> Option<(String, String)> {
    let is_sign = |character: char| !character.is_ascii_digit();
    let signs: Vec<char> = digits.chars().filter(|character| is_sign(*character)).collect();
    if !signs.iter().all(|sign| matches!(sign, '.' | ',' | '\'' | ' ' | '_')) {
        return None;
    }
    let groups: Vec<&str> = digits.split(is_sign).collect();
    let Some((&decimal, grouping)) = signs.split_last() else {
        return Some((digits.to_owned(), String::new()));
    };
    let last = groups.last().copied().unwrap_or_default();
    if is_decimal_sign(decimal, grouping, &groups, without_cents) {
        let whole = join(&groups[..groups.len() - 1], grouping)?;
        return plain_digits(last).map(|fraction| (whole, fraction));
    }
    join(&groups, &signs).map(|whole| (whole, String::new()))
}

/// Whether the last separator is the decimal sign. `grouping` contains the separators before it.
fn is_decimal_sign(last: char, grouping: &[char], groups: &[&str], without_cents: bool) -> bool {
    if !matches!(last, '.' | ',') || grouping.contains(&last) {
        return false;
    }
    let [whole, behind] = groups else { return true };
    let like_a_group = behind.len() == 3 && whole.len() <= 3 && !whole.starts_with('0');
    !like_a_group || (last == '.' && !without_cents)
}

/// Joins groups of three digits, or Indian groups of two digits before a last group of three.
fn join(groups: &[&str], signs: &[char]) -> Option<String> {
    let (first, rest) = groups.split_first()?;
    let same_sign = signs.windows(2).all(|pair| pair[0] == pair[1]);
    let all_of = |groups: &[&str], length: usize| groups.iter().all(|group| group.len() == length);
    let grouped = match rest.split_last() {
        None => !first.is_empty(),
        Some((last, middle)) => {
            let western = (1..=3).contains(&first.len()) && all_of(middle, 3);
            let indian = (1..=2).contains(&first.len()) && all_of(middle, 2) && !middle.is_empty();
            last.len() == 3 && (western || indian) && !first.starts_with('0')
        }
    };
    (grouped && same_sign).then(|| groups.concat())
}

fn plain_digits(digits: &str) -> Option<String> {
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn number(text: &str) -> Option<Value> {
        read(text)?.to_number().map(Value::Number)
    }

    fn all_are(expected: &Value, texts: &[&str]) {
        for text in texts {
            assert_eq!(number(text).as_ref(), Some(expected), "{text:?}");
        }
    }

    fn none_is_a_number(texts: &[&str]) {
        for text in texts {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_usual_grouping_is_read() {
        all_are(
            &json!(1234.56),
            &[
                "1,234.56",
                "1.234,56",
                "1 234,56",
                "1'234.56",
                "1\u{202f}234,56",
                "1234.56",
                "1234,56",
            ],
        );
        all_are(
            &json!(3949.75),
            &["3'949.75", "3`949.75", "3\"949.75", "\"3`949.75\"", "3’949.75"],
        );
        all_are(&json!(1_234_567), &["1,234,567", "1.234.567", "1 234 567", "12,34,567"]);
        all_are(&json!(100_000), &["1,00,000", "100,000", "100000"]);
    }

    #[test]
    fn a_currency_around_the_number_changes_nothing() {
        all_are(
            &json!(53.0),
            &[
                "￥53.0元",
                "¥53.0",
                "RM 53.00",
                "53,00 €",
                "CHF 53.00",
                "US$53.00",
                "53.00 EUR.",
                "Rs.53.00",
            ],
        );
        all_are(&json!(53), &["53,-", "53.--", "Fr. 53.-", "Rs. 53/-", "53元整", "＄５３", "**53"]);
        all_are(&json!(0.5), &[".50", "$.50", "0.50", "0,5"]);
    }

    #[test]
    fn a_lone_comma_with_three_digits_groups_and_a_lone_point_does_not() {
        all_are(&json!(1234), &["1,234"]);
        all_are(&json!(1.234), &["1.234", "1.234 €"]);
        all_are(&json!(0.123), &["0,123", "0.123"]);
    }

    #[test]
    fn a_point_groups_in_a_currency_without_cents() {
        all_are(
            &json!(50_000),
            &["Rp 50.000", "Rp50.000", "50.000đ", "50.000 VND", "₫50.000", "50.000 Ft"],
        );
    }

    #[test]
    fn minus_and_brackets_make_a_number_negative() {
        all_are(
            &json!(-5.25),
            &["-5.25", "5.25-", "(5.25)", "($5.25)", "-$5.25", "$-5.25", "−5,25 €"],
        );
        all_are(&json!(5), &["+5", "5 %", "5％", "%5"]);
        all_are(&json!(0.0), &["-0.00"]);
    }

    #[test]
    fn letters_that_change_the_amount_make_it_no_number() {
        none_is_a_number(&[
            "12k",
            "1.5 kg",
            "A-12",
            "No. 12",
            "3 million",
            "5‰",
            "3万",
            "53元5角",
            "Room 12",
        ]);
    }

    #[test]
    fn what_holds_no_number_or_several_is_none() {
        none_is_a_number(&[
            "",
            "abc",
            "10-20",
            "10/20",
            "2013-06-29",
            "12.34.56",
            "1,23,4",
            "12 34",
        ]);
        none_is_a_number(&[
            "(-5)",
            "-5-",
            "(5",
            "5)",
            "1,234'567.00",
            "12?4",
            "....5",
            "1..5",
            "5%%",
        ]);
    }

    #[test]
    fn digits_that_json_would_round_are_refused() {
        assert_eq!(number("9007199254740992"), Some(json!(9_007_199_254_740_992_u64)));
        assert_eq!(number("0.30000000000000004"), Some(json!(0.300_000_000_000_000_04)));
        none_is_a_number(&[
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "1234567890123456.78",
            "0.1000000000000000055",
        ]);
    }

    #[test]
    fn a_fraction_of_zeros_is_whole() {
        assert_eq!(read("53.00").and_then(|decimal| decimal.whole()?.to_number()), Some(53.into()));
        assert_eq!(read("53.50").and_then(|decimal| decimal.whole()), None);
    }
}
