//! Detects an answer that ends in a loop: the model writes one fragment again and again until it is stopped.
//!
//! Sparse and tabular pages cause loops. But pages also repeat themselves: empty rows of a form, a list with one price,
//! dots that lead to a page number. The end and the length of a repetition distinguish the two:
//!
//! - On a page, something mostly follows a repetition, such as a total or a footer. A loop does not end by itself, so
//!   only the end of the answer counts.
//! - A page has less than a hundred rows. So an answer that was cut while it repeated a row for the hundredth time is a
//!   loop, and so is one that repeated a passage ten times.
//! - A line may have some hundred dots, and an answer that ended by itself closed its rows. Those are loops only if no
//!   page could hold so many.
//!
//! The result is a suspicion: a cut list of more than a hundred equal rows also counts as a loop.

/// Bytes at the end of the answer that are searched: five hundred rows of a hundred bytes.
const END: usize = 64 * 1024;

/// Repetitions of a row at a cut: more rows than a page has.
const MOST_ROWS: usize = 100;

/// Least length of a row, in bytes. A shorter fragment is part of a line.
const ROW_BYTES: usize = 8;

/// Repetitions of a passage at a cut.
const MOST_PASSAGES: usize = 10;

/// Least length of a passage, in bytes: longer than a table's row with its tags.
const PASSAGE_BYTES: usize = 256;

/// Repetitions that no page has, neither as rows nor within a line.
const MOST_AT_ALL: usize = 500;

/// Whether `text` ends in a loop. `cut` means that the model did not stop by itself.
///
/// Time and memory are bounded, because only the end of the text is searched.
pub(super) fn is_suspected(text: &str, cut: bool) -> bool {
    let text = text.trim_end().as_bytes();
    let end = &text[text.len().saturating_sub(END)..];
    // A longer fragment cannot occur often enough.
    let longest_period = end.len() / if cut { MOST_PASSAGES } else { MOST_AT_ALL };
    let mut longest = 0;
    for (period, matched) in suffixes(end, longest_period).into_iter().enumerate().skip(1) {
        let length = matched + period;
        // A multiple of a period repeats no more than the period itself.
        if length <= longest {
            continue;
        }
        longest = length;
        let repetitions = length / period;
        let most = match period {
            PASSAGE_BYTES.. if cut => MOST_PASSAGES,
            ROW_BYTES.. if cut => MOST_ROWS,
            _ => MOST_AT_ALL,
        };
        if repetitions >= most {
            return true;
        }
    }
    false
}

/// Z-array of the reversed text, up to index `most`: entry `p` is the length of the longest suffix that also ends `p`
/// bytes earlier.
fn suffixes(bytes: &[u8], most: usize) -> Vec<usize> {
    let from_end = |at: usize| bytes.len().checked_sub(at + 1).map(|at| bytes[at]);
    let mut lengths = vec![0; most.min(bytes.len().saturating_sub(1)) + 1];
    let (mut start, mut end) = (0, 0);
    for at in 1..lengths.len() {
        let mut length = if at < end { lengths[at - start].min(end - at) } else { 0 };
        while let Some(byte) = from_end(at + length)
            && from_end(length) == Some(byte)
        {
            length += 1;
        }
        if at + length > end {
            (start, end) = (at, at + length);
        }
        lengths[at] = length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: &str = "<tr><td></td><td></td><td></td></tr>\n";

    #[test]
    fn a_row_repeated_until_the_cut_is_a_loop() {
        for fragment in [ROW, "the same line again\n", "合计金额 0.00\n"] {
            let mut answer = format!("<table>\n<tr><td>Total</td></tr>\n{}", fragment.repeat(150));
            assert!(is_suspected(&answer, true), "{fragment}");
            answer.extend(fragment.chars().take(3));
            assert!(is_suspected(&answer, true), "{fragment}, cut inside");
        }
    }

    #[test]
    fn characters_repeated_beyond_any_line_are_a_loop() {
        for fragment in [".", "口", ". ", "0\n"] {
            assert!(is_suspected(&format!("Total {}", fragment.repeat(800)), true), "{fragment}");
        }
    }

    #[test]
    fn a_passage_repeated_until_the_cut_is_a_loop() {
        let passage = (0..60).map(|word| word.to_string()).collect::<Vec<_>>().join(" and then ");
        assert!(is_suspected(&format!("Title\n{}", passage.repeat(12)), true));
        assert!(!is_suspected(&passage.repeat(3), true));
        assert!(!is_suspected(&passage.repeat(12), false), "the model ended it by itself");
    }

    #[test]
    fn a_loop_that_the_model_left_by_itself_is_one_when_no_page_could_hold_it() {
        assert!(is_suspected(&ROW.repeat(600), false));
        assert!(!is_suspected(&ROW.repeat(120), false));
    }

    #[test]
    fn honest_repetition_is_none() {
        let rows = ROW.repeat(60);
        let honest = [
            format!("<table>{rows}</table>\nSigned in Port Ellison"),
            format!("<table>{rows}</table>"),
            rows,
            "- apples 1.00\n".repeat(60),
            format!("Contents\nIntroduction {} 7", ".".repeat(200)),
            format!("Name {}", "_".repeat(90)),
            format!("Contents\nIntroduction {}", ". ".repeat(150)),
            format!("{}\n", "_".repeat(80)).repeat(60),
            "1. Harbour\n2. Street\n3. Books".to_owned(),
            String::new(),
        ];
        for text in honest {
            for cut in [false, true] {
                assert!(!is_suspected(&text, cut), "cut: {cut}, {text}");
            }
        }
    }

    #[test]
    fn blank_lines_at_the_end_are_no_loop() {
        assert!(!is_suspected(&format!("Total 9.00{}", "\n".repeat(5_000)), true));
    }

    proptest! {
        #[test]
        fn the_matches_are_those_of_a_plain_comparison(
            bytes in prop::collection::vec(0..3_u8, 0..60),
            most in 0..80_usize,
        ) {
            let matches = |at: usize| {
                let before = bytes[..bytes.len() - at].iter().rev();
                before.zip(bytes.iter().rev()).take_while(|(one, other)| one == other).count()
            };
            let found = suffixes(&bytes, most);
            prop_assert_eq!(found.len(), most.min(bytes.len().saturating_sub(1)) + 1);
            for (at, length) in found.into_iter().enumerate().skip(1) {
                prop_assert_eq!(length, matches(at));
            }
        }
    }
}
