//! Pages of every kind, built field by field.

use std::io::Cursor;

use ::tiff::encoder::{Compression, Predictor, TiffEncoder, colortype};
use proptest::prelude::*;

use super::*;
use crate::image::byte_order::ByteOrder;
use crate::image::byte_order::ByteOrder::{Big, Little};
use crate::image::probe::probe;
use crate::pixels::decode::decode as decode_picture;
use crate::pixels::drawn::{difference, low, scene};
use crate::pixels::raster::Samples;

const SHORT: u16 = 3;
const LONG: u16 = 4;

/// A directory and its strips.
#[derive(Clone)]
struct Page {
    fields: Vec<(u16, u16, Vec<u32>)>,
    strips: Vec<Vec<u8>>,
}

impl Page {
    /// A page of gray with one strip.
    fn new(size: Size, bits: u32, strip: &[u8]) -> Self {
        let fields = [(256, size.width), (257, size.height), (258, bits), (262, 1)];
        let fields = fields.into_iter().map(|(tag, value)| (tag, LONG, vec![value]));
        Self { fields: fields.collect(), strips: vec![strip.to_vec()] }
    }

    fn with(mut self, tag: u16, values: &[u32]) -> Self {
        self.fields.retain(|(present, ..)| *present != tag);
        self.fields.push((tag, SHORT, values.to_vec()));
        self
    }

    fn in_strips(mut self, rows: u32, strips: Vec<Vec<u8>>) -> Self {
        self.strips = strips;
        self.with(278, &[rows])
    }
}

struct Writer {
    order: ByteOrder,
    file: Vec<u8>,
}

impl Writer {
    fn short(&mut self, value: u32) {
        let value = u16::try_from(value).unwrap();
        self.file.extend(match self.order {
            Big => value.to_be_bytes(),
            Little => value.to_le_bytes(),
        });
    }

    fn long(&mut self, value: u32) {
        let bytes = self.bytes_of(value);
        self.file.extend(bytes);
    }

    fn bytes_of(&self, value: u32) -> [u8; 4] {
        match self.order {
            Big => value.to_be_bytes(),
            Little => value.to_le_bytes(),
        }
    }

    fn here(&mut self) -> u32 {
        self.file.resize(self.file.len().next_multiple_of(2), 0);
        u32::try_from(self.file.len()).unwrap()
    }

    fn values(&mut self, kind: u16, values: &[u32]) {
        for &value in values {
            if kind == SHORT { self.short(value) } else { self.long(value) }
        }
    }

    /// Writes a page and returns the place of the offset of the next.
    fn page(&mut self, page: &Page, place_of_offset: usize) -> usize {
        let mut fields = page.fields.clone();
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        for strip in &page.strips {
            offsets.push(self.here());
            lengths.push(u32::try_from(strip.len()).unwrap());
            self.file.extend(strip);
        }
        let is_tiled = fields.iter().any(|(tag, ..)| *tag == 322);
        let (place, length) = if is_tiled { (324, 325) } else { (273, 279) };
        fields.extend([(place, LONG, offsets), (length, LONG, lengths)]);
        fields.sort_by_key(|(tag, ..)| *tag);
        let mut places = Vec::new();
        for (_, kind, values) in &fields {
            let is_outside = values.len() * if *kind == SHORT { 2 } else { 4 } > 4;
            places.push(is_outside.then(|| self.here()));
            if is_outside {
                self.values(*kind, values);
            }
        }
        let here = self.here();
        let offset = self.bytes_of(here);
        self.file[place_of_offset..][..4].copy_from_slice(&offset);
        self.short(u32::try_from(fields.len()).unwrap());
        for ((tag, kind, values), place) in fields.iter().zip(places) {
            self.short((*tag).into());
            self.short((*kind).into());
            self.long(u32::try_from(values.len()).unwrap());
            let end = self.file.len() + 4;
            match place {
                Some(place) => self.long(place),
                None => self.values(*kind, values),
            }
            self.file.resize(end, 0);
        }
        self.long(0);
        self.file.len() - 4
    }
}

fn file(order: ByteOrder, pages: &[Page]) -> Vec<u8> {
    let mark = if order == Big { *b"MM\0*" } else { *b"II*\0" };
    let mut writer = Writer { order, file: [&mark[..], &[0; 4]].concat() };
    let mut place = 4;
    for page in pages {
        place = writer.page(page, place);
    }
    writer.file
}

/// The samples of a page in both byte orders, which must agree.
fn decoded(page: &Page) -> Result<Raster, PixelsError> {
    let [big, little] = [Big, Little].map(|order| {
        let file = TiffFile::open(file(order, std::slice::from_ref(page)).into()).unwrap();
        file.decode(1)
    });
    assert_eq!(big, little);
    big
}

fn samples_of(page: &Page) -> (Samples, Vec<u8>) {
    let page = decoded(page).unwrap();
    (page.samples(), page.into_data())
}

#[test]
fn gray_of_any_depth_is_read_with_black_or_white_as_zero() {
    for (bits, row, levels) in [
        (1, vec![0b0110_0000], [0, 255, 255, 0]),
        (2, vec![0b0001_1011], [0, 85, 170, 255]),
        (4, vec![0x01, 0x8f], [0, 17, 136, 255]),
        (8, vec![0, 7, 200, 255], [0, 7, 200, 255]),
    ] {
        let page = Page::new(Size::new(4, 2), bits, &[&row[..], &row].concat());
        let expected = [levels, levels].concat();
        assert_eq!(samples_of(&page), (Samples::Gray, expected.clone()), "{bits}");
        let inverted = expected.iter().map(|level| 255 - level).collect();
        assert_eq!(samples_of(&page.with(262, &[0])), (Samples::Gray, inverted), "{bits}");
    }
}

#[test]
fn samples_of_16_bits_keep_their_upper_half() {
    for (order, row) in [(Big, [1, 99, 200, 0]), (Little, [99, 1, 0, 200])] {
        let page = Page::new(Size::new(2, 1), 16, &row);
        let read = TiffFile::open(file(order, &[page]).into()).unwrap().decode(1).unwrap();
        assert_eq!(read.data(), [1, 200]);
    }
}

#[test]
fn palettes_of_any_depth_are_applied() {
    for (bits, row) in [(1, [0b0100_0000]), (4, [0x01]), (2, [0b0001_0000])] {
        let colours = 1 << bits;
        let mut map = vec![0; 3 * colours];
        for (part, levels) in
            [[0x1100, 0x2200], [0x3300, 0x4400], [0x5500, 0x66ff]].iter().enumerate()
        {
            map[part * colours..][..2].copy_from_slice(levels);
        }
        let page = Page::new(Size::new(2, 1), bits, &row).with(262, &[3]).with(320, &map);
        let expected = vec![0x11, 0x33, 0x55, 0x22, 0x44, 0x66];
        assert_eq!(samples_of(&page), (Samples::Rgb, expected), "{bits}");
    }
    let grays = [&(0..256).collect::<Vec<u32>>()[..]; 3].concat();
    let page = Page::new(Size::new(2, 1), 8, &[7, 250]).with(262, &[3]).with(320, &grays);
    assert_eq!(samples_of(&page), (Samples::Gray, vec![7, 250]), "levels of 8 bits, all gray");
    let short = page.with(320, &grays[..767]);
    assert!(matches!(decoded(&short), Err(PixelsError::Damaged { .. })));
}

#[test]
fn colours_and_opacity_are_read_together_and_in_planes() {
    let rgb = [[10, 20, 30], [200, 100, 0]];
    let with = |fourth: [u8; 2]| {
        rgb.iter().zip(fourth).flat_map(|(rgb, last)| [&rgb[..], &[last]].concat())
    };
    let of = |photometric, samples: u32, pixels: Vec<u8>| {
        let page =
            Page::new(Size::new(2, 1), 8, &pixels).with(262, &[photometric]).with(277, &[samples]);
        page.with(258, &vec![8; samples as usize])
    };
    let inks = vec![245, 235, 225, 0, 55, 155, 255, 128];
    for (name, page, expected) in [
        ("RGB", of(2, 3, rgb.concat()), [10, 20, 30, 200, 100, 0]),
        ("RGBA", of(2, 4, with([255, 0]).collect()).with(338, &[2]), [10, 20, 30, 255, 255, 255]),
        (
            "multiplied",
            of(2, 4, with([255, 200]).collect()).with(338, &[1]),
            [10, 20, 30, 255, 155, 55],
        ),
        ("without the field", of(2, 4, with([255, 0]).collect()), [10, 20, 30, 255, 255, 255]),
        (
            "something else",
            of(2, 4, with([255, 0]).collect()).with(338, &[0]),
            [10, 20, 30, 200, 100, 0],
        ),
        ("inks", of(5, 4, inks), [10, 20, 30, 100, 50, 0]),
    ] {
        assert_eq!(samples_of(&page), (Samples::Rgb, expected.to_vec()), "{name}");
        let has_opacity = ["RGBA", "multiplied", "without the field"].contains(&name);
        assert_eq!(decoded(&page).unwrap().is_uncertain(), has_opacity, "{name}");
        let (pixels, samples) = (&page.strips[0], page.strips[0].len() / 2);
        let planes = (0..samples).map(|sample| vec![pixels[sample], pixels[samples + sample]]);
        let planar = page.clone().in_strips(1, planes.collect()).with(284, &[2]);
        assert_eq!(samples_of(&planar), (Samples::Rgb, expected.to_vec()), "{name} in planes");
    }
    let gray = of(0, 2, vec![10, 255, 99, 0]).with(338, &[2]);
    assert_eq!(samples_of(&gray), (Samples::Gray, vec![245, 255]));
}

#[test]
fn strips_and_tiles_are_put_together() {
    let expected = scene(Size::new(37, 29), Samples::Gray);
    let rows: Vec<Vec<u8>> = expected.data().chunks(37 * 8).map(<[u8]>::to_vec).collect();
    let strips = Page::new(expected.size(), 8, &[]).in_strips(8, rows);
    assert_eq!(decoded(&strips), Ok(expected.clone()));
    let tile = |left: usize, top: usize| {
        let pixel = |(x, y)| if x < 37 && y < 29 { expected.data()[y * 37 + x] } else { 9 };
        (top..top + 16).flat_map(|y| (left..left + 16).map(move |x| (x, y))).map(pixel).collect()
    };
    let tiles = [(0, 0), (16, 0), (32, 0), (0, 16), (16, 16), (32, 16)];
    let tiles = tiles.map(|(left, top)| tile(left, top)).to_vec();
    let mut page = Page::new(expected.size(), 8, &[]).with(322, &[16]).with(323, &[16]);
    page.strips = tiles;
    assert_eq!(decoded(&page), Ok(expected));
}

#[test]
fn every_lossless_compression_is_read() {
    let (gray, rgb) =
        (scene(Size::new(61, 43), Samples::Gray), scene(Size::new(61, 43), Samples::Rgb));
    for (name, compression) in [
        ("none", Compression::Uncompressed),
        ("LZW", Compression::Lzw),
        ("deflate", Compression::Deflate(::tiff::encoder::DeflateLevel::Fast)),
        ("packbits", Compression::Packbits),
    ] {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            let encoded = |picture: &Raster| {
                let mut file = Cursor::new(Vec::new());
                let mut encoder = TiffEncoder::new(&mut file)
                    .unwrap()
                    .with_compression(compression)
                    .with_predictor(predictor);
                match picture.samples() {
                    Samples::Gray => {
                        encoder.write_image::<colortype::Gray8>(61, 43, picture.data())
                    }
                    Samples::Rgb => encoder.write_image::<colortype::RGB8>(61, 43, picture.data()),
                }
                .unwrap();
                TiffFile::open(file.into_inner().into()).unwrap().decode(1)
            };
            assert_eq!(encoded(&gray), Ok(gray.clone()), "{name}");
            assert_eq!(encoded(&rgb), Ok(rgb.clone()), "{name}");
        }
    }
}

/// A page of JPEG in strips of 16 rows.
fn jpeg_page(picture: &Raster, photometric: u32) -> Page {
    let samples = picture.samples().count();
    let strips = picture.data().chunks(picture.size().width as usize * samples * 16);
    let strips = strips.map(|strip| {
        let rows = strip.len() / samples / picture.size().width as usize;
        let size = Size::new(picture.size().width, u32::try_from(rows).unwrap());
        let strip = Raster::new(size, picture.samples(), strip.to_vec()).unwrap();
        let quality = crate::pixels::encode::Encoding::Jpeg { quality: 98 };
        crate::pixels::encode::encode(&strip, quality).unwrap()
    });
    let page = Page::new(picture.size(), 8, &[]).in_strips(16, strips.collect());
    let samples = u32::try_from(samples).unwrap();
    page.with(259, &[7]).with(262, &[photometric]).with(277, &[samples])
}

#[test]
fn strips_of_jpeg_are_read_and_none_may_be_larger_than_its_place() {
    for (samples, photometric) in [(Samples::Gray, 1), (Samples::Rgb, 6)] {
        let expected = scene(Size::new(64, 40), samples);
        let page = jpeg_page(&expected, photometric);
        assert!(difference(&decoded(&page).unwrap(), &expected) <= 8);
        let strip = &page.strips[0];
        let cut = Page {
            strips: [&[strip[..strip.len() / 2].to_vec()][..], &page.strips[1..]].concat(),
            ..page.clone()
        };
        assert!(matches!(decoded(&cut), Err(PixelsError::Damaged { .. })), "no part is left gray");
        let large = jpeg_page(&scene(Size::new(640, 16), samples), photometric);
        let swapped = Page { strips: [&large.strips[..], &page.strips[1..]].concat(), ..page };
        assert!(matches!(decoded(&swapped), Err(PixelsError::SizeDiffers { .. })));
    }
}

#[test]
fn a_page_of_a_kind_that_is_not_decoded_is_refused_by_name() {
    let page = Page::new(Size::new(2, 1), 8, &[0; 64]);
    let three = page.clone().with(277, &[3]).with(258, &[8; 3]);
    for (page, what) in [
        (page.clone().with(258, &[32]).with(339, &[3]), "a TIFF of floating-point samples"),
        (page.clone().with(339, &[2]), "a TIFF of signed samples"),
        (page.clone().with(258, &[32]), "a TIFF with more than 16 bits a sample"),
        (
            page.clone().with(258, &[12]),
            "a TIFF with a number of bits a sample other than 1, 2, 4, 8 and 16",
        ),
        (three.clone().with(262, &[8]), "a TIFF in CIE L*a*b* colours"),
        (three.clone().with(262, &[32_845]), "a TIFF in LogLuv colours"),
        (three.with(262, &[6]), "a TIFF in YCbCr colours without JPEG compression"),
        (page.clone().with(262, &[2]), "a TIFF with too few samples or bits for its colours"),
        (page.clone().with(262, &[4]), "a TIFF mask"),
        (page.clone().with(259, &[6]), "a TIFF with JPEG compression of the old kind (6)"),
        (page.clone().with(259, &[34_712]), "a TIFF with JPEG 2000 compression"),
        (page.with(259, &[999]), "a TIFF with an unknown compression"),
    ] {
        assert_eq!(decoded(&page), Err(PixelsError::Unsupported { what }));
    }
}

#[test]
fn pages_are_counted_and_read_each_for_itself() {
    let pages = [(4, 2, 1), (3, 5, 6), (9, 1, 3)];
    let of = |(width, height, orientation): (u32, u32, u32)| {
        let strip = vec![low(width); (width * height) as usize];
        Page::new(Size::new(width, height), 8, &strip).with(274, &[orientation])
    };
    let mut all = pages.map(of).to_vec();
    all.insert(1, of((1, 1, 1)).with(254, &[1]));
    all.insert(2, of((1, 1, 1)).with(254, &[4]));
    all.push(Page::new(Size::new(0, 9), 8, &[0]));
    let file = TiffFile::open(file(Little, &all).into()).unwrap();
    assert_eq!(file.pages(), 4, "a reduced copy and a mask are no pages");
    for (number, (width, height, orientation)) in (1..).zip(pages) {
        let page = file.page(number).unwrap();
        let stored = Size::new(width, height);
        let orientation = Orientation::from_exif(orientation);
        assert_eq!(page, TiffPage { stored, orientation });
        assert_eq!(
            file.decode(number).unwrap(),
            Raster::filled(stored, Samples::Gray, low(width)).unwrap()
        );
    }
    assert!(
        matches!(file.page(4), Err(PixelsError::Damaged { .. })),
        "the broken page alone fails"
    );
    for page in [0, 5, u32::MAX] {
        assert_eq!(file.decode(page), Err(PixelsError::PageMissing { page, pages: 4 }));
    }
}

#[test]
fn a_chain_that_comes_back_to_itself_ends_there() {
    let page = Page::new(Size::new(2, 1), 8, &[1, 2]);
    let mut bytes = file(Little, &[page.clone(), page]);
    let (first, end) = (bytes[4..8].to_vec(), bytes.len() - 4);
    bytes[end..].copy_from_slice(&first);
    let file = TiffFile::open(bytes.into()).unwrap();
    assert_eq!((file.pages(), file.decode(2).unwrap().data()), (2, &[1, 2][..]));
}

#[test]
fn rows_of_fax_codes_are_read_in_either_order_of_bits() {
    // T.4, table 2: white 4 is 1011, black 4 is 011, white 8 is 10011, and each row is filled up to a byte.
    let (half, white) = (0b1011_0110, 0b1001_1000);
    for is_from_low_bit in [false, true] {
        let rows =
            [half, white].map(|row: u8| if is_from_low_bit { row.reverse_bits() } else { row });
        let page = Page::new(Size::new(8, 2), 1, &rows)
            .with(259, &[2])
            .with(266, &[1 + u32::from(is_from_low_bit)]);
        let expected = [&[255; 4][..], &[0; 4], &[255; 8]].concat();
        assert_eq!(samples_of(&page.clone().with(262, &[0])), (Samples::Gray, expected.clone()));
        let inverted = expected.iter().map(|level| 255 - level).collect();
        assert_eq!(samples_of(&page), (Samples::Gray, inverted));
    }
}

#[test]
fn every_coding_of_fax_machines_gives_the_same_page() {
    let read = |name| std::fs::read(format!("tests/fixtures/fax/{name}")).unwrap();
    let page = read("page.png");
    let page = decode_picture(&page, &probe(&page).unwrap()).unwrap();
    for name in [
        "group3.tif",
        "group3-two-dimensional.tif",
        "group4.tif",
        "group4-strips.tif",
        "group4-white-is-zero.tif",
        "runs.tif",
    ] {
        let file = read(name);
        let decoded = TiffFile::open(file.clone().into()).unwrap().decode(1);
        assert!(decoded == Ok(page.clone()), "{name}");
        // Rows that are lost stay white, and those before are kept.
        let end = file.len() / 3;
        let lost = [&file[..end], &vec![0; file.len() / 4], &file[end + file.len() / 4..]].concat();
        if let Ok(lost) = TiffFile::open(lost.into()).unwrap().decode(1) {
            assert_eq!(
                (lost.size(), &lost.data()[..203 * 4]),
                (page.size(), &page.data()[..203 * 4]),
                "{name}"
            );
        }
    }
}

#[test]
fn many_strips_of_all_bytes_are_refused() {
    let strips = vec![vec![0b1001_1000; 9]; 4];
    let page =
        Page::new(Size::new(8, 4), 1, &[]).in_strips(1, strips).with(259, &[2]).with(279, &[]);
    let mut page = page;
    page.fields.retain(|(tag, ..)| *tag != 279);
    assert!(decoded(&page).is_ok());
    let bytes = file(Little, &[page]);
    let mut shared = bytes.clone();
    let lengths = bytes.windows(2).rposition(|pair| pair == 279_u16.to_le_bytes()).unwrap();
    let list = u32::from_le_bytes(bytes[lengths + 8..][..4].try_into().unwrap()) as usize;
    let long = u32::try_from(bytes.len() - 40).unwrap().to_le_bytes();
    shared[list..][..16].copy_from_slice(&[long; 4].concat());
    let refused = TiffFile::open(shared.into()).unwrap().decode(1).unwrap_err();
    assert!(refused.to_string().contains("longer than the file"), "{refused}");
}

proptest! {
    #[test]
    fn a_page_with_any_fields_is_decoded_or_refused(
        fields in prop::collection::vec((prop::sample::select(vec![
            254_u16, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 317, 320, 322, 323, 338, 339, 530,
        ]), prop::collection::vec(prop_oneof![0_u32..9, Just(16), Just(32_773), 0_u32..65_536], 1..5)), 0..6),
        strip in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut page = Page::new(Size::new(19, 7), 8, &strip);
        for (tag, values) in fields {
            page = page.with(tag, &values);
        }
        let file = TiffFile::open(file(Little, &[page]).into()).unwrap();
        let is_small = file.page(1).is_ok_and(|page| page.stored.pixels().get() <= 1 << 20);
        if is_small {
            let _ = file.decode(1);
        }
    }
}

#[test]
fn a_fax_whose_end_is_missing_is_white_there_and_told_as_uncertain() {
    let file = std::fs::read("tests/fixtures/fax/group4.tif").unwrap();
    let open = |file: Vec<u8>| TiffFile::open(file.into()).unwrap().decode(1).unwrap();
    assert!(!open(file.clone()).is_uncertain());
    // The codes stand before the directory.
    let directory = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let mut cut = file;
    cut[directory / 2..directory].fill(0);
    assert!(open(cut).is_uncertain());
}
