//! The code fence that models put around an answer in HTML, LaTeX, JSON or Markdown.
//!
//! Callers want the HTML without a fence. Only a fence around the whole answer is removed, because one inside belongs
//! to the page. An answer that was cut does not close its fence, so an open fence is removed too, and reported as
//! open.

/// The character of a fence (`CommonMark` 0.31, section 4.5).
const MARK: char = '`';

/// The fewest marks that make a fence.
const LEAST_MARKS: usize = 3;

/// An answer without the fence around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfenced<'a> {
    /// The text inside, or the whole answer if there is no fence around it.
    pub(super) text: &'a str,
    /// Whether the fence was not closed.
    pub(super) open: bool,
}

/// Removes the fence around `answer`.
pub(super) fn strip(answer: &str) -> Unfenced<'_> {
    let unfenced = Unfenced { text: answer, open: false };
    let trimmed = answer.trim();
    let marks = marks_before(trimmed);
    let (first, inside) = trimmed.split_once('\n').unwrap_or((trimmed, ""));
    if marks < LEAST_MARKS || !is_name(&first[marks..]) {
        return unfenced;
    }
    match closing(inside, marks) {
        ClosingFence::AtTheEnd(at) => {
            Unfenced { text: inside[..at].trim_end_matches(['\r', '\n']), open: false }
        }
        ClosingFence::Missing => Unfenced { text: inside, open: true },
        ClosingFence::Earlier => unfenced,
    }
}

/// Puts a fence around `text`, longer than every one in it.
pub(super) fn put_around(text: &str, name: &str) -> String {
    let longest = text.split(|mark| mark != MARK).map(str::len).max().unwrap_or(0);
    let fence = MARK.to_string().repeat(LEAST_MARKS.max(longest + 1));
    format!("{fence}{name}\n{text}\n{fence}")
}

/// The position at which the fence before a text is closed.
enum ClosingFence {
    /// Behind the text, which has this length in bytes.
    AtTheEnd(usize),
    /// Within it, so the fence is around a part of the answer.
    Earlier,
    /// Nowhere.
    Missing,
}

fn closing(inside: &str, marks: usize) -> ClosingFence {
    let mut at = 0;
    let mut in_another = false;
    for line in inside.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let content = line.trim();
        if marks_before(content) < marks {
            continue;
        }
        let is_bare = content.chars().all(|character| character == MARK);
        match (is_bare, in_another) {
            (true, true) => in_another = false,
            (true, false) if at == inside.len() => return ClosingFence::AtTheEnd(start),
            (true, false) => return ClosingFence::Earlier,
            (false, _) => in_another = true,
        }
    }
    // Some answers close the fence at the end of their last line.
    let text = inside.trim_end_matches(MARK);
    if inside.len() - text.len() == marks && !text.ends_with('\n') {
        ClosingFence::AtTheEnd(text.len())
    } else {
        ClosingFence::Missing
    }
}

fn marks_before(text: &str) -> usize {
    text.len() - text.trim_start_matches(MARK).len()
}

/// Whether `text` is the name of a language, or empty, and not prose.
fn is_name(text: &str) -> bool {
    let text = text.trim();
    text.chars().all(|character| character.is_ascii_alphanumeric() || "+-_.".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(answer: &str) -> (&str, bool) {
        let Unfenced { text, open } = strip(answer);
        (text, open)
    }

    #[test]
    fn a_fence_around_the_whole_answer_is_no_part_of_it() {
        assert_eq!(stripped("```html\n<p>\n  a</p>\n```"), ("<p>\n  a</p>", false));
        assert_eq!(stripped("\n```latex\r\nx\r\n\n```\n "), ("x", false));
        assert_eq!(stripped("```\n{}```"), ("{}", false));
        assert_eq!(stripped("```json\n```"), ("", false));
        assert_eq!(stripped("````md\n```\na\n```\n````"), ("```\na\n```", false));
        assert_eq!(stripped("````md\n```sh\na\n````"), ("```sh\na", false));
    }

    #[test]
    fn a_fence_that_the_limit_kept_open_is_taken_off_and_told() {
        assert_eq!(stripped("```html\n<table><tr>"), ("<table><tr>", true));
        assert_eq!(stripped("```html"), ("", true));
        assert_eq!(stripped("```md\n# a\n```sh\nls\n```"), ("# a\n```sh\nls\n```", true));
        assert_eq!(stripped("```html\n<p>a</p>\n``"), ("<p>a</p>\n``", true));
    }

    #[test]
    fn a_fence_around_a_part_of_the_answer_is_a_part_of_it() {
        for whole in [
            "no fence",
            "",
            "before\n```html\n<p>\n```",
            "```sh\nls\n```\nafter",
            "```sh\nls\n```\nand\n```sh\ncd\n```",
            "``` is how a fence begins\n```",
            "``x``",
        ] {
            assert_eq!(stripped(whole), (whole, false), "{whole}");
        }
    }

    #[test]
    fn a_fence_inside_the_answer_stays() {
        let inside = "# How to\n```sh\nls\n```\ndone";
        assert_eq!(stripped(&format!("```markdown\n{inside}\n```")), (inside, false));
    }

    #[test]
    fn what_is_fenced_comes_back_whatever_it_holds() {
        for text in ["{}", "a ``` b", "```\nx\n```", "````"] {
            assert_eq!(stripped(&put_around(text, "latex")), (text, false), "{text}");
        }
    }
}
