//! Resets the orientation tag of an image, so that viewers show its pixels as stored.
//!
//! Scanners and cameras with a stuck sensor write a wrong orientation, and the provider does not document how it treats
//! the tag. If a caller knows that the stored pixels are upright, it can request that the tag be overwritten with 1.
//! This changes a few bytes of a copy and no pixel. No byte moves, so a PNG needs a new checksum for one chunk, and the
//! other formats need nothing else.
//!
//! HEIC is refused: its orientation is set by properties that other pictures in the file may share.

use std::ops::Range;

use super::byte_order::ByteOrder;
use super::exif;
use super::format::{Format, Orientation};
use super::header::ImageHeader;
use super::{jpeg, png, webp};

/// The orientation value 1, "shown as stored", in big-endian order.
const AS_STORED: [u8; 4] = [0, 0, 0, 1];

/// An orientation that cannot be reset by overwriting a few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {format} image is turned by its structure, which rotate=off cannot take back")]
pub struct FixedOrientation {
    /// The image's format.
    pub format: Format,
}

/// The bytes to overwrite so that an image is shown as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The position of the orientation value in the file.
    note: Range<usize>,
    order: ByteOrder,
    /// The data of the chunk that contains the value, if that chunk has a checksum.
    chunk: Option<Range<usize>>,
}

impl Patch {
    /// Finds the bytes to overwrite; `None` if viewers already show `file` as stored.
    ///
    /// # Errors
    ///
    /// [`FixedOrientation`] if overwriting a few bytes is not enough.
    pub fn of(file: &[u8], header: &ImageHeader) -> Result<Option<Self>, FixedOrientation> {
        if header.orientation == Orientation::Upright {
            return Ok(None);
        }
        let format = header.format;
        let block = match format {
            Format::Jpeg => jpeg::exif_block(file),
            Format::Png => png::exif_block(file),
            Format::Webp => webp::exif_block(file),
            Format::Tiff => Some(0..file.len()),
            Format::Bmp | Format::Heic => None,
        };
        let patch = block.and_then(|block| {
            let (place, order) = exif::place_of_orientation(&file[block.clone()])?;
            let note = block.start + place.start..block.start + place.end;
            Some(Self { note, order, chunk: (format == Format::Png).then_some(block) })
        });
        patch.map(Some).ok_or(FixedOrientation { format })
    }

    /// Overwrites these bytes of `file` and nothing else.
    pub fn apply(&self, file: &mut [u8]) {
        let Some(note) = file.get_mut(self.note.clone()) else { return };
        let number = &AS_STORED[AS_STORED.len() - note.len()..];
        match self.order {
            ByteOrder::Big => note.copy_from_slice(number),
            ByteOrder::Little => note.iter_mut().zip(number.iter().rev()).for_each(|(to, from)| {
                *to = *from;
            }),
        }
        let Some((place, of)) = self.chunk.as_ref().map(png::checked) else { return };
        let checksum = png::checksum(&file[of]).to_be_bytes();
        if let Some(place) = file.get_mut(place) {
            place.copy_from_slice(&checksum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::probe;
    use super::super::{Size, samples};
    use super::*;

    /// One file for each format and byte order that has an orientation tag, with the tag set to `value`.
    fn turned(value: u16) -> Vec<Vec<u8>> {
        let of = |order| {
            let exif = samples::exif(order, value);
            let jpeg = samples::jpeg(40, 30);
            let scan = samples::JPEG_SCAN;
            let jpeg = [&jpeg[..2], &samples::app1(&exif), &jpeg[2..], &scan].concat();
            let chunk = samples::png_chunk(*b"eXIf", &exif);
            let png = [samples::png(40, 30), chunk, samples::png_data()].concat();
            let (canvas, lossy) = (samples::webp_extended(40, 30), samples::webp_lossy(40, 30));
            let chunk = samples::riff_chunk(*b"EXIF", &exif);
            let webp = [&canvas, &lossy[12..], &chunk].concat();
            let sides = [(256, 4, 40), (257, 4, 30), (273, 4, 8)];
            let note = |kind| (0x0112, kind, u32::from(value));
            let short = samples::tiff(order, &[&[&sides[..], &[note(3)]].concat()]);
            let long = samples::tiff(order, &[&[&sides[..], &[note(4)]].concat()]);
            [jpeg, png, webp, short, long]
        };
        [ByteOrder::Big, ByteOrder::Little].into_iter().flat_map(of).collect()
    }

    #[test]
    fn all_eight_orientations_are_taken_back_in_every_format_that_notes_them() {
        for value in 1..=8 {
            for file in turned(value) {
                let header = probe(&file).unwrap();
                assert_eq!(header.orientation, Orientation::from_exif(value.into()));
                let Some(patch) = Patch::of(&file, &header).unwrap() else {
                    assert_eq!(value, 1, "{:?}", header.format);
                    continue;
                };
                let mut copy = file.clone();
                patch.apply(&mut copy);
                let patched = probe(&copy).unwrap();
                assert_eq!(patched, ImageHeader { orientation: Orientation::Upright, ..header });
                assert_eq!(patched.upright(), Size::new(40, 30));
                let changed = file.iter().zip(&copy).filter(|(before, after)| before != after);
                let most = if header.format == Format::Png { 5 } else { 1 };
                assert!(copy.len() == file.len() && changed.count() <= most);
            }
        }
    }

    #[test]
    fn a_patched_png_has_the_checksum_of_its_new_bytes() {
        let turned = |value| {
            let chunk = samples::png_chunk(*b"eXIf", &samples::exif(ByteOrder::Big, value));
            [samples::png(40, 30), chunk, samples::png_data()].concat()
        };
        let file = turned(6);
        let mut copy = file.clone();
        Patch::of(&file, &probe(&file).unwrap()).unwrap().unwrap().apply(&mut copy);
        assert_eq!(copy, turned(1));
    }

    #[test]
    fn a_picture_that_is_turned_by_its_structure_is_refused() {
        let turn = samples::iso_box(*b"irot", &[1]);
        let file = samples::heic_with(&[samples::ispe(40, 30), turn], &[1, 2]);
        let refused = Patch::of(&file, &probe(&file).unwrap());
        assert_eq!(refused, Err(FixedOrientation { format: Format::Heic }));
    }

    #[test]
    fn an_upright_file_of_any_format_is_left_alone() {
        for (format, file) in samples::all(40, 30) {
            assert_eq!(Patch::of(&file, &probe(&file).unwrap()), Ok(None), "{format}");
        }
    }
}
