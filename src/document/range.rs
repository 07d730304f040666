//! The pages that a caller asks for, as `1-3,5,8-`.
//!
//! Pages count from 1. A part of the list is a page, a range, or a range without an end. The order of the list does not
//! matter, and a page that several parts name is read once. A range may reach past the end of the document. A part that
//! lies wholly past the end is refused: the caller expects a page that does not exist.
//!
//! The memory of a list depends on its number of parts, which is limited, and not on the pages that it names.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use super::error::DocumentError;

/// The most parts of a list.
pub const MOST_PARTS: usize = 2_000;

/// The most digits of a page number: those of the largest `u32`.
const MOST_DIGITS: usize = 10;

/// The most characters of a wrong part that an error repeats.
const SHOWN: usize = 24;

/// A list of pages and ranges of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRange {
    /// The parts in ascending order of their first pages. They may overlap. A part without an end reaches to the
    /// largest number.
    parts: Arc<[RangeInclusive<u32>]>,
}

/// A text that is no list of pages. Each message is the predicate of a sentence about the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPageRange {
    /// There is nothing between two commas, or nothing at all.
    #[error("has an empty part: write pages and ranges like 1-3,5,8-")]
    EmptyPart,
    /// A part is neither a page nor a range.
    #[error("has the part {0:?}, which is neither a page nor a range: write them like 1-3,5,8-")]
    Unreadable(String),
    /// A part starts at page 0.
    #[error("has the part {0:?}, but pages count from 1")]
    Zero(String),
    /// A range ends before it starts.
    #[error("has the range {first}-{last}, which ends before it starts: write {last}-{first}")]
    Backwards {
        /// The first page.
        first: u32,
        /// The last page.
        last: u32,
    },
    /// A number is larger than that of any page.
    #[error("has the part {0:?} with a number above {max}", max = u32::MAX)]
    NumberTooLarge(String),
    /// The list is too long.
    #[error(
        "has {actual} parts; {MOST_PARTS} are accepted: write pages in a row as a range like 1-3"
    )]
    TooManyParts {
        /// Its parts.
        actual: usize,
    },
}

impl FromStr for PageRange {
    type Err = InvalidPageRange;

    /// Parses a list. Spaces around its numbers are accepted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let actual = text.bytes().filter(|byte| *byte == b',').count() + 1;
        if actual > MOST_PARTS {
            return Err(InvalidPageRange::TooManyParts { actual });
        }
        let mut parts = text.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
        parts.sort_unstable_by_key(|part| *part.start());
        Ok(Self { parts: parts.into() })
    }
}

/// All pages.
impl Default for PageRange {
    fn default() -> Self {
        Self { parts: [1..=u32::MAX].into() }
    }
}

impl PageRange {
    /// The pages of a document of `total` pages, in ascending order, each once. At most `max_pages` are accepted.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Empty`] if the document has no pages, [`DocumentError::PageNotFound`] if a part lies wholly
    /// past the end, and [`DocumentError::TooManyPages`] if the list names more pages than are accepted.
    pub fn resolve(&self, total: u32, max_pages: u32) -> Result<Vec<u32>, DocumentError> {
        if total == 0 {
            return Err(DocumentError::Empty);
        }
        let past_the_end = self.parts.iter().map(|part| *part.start()).find(|first| *first > total);
        if let Some(asked) = past_the_end {
            return Err(DocumentError::PageNotFound { asked, pages: total });
        }
        let runs = self.runs(total);
        // Runs do not overlap, so the sum is at most `total`.
        let actual = runs.iter().map(|run| run.end() - run.start() + 1).sum();
        if actual > max_pages {
            return Err(DocumentError::TooManyPages { actual, allowed: max_pages });
        }
        Ok(runs.into_iter().flatten().collect())
    }

    /// The pages up to `total` as ascending ranges that do not overlap.
    fn runs(&self, total: u32) -> Vec<RangeInclusive<u32>> {
        let mut next = 1;
        let mut runs = Vec::new();
        for part in self.parts.iter() {
            let (first, last) = (next.max(*part.start()), total.min(*part.end()));
            if first > last {
                continue;
            }
            runs.push(first..=last);
            let Some(after) = last.checked_add(1) else { break };
            next = after;
        }
        runs
    }
}

fn part(text: &str) -> Result<RangeInclusive<u32>, InvalidPageRange> {
    let part = text.trim_matches(' ');
    if part.is_empty() {
        return Err(InvalidPageRange::EmptyPart);
    }
    let (first, last) = match part.split_once('-') {
        None => (number(part, part)?, None),
        Some((first, last)) => {
            let (first, last) = (first.trim_end_matches(' '), last.trim_start_matches(' '));
            let last = if last.is_empty() { u32::MAX } else { number(last, part)? };
            (number(first, part)?, Some(last))
        }
    };
    match (first, last.unwrap_or(first)) {
        (0, _) => Err(InvalidPageRange::Zero(shown(part))),
        (first, last) if last < first => Err(InvalidPageRange::Backwards { first, last }),
        (first, last) => Ok(first..=last),
    }
}

/// Parses digits: `u32::from_str` would also accept a plus sign.
fn number(digits: &str, part: &str) -> Result<u32, InvalidPageRange> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidPageRange::Unreadable(shown(part)));
    }
    let number = if digits.len() > MOST_DIGITS { None } else { digits.parse().ok() };
    number.ok_or_else(|| InvalidPageRange::NumberTooLarge(shown(part)))
}

fn shown(part: &str) -> String {
    part.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<PageRange, InvalidPageRange> {
        text.parse()
    }

    fn resolve(text: &str, total: u32, max_pages: u32) -> Result<Vec<u32>, DocumentError> {
        parse(text).unwrap().resolve(total, max_pages)
    }

    #[test]
    fn pages_come_in_ascending_order_and_each_once() {
        let of_ten = [
            ("1", vec![1]),
            ("10", vec![10]),
            ("1-3,5,8-", vec![1, 2, 3, 5, 8, 9, 10]),
            ("8-,5,1-3", vec![1, 2, 3, 5, 8, 9, 10]),
            ("2,2,2-2,1-2", vec![1, 2]),
            ("3-9,4,5-6,10", vec![3, 4, 5, 6, 7, 8, 9, 10]),
            ("9-4294967295", vec![9, 10]),
            ("0007", vec![7]),
            (" 1 - 2 , 4 , 9 - ", vec![1, 2, 4, 9, 10]),
        ];
        for (text, pages) in of_ten {
            assert_eq!(resolve(text, 10, 100).unwrap(), pages, "{text:?}");
        }
    }

    #[test]
    fn a_range_without_a_list_is_the_whole_document() {
        assert_eq!(PageRange::default().resolve(3, 3).unwrap(), [1, 2, 3]);
        assert_eq!(PageRange::default(), parse("1-").unwrap());
    }

    #[test]
    fn a_range_may_reach_past_the_end() {
        assert_eq!(resolve("1-100", 40, 100).unwrap(), (1..=40).collect::<Vec<_>>());
        assert_eq!(resolve("40-41", 40, 100).unwrap(), [40]);
    }

    #[test]
    fn a_part_that_lies_wholly_past_the_end_is_refused_also_among_others() {
        for (text, asked) in
            [("41", 41), ("41-", 41), ("1,41-50", 41), ("99,50,1-", 50), ("1-40,41", 41)]
        {
            let refusal = resolve(text, 40, 100).unwrap_err();
            assert_eq!(refusal, DocumentError::PageNotFound { asked, pages: 40 }, "{text}");
        }
    }

    #[test]
    fn a_document_without_pages_is_refused_as_that() {
        assert_eq!(resolve("1-", 0, 100), Err(DocumentError::Empty));
        assert_eq!(resolve("7", 0, 100), Err(DocumentError::Empty));
    }

    #[test]
    fn more_pages_than_a_request_may_have_are_refused_with_both_numbers() {
        let too_many = |actual, allowed| Err(DocumentError::TooManyPages { actual, allowed });
        assert_eq!(resolve("1-", 101, 100), too_many(101, 100));
        assert_eq!(resolve("1-60,41-120", 200, 100), too_many(120, 100));
        assert_eq!(resolve("1-4294967295", u32::MAX, 100), too_many(u32::MAX, 100));
        assert_eq!(resolve("1-60,41-100", 200, 100).unwrap().len(), 100);
    }

    #[test]
    fn a_text_that_is_no_list_of_pages_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "an empty part"),
            (" ", "an empty part"),
            (",", "an empty part"),
            ("1,,2", "an empty part"),
            ("1,", "an empty part"),
            ("-", "neither a page nor a range"),
            ("--", "neither a page nor a range"),
            ("-3", "neither a page nor a range"),
            ("1--3", "neither a page nor a range"),
            ("1-2-3", "neither a page nor a range"),
            ("1 2", "neither a page nor a range"),
            ("+1", "neither a page nor a range"),
            ("1.5", "neither a page nor a range"),
            ("all", "neither a page nor a range"),
            ("[1]", "neither a page nor a range"),
            ("\u{661}", "neither a page nor a range"),
            ("1\t", "neither a page nor a range"),
            ("0", "count from 1"),
            ("0-3", "count from 1"),
            ("1,00", "count from 1"),
            ("3-1", "write 1-3"),
            ("4294967296", "above 4294967295"),
            ("1-99999999999999999999", "above 4294967295"),
        ] {
            let refusal = parse(text).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{text:?}: {refusal}");
        }
    }

    #[test]
    fn a_list_of_too_many_parts_is_refused_and_a_wrong_part_is_not_repeated_in_full() {
        assert!(parse(&vec!["1"; MOST_PARTS].join(",")).is_ok());
        let refusal = parse(&vec!["1"; MOST_PARTS + 1].join(",")).unwrap_err();
        assert_eq!(refusal, InvalidPageRange::TooManyParts { actual: MOST_PARTS + 1 });
        assert!(parse(&"x".repeat(60_000)).unwrap_err().to_string().len() < 200);
    }

    /// A part as a caller means it: its first page, and its last unless it has no end.
    type Meant = (u32, Option<u32>);

    fn written(parts: &[Meant]) -> String {
        let written = parts.iter().map(|(first, last)| match last {
            None => format!("{first}-"),
            Some(last) if last == first => first.to_string(),
            Some(last) => format!("{first}-{last}"),
        });
        written.collect::<Vec<_>>().join(",")
    }

    /// The same rules page by page.
    fn naive(parts: &[Meant], total: u32, max_pages: u32) -> Result<Vec<u32>, DocumentError> {
        let mut pages = BTreeSet::new();
        let mut missing = BTreeSet::new();
        for (first, last) in parts {
            let named: Vec<_> = (1..=total)
                .filter(|page| page >= first && last.is_none_or(|last| *page <= last))
                .collect();
            if named.is_empty() {
                missing.insert(*first);
            }
            pages.extend(named);
        }
        let actual = u32::try_from(pages.len()).unwrap();
        match missing.first() {
            _ if total == 0 => Err(DocumentError::Empty),
            Some(asked) => Err(DocumentError::PageNotFound { asked: *asked, pages: total }),
            None if actual > max_pages => {
                Err(DocumentError::TooManyPages { actual, allowed: max_pages })
            }
            None => Ok(pages.into_iter().collect()),
        }
    }

    fn meant() -> impl Strategy<Value = Meant> {
        let length = prop_oneof![Just(None), (0_u32..40).prop_map(Some), Just(Some(u32::MAX))];
        (1_u32..60, length)
            .prop_map(|(first, length)| (first, length.map(|length| first.saturating_add(length))))
    }

    proptest! {
        #[test]
        fn a_list_names_the_pages_that_it_names_page_by_page(
            parts in prop::collection::vec(meant(), 1..8),
            total in 0_u32..80,
            max_pages in 0_u32..80,
        ) {
            let text = written(&parts);
            let pages = parse(&text).unwrap().resolve(total, max_pages);
            prop_assert_eq!(pages, naive(&parts, total, max_pages), "{}", text);
        }

        #[test]
        fn whatever_is_written_and_however_long_the_document_the_pages_are_in_order_and_few(
            text in "[0-9, -]{0,40}|\\PC{0,20}|([0-9]{1,11}-?,?){0,6}",
            total in any::<u32>(),
            max_pages in 0_u32..200,
        ) {
            let Ok(range) = parse(&text) else { return Ok(()) };
            let Ok(pages) = range.resolve(total, max_pages) else { return Ok(()) };
            prop_assert!(!pages.is_empty() && pages.len() <= max_pages as usize);
            prop_assert!(pages.windows(2).all(|two| two[0] < two[1]), "{:?}", pages);
            prop_assert!(pages[0] >= 1 && pages[pages.len() - 1] <= total);
        }
    }
}
