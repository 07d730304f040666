//! Why a reader refuses a file, and the check that the file gives only one size.
//!
//! Decoders differ about which of two sizes they use: some take the first, others the last. DashScope does not
//! document which decoder it runs, so the price of a file with two sizes is unknown. Every reader checks all places
//! where a decoder of its format reads a size. Code that decodes a picture compares the decoded size with the header
//! in the same way, with [`agree`].

use super::size::Size;

/// Why a reader refuses a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The file violates a rule of its format. The text is the predicate of a sentence about the image.
    Rule(&'static str),
    /// The file gives a second size.
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

/// Checks that the size at `place` equals the size in the header.
pub(super) fn agree(stored: Size, other: Size, place: &'static str) -> Result<(), Fault> {
    if stored == other { Ok(()) } else { Err(Fault::SecondSize { stored, other, place }) }
}
