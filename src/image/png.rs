//! PNG (W3C, third edition): reads the dimensions from IHDR and the orientation from eXIf.
//!
//! IHDR is checked completely, including its checksum. Every decoder refuses a file with a damaged IHDR, so such a file
//! is refused before it is sent. The size of an animated PNG is that of its still picture, and every frame must be
//! inside it.
//!
//! EXIF blocks in compressed text chunks, as written by old versions of `ImageMagick`, are ignored.

use std::ops::Range;

use super::byte_order::ByteOrder::Big;
use super::exif;
use super::format::Format;
use super::header::{ImageHeader, TRUNCATED};
use super::second_size::Fault;
use super::size::Size;

/// The first bytes of the signature. They are sufficient to identify the format, also if the rest of the signature is
/// damaged.
pub(super) const MAGIC: &[u8] = b"\x89PNG";

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The length and the type of the IHDR chunk.
const HEADER_START: &[u8] = b"\0\0\0\x0dIHDR";

/// The length of a chunk's header: its length field and its type.
const CHUNK_START: usize = 8;

/// The length of the checksum after the data of a chunk.
const CHECKSUM_LENGTH: usize = 4;

/// The maximum number of chunks that are read. Writers produce a few dozen, and some write thousands of IDAT chunks.
const MAX_CHUNKS: usize = 65_536;

/// Section 5.3: the maximum length of a chunk.
const MAX_LENGTH: usize = (1 << 31) - 1;

/// The number of bytes of picture data that are checked: two bytes of zlib header and one byte of compressed data.
const LEAST_DATA: usize = 3;

/// Section 7.1: the four-byte numbers of PNG have a range of 31 bits.
const MAX_SIDE: u32 = (1 << 31) - 1;

/// Reads the header of bytes that start with [`MAGIC`].
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    if !SIGNATURE.starts_with(&bytes[..bytes.len().min(SIGNATURE.len())]) {
        return Err("has a damaged signature, as after a transfer as text");
    }
    let chunks = bytes.get(SIGNATURE.len()..).ok_or(TRUNCATED)?;
    let header = chunks.get(..CHUNK_START + 13 + CHECKSUM_LENGTH).ok_or(TRUNCATED)?;
    if !header.starts_with(HEADER_START) {
        return Err("does not start with an IHDR chunk of 13 bytes");
    }
    if Big.u32(header, 21) != Some(checksum(&header[4..21])) {
        return Err("has a wrong checksum in IHDR");
    }
    let stored = size(&header[8..21])?;
    let orientation = exif_block(bytes).map(|block| exif::orientation(&bytes[block]));
    Ok(ImageHeader::new(Format::Png, stored, orientation.unwrap_or_default()))
}

/// Checks the 13 bytes of IHDR (section 11.2.1) and returns the dimensions.
fn size(header: &[u8]) -> Result<Size, &'static str> {
    let width = Big.u32(header, 0).ok_or(TRUNCATED)?;
    let height = Big.u32(header, 4).ok_or(TRUNCATED)?;
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err("has a side of more than 2147483647 pixels");
    }
    let &[depth, colour, compression, filter, interlace] =
        header[8..].first_chunk().ok_or(TRUNCATED)?;
    let depths: &[u8] = match colour {
        0 => &[1, 2, 4, 8, 16],
        3 => &[1, 2, 4, 8],
        2 | 4 | 6 => &[8, 16],
        _ => return Err("has an unknown colour type"),
    };
    if !depths.contains(&depth) {
        return Err("has a bit depth that its colour type does not allow");
    }
    if compression != 0 || filter != 0 || interlace > 1 {
        return Err("has an unknown compression, filter or interlace method");
    }
    Ok(Size::new(width, height))
}

/// Checks that there is picture data: IDAT chunks before IEND that contain the start of a zlib stream. A truncated
/// stream is accepted, since decoders show the rows before the cut.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    let (mut data, mut found) = ([0; LEAST_DATA], 0);
    for chunk in PngChunks::of(bytes).take(MAX_CHUNKS) {
        match &chunk.kind {
            b"IEND" => return Err("has no picture data"),
            b"IDAT" => {
                for (place, &byte) in data[found..].iter_mut().zip(chunk.present(bytes)) {
                    *place = byte;
                    found += 1;
                }
                if found == LEAST_DATA {
                    return check_zlib(data);
                }
            }
            _ => {}
        }
    }
    Err("ends before its picture data")
}

/// Checks that no chunk after the first IHDR gives another size. A second IHDR is refused, because Pillow uses it
/// instead of the first. An animation frame that extends beyond the picture is also refused. Decoders stop at IEND, so
/// any data may follow it, except for another IHDR chunk.
pub(super) fn check_sizes(bytes: &[u8], stored: Size) -> Result<(), Fault> {
    let mut chunks = PngChunks::of(bytes).skip(1);
    let mut is_behind_end = false;
    for chunk in chunks.by_ref().take(MAX_CHUNKS) {
        let data = chunk.present(bytes);
        match &chunk.kind {
            b"IHDR" => {
                let other = sides(data, 0).unwrap_or(stored);
                return Err(Fault::SecondSize { stored, other, place: "in a second IHDR chunk" });
            }
            b"fcTL" => {
                // Width and height, then the position of the upper left corner.
                if let (Some(frame), Some(corner)) = (sides(data, 4), sides(data, 12)) {
                    check_frame(stored, frame, corner)?;
                }
            }
            b"IEND" => is_behind_end = true,
            _ if !is_behind_end && chunk.data.len() > MAX_LENGTH => {
                return Err(Fault::Rule("has a chunk of more than 2147483647 bytes"));
            }
            _ => {}
        }
    }
    if is_behind_end || chunks.next().is_none() {
        Ok(())
    } else {
        Err(Fault::Rule("has more than 65536 chunks"))
    }
}

/// Checks that an animation frame is inside the picture.
fn check_frame(stored: Size, frame: Size, corner: Size) -> Result<(), Fault> {
    let other = Size::new(
        frame.width.saturating_add(corner.width),
        frame.height.saturating_add(corner.height),
    );
    if other.width <= stored.width && other.height <= stored.height {
        return Ok(());
    }
    Err(Fault::SecondSize { stored, other, place: "with a frame of its animation" })
}

fn sides(data: &[u8], offset: usize) -> Option<Size> {
    Some(Size::new(Big.u32(data, offset)?, Big.u32(data, offset + 4)?))
}

/// The chunks of a file, up to the first one with a truncated header.
struct PngChunks<'a> {
    bytes: &'a [u8],
    at: usize,
}

struct PngChunk {
    kind: [u8; 4],
    /// The position of the data. Its end may be beyond the end of the file.
    data: Range<usize>,
}

impl<'a> PngChunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: SIGNATURE.len() }
    }
}

impl Iterator for PngChunks<'_> {
    type Item = PngChunk;

    fn next(&mut self) -> Option<PngChunk> {
        let length = Big.u32(self.bytes, self.at)? as usize;
        let kind = *self.bytes.get(self.at + 4..)?.first_chunk()?;
        let start = self.at + CHUNK_START;
        self.at = start + length + CHECKSUM_LENGTH;
        Some(PngChunk { kind, data: start..start + length })
    }
}

impl PngChunk {
    /// The data of the chunk, up to the end of the file.
    fn present<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.data.start..self.data.end.min(bytes.len())]
    }
}

/// RFC 1950, section 2.2: the method is deflate, and the first two bytes as a number are a multiple of 31.
fn check_zlib([method, flags, _]: [u8; LEAST_DATA]) -> Result<(), &'static str> {
    let is_zlib = method & 0x0f == 8 && u16::from_be_bytes([method, flags]) % 31 == 0;
    if is_zlib { Ok(()) } else { Err("has picture data that is not compressed with zlib") }
}

/// The position of the data of an eXIf chunk before the picture data. `None` if there is none or it is truncated.
pub(super) fn exif_block(bytes: &[u8]) -> Option<Range<usize>> {
    let mut chunks = PngChunks::of(bytes).take(MAX_CHUNKS);
    let chunk = chunks.find(|chunk| matches!(&chunk.kind, b"eXIf" | b"IDAT"))?;
    (chunk.kind == *b"eXIf" && chunk.data.end <= bytes.len()).then_some(chunk.data)
}

/// The position of the checksum of the chunk with this data, and the range of bytes that it covers.
pub(super) fn checked(data: &Range<usize>) -> (Range<usize>, Range<usize>) {
    (data.end..data.end + CHECKSUM_LENGTH, data.start - 4..data.end)
}

/// The CRC-32 of ISO 3309 as in annex D of the PNG specification. It is computed bit by bit, since a table is not worth
/// it for a few bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for &byte in bytes {
        remainder ^= u32::from(byte);
        for _ in 0..8 {
            let carry = remainder & 1;
            remainder = (remainder >> 1) ^ (carry * 0xedb8_8320);
        }
    }
    !remainder
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder;
    use super::super::format::Orientation;
    use super::super::samples::{self, png_chunk};
    use super::*;

    fn with_depth_and_colour(depth: u8, colour: u8) -> Result<ImageHeader, &'static str> {
        read(&samples::png_with(40, 30, [depth, colour, 0, 0, 0]))
    }

    #[test]
    fn the_checksum_is_that_of_the_standards_own_example() {
        // The standard check value of CRC-32.
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn exactly_the_fifteen_legal_pairs_of_depth_and_colour_pass() {
        let pairs = (0..=255).flat_map(|depth| (0..=255).map(move |colour| (depth, colour)));
        let legal = pairs.filter(|&(depth, colour)| with_depth_and_colour(depth, colour).is_ok());
        assert_eq!(legal.count(), 15);
        assert!(with_depth_and_colour(16, 3).is_err());
    }

    #[test]
    fn one_wrong_bit_in_the_header_is_malformed() {
        let file = samples::png(40, 30);
        for bit in 0..8 * 33 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_exif_chunk_counts_before_the_picture_data_and_not_after() {
        let exif = png_chunk(*b"eXIf", &samples::exif(ByteOrder::Big, 8));
        let text = png_chunk(*b"tEXt", &vec![0; 70_000]);
        let data = png_chunk(*b"IDAT", &[]);
        let file = samples::png(40, 30);
        let before = [&file[..], &text, &exif, &data].concat();
        let after = [&file[..], &text, &data, &exif].concat();
        assert_eq!(read(&before).map(|header| header.upright()), Ok(Size::new(30, 40)));
        assert_eq!(read(&after).map(|header| header.upright()), Ok(Size::new(40, 30)));
    }

    #[test]
    fn a_million_empty_chunks_are_given_up_early() {
        let chunks = png_chunk(*b"tEXt", &[]).repeat(1 << 20);
        let exif = png_chunk(*b"eXIf", &samples::exif(ByteOrder::Big, 8));
        let header = read(&[samples::png(40, 30), chunks, exif].concat()).unwrap();
        assert_eq!(header.orientation, Orientation::Upright);
    }

    /// The result for a picture of 40x30 pixels with these chunks after its header and data.
    fn sizes_with(chunks: &[Vec<u8>]) -> Result<(), Fault> {
        check_sizes(&[samples::whole_png(40, 30), chunks.concat()].concat(), Size::new(40, 30))
    }

    fn frame(sides: [u32; 2], corner: [u32; 2]) -> Vec<u8> {
        let numbers = [0, sides[0], sides[1], corner[0], corner[1]].map(u32::to_be_bytes);
        png_chunk(*b"fcTL", &[numbers.as_flattened(), &[0; 6]].concat())
    }

    #[test]
    fn a_second_header_is_refused_wherever_it_stands() {
        let second = samples::png(2_000, 1_000)[8..].to_vec();
        let refused = Err(Fault::SecondSize {
            stored: Size::new(40, 30),
            other: Size::new(2_000, 1_000),
            place: "in a second IHDR chunk",
        });
        let (text, end) = (png_chunk(*b"tEXt", &[0; 70]), png_chunk(*b"IEND", &[]));
        assert_eq!(sizes_with(std::slice::from_ref(&second)), refused);
        assert_eq!(sizes_with(&[text.clone(), second.clone(), end.clone()]), refused);
        assert_eq!(sizes_with(&[end.clone(), text, second.clone()]), refused);
        assert!(sizes_with(&[png_chunk(*b"IHDR", &[])]).is_err());
        assert!(sizes_with(&[samples::png(40, 30)[8..].to_vec()]).is_err());
        let before = [samples::png(40, 30), second, samples::png_data()].concat();
        assert_eq!(check_sizes(&before, Size::new(40, 30)), refused);
    }

    #[test]
    fn whatever_follows_the_end_of_a_picture_is_let_be() {
        let end = png_chunk(*b"IEND", &[]);
        for behind in [&b"PK\x03\x04"[..], &[0xff; 99], &samples::whole_png(2_000, 1_000)] {
            assert_eq!(sizes_with(&[end.clone(), behind.to_vec()]), Ok(()));
        }
    }

    #[test]
    fn a_frame_that_reaches_out_of_the_picture_is_refused() {
        assert_eq!(sizes_with(&[frame([40, 30], [0, 0]), frame([10, 10], [30, 20])]), Ok(()));
        for outside in [
            frame([41, 30], [0, 0]),
            frame([40, 31], [0, 0]),
            frame([10, 10], [31, 20]),
            frame([1, 1], [u32::MAX, 0]),
        ] {
            assert!(matches!(sizes_with(&[outside]), Err(Fault::SecondSize { .. })));
        }
    }

    #[test]
    fn chunks_that_readers_may_step_over_differently_are_refused() {
        let mut negative = png_chunk(*b"tEXt", &[]);
        negative[0] = 0x80;
        assert!(sizes_with(&[negative]).is_err());
        assert!(sizes_with(&vec![png_chunk(*b"tEXt", &[]); MAX_CHUNKS + 1]).is_err());
    }

    const DATA: [u8; 3] = [0x78, 0x9c, 0x03];

    /// The result for a file with these chunks after its header.
    fn with_chunks(chunks: &[([u8; 4], &[u8])]) -> Result<(), &'static str> {
        let chunks = chunks.iter().map(|&(kind, data)| png_chunk(kind, data));
        check_picture(&[samples::png(40, 30), chunks.collect::<Vec<_>>().concat()].concat())
    }

    #[test]
    fn picture_data_may_be_split_and_stand_behind_other_chunks() {
        let (text, palette, header) = (vec![0; 70_000], [0; 3], [0x78]);
        let split = [
            (*b"tEXt", &text[..]),
            (*b"PLTE", &palette),
            (*b"IDAT", &header),
            (*b"IDAT", &[]),
            (*b"IDAT", &DATA[1..]),
            (*b"IEND", &[]),
        ];
        assert_eq!(with_chunks(&split), Ok(()));
        assert_eq!(with_chunks(&[(*b"IDAT", &DATA)]), Ok(()), "an end is not needed");
    }

    #[test]
    fn a_file_without_picture_data_is_malformed() {
        let (none, ends) = (Err("has no picture data"), Err("ends before its picture data"));
        assert_eq!(with_chunks(&[]), ends);
        assert_eq!(with_chunks(&[(*b"tEXt", &[1])]), ends);
        assert_eq!(with_chunks(&[(*b"IDAT", &[])]), ends);
        assert_eq!(with_chunks(&[(*b"IDAT", &DATA[..2])]), ends);
        assert_eq!(with_chunks(&[(*b"IEND", &[]), (*b"IDAT", &DATA)]), none);
        assert_eq!(with_chunks(&[(*b"IDAT", &[]), (*b"IEND", &[])]), none);
        assert_eq!(with_chunks(&[(*b"fdAT", &DATA), (*b"IEND", &[])]), none);
        assert!(with_chunks(&[(*b"IDAT", &[0; 300])]).is_err());
    }

    #[test]
    fn picture_data_that_is_cut_anywhere_is_let_be_while_some_is_there() {
        let file = [samples::png(40, 30), png_chunk(*b"IDAT", &DATA)].concat();
        let first = file.len() - CHECKSUM_LENGTH;
        for length in 0..file.len() {
            assert_eq!(check_picture(&file[..length]).is_ok(), length >= first, "{length}");
        }
    }

    #[test]
    fn a_million_chunks_before_the_picture_data_are_given_up() {
        let chunks = png_chunk(*b"tEXt", &[]).repeat(1 << 20);
        let file = [samples::png(40, 30), chunks, png_chunk(*b"IDAT", &DATA)].concat();
        assert_eq!(check_picture(&file), Err("ends before its picture data"));
    }

    #[test]
    fn a_side_over_31_bits_is_malformed() {
        assert!(read(&samples::png(MAX_SIDE, 1)).is_ok());
        assert_eq!(
            read(&samples::png(1, MAX_SIDE + 1)),
            Err("has a side of more than 2147483647 pixels")
        );
    }

    #[test]
    fn a_file_sent_as_text_is_told_so() {
        let mut file = samples::png(40, 30);
        file.remove(4);
        assert_eq!(read(&file), Err("has a damaged signature, as after a transfer as text"));
    }
}
