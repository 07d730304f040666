//! How far two readings of one page agree.
//!
//! The measure is a recall of character n-grams: the share of the reference's runs of four letters or digits that the
//! other text has, too. It ignores case, punctuation and spaces. It hardly depends on the order of lines, which two
//! readings of a table or of columns may differ in: runs of the reference end with their line. The other text is taken as
//! one line, so it does not matter where it breaks lines.
//!
//! Only lost text counts. Text that the smaller picture adds, such as a hallucinated line, is not measured.

use std::cmp::Ordering;

use crate::units::Share;

/// Letters and digits of a run.
const RUN: usize = 4;

/// Least number of runs of the reference: fewer say nothing, because one misread character breaks four.
const LEAST_RUNS: usize = 10;

/// Most letters and digits of the reference that are looked at, about ten dense pages, and half as many as of the other
/// text. It bounds time and memory (16 bytes for each).
const MOST_LETTERS: usize = 1 << 16;

/// The share of the runs of `reference` that are also in `text`. `None` if the reference is too short to say.
pub fn agreement(reference: &str, text: &str) -> Option<Share> {
    let wanted = sorted(head(reference, MOST_LETTERS).lines().flat_map(runs));
    if wanted.len() < LEAST_RUNS {
        return None;
    }
    let common = common(&wanted, &sorted(runs(head(text, 2 * MOST_LETTERS))));
    let millionths = common as u64 * u64::from(Share::ALL.millionths()) / wanted.len() as u64;
    Share::from_millionths(u32::try_from(millionths).unwrap_or(u32::MAX))
}

/// The text up to its `most`-th letter or digit.
fn head(text: &str, most: usize) -> &str {
    let mut letters = text.char_indices().filter(|(_, letter)| letter.is_alphanumeric());
    letters.nth(most).map_or(text, |(end, _)| &text[..end])
}

/// Each run of a text, as a number.
fn runs(text: &str) -> impl Iterator<Item = u128> {
    let letters = text.chars().filter(|letter| letter.is_alphanumeric());
    let letters = letters.flat_map(char::to_lowercase).map(|letter| u128::from(u32::from(letter)));
    let mask = u128::MAX >> (128 - 32 * RUN);
    let windows = letters.scan(0_u128, move |window, letter| {
        *window = (*window << 32 | letter) & mask;
        Some(*window)
    });
    windows.skip(RUN - 1)
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
        agreement(reference, text).map(Share::millionths)
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
    fn a_reference_of_a_few_characters_says_nothing() {
        assert_eq!(millionths("twelve chars", "twelve chars"), None);
        assert_eq!(millionths("", "text"), None);
        assert_eq!(millionths("-- == ** \n".repeat(100).as_str(), "text"), None);
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
        fn any_two_texts_have_an_agreement_or_none(one in "\\PC{0,200}", other in "\\PC{0,200}") {
            let of_both = agreement(&one, &other);
            prop_assert_eq!(of_both.is_some(), agreement(&one, &one).is_some());
            prop_assert!(agreement(&one, &one).is_none_or(|own| own == Share::ALL));
        }
    }
}
