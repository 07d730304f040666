//! Checks that a number is in the range that every JSON reader supports.
//!
//! JSON limits neither the digits nor the size of a number, but its readers do. Python rejects an integer of more than
//! 4,300 digits, and reads `1e400` as infinity, which it cannot write as JSON. Java expands `1e999999999` to an integer
//! digit by digit. Such a reader fails with a server error instead of a client error. So a number that is passed on
//! must fit a double or a 128-bit integer.

/// The largest length of a number: that of the lowest 128-bit integer. The longest double has 24 characters.
const MOST_CHARACTERS: usize = 40;

/// The largest number of digits in an exponent, as in the largest double.
const MOST_EXPONENT_DIGITS: usize = 3;

/// A number that some readers cannot represent. Each message is the predicate of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberFault {
    /// The number is too long.
    #[error("is a number of {length} characters; at most {MOST_CHARACTERS} are taken")]
    TooLong {
        /// Its length in characters.
        length: usize,
    },
    /// The exponent is too long.
    #[error(
        "is a number whose exponent has {digits} digits; at most {MOST_EXPONENT_DIGITS} are taken"
    )]
    Exponent {
        /// The digits of the exponent without leading zeros.
        digits: usize,
    },
    /// The number exceeds the largest double.
    #[error("is a number beyond the largest double, {:e}", f64::MAX)]
    TooLarge,
}

/// Checks a number in JSON syntax.
///
/// # Errors
///
/// [`NumberFault`] if some readers cannot represent it.
pub fn check(number: &str) -> Result<(), NumberFault> {
    if number.len() > MOST_CHARACTERS {
        return Err(NumberFault::TooLong { length: number.len() });
    }
    if let Some((_, exponent)) = number.split_once(['e', 'E']) {
        let digits = exponent.trim_start_matches(['+', '-']).trim_start_matches('0').len();
        if digits > MOST_EXPONENT_DIGITS {
            return Err(NumberFault::Exponent { digits });
        }
    }
    let is_finite = number.parse().is_ok_and(f64::is_finite);
    if is_finite { Ok(()) } else { Err(NumberFault::TooLarge) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_programs_write_is_taken() {
        for number in [
            "0",
            "-0",
            "-0.0",
            "1E5",
            "0.10000000149011612",
            "1.7976931348623157e+308",
            "-2.2250738585072014E-308",
            "1e-400",
            "18446744073709551615",
            "-170141183460469231731687303715884105728",
        ] {
            assert_eq!(check(number), Ok(()), "{number}");
        }
    }

    #[test]
    fn what_some_reader_cannot_hold_is_told_with_its_size() {
        let long = |length: usize| "9".repeat(length);
        assert_eq!(check(&long(41)), Err(NumberFault::TooLong { length: 41 }));
        assert_eq!(check(&long(4_301)), Err(NumberFault::TooLong { length: 4_301 }));
        assert_eq!(
            check(&format!("0.{}", long(4_301))),
            Err(NumberFault::TooLong { length: 4_303 })
        );
        for number in ["1e400", "-1e309", "1.8e308", "1E999"] {
            assert_eq!(check(number), Err(NumberFault::TooLarge), "{number}");
        }
        for number in ["1e-1000", "0e1000", "1E+00999999999"] {
            assert!(matches!(check(number), Err(NumberFault::Exponent { .. })), "{number}");
        }
        assert_eq!(
            check("1e400").unwrap_err().to_string(),
            "is a number beyond the largest double, 1.7976931348623157e308"
        );
    }

    proptest! {
        #[test]
        fn every_double_and_every_integer_of_128_bits_is_taken(
            double in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
            integer: i128,
        ) {
            prop_assert_eq!(check(&format!("{double:e}")), Ok(()));
            prop_assert_eq!(check(&integer.to_string()), Ok(()));
        }
    }
}
