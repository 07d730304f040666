//! Boxes of the ISO base media format (ISO/IEC 14496-12, section 4.2).

use super::super::byte_order::ByteOrder::Big;

/// Bytes of the version and the flags that a full box starts with.
pub(super) const FULL_BOX: usize = 4;

/// Boxes that are looked at in one container.
const MAX_BOXES: usize = 4096;

/// The boxes that follow each other in some bytes, until one is not whole.
#[derive(Debug, Clone)]
pub(super) struct Boxes<'a> {
    rest: &'a [u8],
    left: usize,
    is_file: bool,
}

impl<'a> Boxes<'a> {
    /// The boxes of a file.
    pub(super) fn of_file(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, left: MAX_BOXES, is_file: true }
    }

    /// The boxes within another.
    pub(super) fn within(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, left: MAX_BOXES, is_file: false }
    }

    /// The one box of this kind among all; `None` where there is none.
    ///
    /// # Errors
    ///
    /// `twice` where there is more than one, and as [`check_whole`](Self::check_whole).
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

    /// Checks that all boxes are whole.
    ///
    /// # Errors
    ///
    /// If one is not, since decoders differ about what follows it, or if there are more boxes than are
    /// read.
    pub(super) fn check_whole(mut self) -> Result<(), &'static str> {
        while self.next().is_some() {}
        if self.rest.is_empty() { Ok(()) } else { Err("has a box that is not whole") }
    }

    /// What is not looked at: from a box that is not whole, or behind the most boxes.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether there are more boxes than are looked at.
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
            // Zero reaches to the end of the file; one says that the length follows in 64 bits.
            0 if self.is_file => (8, self.rest.len()),
            1 => (16, usize::try_from(Big.u64(self.rest, 8)?).ok()?),
            length => (8, length as usize),
        };
        let body = self.rest.get(start..length)?;
        self.rest = &self.rest[length..];
        Some((kind, body))
    }
}
