//! Finds the parts of a form in its body while the body arrives (RFC 7578; RFC 2046, section 5.1).
//!
//! Each search continues where the last one stopped, so the pieces of the body do not affect the cost. The head of a
//! part and the bytes before the first part have at most [`HEAD_BYTES`]. The content of a part is limited by the length
//! of the body.

use std::ops::Range;

use memchr::memmem::{self, Finder};

/// The longest head of a part, and the most bytes before the first part. Clients write a hundred bytes, and the name of
/// a file may add some hundreds.
pub(super) const HEAD_BYTES: usize = 8 * 1024;

/// The longest boundary, in bytes (RFC 2046, section 5.1.1).
pub(super) const BOUNDARY_BYTES: usize = 70;

/// The characters between the end of the preceding line and a boundary.
const DASHES: &[u8] = b"--";

/// The end of a line.
const LINE_END: &[u8] = b"\r\n";

/// The end of a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// An error in the frame of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// A head, or the preamble before the first boundary, has no end within [`HEAD_BYTES`].
    TooLong,
    /// A boundary is followed neither by the end of the line nor by the end of the form.
    NoLineEnd,
}

/// The next element of the form, as a range of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The head of a part: its lines and an empty line. The content of the part is the next element.
    Head(Range<usize>),
    /// The content of the part that the last head belongs to.
    Content(Range<usize>),
    /// The last boundary. The form ends before this index.
    End(usize),
    /// More bytes are needed. If the content of a part is incomplete, this is its length so far.
    Unfinished(usize),
}

/// The search through one body.
#[derive(Debug)]
pub(super) struct Parts {
    /// Finds the end of a line, the dashes and the boundary.
    delimiter: Finder<'static>,
    stage: Stage,
    /// Where the bytes of the current stage begin.
    at: usize,
    /// The end of the range already searched.
    searched: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first boundary.
    Preamble,
    /// Directly after a boundary.
    Boundary,
    /// Within the content of a part.
    Content,
    /// After the last boundary.
    End,
}

impl Parts {
    /// A search for parts with this boundary.
    pub(super) fn new(boundary: &[u8]) -> Self {
        let delimiter = [LINE_END, DASHES, boundary].concat();
        let delimiter = Finder::new(&delimiter).into_owned();
        Self { delimiter, stage: Stage::Preamble, at: 0, searched: 0 }
    }

    /// Whether a first boundary was found.
    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stage::Preamble
    }

    /// Finds the next element in `body`. Since the last call, bytes may have been added at its end.
    ///
    /// # Errors
    ///
    /// [`FrameFault`] if this cannot be the beginning of a form.
    pub(super) fn next(&mut self, body: &[u8]) -> Result<Found, FrameFault> {
        if self.stage == Stage::Preamble && !self.find_first(body)? {
            return Ok(Found::Unfinished(0));
        }
        match self.stage {
            Stage::Preamble | Stage::Boundary => self.find_head(body),
            Stage::Content => Ok(self.find_content(body)),
            Stage::End => Ok(Found::End(self.at)),
        }
    }

    /// Searches for the first boundary, which need not follow the end of a line.
    fn find_first(&mut self, body: &[u8]) -> Result<bool, FrameFault> {
        let boundary = &self.delimiter.needle()[LINE_END.len()..];
        let most = HEAD_BYTES + boundary.len();
        let preamble = &body[..body.len().min(most)];
        let from = self.searched.saturating_sub(boundary.len() - 1);
        if let Some(found) = memmem::find(&preamble[from..], boundary) {
            self.at = from + found + boundary.len();
            self.stage = Stage::Boundary;
            return Ok(true);
        }
        self.searched = preamble.len();
        if preamble.len() < most { Ok(false) } else { Err(FrameFault::TooLong) }
    }

    /// Searches for the end of a head, or the end of the form, after a boundary. A head is short, so each search starts
    /// at its beginning.
    fn find_head(&mut self, body: &[u8]) -> Result<Found, FrameFault> {
        let rest = &body[self.at..];
        if rest.starts_with(DASHES) {
            self.at += DASHES.len();
            self.stage = Stage::End;
            return Ok(Found::End(self.at));
        }
        let bounded = &rest[..rest.len().min(HEAD_BYTES)];
        let padding = bounded.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line_end = &bounded[padding..];
        let is_whole = line_end.len() >= LINE_END.len();
        let may_be_end = padding == 0 && DASHES.starts_with(line_end);
        let may_be_line = LINE_END.starts_with(line_end);
        if !line_end.starts_with(LINE_END) && (is_whole || !(may_be_end || may_be_line)) {
            return Err(FrameFault::NoLineEnd);
        }
        if let Some(end) = memmem::find(line_end, HEAD_END) {
            let head = self.at + padding + LINE_END.len();
            let content = self.at + padding + end + HEAD_END.len();
            (self.stage, self.at, self.searched) = (Stage::Content, content, content);
            return Ok(Found::Head(head..content));
        }
        if rest.len() < HEAD_BYTES { Ok(Found::Unfinished(0)) } else { Err(FrameFault::TooLong) }
    }

    fn find_content(&mut self, body: &[u8]) -> Found {
        let length = self.delimiter.needle().len();
        let from = self.at.max(self.searched.saturating_sub(length - 1));
        let Some(found) = self.delimiter.find(&body[from..]) else {
            self.searched = body.len();
            return Found::Unfinished(body.len() - self.at);
        };
        let content = self.at..from + found;
        self.at = content.end + length;
        self.stage = Stage::Boundary;
        Found::Content(content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head of a part and its content.
    type Part = (String, Vec<u8>);

    /// The heads and contents of a body that arrives in pieces, or the error; `End` at its end.
    fn found(body: &[u8], pieces: &[usize]) -> (Vec<Part>, Result<Found, FrameFault>) {
        let (mut parts, mut found) = (Parts::new(b"b"), Vec::new());
        let mut lengths = pieces.iter().copied().cycle();
        let mut there = 0;
        loop {
            there = body.len().min(there + lengths.next().unwrap_or(body.len()));
            loop {
                match parts.next(&body[..there]) {
                    Ok(Found::Head(range)) => {
                        let head = String::from_utf8(body[range].to_vec()).unwrap();
                        found.push((head, Vec::new()));
                    }
                    Ok(Found::Content(range)) => {
                        found.last_mut().unwrap().1 = body[range].to_vec();
                    }
                    Ok(Found::Unfinished(_)) if there < body.len() => break,
                    last => return (found, last),
                }
            }
        }
    }

    fn part(head: &str, content: &[u8]) -> Part {
        (head.to_owned(), content.to_vec())
    }

    #[test]
    fn parts_are_found_with_and_without_heads_contents_preamble_padding_and_epilogue() {
        let body = b"before\r\n--b \t\r\nA: 1\r\nB: 2\r\n\r\none\r\n--b\r\n\r\n\r\n--b--\r\nafter";
        let parts = vec![part("A: 1\r\nB: 2\r\n\r\n", b"one"), part("\r\n", b"")];
        let end = body.len() - b"\r\nafter".len();
        for piece in 1..body.len() {
            assert_eq!(found(body, &[piece]), (parts.clone(), Ok(Found::End(end))), "{piece}");
        }
        assert_eq!(found(b"--b--", &[]).1, Ok(Found::End(5)));
    }

    #[test]
    fn what_nearly_is_a_boundary_is_content() {
        let content = b"\r\n--\r\n-b\r--b\n--b--b\r\r\n-\r\n--a";
        let body = [b"--b\r\n\r\n".as_slice(), content, b"\r\n--b--"].concat();
        for piece in 1..body.len() {
            assert_eq!(found(&body, &[piece]).0, [part("\r\n", content)], "{piece}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused_within_the_longest_head() {
        for begin in ["", "--b", "--b\r\nA: ", "--b\r\n\r\nx\r\n--b ", "--b\r\n\r\nx\r\n--b\r\nA: "]
        {
            let body = [begin.as_bytes(), &b" ".repeat(3 * HEAD_BYTES)].concat();
            for piece in [1, 100, 5_000, body.len()] {
                assert_eq!(found(&body, &[piece]).1, Err(FrameFault::TooLong), "{begin:?} {piece}");
            }
            let short = &body[..HEAD_BYTES / 2];
            assert_eq!(found(short, &[100]).1, Ok(Found::Unfinished(0)), "{begin:?}");
        }
    }

    #[test]
    fn behind_a_boundary_stands_the_end_of_the_line_or_of_the_form() {
        for wrong in ["--bx", "--b-x", "--b\rx", "--b\n", "--b --", "--b \t-"] {
            assert_eq!(found(wrong.as_bytes(), &[1]).1, Err(FrameFault::NoLineEnd), "{wrong:?}");
        }
        for cut in ["--b", "--b-", "--b ", "--b\r", "--b\r\n", "--b\r\nA: 1\r\n"] {
            assert_eq!(found(cut.as_bytes(), &[1]).1, Ok(Found::Unfinished(0)), "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_contents_and_the_cuts_they_come_out_as_they_went_in(
            contents in prop::collection::vec("[\r\n\\-abc]{0,40}", 0..6),
            cuts in prop::collection::vec(1..30_usize, 1..8),
        ) {
            let contents: Vec<_> = contents.iter().map(|text| text.replace("--b", "--c")).collect();
            let mut body = Vec::new();
            for content in &contents {
                body.extend(format!("--b\r\nA: 1\r\n\r\n{content}\r\n").into_bytes());
            }
            body.extend(b"--b--");
            let (parts, end) = found(&body, &cuts);
            let parts: Vec<_> = parts.into_iter().map(|(_, content)| content).collect();
            let contents: Vec<_> = contents.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(parts, contents);
            prop_assert_eq!(end, Ok(Found::End(body.len())));
        }
    }
}
