//! TIFF, revision 6.0: reads the dimensions and orientation of the first page, and the number of pages.
//!
//! DashScope does not document how it treats the pages after the first, so the response has a warning if there are any.
//! All known decoders open the first page, so the other pages may have other sizes, unless the first is marked as a
//! reduced copy of another page. `BigTIFF` is not supported: it is for files over four gigabytes, and no page of such a
//! file would fit into a request.

use super::exif;
use super::format::{Format, Orientation};
use super::header::ImageHeader;
use super::jpeg;
use super::second_size::{Fault, agree};
use super::size::Size;
use super::tagged::TagDirectory;

/// The maximum page count. A file with more pages is reported with this count.
pub(super) const MAX_PAGES_COUNTED: usize = 1000;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const COMPRESSION: u16 = 259;
const STRIP_OFFSETS: u16 = 273;
const STRIP_LENGTHS: u16 = 279;
const TILE_OFFSETS: u16 = 324;
const TILE_LENGTHS: u16 = 325;

const KIND_OF_PAGE: u16 = 254;
const OLD_KIND_OF_PAGE: u16 = 255;
const SUB_DIRECTORIES: u16 = 330;

/// The tags that affect the size. If a tag occurs twice, decoders differ about which field they use.
const ABOUT_SIZE: [u16; 8] = [
    KIND_OF_PAGE,
    OLD_KIND_OF_PAGE,
    IMAGE_WIDTH,
    IMAGE_LENGTH,
    COMPRESSION,
    exif::ORIENTATION_TAG,
    SUB_DIRECTORIES,
    JPEG_OFFSET,
];

/// The maximum number of subdirectories of the first page.
const MAX_SUB_DIRECTORIES: usize = 64;

/// The JPEG compression of revision 6.0. A field of its own gives the offset of its data.
const OLD_JPEG: u32 = 6;
const JPEG_OFFSET: u16 = 513;

/// The maximum number of strips or tiles that are checked.
const MAX_STRIPS: usize = 65_536;

/// Whether the bytes start like a TIFF file.
pub(super) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*")
}

/// Reads the header of bytes that start like a TIFF file.
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    let first = TagDirectory::first(bytes).ok_or("has its first directory outside the file")?;
    let (Some(width), Some(height)) = (first.number(IMAGE_WIDTH), first.number(IMAGE_LENGTH))
    else {
        return Err("does not give its width and height");
    };
    if !first.has(STRIP_OFFSETS) && !first.has(TILE_OFFSETS) {
        return Err("does not say where its pixels are");
    }
    let orientation = first
        .number(exif::ORIENTATION_TAG)
        .map_or_else(Orientation::default, Orientation::from_exif);
    let header = ImageHeader::new(Format::Tiff, Size::new(width, height), orientation);
    Ok(ImageHeader { pages: count_pages(first), ..header })
}

/// Checks that at least one non-empty strip or tile of the first page starts inside the file. Missing lengths are
/// accepted, since decoders guess them.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    let Some(first) = TagDirectory::first(bytes) else { return Err(WITHOUT_PIXELS) };
    let starts_inside = |offset: u32| offset != 0 && (offset as usize) < bytes.len();
    let is_old_jpeg = first.number(COMPRESSION) == Some(OLD_JPEG);
    if is_old_jpeg && first.number(JPEG_OFFSET).is_some_and(starts_inside) {
        return Ok(());
    }
    let (offsets, lengths) = if first.has(STRIP_OFFSETS) {
        (STRIP_OFFSETS, STRIP_LENGTHS)
    } else {
        (TILE_OFFSETS, TILE_LENGTHS)
    };
    let mut lengths = first.numbers(lengths);
    let mut offsets = first.numbers(offsets).take(MAX_STRIPS);
    let found = offsets.any(|offset| lengths.next() != Some(0) && starts_inside(offset));
    if found { Ok(()) } else { Err(WITHOUT_PIXELS) }
}

const WITHOUT_PIXELS: &str = "has no pixels: its strips or tiles are empty or outside the file";

/// Checks that the first page gives only one size. A picture in a subdirectory must not be larger. If the first page is
/// a reduced copy, no other page may be larger.
pub(super) fn check_sizes(bytes: &[u8], stored: Size) -> Result<(), Fault> {
    let Some(first) = TagDirectory::first(bytes) else { return Ok(()) };
    if !first.is_read_whole() {
        return Err(Fault::Rule("has more than 1024 fields in its first directory"));
    }
    if let Some(other) = second_sides(&first) {
        return Err(Fault::SecondSize { stored, other, place: "in a second field of a side" });
    }
    if ABOUT_SIZE.iter().any(|&tag| first.is_twice(tag)) {
        return Err(Fault::Rule("has a field twice that tells of its size"));
    }
    let mut below = first.numbers(SUB_DIRECTORIES);
    for offset in below.by_ref().take(MAX_SUB_DIRECTORIES) {
        check_not_larger(stored, first.sibling(offset), "in a directory below the first")?;
    }
    if below.next().is_some() {
        return Err(Fault::Rule("has more than 64 directories below the first"));
    }
    if is_copy(&first) {
        let mut page = first.next();
        for _ in 0..MAX_PAGES_COUNTED {
            let Some(directory) = page else { break };
            check_not_larger(stored, page, "in the page that the first is a copy of")?;
            page = directory.next();
        }
        if page.is_some() {
            return Err(Fault::Rule("is a copy of one page of more than 1000"));
        }
    }
    check_old_jpeg(bytes, &first, stored)
}

/// The dimensions from the last width and length fields, if either field occurs more than once.
fn second_sides(first: &TagDirectory<'_>) -> Option<Size> {
    let is_twice = first.is_twice(IMAGE_WIDTH) || first.is_twice(IMAGE_LENGTH);
    let last = |tag| first.last_number(tag).unwrap_or_default();
    is_twice.then(|| Size::new(last(IMAGE_WIDTH), last(IMAGE_LENGTH)))
}

/// Whether a page is marked as a copy at reduced resolution.
fn is_copy(page: &TagDirectory<'_>) -> bool {
    page.number(KIND_OF_PAGE).is_some_and(|kind| kind & 1 == 1)
        || page.number(OLD_KIND_OF_PAGE) == Some(2)
}

fn check_not_larger(
    stored: Size,
    page: Option<TagDirectory<'_>>,
    place: &'static str,
) -> Result<(), Fault> {
    let Some(page) = page else { return Ok(()) };
    let side = |tag| page.number(tag).unwrap_or_default();
    let other = Size::new(side(IMAGE_WIDTH), side(IMAGE_LENGTH));
    if other.width > stored.width || other.height > stored.height {
        return Err(Fault::SecondSize { stored, other, place });
    }
    Ok(())
}

/// Checks that the embedded JPEG file of revision 6.0 has the size of the page.
fn check_old_jpeg(bytes: &[u8], first: &TagDirectory<'_>, stored: Size) -> Result<(), Fault> {
    if first.number(COMPRESSION) != Some(OLD_JPEG) {
        return Ok(());
    }
    let start = first.number(JPEG_OFFSET).and_then(|offset| bytes.get(offset as usize..));
    let Some(file) = start.filter(|file| file.starts_with(jpeg::START_OF_IMAGE)) else {
        return Ok(());
    };
    match jpeg::read(file) {
        Ok(header) => agree(stored, header.stored, "in the JPEG inside it"),
        Err(_) => Ok(()),
    }
}

/// Follows the chain of directories until it ends, leaves the file, forms a loop or reaches the maximum count.
fn count_pages(first: TagDirectory<'_>) -> u32 {
    let mut seen = [0; MAX_PAGES_COUNTED];
    let mut pages = 0;
    let mut page = Some(first);
    while let Some(directory) = page {
        if pages == MAX_PAGES_COUNTED || seen[..pages].contains(&directory.offset()) {
            break;
        }
        seen[pages] = directory.offset();
        pages += 1;
        page = directory.next();
    }
    u32::try_from(pages).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder::{Big, Little};
    use super::super::samples::{self, Field};
    use super::*;

    const PAGE: [Field; 3] = [(IMAGE_WIDTH, 3, 40), (IMAGE_LENGTH, 4, 30), (STRIP_OFFSETS, 4, 8)];

    #[test]
    fn sides_are_read_as_short_or_long_in_both_byte_orders() {
        for order in [Big, Little] {
            let header = read(&samples::tiff(order, &[&PAGE])).unwrap();
            assert_eq!((header.stored, header.pages), (Size::new(40, 30), 1));
        }
    }

    #[test]
    fn the_orientation_of_the_first_page_counts() {
        let turned = [PAGE[0], PAGE[1], PAGE[2], (exif::ORIENTATION_TAG, 3, 6)];
        let header = read(&samples::tiff(Little, &[&turned, &PAGE])).unwrap();
        assert_eq!((header.upright(), header.pages), (Size::new(30, 40), 2));
    }

    #[test]
    fn without_sides_or_strips_or_tiles_the_file_is_malformed() {
        let tiled = [PAGE[0], PAGE[1], (TILE_OFFSETS, 4, 8)];
        assert!(read(&samples::tiff(Big, &[&tiled])).is_ok());
        let missing = read(&samples::tiff(Big, &[&PAGE[..2]]));
        assert_eq!(missing, Err("does not say where its pixels are"));
        let missing = read(&samples::tiff(Big, &[&PAGE[1..]]));
        assert_eq!(missing, Err("does not give its width and height"));
    }

    #[test]
    fn a_strip_or_tile_must_start_within_the_file_and_have_a_length() {
        let with = |fields: &[Field]| {
            let file = samples::tiff(Little, &[&[&PAGE[..2], fields].concat()]);
            check_picture(&file)
        };
        let end = u32::try_from(samples::tiff(Little, &[&PAGE]).len()).unwrap();
        assert_eq!(with(&[(STRIP_OFFSETS, 4, 8)]), Ok(()));
        assert_eq!(with(&[(STRIP_OFFSETS, 4, 8), (STRIP_LENGTHS, 4, 5)]), Ok(()));
        assert_eq!(with(&[(TILE_OFFSETS, 4, 8), (TILE_LENGTHS, 3, 5)]), Ok(()));
        let old = [(COMPRESSION, 3, OLD_JPEG), (STRIP_OFFSETS, 4, 0), (JPEG_OFFSET, 4, 8)];
        assert_eq!(with(&old), Ok(()));
        for without in [
            &[(STRIP_OFFSETS, 4, end)][..],
            &[(STRIP_OFFSETS, 4, 0)],
            &[(STRIP_OFFSETS, 4, u32::MAX)],
            &[(STRIP_OFFSETS, 4, 8), (STRIP_LENGTHS, 4, 0)],
            &[(TILE_OFFSETS, 4, end + 24)],
            &[(TILE_OFFSETS, 4, 8), (TILE_LENGTHS, 4, 0)],
        ] {
            assert_eq!(with(without), Err(WITHOUT_PIXELS), "{without:?}");
        }
    }

    #[test]
    fn one_strip_of_many_within_the_file_is_enough() {
        let mut file = samples::tiff(Big, &[&PAGE]);
        let list = u32::try_from(file.len()).unwrap();
        // The third field gives the count, three, and the offset of the list.
        file[8 + 2 + 2 * 12 + 7] = 3;
        file[8 + 2 + 2 * 12 + 8..][..4].copy_from_slice(&list.to_be_bytes());
        let with = |offsets: [u32; 3]| {
            let file = [&file[..], offsets.map(u32::to_be_bytes).as_flattened()].concat();
            check_picture(&file)
        };
        assert_eq!(with([0, u32::MAX, 8]), Ok(()));
        assert_eq!(with([0, u32::MAX, 1 << 20]), Err(WITHOUT_PIXELS));
        assert_eq!(check_picture(&file), Err(WITHOUT_PIXELS), "the list is cut off");
    }

    #[test]
    fn a_side_of_another_type_or_of_several_values_is_none() {
        let rational = [(IMAGE_WIDTH, 5, 40), PAGE[1], PAGE[2]];
        assert!(read(&samples::tiff(Big, &[&rational])).is_err());
        let mut several = samples::tiff(Big, &[&PAGE]);
        several[17] = 2;
        assert!(read(&several).is_err());
    }

    /// The result for a first page with these additional fields, followed by other pages.
    fn sizes_with(fields: &[Field], others: &[&[Field]]) -> Result<(), Fault> {
        let first = [&PAGE, fields].concat();
        for order in [Big, Little] {
            let file = samples::tiff(order, &[&[&first[..]], others].concat());
            check_sizes(&file, Size::new(40, 30))?;
        }
        Ok(())
    }

    #[test]
    fn a_field_that_stands_twice_is_refused_where_it_tells_of_the_size() {
        for (field, width, height) in
            [((IMAGE_WIDTH, 3, 2_000), 2_000, 30), ((IMAGE_LENGTH, 4, 2_000), 40, 2_000)]
        {
            let (stored, other) = (Size::new(40, 30), Size::new(width, height));
            let place = "in a second field of a side";
            let refused = Err(Fault::SecondSize { stored, other, place });
            assert_eq!(sizes_with(&[field], &[]), refused);
        }
        assert!(sizes_with(&[(IMAGE_WIDTH, 3, 40)], &[]).is_err(), "the same again");
        assert!(sizes_with(&[(IMAGE_WIDTH, 5, 8)], &[]).is_err(), "of another type");
        assert!(sizes_with(&[(KIND_OF_PAGE, 4, 0), (KIND_OF_PAGE, 4, 1)], &[]).is_err());
        assert!(sizes_with(&[(exif::ORIENTATION_TAG, 3, 6); 2], &[]).is_err());
        assert_eq!(sizes_with(&[(305, 4, 0), (305, 4, 0)], &[]), Ok(()), "only text");
        assert_eq!(sizes_with(&[(STRIP_OFFSETS, 4, 9)], &[]), Ok(()), "only a place");
    }

    #[test]
    fn a_second_field_behind_any_number_of_others_is_refused() {
        let many = vec![(40_000, 4, 0); 1_100];
        assert!(sizes_with(&[&many[..], &[(IMAGE_WIDTH, 3, 2_000)]].concat(), &[]).is_err());
    }

    #[test]
    fn other_pages_may_be_larger_unless_the_first_is_a_copy_of_them() {
        let large = [(IMAGE_WIDTH, 4, 400), (IMAGE_LENGTH, 4, 300), (STRIP_OFFSETS, 4, 8)];
        assert_eq!(sizes_with(&[], &[&large]), Ok(()));
        for kind in [(KIND_OF_PAGE, 4, 1), (KIND_OF_PAGE, 3, 3), (OLD_KIND_OF_PAGE, 3, 2)] {
            assert_eq!(sizes_with(&[kind], &[&PAGE]), Ok(()));
            assert!(matches!(sizes_with(&[kind], &[&PAGE, &large]), Err(Fault::SecondSize { .. })));
        }
        assert_eq!(sizes_with(&[(KIND_OF_PAGE, 4, 2)], &[&large]), Ok(()));
    }

    #[test]
    fn a_larger_picture_below_the_first_is_refused() {
        let large = [(IMAGE_WIDTH, 4, 400), (IMAGE_LENGTH, 4, 300), (STRIP_OFFSETS, 4, 8)];
        // The second directory comes after a count, four fields and the offset of the next directory.
        for kind in [4, 13] {
            let below = (SUB_DIRECTORIES, kind, 8 + 2 + 4 * 12 + 4);
            assert_eq!(sizes_with(&[below], &[&PAGE]), Ok(()));
            assert!(matches!(sizes_with(&[below], &[&large]), Err(Fault::SecondSize { .. })));
        }
    }

    #[test]
    fn directories_that_are_too_many_to_look_at_are_refused() {
        let pages = vec![&PAGE[..]; MAX_PAGES_COUNTED];
        assert_eq!(sizes_with(&[(KIND_OF_PAGE, 4, 1)], &pages), Ok(()));
        let more = [&pages[..], &[&PAGE]].concat();
        assert!(sizes_with(&[(KIND_OF_PAGE, 4, 1)], &more).is_err());
        assert_eq!(sizes_with(&[], &more), Ok(()));
        for (count, is_taken) in [(MAX_SUB_DIRECTORIES, true), (MAX_SUB_DIRECTORIES + 1, false)] {
            let mut file =
                samples::tiff(Little, &[&[&PAGE[..], &[(SUB_DIRECTORIES, 4, 0)]].concat()]);
            // The value of the last field becomes the offset of a list appended to the file.
            let (field, list) = (8 + 2 + 3 * 12, file.len());
            file[field + 4..][..4].copy_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
            file[field + 8..][..4].copy_from_slice(&u32::try_from(list).unwrap().to_le_bytes());
            file.resize(list + 4 * count, 0);
            assert_eq!(check_sizes(&file, Size::new(40, 30)).is_ok(), is_taken, "{count}");
        }
    }

    #[test]
    fn an_old_jpeg_has_the_size_of_its_page() {
        let with = |jpeg: &[u8]| {
            let end = 8 + 2 + 5 * 12 + 4;
            let fields = [(COMPRESSION, 3, OLD_JPEG), (JPEG_OFFSET, 4, end)];
            let file = samples::tiff(Little, &[&[&PAGE[..], &fields].concat()]);
            check_sizes(&[file, jpeg.to_vec()].concat(), Size::new(40, 30))
        };
        assert_eq!(with(&samples::jpeg(40, 30)), Ok(()));
        assert_eq!(with(b"a table"), Ok(()));
        assert!(matches!(with(&samples::jpeg(400, 300)), Err(Fault::SecondSize { .. })));
    }

    #[test]
    fn pages_are_counted_up_to_the_bound() {
        for pages in [3, MAX_PAGES_COUNTED, MAX_PAGES_COUNTED + 7] {
            let file = samples::tiff(Little, &vec![&PAGE[..]; pages]);
            let counted = pages.min(MAX_PAGES_COUNTED);
            assert_eq!(read(&file).map(|header| header.pages as usize), Ok(counted));
        }
    }

    #[test]
    fn a_chain_that_comes_back_to_itself_ends_there() {
        let mut file = samples::tiff(Little, &[&PAGE, &PAGE, &PAGE]);
        let end = file.len();
        let second = u8::try_from(8 + 2 + 3 * 12 + 4).unwrap();
        file[end - 4..].copy_from_slice(&[second, 0, 0, 0]);
        assert_eq!(read(&file).map(|header| header.pages), Ok(3));
    }
}
