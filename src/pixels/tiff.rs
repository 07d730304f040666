//! TIFF, revision 6.0, of several pages.
//!
//! Pages are the directories of the main chain without those marked as a reduced copy or as a mask. Each page is read
//! on its own, so a broken page does not spoil the others. `tiff` decodes strips and tiles of most compressions, and
//! `hayro-ccitt` those of fax machines; what a page says of its colours is applied here.

mod fax;
mod fields;
mod patched;
mod region;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::Bytes;

use self::fields::{Fields, damaged};
use super::error::{PixelsError, check_size};
use super::finishing::finishing_memory;
use super::raster::Raster;
use crate::image::Size;
use crate::image::format::Orientation;
use crate::image::resolution::{self, Resolution};
use crate::image::tagged::TagDirectory;

/// The maximum number of directories that are followed. A chain of more is taken to end there.
const MAX_DIRECTORIES: usize = 65_536;

/// `NewSubfileType`: a page of several, a reduced copy, a mask.
const KIND_OF_PAGE: u16 = 254;
const REDUCED_COPY: u32 = 1;
const MASK: u32 = 4;

/// A TIFF file and the places of its pages.
#[derive(Debug, Clone)]
pub struct TiffFile {
    file: Bytes,
    pages: Vec<u32>,
}

/// What a directory says of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TiffPage {
    /// The size of the stored pixels.
    pub stored: Size,
    /// How a viewer turns them.
    pub orientation: Orientation,
}

impl TiffPage {
    /// The size at which a viewer shows the page.
    pub const fn upright(&self) -> Size {
        if self.orientation.swaps_sides() { self.stored.turned() } else { self.stored }
    }
}

impl TiffFile {
    /// Finds the pages of a file. A chain of directories ends where it leaves the file or comes back to itself.
    ///
    /// # Errors
    ///
    /// [`PixelsError::Damaged`] if the first directory is not within the file.
    pub fn open(file: Bytes) -> Result<Self, PixelsError> {
        let mut next = TagDirectory::first(&file);
        if next.is_none() {
            return Err(damaged("its first directory is outside the file"));
        }
        let (mut seen, mut pages, mut copies) = (HashSet::new(), Vec::new(), Vec::new());
        while let Some(directory) = next {
            if seen.len() == MAX_DIRECTORIES || !seen.insert(directory.offset()) {
                break;
            }
            let kind = directory.number(KIND_OF_PAGE).unwrap_or_default();
            let is_page = kind & (REDUCED_COPY | MASK) == 0;
            let place = u32::try_from(directory.offset()).unwrap_or(u32::MAX);
            if is_page { &mut pages } else { &mut copies }.push(place);
            next = directory.next();
        }
        let pages = if pages.is_empty() { copies } else { pages };
        Ok(Self { file, pages })
    }

    /// The number of pages, at least one.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.pages.len()).unwrap_or(u32::MAX)
    }

    /// The size and orientation of a page, counted from 1. Nothing is decoded.
    ///
    /// # Errors
    ///
    /// - [`PixelsError::PageMissing`] if there is no such page.
    /// - [`PixelsError::Damaged`] if it does not give its size.
    pub fn page(&self, number: u32) -> Result<TiffPage, PixelsError> {
        let fields = Fields::of(&self.directory(number)?)?;
        Ok(TiffPage { stored: fields.size, orientation: fields.orientation })
    }

    /// The resolution that a page states.
    pub(crate) fn resolution(&self, number: u32) -> Option<Resolution> {
        resolution::of_directory(&self.directory(number).ok()?)
    }

    /// An upper bound of the bytes that are allocated to decode a page, to resize it to a size that is not above `to`,
    /// to turn it upright and to encode it ([`decode_memory`](super::decode::decode_memory)).
    ///
    /// # Errors
    ///
    /// As [`page`](Self::page).
    pub fn decode_memory(&self, number: u32, to: Size) -> Result<u64, PixelsError> {
        let fields = Fields::of(&self.directory(number)?)?;
        let finishing = finishing_memory(fields.size, super::raster::Samples::Rgb, to);
        Ok(region::memory(&self.file, &fields).max(finishing))
    }

    /// Decodes a page, counted from 1, as it is stored.
    ///
    /// # Errors
    ///
    /// - [`PixelsError::PageMissing`] if there is no such page.
    /// - [`PixelsError::Unsupported`] for colours and compressions that are not decoded, such as floating point or Lab.
    /// - [`PixelsError::Damaged`] if the page violates the format.
    pub fn decode(&self, number: u32) -> Result<Raster, PixelsError> {
        let directory = self.directory(number)?;
        decode(&self.file, &directory, &Fields::of(&directory)?)
    }

    fn directory(&self, number: u32) -> Result<TagDirectory<'_>, PixelsError> {
        let missing = PixelsError::PageMissing { page: number, pages: self.pages() };
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let place = *index.and_then(|index| self.pages.get(index)).ok_or(missing)?;
        let first = TagDirectory::first(&self.file);
        let directory = first.and_then(|first| first.sibling(place));
        directory.ok_or_else(|| damaged("one of its directories is outside the file"))
    }
}

/// Decodes the first directory of a file, whose header gives `size`.
pub(super) fn decode_first(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let directory = TagDirectory::first(file)
        .ok_or_else(|| damaged("its first directory is outside the file"))?;
    let fields = Fields::of(&directory)?;
    check_size(size, fields.size)?;
    decode(file, &directory, &fields)
}

/// An upper bound of the bytes that [`decode_first`] allocates.
pub(super) fn first_memory(file: &[u8], size: Size) -> u64 {
    let fields = TagDirectory::first(file).and_then(|directory| Fields::of(&directory).ok());
    // It will be refused if its fields cannot be read.
    fields.map_or(size.pixels().get(), |fields| region::memory(file, &fields))
}

fn decode(
    file: &[u8],
    directory: &TagDirectory<'_>,
    fields: &Fields,
) -> Result<Raster, PixelsError> {
    if let Some(what) = fields.unsupported() {
        return Err(PixelsError::Unsupported { what });
    }
    match fields.fax() {
        Some(fax) => fax::decode(file, directory, fields, fax),
        None => region::decode(file, directory, fields),
    }
}
