//! Quantities that must not be confused: tokens, pixels, money.
//!
//! Each is an integer in a private field, so tokens cannot be compared with pixels, and money never becomes a float.
//! There is no implicit conversion: [`new`](Tokens::new) makes a value, and [`get`](Tokens::get) returns its number.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of model tokens, which DashScope counts and bills.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tokens(u64);

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);

    /// A number of tokens.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, at most the largest value.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(tokens: I) -> Self {
        tokens.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An area in pixels: width times height.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Pixels(u64);

impl Pixels {
    /// An area of `count` pixels.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tokens of one or more model calls, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of images, each with its two vision markers.
    pub image: Tokens,
    /// Tokens of the prompt and of the chat template around it.
    pub text: Tokens,
    /// Tokens that the model wrote.
    pub output: Tokens,
}

impl Usage {
    /// Input tokens: image and text.
    pub const fn input(&self) -> Tokens {
        self.image.saturating_add(self.text)
    }

    /// All tokens, input and output.
    pub const fn total(&self) -> Tokens {
        self.input().saturating_add(self.output)
    }

    /// Each kind, limited to at least `least` and at most `most`. No kind of `most` is below that of `least`.
    #[must_use]
    pub fn clamp(&self, least: &Self, most: &Self) -> Self {
        Self {
            image: self.image.max(least.image).min(most.image),
            text: self.text.max(least.text).min(most.text),
            output: self.output.max(least.output).min(most.output),
        }
    }

    /// The sum of each kind.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            image: self.image.saturating_add(other.image),
            text: self.text.saturating_add(other.text),
            output: self.output.saturating_add(other.output),
        }
    }
}

/// The currency of a price list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Currency {
    /// Chinese yuan: the mainland price list.
    #[serde(rename = "CNY")]
    Cny,
    /// United States dollar: the international price lists.
    #[serde(rename = "USD")]
    Usd,
}

impl Currency {
    /// The ISO 4217 code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Cny => "CNY",
            Self::Usd => "USD",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Billionths of a currency unit in one unit.
const NANOS_PER_UNIT: u64 = 1_000_000_000;

/// An amount of money in billionths (nanos) of a currency unit.
///
/// DashScope prices a million tokens with at most three decimals (Model Studio, "Text extraction
/// (Qwen-OCR)"), so the price of one token is a whole number of nanos and every cost is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    nanos: u64,
}

impl Money {
    /// No money.
    pub const ZERO: Self = Self { nanos: 0 };

    /// An amount given in billionths of a unit.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// The amount in billionths of a unit.
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    /// The sum, at most the largest value.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self::from_nanos(self.nanos.saturating_add(other.nanos))
    }

    /// The difference; zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self::from_nanos(self.nanos.saturating_sub(other.nanos))
    }

    /// The price of `tokens` when one token costs `self`.
    #[must_use]
    pub const fn times(self, tokens: Tokens) -> Self {
        Self::from_nanos(self.nanos.saturating_mul(tokens.get()))
    }
}

/// Writes a plain decimal without trailing zeros: `0.0004416`, `12`, `0`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, fraction) = (self.nanos / NANOS_PER_UNIT, self.nanos % NANOS_PER_UNIT);
        if fraction == 0 {
            return write!(f, "{units}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{units}.{}", digits.trim_end_matches('0'))
    }
}

/// The largest amount that can be written.
const LARGEST_AMOUNT: Money = Money::from_nanos(u64::MAX);

/// A text that is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no amount of money: write a decimal with at most nine decimals, without sign or \
     exponent, like \"12.50\"; at most {LARGEST_AMOUNT}"
)]
pub struct InvalidMoney(String);

/// Reads a plain decimal with at most nine decimals: `12`, `12.50`, `0.000000001`.
impl FromStr for Money {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (units, decimals) = match text.split_once('.') {
            Some((units, decimals)) if !decimals.is_empty() => (units, decimals),
            Some(_) => return Err(InvalidMoney::of(text)),
            None => (text, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_decimal = !units.is_empty() && all_digits(units) && all_digits(decimals);
        if !is_decimal || decimals.len() > 9 {
            return Err(InvalidMoney::of(text));
        }
        let nanos = format!("{units}{decimals:0<9}").parse();
        nanos.map(Self::from_nanos).map_err(|_| InvalidMoney::of(text))
    }
}

impl TryFrom<String> for Money {
    type Error = InvalidMoney;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl InvalidMoney {
    /// Keeps the beginning of the text.
    fn of(text: &str) -> Self {
        const SHOWN: usize = 40;
        Self(text.chars().take(SHOWN).collect())
    }
}

/// Writes the decimal as a string.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the decimal from a string. A number is refused: it may have been a float before. The format decides the type,
/// because configuration formats turn a number into a string on request.
impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MoneyVisitor)
    }
}

struct MoneyVisitor;

impl Visitor<'_> for MoneyVisitor {
    type Value = Money;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of money as a decimal in quotes, like \"12.50\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Money, E> {
        text.parse().map_err(E::custom)
    }
}

/// The price of tokens by the price list, as answers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount.
    pub amount: Money,
    /// The currency.
    pub currency: Currency,
    /// Always true: the vendor's invoice decides, and this is the price list applied to the usage.
    pub estimated: bool,
}

impl Cost {
    /// The cost of this amount.
    pub const fn of(amount: Money, currency: Currency) -> Self {
        Self { amount, currency, estimated: true }
    }
}

/// A price of one million tokens, written as a decimal with at most three decimals.
///
/// Kept as the price of one token, which is then a whole number of nanos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PricePerMillion {
    token: Money,
}

impl PricePerMillion {
    /// What one token costs.
    pub const fn per_token(self) -> Money {
        self.token
    }
}

/// A price that is not a plain decimal with at most three decimals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "price per million tokens is {0:?}; write a decimal with at most three decimals, like \"0.3\""
)]
pub struct InvalidPrice(String);

impl TryFrom<String> for PricePerMillion {
    type Error = InvalidPrice;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (units, decimals) = text.split_once('.').unwrap_or((&text, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if units.is_empty() || decimals.len() > 3 || !all_digits(units) || !all_digits(decimals) {
            return Err(InvalidPrice(text));
        }
        // Thousandths of a unit for a million tokens are nanos for one token.
        match format!("{units}{decimals:0<3}").parse() {
            Ok(nanos) => Ok(Self { token: Money::from_nanos(nanos) }),
            Err(_) => Err(InvalidPrice(text)),
        }
    }
}

/// A share between none and all, exact to a millionth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Everything.
    pub const ALL: Self = Self(Self::WHOLE);

    const WHOLE: u32 = 1_000_000;

    /// A share of so many millionths; `None` above one million.
    pub const fn from_millionths(millionths: u32) -> Option<Self> {
        if millionths <= Self::WHOLE { Some(Self(millionths)) } else { None }
    }

    /// The number of millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// A number that is no share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0} is no share; write a number from 0 to 1, like 0.01")]
pub struct InvalidShare(String);

impl TryFrom<f64> for Share {
    type Error = InvalidShare;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        if !(0.0..=1.0).contains(&number) {
            return Err(InvalidShare(number.to_string()));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the number is between zero and one million"
        )]
        let millionths = (number * f64::from(Self::WHOLE)).round() as u32;
        Ok(Self(millionths))
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        Self::from(share.0) / Self::from(Share::WHOLE)
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: f64 = text.parse().map_err(|_| InvalidShare(format!("{text:?}")))?;
        number.try_into()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(text: &str) -> Result<Money, InvalidPrice> {
        PricePerMillion::try_from(text.to_owned()).map(PricePerMillion::per_token)
    }

    #[test]
    fn a_price_per_million_is_whole_nanos_for_one_token() {
        assert_eq!(price("0.3"), Ok(Money::from_nanos(300)));
        assert_eq!(price("5"), Ok(Money::from_nanos(5_000)));
        assert_eq!(price("0.514"), Ok(Money::from_nanos(514)));
    }

    #[test]
    fn a_price_that_would_round_is_refused() {
        for wrong in ["0.0001", "", ".5", "-1", "1e3", "0,3", "0.3 ", "99999999999999999999"] {
            assert!(price(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn money_is_written_as_a_plain_decimal() {
        assert_eq!(Money::from_nanos(441_600).to_string(), "0.0004416");
        assert_eq!(Money::from_nanos(12 * NANOS_PER_UNIT).to_string(), "12");
        assert_eq!(Money::ZERO.to_string(), "0");
        assert_eq!(Money::from_nanos(1).to_string(), "0.000000001");
    }

    #[test]
    fn sums_stop_at_the_largest_value_instead_of_wrapping() {
        let most = Tokens::new(u64::MAX);
        assert_eq!(most.saturating_add(Tokens::new(1)), most);
        assert_eq!(Money::from_nanos(u64::MAX).times(Tokens::new(2)).nanos(), u64::MAX);
    }

    #[test]
    fn money_is_read_from_a_plain_decimal() {
        for (text, nanos) in [
            ("12.50", 12_500_000_000),
            ("0.000000001", 1),
            ("0", 0),
            ("007", 7_000_000_000),
            ("18446744073.709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Money::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn money_that_is_no_plain_decimal_is_refused_with_the_rule() {
        for wrong in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "1,5",
            " 1",
            "1 ",
            "1.0.0",
            "0.0000000001",
            "1_000",
            "\u{0661}",
            "NaN",
            "CNY 1",
            "18446744073.709551616",
            "99999999999999999999",
        ] {
            let refusal = wrong.parse::<Money>().unwrap_err().to_string();
            assert!(refusal.contains("at most nine decimals"), "{refusal}");
        }
    }

    #[test]
    fn money_is_a_string_in_json_and_never_a_number() {
        let money: Money = serde_json::from_str(r#""12.50""#).unwrap();
        assert_eq!(serde_json::to_string(&money).unwrap(), r#""12.5""#);
        for wrong in ["12.50", "12", "null", "true", "[]", r#""12.5O""#] {
            assert!(serde_json::from_str::<Money>(wrong).is_err(), "{wrong} was accepted");
        }
    }

    proptest! {
        #[test]
        fn money_comes_back_from_its_text_as_it_was(nanos: u64) {
            let money = Money::from_nanos(nanos);
            prop_assert_eq!(money.to_string().parse(), Ok(money));
            let json = serde_json::to_value(money).unwrap();
            prop_assert_eq!(serde_json::from_value::<Money>(json).unwrap(), money);
        }

        #[test]
        fn no_text_stops_the_reader(text: String) {
            let _ = text.parse::<Money>();
        }
    }
}
