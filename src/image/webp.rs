//! WebP (RFC 9649): reads the dimensions from the first chunk and the orientation from EXIF.
//!
//! In the extended format, the size is that of the canvas. Decoders draw the frames of an animation onto the canvas.
//! Decoders for still pictures draw only the first frame. A still picture must fill the canvas, and a frame must be
//! inside it.
//!
//! The length in the RIFF header is not checked. Decoders treat it differently, so chunks beyond it are also read.

use std::ops::Range;

use super::byte_order::ByteOrder::Little;
use super::exif;
use super::format::{Format, Orientation};
use super::header::{ImageHeader, TRUNCATED};
use super::second_size::{Fault, agree};
use super::size::Size;

/// The maximum number of chunks that are read. EXIF may come after all frames of an animation.
const MAX_CHUNKS: usize = 1024;

/// The maximum number of chunks in an animation frame: alpha, picture and unknown chunks.
const MAX_FRAME_CHUNKS: usize = 16;

/// The length of a frame header before its chunks: position, dimensions, duration.
const FRAME_HEADER: usize = 16;

/// The length of a lossy key frame's header, before its first partition.
const LOSSY_HEADER: usize = 10;

/// The maximum side of a lossy picture.
const LOSSY_SIDE: u16 = 0x3fff;

/// The length of a lossless picture's header, before its data.
const LOSSLESS_HEADER: usize = 5;

/// The offset of the first chunk, after `RIFF`, a length and `WEBP`.
const FIRST_CHUNK: usize = 12;

/// The offset of the first chunk's data, after its type and length.
const FIRST_CHUNK_DATA: usize = FIRST_CHUNK + 8;

/// Whether the bytes start like a WebP file.
pub(super) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Reads the header of bytes that start like a WebP file.
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    let kind = bytes.get(FIRST_CHUNK..FIRST_CHUNK + 4).ok_or(TRUNCATED)?;
    let data = bytes.get(FIRST_CHUNK_DATA..).ok_or(TRUNCATED)?;
    match kind {
        b"VP8 " => Ok(ImageHeader::new(Format::Webp, lossy(data)?, Orientation::Upright)),
        b"VP8L" => Ok(ImageHeader::new(Format::Webp, lossless(data)?, Orientation::Upright)),
        b"VP8X" => {
            let canvas = extended(data)?;
            let orientation = exif_block(bytes).map(|block| exif::orientation(&bytes[block]));
            Ok(ImageHeader::new(Format::Webp, canvas, orientation.unwrap_or_default()))
        }
        _ => Err("starts with an unknown chunk"),
    }
}

/// The size of a lossy key frame (RFC 6386, section 9.1): 14 bits per side, and two upper bits that request upscaling.
/// No encoder sets those bits.
fn lossy(frame: &[u8]) -> Result<Size, &'static str> {
    let start = frame.get(..6).ok_or(TRUNCATED)?;
    let is_key_frame = start[0] & 1 == 0;
    if !is_key_frame || start[3..] != [0x9d, 0x01, 0x2a] {
        return Err("does not start with a key frame");
    }
    let width = Little.u16(frame, 6).ok_or(TRUNCATED)?;
    let height = Little.u16(frame, 8).ok_or(TRUNCATED)?;
    if width > LOSSY_SIDE || height > LOSSY_SIDE {
        return Err("asks for being enlarged, so that it has two sizes");
    }
    Ok(Size::new(width.into(), height.into()))
}

/// The size of a lossless picture (RFC 9649): a signature, 14 bits for each side minus one, and the version.
fn lossless(data: &[u8]) -> Result<Size, &'static str> {
    let packed = Little.u32(data, 1).ok_or(TRUNCATED)?;
    if data[0] != 0x2f || packed >> 29 != 0 {
        return Err("has an unknown lossless signature or version");
    }
    Ok(Size::new((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1))
}

/// The canvas of the extended format (RFC 9649): 24 bits for each side minus one. The area must be below 2^32 pixels.
fn extended(data: &[u8]) -> Result<Size, &'static str> {
    let side = |offset| Little.u32(data, offset).map(|number| (number & 0x00ff_ffff) + 1);
    let width = side(4).ok_or(TRUNCATED)?;
    // The three bytes of the height end the chunk, so they are read together with the byte before them.
    let height = (Little.u32(data, 6).ok_or(TRUNCATED)? >> 8) + 1;
    let canvas = Size::new(width, height);
    if canvas.pixels().get() > u64::from(u32::MAX) {
        return Err("has a canvas of 2^32 pixels or more");
    }
    Ok(canvas)
}

/// Checks that a picture or an animation frame has data.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    let chunks = bytes.get(FIRST_CHUNK..).unwrap_or_default();
    if holds_picture(chunks, MAX_CHUNKS) { Ok(()) } else { Err("has no picture data") }
}

fn holds_picture(chunks: &[u8], most: usize) -> bool {
    WebpChunks(chunks).take(most).any(|(kind, data)| match &kind {
        b"VP8 " => is_lossy_picture(data),
        b"VP8L" => data.len() > LOSSLESS_HEADER,
        // A frame inside a frame is ignored.
        b"ANMF" if most != MAX_FRAME_CHUNKS => {
            holds_picture(data.get(FRAME_HEADER..).unwrap_or_default(), MAX_FRAME_CHUNKS)
        }
        _ => false,
    })
}

/// Checks that every canvas and picture has the size in the header. Every frame must be inside the canvas and have the
/// size in its frame header.
pub(super) fn check_sizes(bytes: &[u8], stored: Size) -> Result<(), Fault> {
    let mut chunks = WebpChunks(bytes.get(FIRST_CHUNK..).unwrap_or_default());
    for (kind, data) in chunks.by_ref().take(MAX_CHUNKS) {
        match &kind {
            b"VP8X" => agree_if_whole(stored, extended(data), "in a VP8X chunk")?,
            b"ANMF" => check_frame(stored, data)?,
            _ => check_coded(stored, kind, data)?,
        }
    }
    if chunks.next().is_some() { Err(Fault::Rule("has more than 1024 chunks")) } else { Ok(()) }
}

/// Checks that an animation frame is inside the canvas, and that its picture fills the frame.
fn check_frame(stored: Size, frame: &[u8]) -> Result<(), Fault> {
    let number = |offset| Little.u32(frame, offset).map(|number| number & 0x00ff_ffff);
    // Half the coordinates of the upper left corner, then width and height minus one.
    let numbers = (number(0), number(3), number(6), number(9));
    let (Some(left), Some(top), Some(width), Some(height)) = numbers else { return Ok(()) };
    let other = Size::new(2 * left + width + 1, 2 * top + height + 1);
    if other.width > stored.width || other.height > stored.height {
        return Err(Fault::SecondSize { stored, other, place: "with a frame of its animation" });
    }
    let mut chunks = WebpChunks(frame.get(FRAME_HEADER..).unwrap_or_default());
    for (kind, data) in chunks.by_ref().take(MAX_FRAME_CHUNKS) {
        check_coded(Size::new(width + 1, height + 1), kind, data)?;
    }
    if chunks.next().is_some() {
        return Err(Fault::Rule("has a frame of more than 16 chunks"));
    }
    Ok(())
}

/// Checks that the picture in a chunk has this size. Other chunks pass.
fn check_coded(size: Size, kind: [u8; 4], data: &[u8]) -> Result<(), Fault> {
    match &kind {
        b"VP8 " => agree_if_whole(size, lossy(data), "in a VP8 chunk"),
        b"VP8L" => agree_if_whole(size, lossless(data), "in a VP8L chunk"),
        _ => Ok(()),
    }
}

/// Compares two sizes. Passes if the file is truncated before the second one.
fn agree_if_whole(
    size: Size,
    read: Result<Size, &'static str>,
    place: &'static str,
) -> Result<(), Fault> {
    match read {
        Ok(other) => agree(size, other, place),
        Err(TRUNCATED) => Ok(()),
        Err(rule) => Err(Fault::Rule(rule)),
    }
}

/// A sequence of chunks, up to the first one with a truncated header. The data of the last chunk may be truncated.
struct WebpChunks<'a>(&'a [u8]);

impl<'a> Iterator for WebpChunks<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.0.first_chunk()?;
        let length = Little.u32(self.0, 4)? as usize;
        let rest = &self.0[8..];
        // One byte of padding follows data of odd length.
        self.0 = rest.get(length + length % 2..).unwrap_or_default();
        Some((kind, &rest[..length.min(rest.len())]))
    }
}

/// Whether the first partition of a key frame is complete (RFC 6386, section 9.1). Without it, no macroblock can be
/// decoded.
fn is_lossy_picture(frame: &[u8]) -> bool {
    let Some(tag) = Little.u32(frame, 0) else { return false };
    let first_partition = ((tag & 0x00ff_ffff) >> 5) as usize;
    frame.len() >= LOSSY_HEADER + first_partition.max(1)
}

/// The position of the EXIF block of the extended format, if there is one.
pub(super) fn exif_block(bytes: &[u8]) -> Option<Range<usize>> {
    let mut chunks = WebpChunks(bytes.get(FIRST_CHUNK..)?);
    let (_, chunk) = chunks.by_ref().take(MAX_CHUNKS).find(|(kind, _)| kind == b"EXIF")?;
    let block = exif::identified_block(chunk).unwrap_or(chunk);
    let end = block.as_ptr_range().end as usize - bytes.as_ptr() as usize;
    Some(end - block.len()..end)
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder;
    use super::super::samples;
    use super::*;

    #[test]
    fn the_three_forms_give_their_sides() {
        for file in [
            samples::webp_lossy(40, 30),
            samples::webp_lossless(40, 30),
            samples::webp_extended(40, 30),
        ] {
            assert_eq!(read(&file).map(|header| header.stored), Ok(Size::new(40, 30)));
        }
    }

    #[test]
    fn the_largest_sides_are_read_whole() {
        assert_eq!(
            lossless(&samples::webp_lossless(16_384, 16_384)[20..]),
            Ok(Size::new(16_384, 16_384))
        );
        let wide = samples::webp_extended(1 << 24, 255);
        assert_eq!(read(&wide).map(|header| header.stored), Ok(Size::new(1 << 24, 255)));
        assert!(read(&samples::webp_extended(1 << 24, 256)).is_err());
    }

    #[test]
    fn a_lossy_picture_that_asks_for_being_enlarged_is_refused() {
        for side in [27, 29] {
            let mut file = samples::webp_lossy(40, 30);
            file[side] |= 0x40;
            assert_eq!(read(&file), Err("asks for being enlarged, so that it has two sizes"));
        }
    }

    /// An animation frame with these dimensions and content, at x = `2 * left` and y = 0.
    fn frame(left: u8, sides: [u8; 2], inside: &[u8]) -> Vec<u8> {
        let head = [left, 0, 0, 0, 0, 0, sides[0] - 1, 0, 0, sides[1] - 1, 0, 0, 0, 0, 0, 0];
        samples::riff_chunk(*b"ANMF", &[&head, inside].concat())
    }

    #[test]
    fn all_pictures_fill_the_canvas_and_all_frames_lie_within_it() {
        let (lossy, lossless) = (samples::webp_lossy, samples::webp_lossless);
        let of =
            |first: Vec<u8>, rest: Vec<u8>| check_sizes(&[first, rest].concat(), Size::new(40, 30));
        let canvas = || samples::webp_extended(40, 30);
        let odd = samples::riff_chunk(*b"XMP ", &[1, 2, 3]);
        let small = lossy(20, 30)[12..].to_vec();
        assert_eq!(of(canvas(), lossy(40, 30)[12..].to_vec()), Ok(()));
        assert_eq!(of(canvas(), frame(10, [20, 30], &small)), Ok(()));
        assert_eq!(of(canvas(), lossy(400, 300)[12..18].to_vec()), Ok(()), "cut");
        for (first, rest) in [
            (canvas(), lossy(41, 30)[12..].to_vec()),
            (canvas(), lossy(20, 30)[12..].to_vec()),
            (canvas(), lossless(40, 31)[12..].to_vec()),
            (lossy(40, 30), [odd.clone(), lossy(400, 30)[12..].to_vec()].concat()),
            (lossless(40, 30), lossy(400, 30)[12..].to_vec()),
            (lossy(40, 30), [odd, samples::webp_extended(400, 300)[12..].to_vec()].concat()),
            (canvas(), frame(11, [20, 30], &small)),
            (canvas(), frame(0, [21, 30], &small)),
            (canvas(), [frame(0, [20, 30], &small), frame(0, [41, 30], &[])].concat()),
            (
                canvas(),
                frame(
                    0,
                    [20, 30],
                    &[samples::riff_chunk(*b"ALPH", &[1]), lossless(40, 30)[12..].to_vec()]
                        .concat(),
                ),
            ),
        ] {
            assert!(matches!(of(first, rest), Err(Fault::SecondSize { .. })));
        }
        assert!(of(canvas(), samples::riff_chunk(*b"XMP ", &[]).repeat(MAX_CHUNKS)).is_err());
        let chunks = samples::riff_chunk(*b"XMP ", &[]).repeat(MAX_FRAME_CHUNKS + 1);
        assert!(of(canvas(), frame(0, [20, 30], &chunks)).is_err());
    }

    #[test]
    fn exif_is_found_behind_other_chunks_with_and_without_identifier() {
        let block = samples::exif(ByteOrder::Little, 5);
        for exif in [block.clone(), [&b"Exif\0\0"[..], &block].concat()] {
            let other = samples::riff_chunk(*b"ALPH", &[1, 2, 3]);
            let file =
                [samples::webp_extended(40, 30), other, samples::riff_chunk(*b"EXIF", &exif)];
            assert_eq!(read(&file.concat()).map(|header| header.upright()), Ok(Size::new(30, 40)));
        }
    }

    #[test]
    fn a_picture_or_a_frame_needs_data() {
        let (lossy, lossless) = (samples::webp_lossy(40, 30), samples::webp_lossless(40, 30));
        let extended = samples::webp_extended(40, 30);
        let frame = |inside: &[u8]| {
            [extended.clone(), samples::riff_chunk(*b"ANMF", &[&[0; 16], inside].concat())].concat()
        };
        for whole in [
            lossy.clone(),
            lossless.clone(),
            [&extended, &lossy[12..]].concat(),
            [extended.clone(), samples::riff_chunk(*b"ALPH", &[0; 9]), lossless[12..].to_vec()]
                .concat(),
            frame(&lossy[12..]),
        ] {
            assert_eq!(check_picture(&whole), Ok(()));
        }
        for without in [
            lossy[..30].to_vec(),
            lossless[..25].to_vec(),
            extended.clone(),
            [extended.clone(), samples::riff_chunk(*b"ALPH", &[0; 9])].concat(),
            frame(&[]),
            frame(&frame(&lossy[12..])[30..]),
        ] {
            assert_eq!(check_picture(&without), Err("has no picture data"));
        }
    }

    #[test]
    fn a_lossy_picture_that_is_cut_in_its_first_partition_is_malformed() {
        let mut file = samples::webp_lossy(40, 30);
        // The upper bits of its length: 96 bytes.
        file[21] = 12;
        assert!(check_picture(&file).is_err());
    }

    #[test]
    fn a_frame_that_needs_another_is_malformed() {
        let mut file = samples::webp_lossy(40, 30);
        file[20] |= 1;
        assert_eq!(read(&file), Err("does not start with a key frame"));
    }
}
