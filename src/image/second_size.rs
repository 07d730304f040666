//! Why a file is refused, and the rule that it gives one size only.
//!
//! Decoders differ about which of two sizes counts: one takes the first, another the last. DashScope does not
//! say which decoder it runs, so a file with two sizes has no known price. Every reader looks for a second size
//! in all the places where a decoder of its format looks. Code that decodes a picture compares the size it gets
//! in the same way, with [`agree`].

use super::size::Size;

/// Why a reader refuses a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It breaks a rule of its format: the predicate of a sentence about the image.
    Rule(&'static str),
    /// It gives a second size.
    SecondSize {
        /// The size in the header.
        stored: Size,
        /// The other size.
        other: Size,
        /// Where the other size is, as in "in a second IHDR chunk".
        place: &'static str,
    },
}

impl From<&'static str> for Fault {
    fn from(rule: &'static str) -> Self {
        Self::Rule(rule)
    }
}

/// Checks that the size at `place` is the size in the header.
pub(super) fn agree(stored: Size, other: Size, place: &'static str) -> Result<(), Fault> {
    if stored == other { Ok(()) } else { Err(Fault::SecondSize { stored, other, place }) }
}
