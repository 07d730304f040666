//! The locations of the items of a HEIC file, from its `iloc` box (ISO/IEC 14496-12, section 8.11.3).

use super::super::byte_order::ByteOrder::Big;
use super::boxes::FULL_BOX;

/// The maximum number of extents of one item that are read. Writers use one.
const MAX_EXTENTS: u64 = 16;

/// A grid description has at most this many bytes. Longer data in the `meta` box counts as picture data.
const LONGEST_GRID: u64 = 12;

/// The two places that hold the data of items: the file, and the `idat` box inside its `meta` box.
pub(super) struct DataSources<'a> {
    pub(super) file: &'a [u8],
    pub(super) data: &'a [u8],
}

/// The items of an `iloc` box, in sequence, up to the first incomplete one.
pub(super) struct Locations<'a> {
    rest: &'a [u8],
    version: u8,
    left: u32,
    offset_size: usize,
    length_size: usize,
    base_size: usize,
    index_size: usize,
}

/// The location of one item.
pub(super) struct Location<'a> {
    pub(super) id: u32,
    /// 0: in the file. 1: in the `meta` box. 2: in another item.
    method: u16,
    /// Whether the data is in another file.
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
    /// Whether the location is a file offset, not an offset in a box or another item.
    pub(super) const fn is_in_file(&self) -> bool {
        self.method == 0
    }

    /// Whether picture data starts in the file or in its `meta` box.
    pub(super) fn starts_in(&self, sources: &DataSources<'_>) -> bool {
        match self.method {
            0 => {
                self.is_elsewhere
                    || self.extents().any(|(offset, _)| offset < sources.file.len() as u64)
            }
            1 => {
                let length = sources.data.len() as u64;
                self.extents().any(|(offset, extent)| offset < length && extent > LONGEST_GRID)
            }
            _ => false,
        }
    }

    /// The data of an item that is stored in one extent, up to the end of the file. `None` if it has several extents
    /// or is stored elsewhere.
    pub(super) fn data<'b>(&self, sources: &DataSources<'b>) -> Option<&'b [u8]> {
        let whole = match self.method {
            0 if !self.is_elsewhere => sources.file,
            1 => sources.data,
            _ => return None,
        };
        let mut extents = self.extents();
        let ((offset, length), None) = (extents.next()?, extents.next()) else { return None };
        let data = whole.get(usize::try_from(offset).ok()?..)?;
        // A length of zero means up to the end.
        let length = if length == 0 { data.len() } else { usize::try_from(length).ok()? };
        Some(&data[..length.min(data.len())])
    }

    /// The offset and length of each extent.
    fn extents(&self) -> impl Iterator<Item = (u64, u64)> {
        let size = self.index_size + self.offset_size + self.length_size;
        // If an extent has no fields, there is one extent from the base to the end.
        let alone = (size == 0).then_some((self.base, u64::MAX));
        let extents = self.extents.chunks_exact(size.max(1)).map_while(|extent| {
            let offset = number(&extent[self.index_size..], self.offset_size)?;
            let length = number(&extent[self.index_size + self.offset_size..], self.length_size)?;
            Some((self.base.saturating_add(offset), length))
        });
        alone.into_iter().chain(extents).zip(0..MAX_EXTENTS).map(|(extent, _)| extent)
    }
}

/// A number of zero, two, four or eight bytes, the sizes in use.
fn number(bytes: &[u8], size: usize) -> Option<u64> {
    match size {
        0 => Some(0),
        2 => Big.u16(bytes, 0).map(u64::from),
        4 => Big.u32(bytes, 0).map(u64::from),
        8 => Big.u64(bytes, 0),
        _ => None,
    }
}
