//! Boxes of the ISO base media format (ISO/IEC 14496-12, section 4.2).

use super::super::byte_order::ByteOrder::Big;

/// The length of the version and flags at the start of a full box.
pub(super) const FULL_BOX: usize = 4;

/// The maximum number of boxes that are read in one container.
const MAX_BOXES: usize = 4096;

/// A sequence of boxes, up to the first incomplete one.
#[derive(Debug, Clone)]
pub(super) struct Boxes<'a> {
    rest: &'a [u8],
    left: usize,
    is_file: bool,
}

impl<'a> Boxes<'a> {
    /// The top-level boxes of a file.
    pub(super) fn of_file(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, left: MAX_BOXES, is_file: true }
    }

    /// The boxes inside another box.
    pub(super) fn within(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, left: MAX_BOXES, is_file: false }
    }

    /// The only box of this type; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `twice` if there is more than one, and the errors of [`check_whole`](Self::check_whole).
    pub(super) fn only(
        self,
        kind: [u8; 4],
        twice: &'static str,
    ) -> Result<Option<&'a [u8]>, &'static str> {
        let mut only = None;
        for (_, body) in self.clone().filter(|&(found, _)| found == kind) {
            if only.replace(body).is_some() {
                return Err(twice);
            }
        }
        self.check_whole().map(|()| only)
    }

    /// Checks that all boxes are complete.
    ///
    /// # Errors
    ///
    /// If a box is incomplete, since decoders differ about the bytes after it, or if there are too many boxes.
    pub(super) fn check_whole(mut self) -> Result<(), &'static str> {
        while self.next().is_some() {}
        if self.rest.is_empty() { Ok(()) } else { Err("has a box that is not whole") }
    }

    /// The unread bytes: from the first incomplete box, or after the maximum number of boxes.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the maximum number of boxes is reached.
    pub(super) fn has_too_many(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let kind = *self.rest.get(4..)?.first_chunk()?;
        let (start, length) = match Big.u32(self.rest, 0)? {
            // Zero means up to the end of the file. One means that a 64-bit length follows.
            0 if self.is_file => (8, self.rest.len()),
            1 => (16, usize::try_from(Big.u64(self.rest, 8)?).ok()?),
            length => (8, length as usize),
        };
        let body = self.rest.get(start..length)?;
        self.rest = &self.rest[length..];
        Some((kind, body))
    }
}
