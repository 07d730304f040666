//! Quantities that must not be confused: tokens, pixels, money.
//!
//! Each is an integer behind a private field, so that a sum of tokens can never be compared with a
//! number of pixels and money never passes through a float. There is no implicit conversion: a value
//! comes in by [`new`](Tokens::new) and goes out by [`get`](Tokens::get).

use std::fmt;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// A number of model tokens, as DashScope counts and bills them.
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

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum; stays at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; zero where `other` is larger.
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

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tokens of one or more model calls, by what they were spent on.
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
    /// Tokens that went in: image and text.
    pub const fn input(&self) -> Tokens {
        self.image.saturating_add(self.text)
    }

    /// All tokens, in and out.
    pub const fn total(&self) -> Tokens {
        self.input().saturating_add(self.output)
    }

    /// The sum of two usages, kind by kind.
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
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// An amount given in billionths of a unit.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// The amount in billionths of a unit.
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    /// The sum; stays at the largest value instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self::from_nanos(self.nanos.saturating_add(other.nanos))
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

#[cfg(test)]
mod tests {
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
}
