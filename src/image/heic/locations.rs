//! Where the items of a HEIC file are stored: its `iloc` box (ISO/IEC 14496-12, section 8.11.3).

use super::super::byte_order::ByteOrder::Big;
use super::boxes::FULL_BOX;

/// Extents of one item that are looked at. Writers use one.
const MAX_EXTENTS: u64 = 16;

/// What describes how a picture is put together has at most so many bytes, or is an overlay. Longer data in
/// the `meta` box itself is a picture.
const LONGEST_GRID: u64 = 12;

/// The file, and the data within its `meta` box.
pub(super) struct Place<'a> {
    pub(super) file: &'a [u8],
    pub(super) data: &'a [u8],
}

/// The items of an `iloc` box, one after the other, until one is not whole.
pub(super) struct Locations<'a> {
    rest: &'a [u8],
    version: u8,
    left: u32,
    offset_size: usize,
    length_size: usize,
    base_size: usize,
    index_size: usize,
}

/// Where one item is stored.
pub(super) struct Location<'a> {
    pub(super) id: u32,
    /// 0: in the file. 1: in the `meta` box. 2: in another item.
    method: u16,
    /// Whether another file has the data.
    is_elsewhere: bool,
    base: u64,
    extents: &'a [u8],
    index_size: usize,
    offset_size: usize,
    length_size: usize,
}

impl<'a> Locations<'a> {
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        let version = *body.first()?;
        let sizes = Big.u16(body, FULL_BOX)?;
        let size = |shift: u32| usize::from((sizes >> shift) & 0xf);
        let (left, start) = if version < 2 {
            (Big.u16(body, FULL_BOX + 2)?.into(), FULL_BOX + 4)
        } else {
            (Big.u32(body, FULL_BOX + 2)?, FULL_BOX + 6)
        };
        Some(Self {
            rest: body.get(start..)?,
            version,
            left,
            offset_size: size(12),
            length_size: size(8),
            base_size: size(4),
            index_size: if version == 0 { 0 } else { size(0) },
        })
    }

    fn take(&mut self, size: usize) -> Option<u64> {
        let number = number(self.rest, size)?;
        self.rest = &self.rest[size..];
        Some(number)
    }

    fn item(&mut self) -> Option<Location<'a>> {
        let id = self.take(if self.version < 2 { 2 } else { 4 })?;
        let method = if self.version == 0 { 0 } else { self.take(2)? };
        let reference = self.take(2)?;
        let base = self.take(self.base_size)?;
        let count = usize::try_from(self.take(2)?).ok()?;
        let extent = self.index_size + self.offset_size + self.length_size;
        let extents = self.rest.get(..count * extent)?;
        self.rest = &self.rest[extents.len()..];
        Some(Location {
            id: u32::try_from(id).ok()?,
            method: u16::try_from(method & 0xf).ok()?,
            is_elsewhere: reference != 0,
            base,
            extents,
            index_size: self.index_size,
            offset_size: self.offset_size,
            length_size: self.length_size,
        })
    }
}

impl<'a> Iterator for Locations<'a> {
    type Item = Location<'a>;

    fn next(&mut self) -> Option<Location<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.item()
    }
}

impl Location<'_> {
    /// Whether the item stands in the file and not in another box or item.
    pub(super) const fn is_in_file(&self) -> bool {
        self.method == 0
    }

    /// Whether data of a picture starts in the file or in its `meta` box.
    pub(super) fn starts_in(&self, place: &Place<'_>) -> bool {
        match self.method {
            0 => {
                self.is_elsewhere
                    || self.extents().any(|(offset, _)| offset < place.file.len() as u64)
            }
            1 => {
                let length = place.data.len() as u64;
                self.extents().any(|(offset, extent)| offset < length && extent > LONGEST_GRID)
            }
            _ => false,
        }
    }

    /// The data of an item that is stored in one piece, as far as it is there. `None` where it is stored in
    /// several or in another place.
    pub(super) fn data<'b>(&self, place: &Place<'b>) -> Option<&'b [u8]> {
        let whole = match self.method {
            0 if !self.is_elsewhere => place.file,
            1 => place.data,
            _ => return None,
        };
        let mut extents = self.extents();
        let ((offset, length), None) = (extents.next()?, extents.next()) else { return None };
        let data = whole.get(usize::try_from(offset).ok()?..)?;
        // A length of zero reaches to the end.
        let length = if length == 0 { data.len() } else { usize::try_from(length).ok()? };
        Some(&data[..length.min(data.len())])
    }

    /// Where each extent starts, and its length.
    fn extents(&self) -> impl Iterator<Item = (u64, u64)> {
        let size = self.index_size + self.offset_size + self.length_size;
        // Without any number, one extent reaches from the base to the end.
        let alone = (size == 0).then_some((self.base, u64::MAX));
        let extents = self.extents.chunks_exact(size.max(1)).map_while(|extent| {
            let offset = number(&extent[self.index_size..], self.offset_size)?;
            let length = number(&extent[self.index_size + self.offset_size..], self.length_size)?;
            Some((self.base.saturating_add(offset), length))
        });
        alone.into_iter().chain(extents).zip(0..MAX_EXTENTS).map(|(extent, _)| extent)
    }
}

/// A number of none, two, four or eight bytes, as they occur here.
fn number(bytes: &[u8], size: usize) -> Option<u64> {
    match size {
        0 => Some(0),
        2 => Big.u16(bytes, 0).map(u64::from),
        4 => Big.u32(bytes, 0).map(u64::from),
        8 => Big.u64(bytes, 0),
        _ => None,
    }
}
