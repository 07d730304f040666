//! HEIC (ISO/IEC 23008-12): reads the dimensions and orientation of the primary picture.
//!
//! A file contains many pictures: tiles, previews, depth maps. The `meta` box names the primary picture and lists its
//! properties, which pictures may share. `ispe` gives the dimensions, `clap` crops the picture, and `irot` and `imir`
//! turn and mirror the result, in that order.
//!
//! A file gives the dimensions in several places: in `ispe`, and again in the coded data or in the grid description.
//! All must agree. Every box and property used to find them may appear only once, since decoders differ about which
//! of two they use. A `clap` may only hide the padding of an encoder, because some decoders do not crop. An unknown
//! type of picture is refused.
//!
//! EXIF is ignored: in the standard it is only informative, and decoders read the orientation from the properties.
//! Sequences are refused, because a video has a size of its own.

mod boxes;
mod hevc;
mod locations;

use self::boxes::{Boxes, FULL_BOX};
use self::locations::{DataSources, Location, Locations};
use super::byte_order::ByteOrder::Big;
use super::format::{Format, Orientation};
use super::header::{ImageHeader, TRUNCATED};
use super::second_size::{Fault, agree};
use super::size::Size;

/// The maximum number of items in an association box. Each tile is an item, and 8K pictures have about two hundred.
const MAX_ITEMS: usize = 4096;

/// The maximum number of association boxes. The standard allows one for each of its four layouts.
const MAX_ASSOCIATION_BOXES: usize = 4;

/// The maximum number of properties of the primary picture. Phones write about five.
const MAX_PROPERTIES: usize = 32;

/// The maximum number of NAL units of one picture. Encoders write a few dozen.
const MAX_UNITS: usize = 65_536;

/// The maximum padding that an encoder adds to a side, in pixels. The smallest block of HEVC has 8x8 pixels.
const MOST_PADDING: u32 = 7;

/// Encoders pad a smaller side to this many pixels.
const LEAST_CODED: u32 = 64;

/// The maximum length of the `ftyp` box. Pillow may read a longer one as the header of a TGA image.
const LONGEST_TYPE: u32 = 255;

/// The brands of pictures and sequences coded in HEVC, and the two generic brands that do not name a codec.
const BRANDS: [&[u8]; 10] =
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"];

/// The brands of pictures and sequences coded in AV1.
const AVIF_BRANDS: [&[u8]; 2] = [b"avif", b"avis"];

/// The maximum number of compatible brands that are read.
const MAX_BRANDS: usize = 64;

/// Whether the bytes start like a HEIC file.
pub(super) fn matches(bytes: &[u8]) -> bool {
    let Some((major, mut compatible)) = brands(bytes) else {
        return false;
    };
    // A generic brand is taken as HEVC unless the compatible brands include AV1.
    let is_open = matches!(major, b"mif1" | b"msf1");
    BRANDS.contains(&major) && !(is_open && compatible.any(|brand| AVIF_BRANDS.contains(&brand)))
}

/// Whether the bytes start like an AVIF file.
pub(super) fn matches_avif(bytes: &[u8]) -> bool {
    brands(bytes).is_some_and(|(major, mut compatible)| {
        AVIF_BRANDS.contains(&major) || compatible.any(|brand| AVIF_BRANDS.contains(&brand))
    })
}

/// The major brand and the compatible brands of a file in the ISO base media format.
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
    let primary = Primary::of(bytes)?;
    let (mut stored, mut orientation) = (None, Orientation::Upright);
    for property in primary.properties() {
        let (kind, body) = property?;
        match &kind {
            b"ispe" => stored = stored.or_else(|| extents(body)),
            b"clap" => stored = stored.map(|size| cropped(size, body)),
            b"irot" => {
                // Quarter turns counter-clockwise.
                let turns = usize::from(body.first().ok_or(TRUNCATED)? & 3);
                orientation = orientation.then_turned_clockwise(4 - turns);
            }
            b"imir" => {
                // 1 swaps left and right, 0 swaps top and bottom.
                let half_turns = usize::from(1 - (body.first().ok_or(TRUNCATED)? & 1));
                orientation =
                    orientation.then_mirrored_left_right().then_turned_clockwise(2 * half_turns);
            }
            _ => {}
        }
    }
    let stored = stored.ok_or("does not give its width and height")?;
    Ok(ImageHeader::new(Format::Heic, stored, orientation))
}

/// Checks that the data of the primary picture, or of a picture that it is composed of, starts inside the file.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    let primary = Primary::of(bytes)?;
    let mut found = false;
    for item in primary.locations()?.take(MAX_ITEMS) {
        let holds = item.starts_in(&primary.sources);
        if item.id == primary.item && item.is_in_file() {
            return if holds { Ok(()) } else { Err(WITHOUT_PIXELS) };
        }
        // A derived primary picture only refers to its parts.
        found |= holds;
    }
    if found { Ok(()) } else { Err(WITHOUT_PIXELS) }
}

const WITHOUT_PIXELS: &str = "has no pixels: its picture data are outside the file";

/// Checks that the properties of the primary picture give the same size as its coded data or grid description.
pub(super) fn check_sizes(bytes: &[u8]) -> Result<(), Fault> {
    let primary = Primary::of(bytes)?;
    let stored = primary.only_extents()?;
    match &primary.kind()? {
        b"hvc1" | b"hev1" => primary.check_coded(stored),
        b"grid" => primary.check_grid(stored),
        _ => Err(Fault::Rule("has a primary picture that is neither HEVC nor a grid")),
    }
}

/// The metadata of the primary picture.
struct Primary<'a> {
    item: u32,
    meta: Boxes<'a>,
    /// The property container (`ipco`).
    container: Boxes<'a>,
    associations: Boxes<'a>,
    sources: DataSources<'a>,
}

impl<'a> Primary<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, &'static str> {
        if Big.u32(bytes, 0).is_none_or(|length| length > LONGEST_TYPE) {
            return Err("has a ftyp box of more than 255 bytes");
        }
        let meta = only_meta(bytes)?.get(FULL_BOX..).ok_or(TRUNCATED)?;
        let meta = Boxes::within(meta);
        let only = |kind, twice| meta.clone().only(kind, twice);
        let item = only(*b"pitm", "names its primary picture twice")?.and_then(primary_item);
        let associations = only(*b"iprp", "has its picture properties twice")?;
        let associations = Boxes::within(associations.ok_or(WITHOUT_PROPERTIES)?);
        let container = associations.clone().only(*b"ipco", "has its picture properties twice")?;
        let container = Boxes::within(container.ok_or(WITHOUT_PROPERTIES)?);
        container.clone().check_whole()?;
        let data = only(*b"idat", "has its own data twice")?.unwrap_or_default();
        Ok(Self {
            item: item.ok_or("does not name its primary picture")?,
            container,
            associations,
            sources: DataSources { file: bytes, data },
            meta,
        })
    }

    /// The type of the picture from the list of items.
    fn kind(&self) -> Result<[u8; 4], &'static str> {
        let list = self.meta.clone().only(*b"iinf", "lists its items twice")?;
        let list = list.ok_or("does not list its items")?;
        let start = FULL_BOX + if list.first() == Some(&0) { 2 } else { 4 };
        let entries = Boxes::within(list.get(start..).ok_or(TRUNCATED)?);
        let mut only = None;
        for (_, body) in entries.clone().filter(|(kind, _)| kind == b"infe") {
            // Earlier versions have no item type.
            let (item, at) = match body.first() {
                Some(2) => (Big.u16(body, FULL_BOX).map(u32::from), FULL_BOX + 4),
                Some(3) => (Big.u32(body, FULL_BOX), FULL_BOX + 6),
                _ => continue,
            };
            let kind = body.get(at..).and_then(|rest| rest.first_chunk().copied());
            if item == Some(self.item) && only.replace(kind.ok_or(TRUNCATED)?).is_some() {
                return Err("lists its primary picture twice");
            }
        }
        entries.check_whole()?;
        only.ok_or("does not list its primary picture")
    }

    /// The properties of the picture, in file order.
    fn properties(&self) -> impl Iterator<Item = Result<([u8; 4], &'a [u8]), &'static str>> {
        let (indices, fault) = match self.indices() {
            Ok(indices) => (Some(indices), None),
            Err(fault) => (None, Some(Err(fault))),
        };
        let container = self.container.clone();
        // Indices count from one; zero means no property.
        let indices = indices.into_iter().flatten().filter_map(|index| index.checked_sub(1));
        let properties = indices.enumerate().map(move |(number, skip)| {
            if number == MAX_PROPERTIES {
                return Err("has more than 32 properties of its primary picture");
            }
            container.clone().nth(skip).ok_or("names a property that is not there")
        });
        fault.into_iter().chain(properties)
    }

    /// The indices of the picture's properties.
    fn indices(&self) -> Result<Indices<'a>, &'static str> {
        let boxes = self.associations.clone().filter(|(kind, _)| kind == b"ipma");
        let mut only = None;
        for (number, (_, body)) in boxes.enumerate() {
            if number == MAX_ASSOCIATION_BOXES {
                return Err("has more than 4 boxes that associate properties");
            }
            Indices::of_item(body, self.item, &mut only)?;
        }
        only.ok_or("does not give its width and height")
    }

    /// The dimensions from the `ispe` property. Every property that affects them may occur only once.
    fn only_extents(&self) -> Result<Size, Fault> {
        let (mut size, mut seen) = (None, [false; ONCE.len()]);
        for property in self.properties() {
            let (kind, body) = property?;
            if &kind == b"ispe"
                && let (Some(stored), Some(other)) = (size, extents(body))
            {
                return Err(Fault::SecondSize {
                    stored,
                    other,
                    place: "in a second ispe property",
                });
            }
            let Some(place) = ONCE.iter().position(|&once| *once == kind) else { continue };
            if std::mem::replace(&mut seen[place], true) {
                return Err(Fault::Rule("has a property twice that a picture has once"));
            }
            match &kind {
                b"ispe" => size = extents(body),
                b"clap" => check_crop(size.ok_or("crops before it gives its size")?, body)?,
                b"iscl" => {
                    return Err(Fault::Rule("is scaled by a property, so that it has two sizes"));
                }
                _ => {}
            }
        }
        size.ok_or(Fault::Rule("does not give its width and height"))
    }

    fn locations(&self) -> Result<Locations<'a>, &'static str> {
        let body = self.meta.clone().only(*b"iloc", "says twice where its pictures are")?;
        body.and_then(Locations::of).ok_or(WITHOUT_PIXELS)
    }

    /// The stored data of the picture.
    fn data(&self) -> Result<&'a [u8], &'static str> {
        let mut found = self.locations()?.filter(|location| location.id == self.item);
        match (found.next(), found.next()) {
            (Some(location), None) => self.piece(&location),
            (None, _) => Err(WITHOUT_PIXELS),
            (Some(_), Some(_)) => Err("says twice where its primary picture is"),
        }
    }

    fn piece(&self, location: &Location<'a>) -> Result<&'a [u8], &'static str> {
        location.data(&self.sources).ok_or("has its primary picture in several pieces or elsewhere")
    }

    /// Compares the dimensions with those of the coded picture.
    fn check_coded(&self, stored: Size) -> Result<(), Fault> {
        let configuration = self.properties().filter_map(Result::ok);
        let configuration = configuration.filter(|(kind, _)| kind == b"hvcC").map(|(_, body)| body);
        let configuration = configuration.last().unwrap_or_default();
        if !hevc::has_usual_lengths(configuration) {
            return Err(Fault::Rule("does not give the lengths of its coded data in four bytes"));
        }
        let units = hevc::units(self.data()?);
        let mut is_given = false;
        for (number, unit) in hevc::units_of_configuration(configuration).chain(units).enumerate() {
            if number == MAX_UNITS {
                return Err(Fault::Rule("has more than 65536 units of coded data"));
            }
            let Some(size) = hevc::coded_size(unit) else { continue };
            agree(stored, size?, "in its coded picture")?;
            is_given = true;
        }
        if is_given { Ok(()) } else { Err(Fault::Rule(hevc::WITHOUT_SIZE)) }
    }

    /// Compares the dimensions with those in the grid description, section 6.6.2.3.
    fn check_grid(&self, stored: Size) -> Result<(), Fault> {
        let grid = self.data()?;
        // The first four bytes are the version, the flags, rows minus one and columns minus one.
        let is_wide = grid.get(1).ok_or(TRUNCATED)? & 1 == 1;
        let side = |index: usize| {
            if is_wide {
                Big.u32(grid, 4 + 4 * index)
            } else {
                Big.u16(grid, 4 + 2 * index).map(u32::from)
            }
        };
        let (width, height) = (side(0).ok_or(TRUNCATED)?, side(1).ok_or(TRUNCATED)?);
        agree(stored, Size::new(width, height), "in its grid of tiles")
    }
}

const WITHOUT_PROPERTIES: &str = "has no picture properties";

/// The properties that may occur at most once. `iscl`, which scales the picture, is always refused.
const ONCE: [&[u8; 4]; 6] = [b"ispe", b"clap", b"irot", b"imir", b"hvcC", b"iscl"];

/// The only `meta` box of a file. The last box may be truncated unless it is a `meta` box.
fn only_meta(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (mut boxes, mut meta, mut types) = (Boxes::of_file(bytes), None, 0);
    for (kind, body) in boxes.by_ref() {
        match &kind {
            b"meta" if meta.replace(body).is_some() => return Err("has two meta boxes"),
            // A second `ftyp` box is the start of a video that a phone has appended.
            b"ftyp" => types += 1,
            b"moov" if types < 2 => return Err("holds a film beside the picture"),
            _ => {}
        }
    }
    if boxes.has_too_many() || boxes.rest().get(4..8).is_some_and(|kind| kind == b"meta") {
        return Err("has too many boxes, or a second meta box");
    }
    meta.ok_or("has no whole meta box")
}

fn primary_item(body: &[u8]) -> Option<u32> {
    match body.first()? {
        0 => Big.u16(body, FULL_BOX).map(u32::from),
        _ => Big.u32(body, FULL_BOX),
    }
}

/// The dimensions from an `ispe` property.
fn extents(body: &[u8]) -> Option<Size> {
    Some(Size::new(Big.u32(body, FULL_BOX)?, Big.u32(body, FULL_BOX + 4)?))
}

/// The dimensions after a `clap` property, which writers use to hide the padding of odd sides. An invalid `clap` leaves
/// them unchanged.
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

/// Checks that a `clap` property hides no more than padding.
fn check_crop(stored: Size, body: &[u8]) -> Result<(), Fault> {
    let whole = |offset| {
        let (number, divisor) = (Big.u32(body, offset)?, Big.u32(body, offset + 4)?);
        (divisor != 0 && number % divisor == 0).then(|| number / divisor)
    };
    let (Some(width), Some(height)) = (whole(0), whole(8)) else {
        return Err(Fault::Rule("is cropped to a part of a pixel"));
    };
    let is_padding = |stored: u32, kept: u32| {
        let hidden = stored.checked_sub(kept);
        hidden.is_some_and(|hidden| hidden <= MOST_PADDING || stored <= LEAST_CODED)
    };
    if !is_padding(stored.width, width) || !is_padding(stored.height, height) {
        let other = Size::new(width, height);
        return Err(Fault::SecondSize { stored, other, place: "in its clap property" });
    }
    if is_inside(stored.width, width, body, 16) && is_inside(stored.height, height, body, 24) {
        return Ok(());
    }
    // libheif does not crop in this case.
    Err(Fault::Rule("is cropped to a part that lies outside of it"))
}

/// Whether the kept part of a side is inside it. The fraction at `offset` is the distance between the centre of the
/// kept part and the centre of the side.
fn is_inside(stored: u32, kept: u32, body: &[u8], offset: usize) -> bool {
    let fraction = Big.u32(body, offset).zip(Big.u32(body, offset + 4));
    let Some((moved, divisor)) = fraction else { return false };
    let (moved, divisor) = (i64::from(moved.cast_signed()), i64::from(divisor.cast_signed()));
    divisor > 0 && 2 * moved.abs() <= i64::from(stored.saturating_sub(kept)) * divisor
}

/// The property indices of one item in an `ipma` box.
#[derive(Debug)]
struct Indices<'a> {
    list: &'a [u8],
    is_wide: bool,
}

impl<'a> Indices<'a> {
    /// Stores the indices of an item in `only`.
    fn of_item(body: &'a [u8], item: u32, only: &mut Option<Self>) -> Result<(), &'static str> {
        let has_wide_items = *body.first().ok_or(TRUNCATED)? >= 1;
        let is_wide = body.get(3).ok_or(TRUNCATED)? & 1 == 1;
        let count = Big.u32(body, FULL_BOX).ok_or(TRUNCATED)? as usize;
        if count > MAX_ITEMS {
            return Err("has more than 4096 items");
        }
        let mut rest = body.get(FULL_BOX + 4..).ok_or(TRUNCATED)?;
        for _ in 0..count {
            let (id, id_length) = if has_wide_items {
                (Big.u32(rest, 0).ok_or(TRUNCATED)?, 4)
            } else {
                (Big.u16(rest, 0).ok_or(TRUNCATED)?.into(), 2)
            };
            let number = usize::from(*rest.get(id_length).ok_or(TRUNCATED)?);
            let length = number * if is_wide { 2 } else { 1 };
            let list = rest.get(id_length + 1..).and_then(|rest| rest.get(..length));
            let list = list.ok_or(TRUNCATED)?;
            if id == item && only.replace(Self { list, is_wide }).is_some() {
                return Err("has two lists of properties of its primary picture");
            }
            rest = &rest[id_length + 1 + length..];
        }
        Ok(())
    }
}

impl Iterator for Indices<'_> {
    type Item = usize;

    /// The next index, without the bit that marks the property as essential.
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

#[cfg(test)]
mod tests {
    use super::super::samples::{self, heic, heic_with, iso_box, ispe};
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
    fn without_a_usable_primary_picture_the_file_is_malformed() {
        let properties = [ispe(512, 512), ispe(4_000, 3_000), ispe(40, 30)];
        for associated in [&[][..], &[0], &[9]] {
            assert!(shown(&properties, associated).is_err());
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

    fn crop(width: u32, divisor: u32) -> Vec<u8> {
        let numbers = [width, divisor, 29, 1, 0, 1, 0, 1].map(u32::to_be_bytes);
        iso_box(*b"clap", numbers.as_flattened())
    }

    #[test]
    fn cropping_hides_padding_and_never_enlarges() {
        assert_eq!(shown(&[ispe(40, 30), crop(39, 1)], &[1, 2]), Ok(Size::new(39, 29)));
        assert_eq!(shown(&[ispe(40, 30), crop(41, 1)], &[1, 2]), Ok(Size::new(40, 30)));
    }

    /// The result for a primary picture with these properties.
    fn sizes(properties: &[Vec<u8>], associated: &[u8]) -> Result<(), Fault> {
        check_sizes(&heic_with(properties, associated))
    }

    #[test]
    fn a_second_size_among_the_properties_is_refused() {
        let (stored, other) = (Size::new(40, 30), Size::new(400, 300));
        let refused = |place| Err(Fault::SecondSize { stored, other, place });
        let large = ispe(400, 300);
        let two = [ispe(40, 30), large.clone()];
        assert_eq!(sizes(&two, &[1]), Ok(()), "that of another picture");
        assert_eq!(sizes(&two, &[1, 2]), refused("in a second ispe property"));
        assert!(sizes(&two, &[1, 1]).is_err());
        assert!(matches!(sizes(&two, &[2, 1]), Err(Fault::SecondSize { .. })));
        for (width, divisor, passes) in
            [(90, 1, true), (83, 1, true), (82, 1, false), (91, 1, false), (179, 2, false)]
        {
            let cropped = sizes(&[ispe(90, 30), crop(width, divisor)], &[1, 2]);
            assert_eq!(cropped.is_ok(), passes, "{width}/{divisor}");
        }
        assert_eq!(sizes(&[ispe(64, 64), crop(11, 1)], &[1, 2]), Ok(()));
        for (moved, divisor, passes) in [
            (1, 2, true),
            (-1, 2, true),
            (1, 1, false),
            (-1, 1, false),
            (0, 0, false),
            (0, -1, false),
        ] {
            let mut crop = crop(89, 1);
            crop[24..28].copy_from_slice(&i32::to_be_bytes(moved));
            crop[28..32].copy_from_slice(&i32::to_be_bytes(divisor));
            assert_eq!(sizes(&[ispe(90, 30), crop], &[1, 2]).is_ok(), passes, "{moved}/{divisor}");
        }
        for kind in ONCE {
            let twice = [ispe(40, 30), iso_box(*kind, &[0; 40])];
            assert!(sizes(&twice, &[1, 2, 2]).is_err());
        }
        let scaled = [ispe(40, 30), iso_box(*b"iscl", &[0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 1])];
        assert!(sizes(&scaled, &[1, 2]).is_err());
        assert!(sizes(&[ispe(40, 30)], &[1, 9]).is_err(), "one that is not there");
        assert_eq!(sizes(&[ispe(40, 30)], &[&[1][..], &[0; 32]].concat()), Ok(()));
    }

    /// The file with every box of this type in `meta` duplicated and the second copy changed.
    fn with_second(kind: [u8; 4], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let file = heic(40, 30);
        let at = |kind: [u8; 4]| file.windows(4).position(|window| window == kind).unwrap() - 4;
        let start = at(kind);
        let length = usize::from(file[start + 3]);
        let mut second = file[start..start + length].to_vec();
        change(&mut second);
        let mut changed = [&file[..start + length], &second, &file[start + length..]].concat();
        let parents: &[[u8; 4]] = match &kind {
            b"meta" => &[],
            b"ipco" | b"ipma" => &[*b"meta", *b"iprp"],
            _ => &[*b"meta"],
        };
        for &parent in parents {
            let length =
                usize::from(u16::from_be_bytes([file[at(parent) + 2], file[at(parent) + 3]]));
            let length = u16::try_from(length + second.len()).unwrap().to_be_bytes();
            changed[at(parent) + 2..at(parent) + 4].copy_from_slice(&length);
        }
        changed
    }

    #[test]
    fn a_box_that_leads_to_the_size_stands_once() {
        for kind in [b"meta", b"pitm", b"iprp", b"ipco", b"ipma", b"iinf", b"iloc"] {
            assert!(check_sizes(&with_second(*kind, |_| ())).is_err(), "{kind:?}");
        }
        let other_item = with_second(*b"ipma", |second| second[8 + 8 + 1] = 7);
        assert_eq!(check_sizes(&other_item), Ok(()), "a list for another picture");
        let unknown = with_second(*b"pitm", |second| second[4..8].copy_from_slice(b"free"));
        assert_eq!(check_sizes(&unknown), Ok(()));
        let longer = with_second(*b"pitm", |second| second[4..8].copy_from_slice(b"free"));
        let at = longer.windows(4).position(|window| window == b"free").unwrap();
        for length in [0, 7, 200] {
            let mut broken = longer.clone();
            broken[at - 1] = length;
            assert!(check_sizes(&broken).is_err(), "{length}");
        }
    }

    #[test]
    fn the_coded_picture_has_the_size_of_its_property() {
        let coded = |width, height| {
            let unit = samples::hevc_parameter_set(width, height);
            check_sizes(&samples::heic_coded(&[ispe(40, 30)], &[1], &[unit], &[]))
        };
        assert_eq!(coded(40, 30), Ok(()));
        assert!(matches!(coded(400, 300), Err(Fault::SecondSize { .. })));
        let unit = |width, height| samples::hevc_parameter_set(width, height);
        let file = |units: &[Vec<u8>], data: &[u8]| {
            check_sizes(&samples::heic_coded(&[ispe(40, 30)], &[1], units, data))
        };
        assert!(file(&[], &[]).is_err());
        assert!(file(&[unit(40, 30), unit(40, 31)], &[]).is_err());
        let inside = |unit: Vec<u8>| {
            let length = u32::try_from(unit.len()).unwrap().to_be_bytes();
            [&[0, 0, 0, 1, 0x26][..], &length, &unit].concat()
        };
        assert_eq!(file(&[unit(40, 30)], &inside(unit(40, 30))), Ok(()));
        assert!(matches!(
            file(&[unit(40, 30)], &inside(unit(41, 30))),
            Err(Fault::SecondSize { .. })
        ));
    }

    #[test]
    fn units_that_are_not_looked_at_or_have_lengths_of_another_kind_are_refused() {
        let file = |data: &[u8]| {
            let unit = samples::hevc_parameter_set(40, 30);
            samples::heic_coded(&[ispe(40, 30)], &[1], &[unit], data)
        };
        let checked = |empty_units: usize| check_sizes(&file(&[0; 4].repeat(empty_units)));
        assert_eq!(checked(MAX_UNITS - 1), Ok(()));
        assert!(checked(MAX_UNITS).is_err());
        for length_size in [1, 2, 3] {
            let mut file = file(&[0; 4]);
            // In the sample, all bytes of the configuration before this one are zero.
            let at = file.windows(4).position(|window| window == b"hvcC").unwrap() + 4 + 21;
            assert_eq!(file[at], 3);
            file[at] = length_size - 1;
            assert!(check_sizes(&file).is_err(), "{length_size}");
        }
    }

    #[test]
    fn a_grid_has_the_size_of_its_property_and_other_derived_pictures_are_refused() {
        let of = |kind: [u8; 4], data: &[u8]| {
            let mut file = samples::heic_coded(&[ispe(40, 30)], &[1], &[], data);
            let at = file.windows(4).position(|window| window == b"hvc1").unwrap();
            file[at..at + 4].copy_from_slice(&kind);
            check_sizes(&file)
        };
        assert_eq!(of(*b"grid", &[0, 0, 0, 0, 0, 40, 0, 30]), Ok(()));
        assert_eq!(of(*b"grid", &[0, 1, 0, 0, 0, 0, 0, 40, 0, 0, 0, 30]), Ok(()));
        for (kind, data) in [
            (b"grid", &[0, 0, 0, 0, 1, 40, 0, 30][..]),
            (b"grid", &[0, 1, 0, 0, 0, 0, 0, 40, 0, 0, 1, 30]),
            (b"grid", &[0, 0, 0, 0, 0, 40, 0]),
            (b"iovl", &[0; 24]),
            (b"iden", &[]),
            (b"av01", &[0; 24]),
        ] {
            assert!(of(*kind, data).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_film_beside_the_picture_is_refused_and_one_that_is_appended_is_not() {
        let (file, movie) = (heic(40, 30), iso_box(*b"moov", &[]));
        assert!(check_sizes(&[&file[..], &movie].concat()).is_err());
        let appended = iso_box(*b"ftyp", b"mp42\0\0\0\0");
        assert_eq!(check_sizes(&[&file[..], &appended, &movie].concat()), Ok(()));
        assert_eq!(check_sizes(&[&file[..], &iso_box(*b"mpvd", &movie)].concat()), Ok(()));
        assert_eq!(check_sizes(&[&file[..], b"a trailer"].concat()), Ok(()));
        assert!(check_sizes(&[&file[..], &appended, b"\0\0\x09\0meta"].concat()).is_err());
    }

    #[test]
    fn a_type_box_in_which_pillow_finds_a_tga_image_is_refused() {
        let file = heic(40, 30);
        let (start, rest) = file.split_at(file[3].into());
        let mut long = start.to_vec();
        long.resize(0x218, 0);
        long[2..4].copy_from_slice(&[2, 0x18]);
        assert!(read(&[&long, rest].concat()).is_err());
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
        assert!(read(&file).is_err());
    }
}
