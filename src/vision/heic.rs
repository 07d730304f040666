//! HEIC (ISO/IEC 23008-12): the sides of the primary picture and how it is turned.
//!
//! A file holds many pictures: tiles, previews, depth maps. The `meta` box names the primary one
//! and lists what it has in common with others as properties: `ispe` gives its sides, `clap` crops
//! them, `irot` and `imir` turn and mirror the result, in that order. Where the primary one cannot
//! be found the largest picture stands in, since phones store nothing larger than the photo.
//!
//! EXIF is ignored: the standard makes it information only, and decoders turn the picture by its
//! properties. Sequences that have only tracks and no `meta` box are malformed here.

mod locations;

use self::locations::{Locations, Place};
use super::Size;
use super::byte_order::ByteOrder::Big;
use super::format::{Format, Orientation};
use super::probe::ImageHeader;

/// Boxes that are looked at in one container.
const MAX_BOXES: usize = 1024;

/// Items in an association box. A tile is an item, and 8K pictures have some two hundred.
const MAX_ITEMS: usize = 4096;

/// Association boxes. The standard allows one for each of its four layouts.
const MAX_ASSOCIATION_BOXES: usize = 4;

/// Properties of the primary picture. Phones write about five.
const MAX_PROPERTIES: usize = 32;

/// Version and flags, which a full box starts with.
const FULL_BOX: usize = 4;

/// The brands of pictures and sequences that are coded in HEVC, and the two that leave it open.
const BRANDS: [&[u8]; 10] =
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"];

/// The brands of pictures and sequences that are coded in AV1.
const AVIF_BRANDS: [&[u8]; 2] = [b"avif", b"avis"];

/// Compatible brands that are looked at.
const MAX_BRANDS: usize = 64;

/// Whether the bytes start like a HEIC file.
pub(super) fn matches(bytes: &[u8]) -> bool {
    let Some((major, mut compatible)) = brands(bytes) else {
        return false;
    };
    // The open brands mean HEVC unless the file says that it is coded in AV1.
    let is_open = matches!(major, b"mif1" | b"msf1");
    BRANDS.contains(&major) && !(is_open && compatible.any(|brand| AVIF_BRANDS.contains(&brand)))
}

/// Whether the bytes start like an AVIF file.
pub(super) fn matches_avif(bytes: &[u8]) -> bool {
    brands(bytes).is_some_and(|(major, mut compatible)| {
        AVIF_BRANDS.contains(&major) || compatible.any(|brand| AVIF_BRANDS.contains(&brand))
    })
}

/// The major brand and the compatible ones of a file of the ISO base media format.
fn brands(bytes: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let end = (Big.u32(bytes, 0)? as usize).min(bytes.len());
    let compatible = bytes.get(16..end).unwrap_or_default();
    Some((bytes.get(8..12)?, compatible.chunks_exact(4).take(MAX_BRANDS)))
}

/// Reads the header of bytes that start like a HEIC file.
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    let meta = find(bytes, *b"meta").and_then(|meta| meta.get(FULL_BOX..));
    let meta = meta.ok_or("has no whole meta box")?;
    let properties = find(meta, *b"iprp").ok_or("has no picture properties")?;
    let container = find(properties, *b"ipco").ok_or("has no picture properties")?;
    let (stored, orientation) = primary(meta, properties, container)
        .or_else(|| Some((largest(container)?, Orientation::Upright)))
        .ok_or("does not give its width and height")?;
    Ok(ImageHeader::new(Format::Heic, stored, orientation))
}

/// The sides and the orientation of the primary picture. `None` where the file does not say.
fn primary(meta: &[u8], properties: &[u8], container: &[u8]) -> Option<(Size, Orientation)> {
    let item = primary_item(find(meta, *b"pitm")?)?;
    let associations =
        boxes(properties).filter_map(|(kind, body)| (kind == *b"ipma").then_some(body));
    let mut associations = associations.take(MAX_ASSOCIATION_BOXES);
    let indices = associations.find_map(|body| Indices::of_item(body, item))?;
    let mut stored = None;
    let mut orientation = Orientation::Upright;
    for index in indices.take(MAX_PROPERTIES) {
        // Indices count from one; zero says that there is no property.
        let Some((kind, body)) = index.checked_sub(1).and_then(|skip| boxes(container).nth(skip))
        else {
            continue;
        };
        match &kind {
            b"ispe" => stored = extents(body),
            b"clap" => stored = stored.map(|size| cropped(size, body)),
            b"irot" => {
                // Quarter turns counter-clockwise.
                let turns = usize::from(body.first()? & 3);
                orientation = orientation.then_turned_clockwise(4 - turns);
            }
            b"imir" => {
                // One exchanges left and right, zero top and bottom.
                let half_turns = usize::from(1 - (body.first()? & 1));
                orientation =
                    orientation.then_mirrored_left_right().then_turned_clockwise(2 * half_turns);
            }
            _ => {}
        }
    }
    Some((stored?, orientation))
}

fn primary_item(body: &[u8]) -> Option<u32> {
    match body.first()? {
        0 => Big.u16(body, FULL_BOX).map(u32::from),
        _ => Big.u32(body, FULL_BOX),
    }
}

/// Sees that the primary picture, or a picture that it is put together from, has data that starts within a
/// file of `length` bytes.
pub(super) fn check_picture(bytes: &[u8], length: usize) -> Result<(), &'static str> {
    let without = Err("has no pixels: its picture data are outside the file");
    let Some(meta) = find(bytes, *b"meta").and_then(|meta| meta.get(FULL_BOX..)) else {
        return without;
    };
    let primary = find(meta, *b"pitm").and_then(primary_item);
    let place = Place { length: length as u64, data: find(meta, *b"idat").unwrap_or_default() };
    let Some(items) = find(meta, *b"iloc").and_then(Locations::of) else { return without };
    let mut found = false;
    for item in items.take(MAX_ITEMS) {
        let holds = item.starts_in(&place);
        if Some(item.id) == primary && item.is_in_file() {
            return if holds { Ok(()) } else { without };
        }
        // A primary picture that is put together only names its parts.
        found |= holds;
    }
    if found { Ok(()) } else { without }
}

/// The sides that an `ispe` property gives.
fn extents(body: &[u8]) -> Option<Size> {
    Some(Size::new(Big.u32(body, FULL_BOX)?, Big.u32(body, FULL_BOX + 4)?))
}

/// The sides after a `clap` property, which writers use to hide the padding of odd sides. Where it
/// makes no sense the sides stay.
fn cropped(size: Size, body: &[u8]) -> Size {
    let kept = |offset, whole: u32| {
        let length = Big.u32(body, offset)?.checked_div(Big.u32(body, offset + 4)?)?;
        (1..=whole).contains(&length).then_some(length)
    };
    match (kept(0, size.width), kept(8, size.height)) {
        (Some(width), Some(height)) => Size::new(width, height),
        _ => size,
    }
}

fn largest(container: &[u8]) -> Option<Size> {
    let all =
        boxes(container).filter_map(|(kind, body)| (kind == *b"ispe").then(|| extents(body))?);
    all.max_by_key(|size| size.pixels())
}

/// The property indices of one item in an `ipma` box.
#[derive(Debug)]
struct Indices<'a> {
    list: &'a [u8],
    is_wide: bool,
}

impl<'a> Indices<'a> {
    fn of_item(body: &'a [u8], item: u32) -> Option<Self> {
        let has_wide_items = *body.first()? >= 1;
        let is_wide = body.get(3)? & 1 == 1;
        let count = Big.u32(body, FULL_BOX)? as usize;
        let mut rest = body.get(FULL_BOX + 4..)?;
        for _ in 0..count.min(MAX_ITEMS) {
            let (id, id_length) =
                if has_wide_items { (Big.u32(rest, 0)?, 4) } else { (Big.u16(rest, 0)?.into(), 2) };
            let length = usize::from(*rest.get(id_length)?) * if is_wide { 2 } else { 1 };
            let list = rest.get(id_length + 1..)?.get(..length)?;
            if id == item {
                return Some(Self { list, is_wide });
            }
            rest = &rest[id_length + 1 + length..];
        }
        None
    }
}

impl Iterator for Indices<'_> {
    type Item = usize;

    /// The next index, without the bit that calls the property essential.
    fn next(&mut self) -> Option<usize> {
        if self.is_wide {
            let index = Big.u16(self.list, 0)? & 0x7fff;
            self.list = &self.list[2..];
            return Some(index.into());
        }
        let (index, rest) = self.list.split_first()?;
        self.list = rest;
        Some((index & 0x7f).into())
    }
}

/// The boxes that follow each other in `bytes`, until one is not whole.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let next = move || {
        let kind = *bytes.get(4..)?.first_chunk()?;
        let (start, length) = match Big.u32(bytes, 0)? {
            // Zero reaches to the end; one says that the length follows in 64 bits.
            0 => (8, bytes.len()),
            1 => (16, usize::try_from(Big.u64(bytes, 8)?).ok()?),
            length => (8, length as usize),
        };
        let body = bytes.get(start..length)?;
        bytes = &bytes[length..];
        Some((kind, body))
    };
    std::iter::from_fn(next).take(MAX_BOXES)
}

fn find(bytes: &[u8], kind: [u8; 4]) -> Option<&[u8]> {
    boxes(bytes).find_map(|(found, body)| (found == kind).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{heic, heic_with, iso_box, ispe};
    use super::*;

    fn shown(properties: &[Vec<u8>], associated: &[u8]) -> Result<Size, &'static str> {
        read(&heic_with(properties, associated)).map(|header| header.upright())
    }

    #[test]
    fn the_primary_pictures_sides_win_over_larger_ones() {
        let properties = [ispe(512, 512), ispe(40, 30), ispe(4_000, 3_000)];
        assert_eq!(shown(&properties, &[2]), Ok(Size::new(40, 30)));
        assert_eq!(shown(&properties, &[0x80 | 2]), Ok(Size::new(40, 30)));
    }

    #[test]
    fn without_a_usable_primary_picture_the_largest_counts() {
        let properties = [ispe(512, 512), ispe(4_000, 3_000), ispe(40, 30)];
        for associated in [&[][..], &[0], &[9]] {
            assert_eq!(shown(&properties, associated), Ok(Size::new(4_000, 3_000)));
        }
    }

    #[test]
    fn turning_and_mirroring_apply_in_the_order_of_the_file() {
        let turn = iso_box(*b"irot", &[1]);
        let mirror = iso_box(*b"imir", &[1]);
        let file = heic_with(&[ispe(40, 30), turn, mirror], &[1, 2, 3]);
        let header = read(&file).unwrap();
        assert_eq!(header.orientation, Orientation::Transversed);
        assert_eq!(header.upright(), Size::new(30, 40));
    }

    #[test]
    fn a_counter_clockwise_turn_and_both_mirrorings_are_told_apart() {
        for (kind, value, meant) in
            [(b"irot", 1, 8), (b"irot", 3, 6), (b"imir", 0, 4), (b"imir", 1, 2)]
        {
            let file = heic_with(&[ispe(40, 30), iso_box(*kind, &[value])], &[1, 2]);
            let orientation = read(&file).map(|header| header.orientation);
            assert_eq!(orientation, Ok(Orientation::from_exif(meant)));
        }
    }

    #[test]
    fn cropping_hides_padding_and_never_enlarges() {
        let crop = |width: u32| {
            let numbers = [width, 1, 29, 1, 0, 1, 0, 1].map(u32::to_be_bytes);
            iso_box(*b"clap", numbers.as_flattened())
        };
        assert_eq!(shown(&[ispe(40, 30), crop(39)], &[1, 2]), Ok(Size::new(39, 29)));
        assert_eq!(shown(&[ispe(40, 30), crop(41)], &[1, 2]), Ok(Size::new(40, 30)));
    }

    #[test]
    fn a_picture_that_leaves_its_codec_open_is_heic_unless_it_says_av1() {
        let mut file = heic(40, 30);
        file[8..12].copy_from_slice(b"mif1");
        assert!(matches(&file) && !matches_avif(&file));
        file[16..20].copy_from_slice(b"avif");
        assert!(!matches(&file) && matches_avif(&file));
    }

    #[test]
    fn a_million_boxes_before_the_meta_box_are_given_up_early() {
        let file = heic(40, 30);
        let (start, rest) = file.split_at(file[3].into());
        let file = [start, &iso_box(*b"free", &[]).repeat(1 << 20), rest].concat();
        assert_eq!(read(&file), Err("has no whole meta box"));
    }
}
