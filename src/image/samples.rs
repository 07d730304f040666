//! The smallest files of every format with a valid header, for tests. Each has one or two bytes of picture data.

use super::byte_order::ByteOrder;
use super::format::Format;
use super::png::checksum;

/// Tag, type and value of a field in a directory.
pub(super) type Field = (u16, u16, u32);

/// At least one file of every format.
pub(super) fn all(width: u32, height: u32) -> Vec<(Format, Vec<u8>)> {
    let sides = [(256, 4, width), (257, 4, height), (273, 4, 8)];
    let signed = i32::try_from(width).unwrap();
    vec![
        (Format::Jpeg, [jpeg(width, height), JPEG_SCAN.to_vec()].concat()),
        (Format::Png, whole_png(width, height)),
        (Format::Webp, webp_lossy(width, height)),
        (Format::Bmp, bmp(signed, height.cast_signed())),
        (Format::Bmp, bmp_core(width, height)),
        (Format::Tiff, tiff(ByteOrder::Big, &[&sides])),
        (Format::Tiff, tiff(ByteOrder::Little, &[&sides])),
        (Format::Heic, heic(width, height)),
    ]
}

fn low_half(number: u32) -> u16 {
    u16::try_from(number).unwrap()
}

/// A scan with one byte of data.
pub(super) const JPEG_SCAN: [u8; 11] = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 0x3f, 0, 0x55];

/// A JPEG up to and including its frame header.
pub(crate) fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let sides = [low_half(height), low_half(width)].map(u16::to_be_bytes);
    let frame = [0xff, 0xd8, 0xff, 0xc0, 0, 17, 8];
    [&frame[..], sides.as_flattened(), &[3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]].concat()
}

pub(super) fn app1(exif: &[u8]) -> Vec<u8> {
    let length = u16::try_from(2 + 6 + exif.len()).unwrap().to_be_bytes();
    [&[0xff, 0xe1][..], &length, b"Exif\0\0", exif].concat()
}

pub(super) fn exif(order: ByteOrder, orientation: u16) -> Vec<u8> {
    tiff(order, &[&[(0x0112, 3, orientation.into())]])
}

pub(crate) fn whole_png(width: u32, height: u32) -> Vec<u8> {
    [png(width, height), png_data()].concat()
}

/// A chunk of picture data.
pub(super) fn png_data() -> Vec<u8> {
    png_chunk(*b"IDAT", &[0x78, 0x9c, 0x03])
}

/// A PNG up to and including its IHDR.
pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    png_with(width, height, [8, 2, 0, 0, 0])
}

pub(super) fn png_with(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(*b"IHDR", &header)].concat()
}

/// A chunk with its checksum.
pub(super) fn png_chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let checked = [&kind[..], data].concat();
    [&length[..], &checked, &checksum(&checked).to_be_bytes()].concat()
}

pub(super) fn riff_chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_le_bytes();
    let padding = vec![0; data.len() % 2];
    [&kind[..], &length, data, &padding].concat()
}

fn webp(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    [&b"RIFF\x40\0\0\0WEBP"[..], &riff_chunk(kind, data)].concat()
}

pub(super) fn webp_lossy(width: u32, height: u32) -> Vec<u8> {
    let sides = [low_half(width), low_half(height)].map(u16::to_le_bytes);
    webp(*b"VP8 ", &[&[0x10, 0, 0, 0x9d, 0x01, 0x2a][..], sides.as_flattened(), &[0]].concat())
}

pub(super) fn webp_lossless(width: u32, height: u32) -> Vec<u8> {
    let packed = (width - 1) | ((height - 1) << 14);
    webp(*b"VP8L", &[&[0x2f][..], &packed.to_le_bytes(), &[0]].concat())
}

pub(super) fn webp_extended(width: u32, height: u32) -> Vec<u8> {
    let [width, height] = [width - 1, height - 1].map(u32::to_le_bytes);
    webp(*b"VP8X", &[&[8, 0, 0, 0][..], &width[..3], &height[..3]].concat())
}

pub(super) fn bmp(width: i32, height: i32) -> Vec<u8> {
    let sides = [width, height].map(i32::to_le_bytes);
    let start = [&b"BM"[..], &[0; 12], &[40, 0, 0, 0]].concat();
    [&start, sides.as_flattened(), &[1, 0, 24, 0], &[0; 24], &[0; 4]].concat()
}

pub(super) fn bmp_core(width: u32, height: u32) -> Vec<u8> {
    let sides = [low_half(width), low_half(height)].map(u16::to_le_bytes);
    let start = [&b"BM"[..], &[0; 12], &[12, 0, 0, 0]].concat();
    [&start, sides.as_flattened(), &[1, 0, 24, 0], &[0; 4]].concat()
}

/// A chain of adjacent directories that starts at byte eight.
pub(super) fn tiff(order: ByteOrder, pages: &[&[Field]]) -> Vec<u8> {
    let short = |number: u16| match order {
        ByteOrder::Big => number.to_be_bytes(),
        ByteOrder::Little => number.to_le_bytes(),
    };
    let long = |number: u32| match order {
        ByteOrder::Big => number.to_be_bytes(),
        ByteOrder::Little => number.to_le_bytes(),
    };
    let magic = if order == ByteOrder::Big { b"MM\0*" } else { b"II*\0" };
    let mut file = [&magic[..], &long(8)].concat();
    for (index, page) in pages.iter().enumerate() {
        file.extend(short(u16::try_from(page.len()).unwrap()));
        for &(tag, kind, number) in *page {
            file.extend([short(tag), short(kind)].as_flattened());
            file.extend(long(1));
            // A SHORT is stored in the first half of the value field.
            let value = if kind == 3 {
                [short(low_half(number)), [0; 2]].concat()
            } else {
                long(number).to_vec()
            };
            file.extend(value);
        }
        let is_last = index + 1 == pages.len();
        let next = if is_last { 0 } else { u32::try_from(file.len() + 4).unwrap() };
        file.extend(long(next));
    }
    file
}

pub(super) fn iso_box(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap().to_be_bytes();
    [&length[..], &kind, body].concat()
}

pub(super) fn ispe(width: u32, height: u32) -> Vec<u8> {
    let sides = [0, width, height].map(u32::to_be_bytes);
    iso_box(*b"ispe", sides.as_flattened())
}

pub(super) fn heic(width: u32, height: u32) -> Vec<u8> {
    heic_with(&[ispe(width, height)], &[1])
}

/// A file in which the primary picture is item one and has the properties with the indices in `associated`. Its coded
/// size is that of the first `ispe` among them.
pub(super) fn heic_with(properties: &[Vec<u8>], associated: &[u8]) -> Vec<u8> {
    let side =
        |property: &[u8], at: usize| u32::from_be_bytes(*property[at..].first_chunk().unwrap());
    let extents = associated.iter().filter_map(|&index| {
        let property = properties.get(usize::from(index & 0x7f).checked_sub(1)?)?;
        (property.get(4..8)? == b"ispe").then(|| (side(property, 12), side(property, 16)))
    });
    let (width, height) = extents.take(1).last().unwrap_or((40, 30));
    heic_coded(properties, associated, &[hevc_parameter_set(width, height)], &[0])
}

/// The file of [`heic_with`] with these units in its decoder configuration, and with this coded data.
pub(super) fn heic_coded(
    properties: &[Vec<u8>],
    associated: &[u8],
    units: &[Vec<u8>],
    data: &[u8],
) -> Vec<u8> {
    let low = |length: usize| u8::try_from(length).unwrap();
    // The length field before each unit of the data has four bytes. There is one array of parameter sets.
    let mut configuration = [&[0; 21][..], &[3, 1, 0x21, 0, low(units.len())]].concat();
    for unit in units {
        configuration.extend([&[0, low(unit.len())][..], unit].concat());
    }
    let properties = [properties, &[iso_box(*b"hvcC", &configuration)]].concat();
    let associated = [associated, &[low(properties.len())]].concat();
    let head = [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, low(associated.len())];
    let associations = iso_box(*b"ipma", &[&head[..], &associated].concat());
    let properties = [iso_box(*b"ipco", &properties.concat()), associations].concat();
    let primary = iso_box(*b"pitm", &[0, 0, 0, 0, 0, 1]);
    let entry = iso_box(*b"infe", b"\x02\0\0\0\0\x01\0\0hvc1\0");
    let list = iso_box(*b"iinf", &[&[0, 0, 0, 0, 0, 1][..], &entry].concat());
    // The data is one extent at the end of the file. Its offset and its length have four bytes each.
    let location = |offset: usize| {
        let [offset, length] =
            [offset, data.len()].map(|number| u32::try_from(number).unwrap().to_be_bytes());
        let item = [&[0, 0, 0, 0, 0x44, 0, 0, 1, 0, 1, 0, 0, 0, 1][..], &offset, &length].concat();
        iso_box(*b"iloc", &item)
    };
    let file = |offset: usize| {
        let (primary, properties) = (primary.clone(), iso_box(*b"iprp", &properties));
        let parts = [vec![0; 4], primary, list.clone(), properties, location(offset)];
        let meta = iso_box(*b"meta", &parts.concat());
        [iso_box(*b"ftyp", b"heic\0\0\0\0mif1"), meta, iso_box(*b"mdat", data)].concat()
    };
    file(file(0).len() - data.len())
}

/// A unit that gives the size of a coded picture.
pub(super) fn hevc_parameter_set(width: u32, height: u32) -> Vec<u8> {
    let mut bits = String::new();
    // One layer, then profile and level.
    bits += "00000000";
    bits += &"1".repeat(96);
    // Exp-Golomb: a number is preceded by as many zeros as it has bits below the highest.
    for number in [0, 1, width, height] {
        let number = format!("{:b}", number + 1);
        bits += &"0".repeat(number.len() - 1);
        bits += &number;
    }
    // There is no conformance window, and the fields after it are not read.
    bits += &"0".repeat(24 - bits.len() % 8);
    let bytes = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |sum, &bit| sum << 1 | (bit - b'0')));
    [0x42, 1].into_iter().chain(bytes).collect()
}
