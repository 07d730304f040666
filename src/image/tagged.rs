//! Directories of tagged fields, the structure of TIFF files and EXIF blocks.
//!
//! TIFF revision 6.0, section 2: the header gives the byte order and the offset of the first directory. A directory
//! consists of a count, twelve bytes per field, and the offset of the next directory. This module reads numbers, and
//! the position of a number that is stored in the field itself.

use std::ops::Range;

use super::byte_order::ByteOrder;

/// The maximum number of fields of one directory that are read. Writers use a few dozen; the format allows 65,535.
const MAX_FIELDS: usize = 1024;

const HEADER_LENGTH: usize = 8;
const FIELD_LENGTH: usize = 12;
const COUNT_LENGTH: usize = 2;

const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;
const UNDEFINED: u16 = 7;
/// The offset of a directory, a type from the first supplement to TIFF.
const IFD: u16 = 13;

/// One directory, and the bytes that its offsets are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TagDirectory<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
    offset: usize,
    fields: &'a [u8],
}

impl<'a> TagDirectory<'a> {
    /// The first directory of a TIFF file or an EXIF block. `None` if the header is invalid or the directory is not
    /// inside the bytes.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let order = match bytes.first_chunk()? {
            b"II*\0" => ByteOrder::Little,
            b"MM\0*" => ByteOrder::Big,
            _ => return None,
        };
        Self::at(bytes, order, order.u32(bytes, 4)?)
    }

    /// The next directory. `None` if this is the last one, or if the next one is not inside the bytes.
    pub(crate) fn next(&self) -> Option<Self> {
        let offset = self.order.u32(self.bytes, self.place_of_next())?;
        Self::at(self.bytes, self.order, offset)
    }

    fn at(bytes: &'a [u8], order: ByteOrder, offset: u32) -> Option<Self> {
        let offset = offset as usize;
        if offset < HEADER_LENGTH {
            return None;
        }
        let count = usize::from(order.u16(bytes, offset)?);
        let fields = bytes.get(offset + COUNT_LENGTH..)?.get(..count * FIELD_LENGTH)?;
        Some(Self { bytes, order, offset, fields })
    }

    /// The position of the offset of the next directory.
    pub(crate) fn place_of_next(&self) -> usize {
        self.offset + COUNT_LENGTH + self.fields.len()
    }

    /// The offset of the directory.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether there is a field with this tag, of any type.
    pub(crate) fn has(&self, tag: u16) -> bool {
        self.position(tag).is_some()
    }

    /// Whether the number of fields is within the limit, so that all of them are read.
    pub(crate) fn is_read_whole(&self) -> bool {
        self.fields.len() <= MAX_FIELDS * FIELD_LENGTH
    }

    /// Whether there is more than one field with this tag.
    pub(crate) fn is_twice(&self, tag: u16) -> bool {
        self.tags().filter(|&found| found == tag).count() > 1
    }

    /// The directory at this offset. `None` if it is not inside the bytes.
    pub(crate) fn sibling(&self, offset: u32) -> Option<Self> {
        Self::at(self.bytes, self.order, offset)
    }

    /// The value of the first field with this tag, if it is a single BYTE, SHORT or LONG.
    pub(crate) fn number(&self, tag: u16) -> Option<u32> {
        self.number_in(self.place_of_number(tag)?)
    }

    /// The value of the last field with this tag, if it is a single BYTE, SHORT or LONG.
    pub(crate) fn last_number(&self, tag: u16) -> Option<u32> {
        let index = self.tags().enumerate().filter(|&(_, found)| found == tag).last()?.0;
        self.number_in(self.place_in_field(index)?)
    }

    fn number_in(&self, place: Range<usize>) -> Option<u32> {
        match place.len() {
            1 => self.bytes.get(place.start).copied().map(u32::from),
            2 => self.order.u16(self.bytes, place.start).map(u32::from),
            _ => self.order.u32(self.bytes, place.start),
        }
    }

    /// The values of a field of type SHORT, LONG or IFD, up to the end of the bytes. Empty if there is no such field.
    pub(crate) fn numbers(&self, tag: u16) -> impl Iterator<Item = u32> + use<'a> {
        let (bytes, order) = (self.bytes, self.order);
        let (start, length, count) = self.place_of_numbers(tag).unwrap_or((0, LONG, 0));
        (0..count).map_while(move |index| match length {
            SHORT => order.u16(bytes, start + index * 2).map(u32::from),
            _ => order.u32(bytes, start + index * 4),
        })
    }

    /// The bytes of a field of type BYTE or UNDEFINED. `None` if there is no such field within the file.
    pub(crate) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let field = &self.fields[self.position(tag)? * FIELD_LENGTH..][..FIELD_LENGTH];
        let count = self.order.u32(field, 4)? as usize;
        match self.order.u16(field, 2)? {
            BYTE | UNDEFINED if count > 4 => {
                self.bytes.get(self.order.u32(field, 8)? as usize..)?.get(..count)
            }
            BYTE | UNDEFINED => field.get(8..8 + count),
            _ => None,
        }
    }

    /// The value of a field of type RATIONAL, if it is a single one. `None` for a denominator of 0.
    pub(crate) fn rational(&self, tag: u16) -> Option<f64> {
        let field = &self.fields[self.position(tag)? * FIELD_LENGTH..][..FIELD_LENGTH];
        if (self.order.u16(field, 2)?, self.order.u32(field, 4)?) != (RATIONAL, 1) {
            return None;
        }
        let place = self.order.u32(field, 8)? as usize;
        let [numerator, denominator] = [0, 4].map(|at| self.order.u32(self.bytes, place + at));
        let denominator = denominator.filter(|&it| it > 0)?;
        Some(f64::from(numerator?) / f64::from(denominator))
    }

    /// The offset, type and count of the values of a field.
    fn place_of_numbers(&self, tag: u16) -> Option<(usize, u16, usize)> {
        const FITS: usize = 4;
        let index = self.position(tag)?;
        let field = &self.fields[index * FIELD_LENGTH..][..FIELD_LENGTH];
        let count = self.order.u32(field, 4)? as usize;
        let kind = self.order.u16(field, 2)?;
        let size = match kind {
            SHORT => 2,
            LONG | IFD => 4,
            _ => return None,
        };
        let within = self.offset + COUNT_LENGTH + index * FIELD_LENGTH + 8;
        let start = if count.checked_mul(size)? <= FITS {
            within
        } else {
            self.order.u32(field, 8)? as usize
        };
        Some((start, kind, count))
    }

    /// The position of the value that [`number`](Self::number) reads, within the bytes of the directory.
    pub(crate) fn place_of_number(&self, tag: u16) -> Option<Range<usize>> {
        self.place_in_field(self.position(tag)?)
    }

    fn place_in_field(&self, index: usize) -> Option<Range<usize>> {
        let field = &self.fields[index * FIELD_LENGTH..][..FIELD_LENGTH];
        if self.order.u32(field, 4)? != 1 {
            return None;
        }
        let length = match self.order.u16(field, 2)? {
            BYTE => 1,
            SHORT => 2,
            LONG => 4,
            _ => return None,
        };
        let start = self.offset + COUNT_LENGTH + index * FIELD_LENGTH + 8;
        Some(start..start + length)
    }

    /// The byte order of the numbers.
    pub(crate) fn order(&self) -> ByteOrder {
        self.order
    }

    fn position(&self, tag: u16) -> Option<usize> {
        self.tags().position(|found| found == tag)
    }

    fn tags(&self) -> impl Iterator<Item = u16> {
        let fields = self.fields.chunks_exact(FIELD_LENGTH).take(MAX_FIELDS);
        fields.filter_map(|field| self.order.u16(field, 0))
    }
}
