//! How far two readings of one page agree.
//!
//! The measure is a recall of character n-grams: the share of the reference's runs of four letters or digits that the
//! other text has, too. It ignores case, punctuation and spaces. It hardly depends on the order of lines, which two
//! readings of a table or of columns may differ in: runs of the reference end with their line. The other text is taken
//! as one line, so it does not matter where it breaks lines.
//!
//! A line of fewer letters and digits, such as a page number, is one run of what it has. In a long text such a run is
//! easily found at another place, so it tells most on a page with little text.
//!
//! One misread character breaks up to four runs, so a text of a few runs says little: its weight is a tenth for each
//! run.
//!
//! Only lost text counts. Text that the smaller picture adds, such as a hallucinated line, is not measured.

use std::cmp::Ordering;

use crate::units::Share;

/// Most letters and digits of a run.
const RUN: usize = 4;

/// Most letters and digits of the reference that are looked at, about ten dense pages, and half as many as of the other
/// text. It bounds time and memory (16 bytes for each of the reference, 64 for each of the other text).
const MOST_LETTERS: usize = 1 << 16;

/// How far two readings of a page agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The share of the runs of the reference that the other text has, too.
    pub share: Share,
    /// How much that says.
    pub weight: Weight,
}

/// How much the agreement of two texts says, in tenths: one for each run of the reference, up to ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u8);

impl Weight {
    /// That of a text of ten runs and more.
    pub const FULL: Self = Self(10);

    /// The weight of so many runs; `None` of none.
    pub fn of_runs(runs: usize) -> Option<Self> {
        let tenths = runs.min(usize::from(Self::FULL.0));
        u8::try_from(tenths).ok().filter(|tenths| *tenths > 0).map(Self)
    }

    /// The number of tenths, from 1 to 10.
    pub const fn tenths(self) -> u8 {
        self.0
    }
}

/// How far `text` agrees with `reference`. `None` if the reference has no letter and no digit.
pub fn agreement(reference: &str, text: &str) -> Option<Agreement> {
    let wanted = sorted(head(reference, MOST_LETTERS).lines().flat_map(runs_of_line));
    let weight = Weight::of_runs(wanted.len())?;
    let text = head(text, 2 * MOST_LETTERS);
    let there = (1..=RUN).flat_map(|length| runs(text, length));
    let there = sorted(there.filter(|run| wanted.binary_search(run).is_ok()));
    let common = common(&wanted, &there);
    let millionths = common as u64 * u64::from(Share::ALL.millionths()) / wanted.len() as u64;
    let share = Share::from_millionths(u32::try_from(millionths).unwrap_or(u32::MAX))?;
    Some(Agreement { share, weight })
}

/// The text up to its `most`-th letter or digit.
fn head(text: &str, most: usize) -> &str {
    let mut letters = text.char_indices().filter(|(_, letter)| letter.is_alphanumeric());
    letters.nth(most).map_or(text, |(end, _)| &text[..end])
}

/// The runs of a line of the reference. A line that is shorter than a run is one.
fn runs_of_line(line: &str) -> impl Iterator<Item = u128> {
    let length = letters(line).take(RUN).count();
    runs(line, length.max(1))
}

/// Each run of so many letters and digits, as a number. No two runs have the same, whatever their lengths.
fn runs(text: &str, length: usize) -> impl Iterator<Item = u128> {
    let mask = u128::MAX >> (128 - 32 * length);
    let windows = letters(text).scan(0_u128, move |window, letter| {
        *window = (*window << 32 | letter) & mask;
        Some(*window)
    });
    windows.skip(length - 1)
}

/// The letters and digits of a text, as numbers above zero.
fn letters(text: &str) -> impl Iterator<Item = u128> {
    let letters = text.chars().filter(|letter| letter.is_alphanumeric());
    letters.flat_map(char::to_lowercase).map(|letter| u128::from(u32::from(letter)))
}

fn sorted(runs: impl Iterator<Item = u128>) -> Vec<u128> {
    let mut runs: Vec<_> = runs.collect();
    runs.sort_unstable();
    runs
}

/// The number of values that two sorted lists have in common, each as often as both have it.
fn common(mut left: &[u128], mut right: &[u128]) -> usize {
    let mut common = 0;
    while let ([first, rest @ ..], [other, others @ ..]) = (left, right) {
        match first.cmp(other) {
            Ordering::Less => left = rest,
            Ordering::Greater => right = others,
            Ordering::Equal => {
                common += 1;
                (left, right) = (rest, others);
            }
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millionths(reference: &str, text: &str) -> Option<u32> {
        agreement(reference, text).map(|found| found.share.millionths())
    }

    #[test]
    fn case_punctuation_spaces_and_the_order_of_lines_do_not_count() {
        let reference = "TOTAL: 1,234.50 EUR\nThank you for your visit";
        let text = "thank you for\nyour visit total 1.234,50 eur";
        assert_eq!(millionths(reference, text), Some(1_000_000));
    }

    #[test]
    fn a_misread_character_breaks_the_four_runs_that_it_is_in() {
        // Nineteen runs.
        let reference = "abcdefghijklmnopqrstuv";
        let text = "abcdefghijXlmnopqrstuv";
        assert_eq!(millionths(reference, text), Some(1_000_000 * 15 / 19));
    }

    #[test]
    fn a_line_that_is_lost_counts_as_often_as_it_was_there() {
        let line = "one sentence of a page\n";
        assert_eq!(millionths(&line.repeat(4), &line.repeat(3)), Some(750_000));
    }

    #[test]
    fn more_text_than_the_reference_has_is_no_fault() {
        let reference = "the text of the page";
        assert_eq!(millionths(reference, &format!("noise {reference} noise")), Some(1_000_000));
    }

    #[test]
    fn a_reference_without_a_letter_or_a_digit_says_nothing() {
        assert_eq!(agreement("", "text"), None);
        assert_eq!(agreement("-- == ** \n".repeat(100).as_str(), "text"), None);
    }

    #[test]
    fn a_few_runs_say_less_than_ten() {
        let tenths = |reference| agreement(reference, "").unwrap().weight.tenths();
        assert_eq!(["7", "- 12 -", "2026", "2026-11", "1\n2\n3"].map(tenths), [1, 1, 1, 3, 3]);
        assert_eq!(["twelve chars", "thirteen chars", "any longer text"].map(tenths), [8, 10, 10]);
    }

    #[test]
    fn a_page_number_that_is_lost_from_a_short_page_counts() {
        assert_eq!(millionths("- 7 -", "Seite 7"), Some(1_000_000));
        assert_eq!(millionths("- 7 -", ""), Some(0));
        // Four runs of the title, and one of the number.
        let page = "Chapter\n\n12";
        assert_eq!(millionths(page, "CHAPTER 12"), Some(1_000_000));
        assert_eq!(millionths(page, "Chapter"), Some(800_000));
        assert_eq!(millionths("7\n7", "7"), Some(500_000));
    }

    #[test]
    fn characters_of_any_script_count() {
        let chinese = "北京市朝阳区建国路八十八号院一号楼";
        assert_eq!(millionths(chinese, chinese), Some(1_000_000));
        assert_eq!(millionths(chinese, "上海"), Some(0));
    }

    #[test]
    fn a_huge_text_takes_bounded_memory_and_agrees_with_itself() {
        let text = "0123456789 ".repeat(200_000);
        assert_eq!(millionths(&text, &text), Some(1_000_000));
    }

    proptest! {
        #[test]
        fn any_two_texts_have_an_agreement_or_none(one in "[\\PC\n]{0,200}", other in "\\PC{0,200}") {
            let of_both = agreement(&one, &other);
            prop_assert_eq!(of_both.is_some(), agreement(&one, &one).is_some());
            prop_assert!(agreement(&one, &one).is_none_or(|own| own.share == Share::ALL));
        }
    }
}
