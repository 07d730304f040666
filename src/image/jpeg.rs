//! JPEG (ITU-T T.81): reads the dimensions from the frame header and the orientation from APP1.
//!
//! Parsing is as lenient as in libjpeg: junk and fill bytes between segments are skipped. The number of segments and
//! of skipped bytes is bounded, since a file of 20 MB may contain five million empty segments.
//!
//! A second frame header is searched for up to the end of the image. Phones append other pictures and videos after
//! that, which no decoder uses as the picture itself.

use std::ops::Range;

use super::byte_order::ByteOrder::Big;
use super::exif;
use super::format::Format;
use super::header::{ImageHeader, TRUNCATED};
use super::second_size::{Fault, agree};
use super::size::Size;

/// The maximum number of segments before the frame header. At 64 KiB each, 64 MiB of colour profiles and previews fit.
const MAX_SEGMENTS: usize = 1024;

/// The maximum number of markers in the whole image. Progressive images have a few dozen.
const MAX_MARKERS: usize = 65_536;

/// The number of bytes that are searched for a marker in one step without branches.
const BLOCK: usize = 64;

/// The maximum number of junk bytes between segments.
const MAX_SKIPPED: usize = 64 * 1024;

/// The signature: the start-of-image marker.
pub(super) const START_OF_IMAGE: &[u8] = &[0xff, 0xd8];

/// Reads the header of bytes that start with [`START_OF_IMAGE`].
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    let (stored, exif) = scan(bytes)?;
    let orientation = exif.map(|block| exif::orientation(&bytes[block])).unwrap_or_default();
    Ok(ImageHeader::new(Format::Jpeg, stored, orientation))
}

/// The position of the EXIF block.
pub(super) fn exif_block(bytes: &[u8]) -> Option<Range<usize>> {
    scan(bytes).ok()?.1
}

/// The dimensions, and the position of the first EXIF block before the frame header.
fn scan(bytes: &[u8]) -> Result<(Size, Option<Range<usize>>), &'static str> {
    let mut segments = Segments { rest: &bytes[START_OF_IMAGE.len()..], skipped: 0 };
    let mut exif = None;
    for _ in 0..MAX_SEGMENTS {
        let marker = segments.marker()?;
        match marker {
            // Restart markers, TEM and a repeated start of image have no length.
            0x01 | 0xd0..=0xd8 => {}
            0xd9 => return Err("ends before its frame header"),
            0xda => return Err("has a scan before its frame header"),
            _ if is_reserved(marker) => return Err(RESERVED),
            0xde | 0xdf => return Err(HIERARCHICAL),
            // This range has all frame headers, and also DHT, JPG and DAC.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Ok((frame(segments.rest)?, exif));
            }
            _ => {
                let body = segments.body()?;
                if marker == 0xe1 && exif.is_none() {
                    let end = bytes.len() - segments.rest.len();
                    exif = exif::identified_block(body).map(|block| end - block.len()..end);
                }
            }
        }
    }
    Err("has more than 1024 segments before its frame header")
}

/// Checks that a scan has data. Truncated data is accepted: decoders show the missing part in grey.
///
/// The first segment must follow the start of image directly. Decoders that identify JPEG by its first three bytes
/// would otherwise detect another format, possibly with another size.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.get(START_OF_IMAGE.len()) != Some(&0xff) {
        return Err("has other bytes between its start and its first segment");
    }
    let mut segments = Segments { rest: &bytes[START_OF_IMAGE.len()..], skipped: 0 };
    for _ in 0..2 * MAX_SEGMENTS {
        match segments.marker().map_err(without_scan)? {
            0x01 | 0xd0..=0xd8 => {}
            0xd9 => return Err(WITHOUT_SCAN),
            marker => {
                segments.body().map_err(without_scan)?;
                if marker == 0xda && segments.is_at_data() {
                    return Ok(());
                }
            }
        }
    }
    Err("has more than 2048 segments before the data of a scan")
}

const WITHOUT_SCAN: &str = "ends before the data of its first scan";

fn without_scan(what: &'static str) -> &'static str {
    if what == TRUNCATED { WITHOUT_SCAN } else { what }
}

const RESERVED: &str = "has a segment of a reserved kind, whose length decoders read differently";

const HIERARCHICAL: &str = "is hierarchical: it holds frames of several sizes";

/// Whether the marker is reserved. Some decoders read a segment with a length after it, others do not.
fn is_reserved(marker: u8) -> bool {
    matches!(marker, 0x02..=0xbf | 0xc8 | 0xf0..=0xfd)
}

/// The part of the file in which the given bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// In the coded data of a scan, so more of it may follow.
    InCodedData,
    /// After the end of the image, or in its segments.
    Elsewhere,
}

/// The state of a search through coded data that arrives in pieces.
#[derive(Debug)]
pub struct CodedData {
    is_behind_ff: bool,
}

/// The marker that ends coded data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The end of the image.
    End,
    /// Any other marker, after which a segment may follow.
    Other,
}

impl CodedData {
    /// The state after bytes that end [in coded data](Ending::InCodedData).
    pub(super) fn behind(bytes: &[u8]) -> Self {
        Self { is_behind_ff: bytes.last() == Some(&0xff) }
    }

    /// The marker in the next piece that ends the data; `None` if the data continues.
    pub fn marker_in(&mut self, piece: &[u8]) -> Option<Marker> {
        let first = piece.first().copied().filter(|&byte| self.is_behind_ff && ends_data(byte));
        let marker = first.or_else(|| Segments { rest: piece, skipped: 0 }.marker_behind_data());
        if let Some(&last) = piece.last() {
            self.is_behind_ff = last == 0xff;
        }
        marker.map(|marker| if marker == 0xd9 { Marker::End } else { Marker::Other })
    }
}

/// Checks that there is no second frame header before the end of the image, and that a DNL segment gives the same
/// number of lines as the frame header.
pub(super) fn check_sizes(bytes: &[u8], stored: Size) -> Result<Ending, Fault> {
    let mut segments = Segments { rest: &bytes[START_OF_IMAGE.len()..], skipped: 0 };
    let (mut has_frame, mut is_coded) = (false, false);
    for _ in 0..MAX_MARKERS {
        // Before the coded data there are only segments. In coded data, the next marker is searched for.
        let marker = if is_coded { segments.marker_behind_data() } else { segments.marker().ok() };
        let Some(marker) = marker else {
            return Ok(if is_coded { Ending::InCodedData } else { Ending::Elsewhere });
        };
        match marker {
            0x01 | 0xd0..=0xd8 => {}
            0xd9 => return Ok(Ending::Elsewhere),
            _ if is_reserved(marker) && is_coded => {}
            _ if is_reserved(marker) => return Err(Fault::Rule(RESERVED)),
            0xde | 0xdf => return Err(Fault::Rule(HIERARCHICAL)),
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xcc) => {
                if has_frame {
                    let other = frame(segments.rest).unwrap_or(stored);
                    return Err(Fault::SecondSize { stored, other, place: SECOND_FRAME });
                }
                has_frame = true;
                let Ok(_) = segments.body() else { return Ok(Ending::Elsewhere) };
            }
            _ => {
                let body = match segments.body() {
                    Ok(body) => body,
                    Err(TRUNCATED) => return Ok(Ending::Elsewhere),
                    // libjpeg continues after the length field.
                    Err(_) => continue,
                };
                if marker == 0xdc {
                    let lines = Big.u16(body, 0).map_or(stored.height, u32::from);
                    agree(stored, Size::new(stored.width, lines), "in a DNL segment")?;
                }
                if marker == 0xda && !is_coded {
                    check_scan(body)?;
                    is_coded = true;
                }
            }
        }
    }
    Err(Fault::Rule("has more than 65536 segments"))
}

const SECOND_FRAME: &str = "in a second frame header";

/// Checks that the length of a scan header matches its number of components. A decoder that computes the length from
/// that number would otherwise start reading coded data at another position.
fn check_scan(header: &[u8]) -> Result<(), Fault> {
    let components = header.first().copied().map_or(0, usize::from);
    if header.len() == 4 + 2 * components {
        return Ok(());
    }
    Err(Fault::Rule("has a scan header of a wrong length"))
}

/// The dimensions from a frame header (T.81 B.2.2). Its length must match its number of components.
fn frame(header: &[u8]) -> Result<Size, &'static str> {
    let length = Big.u16(header, 0).ok_or(TRUNCATED)?;
    let height = Big.u16(header, 3).ok_or(TRUNCATED)?;
    let width = Big.u16(header, 5).ok_or(TRUNCATED)?;
    let components = u16::from(*header.get(7).ok_or(TRUNCATED)?);
    if components == 0 || length != 8 + 3 * components {
        return Err("has a frame header of a wrong length");
    }
    if height == 0 {
        // T.81 B.2.5 allows a DNL segment after the first scan to give the height. libjpeg does not read it.
        return Err("does not give its height in the frame header");
    }
    Ok(Size::new(width.into(), height.into()))
}

struct Segments<'a> {
    rest: &'a [u8],
    skipped: usize,
}

impl<'a> Segments<'a> {
    /// Moves past the next marker and returns its second byte.
    fn marker(&mut self) -> Result<u8, &'static str> {
        let mut after_fill = false;
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            // FF 00 is a stuffed byte of picture data, and FF FF is fill. Neither is a marker.
            if after_fill && !matches!(byte, 0x00 | 0xff) {
                return Ok(byte);
            }
            after_fill = byte == 0xff;
            // The FF of each marker is also counted, hence the second term.
            self.skipped += 1;
            if self.skipped > MAX_SKIPPED + MAX_SEGMENTS {
                return Err("has more than 64 KiB between its segments");
            }
        }
        Err(TRUNCATED)
    }

    /// Moves past the next marker in coded data and returns its second byte; `None` if there is none. Stuffed bytes
    /// and restart markers are part of the data.
    fn marker_behind_data(&mut self) -> Option<u8> {
        loop {
            self.rest = &self.rest[memchr::memchr(0xff, self.rest)?..];
            let block = &self.rest[..self.rest.len().min(BLOCK + 1)];
            let pairs = block.iter().zip(block.get(1..)?);
            // Compilers vectorize this loop, so a file full of stuffed bytes takes little more time.
            let has_marker = pairs.fold(false, |found, (&first, &second)| {
                found | ((first == 0xff) & ends_data(second))
            });
            if has_marker {
                let at = block.windows(2).position(|pair| pair[0] == 0xff && ends_data(pair[1]))?;
                let marker = block[at + 1];
                self.rest = &self.rest[at + 2..];
                return Some(marker);
            }
            self.rest = self.rest.get(BLOCK..)?;
        }
    }

    /// Whether coded data is next, not a marker or the end of the bytes.
    fn is_at_data(&self) -> bool {
        match self.rest {
            // A stuffed byte, or a premature restart marker.
            [0xff, next, ..] => matches!(next, 0x00 | 0xd0..=0xd7),
            [first, ..] => *first != 0xff,
            [] => false,
        }
    }

    /// Moves past the segment whose marker was read and returns its content.
    fn body(&mut self) -> Result<&'a [u8], &'static str> {
        let length = usize::from(Big.u16(self.rest, 0).ok_or(TRUNCATED)?);
        if length < 2 {
            return Err("has a segment that is shorter than its own length");
        }
        let body = self.rest.get(2..length).ok_or(TRUNCATED)?;
        self.rest = &self.rest[2 + body.len()..];
        Ok(body)
    }
}

/// Whether FF followed by this byte is a marker that ends coded data.
fn ends_data(second: u8) -> bool {
    second != 0x00 && second != 0xff && second & 0xf8 != 0xd0
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder;
    use super::super::format::Orientation;
    use super::super::samples;
    use super::*;

    /// A file with `before` after its start of image.
    fn jpeg_after(before: &[u8]) -> Vec<u8> {
        [START_OF_IMAGE, before, &samples::jpeg(40, 30)[2..]].concat()
    }

    #[test]
    fn the_orientation_of_app1_turns_the_sides() {
        for order in [ByteOrder::Big, ByteOrder::Little] {
            let header = read(&jpeg_after(&samples::app1(&samples::exif(order, 6)))).unwrap();
            assert_eq!(header.stored, Size::new(40, 30));
            assert_eq!(header.upright(), Size::new(30, 40));
        }
    }

    #[test]
    fn only_the_first_exif_block_counts_and_xmp_is_none() {
        let xmp = [&[0xff, 0xe1, 0, 9][..], b"http://"].concat();
        let [first, second] =
            [3, 6].map(|value| samples::app1(&samples::exif(ByteOrder::Big, value)));
        let header = read(&jpeg_after(&[xmp, first, second].concat())).unwrap();
        assert_eq!(header.orientation, Orientation::HalfTurn);
    }

    #[test]
    fn fill_bytes_and_junk_between_segments_are_skipped() {
        for junk in
            [&[0xff; 7][..], &[0xff, 0x00, 0xff, 0x00], &[0; 300], &[0xff, 0xd0, 0xff, 0x01]]
        {
            assert_eq!(read(&jpeg_after(junk)).map(|header| header.stored), Ok(Size::new(40, 30)));
        }
    }

    #[test]
    fn every_frame_header_is_one_and_the_tables_among_them_are_not() {
        let mut file = samples::jpeg(40, 30);
        for marker in 0xc0..=0xcf {
            file[3] = marker;
            let is_frame = !matches!(marker, 0xc4 | 0xc8 | 0xcc);
            assert_eq!(read(&file).is_ok(), is_frame, "{marker:x}");
        }
    }

    #[test]
    fn a_height_left_for_later_is_malformed() {
        assert_eq!(
            read(&samples::jpeg(40, 0)),
            Err("does not give its height in the frame header")
        );
    }

    #[test]
    fn twenty_megabytes_of_empty_segments_are_given_up_early() {
        let file = jpeg_after(&[0xff, 0xfe, 0x00, 0x02].repeat(5 << 20));
        assert_eq!(read(&file), Err("has more than 1024 segments before its frame header"));
    }

    #[test]
    fn twenty_megabytes_of_junk_are_given_up_early() {
        for junk in [0x00, 0xff] {
            let file = jpeg_after(&vec![junk; 20 << 20]);
            assert_eq!(read(&file), Err("has more than 64 KiB between its segments"));
        }
    }

    #[test]
    fn a_megabyte_of_colour_profile_is_no_obstacle() {
        let segment = [&[0xff, 0xe2, 0xff, 0xff][..], &vec![0xff; 0xfffd]].concat();
        let header = read(&jpeg_after(&segment.repeat(16))).unwrap();
        assert_eq!(header.stored, Size::new(40, 30));
    }

    const SCAN: &[u8] = &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 0x3f, 0];

    /// The result for a file with these bytes after its frame header.
    fn with_scans(bytes: &[&[u8]]) -> Result<(), &'static str> {
        check_picture(&[&samples::jpeg(40, 30), &bytes.concat()[..]].concat())
    }

    #[test]
    fn the_data_of_a_scan_may_be_cut_and_stand_behind_an_empty_scan() {
        for data in [&[0x55][..], &[0xff, 0x00], &[0xff, 0xd0, 0x55]] {
            assert_eq!(with_scans(&[SCAN, data]), Ok(()));
            assert_eq!(with_scans(&[SCAN, SCAN, data]), Ok(()));
            assert_eq!(with_scans(&[&[0xff, 0xc4, 0, 3, 0], SCAN, data]), Ok(()));
        }
    }

    #[test]
    fn a_file_without_the_data_of_a_scan_is_malformed() {
        for bytes in [&[][..], &[0xff], &[0xff, 0xd9], &SCAN[..5], SCAN] {
            assert_eq!(with_scans(&[bytes]), Err(WITHOUT_SCAN), "{bytes:x?}");
        }
        assert_eq!(with_scans(&[SCAN, &[0xff, 0xd9]]), Err(WITHOUT_SCAN));
        assert_eq!(with_scans(&[SCAN, &[0xff, 0xd9], SCAN, &[0x55]]), Err(WITHOUT_SCAN));
    }

    #[test]
    fn a_segment_comes_right_behind_the_start() {
        let file = |junk: &[u8]| check_picture(&[&jpeg_after(junk), SCAN, &[0x55]].concat());
        assert_eq!((file(&[]), file(&[0xff, 0xff])), (Ok(()), Ok(())));
        assert!(file(&[0, 0x4b]).is_err() && file(&[0]).is_err());
    }

    #[test]
    fn a_million_segments_before_the_scan_are_given_up() {
        let segments = [0xff, 0xfe, 0x00, 0x02].repeat(1 << 20);
        assert!(with_scans(&[&segments, SCAN, &[0x55]]).is_err());
    }

    /// The result for a picture of 40x30 pixels with these bytes after its frame header.
    fn sizes_with(bytes: &[&[u8]]) -> Result<(), Fault> {
        let file = [&samples::jpeg(40, 30), &bytes.concat()[..]].concat();
        check_sizes(&file, Size::new(40, 30)).map(drop)
    }

    const END: &[u8] = &[0xff, 0xd9];

    #[test]
    fn a_second_frame_header_is_refused_wherever_it_stands_before_the_end() {
        let second = samples::jpeg(2_000, 1_000)[2..].to_vec();
        let (stored, other) = (Size::new(40, 30), Size::new(2_000, 1_000));
        let refused = Err(Fault::SecondSize { stored, other, place: SECOND_FRAME });
        let table = [0xff, 0xc4, 0, 3, 0];
        assert_eq!(sizes_with(&[&second, SCAN, &[0x55], END]), refused);
        for data in [0, 1, 61, 62, 63, 64, 65, 126, 127, 128, 129, 100_000] {
            let data = [0xff, 0x00, 0xff, 0xd0].repeat(data)[..data].to_vec();
            assert_eq!(sizes_with(&[SCAN, &data, &second]), refused, "{}", data.len());
            assert_eq!(sizes_with(&[SCAN, &data, &table, SCAN, &data, &second]), refused);
            assert_eq!(sizes_with(&[SCAN, &data, END, &second]), Ok(()));
        }
        assert_eq!(sizes_with(&[SCAN, &[0x55, 0xff, 0x02], &second]), refused);
        assert_eq!(sizes_with(&[SCAN, &[0x55, 0xff, 0xe0, 0, 1], &second]), refused);
    }

    #[test]
    fn a_picture_in_a_segment_or_behind_the_end_is_no_second_one() {
        let preview = samples::jpeg(160, 120);
        let length = u16::try_from(preview.len() + 2).unwrap().to_be_bytes();
        let application = [&[0xff, 0xe2], &length[..], &preview].concat();
        assert_eq!(sizes_with(&[&application, SCAN, &[0x55], &application, END]), Ok(()));
        let behind = [&samples::jpeg(2_000, 1_000), SCAN, &[0x55], END].concat();
        assert_eq!(sizes_with(&[SCAN, &[0x55], END, &behind, b"\0\0\0\x18ftypmp42"]), Ok(()));
    }

    #[test]
    fn a_number_of_lines_behind_the_scan_must_be_that_of_the_frame() {
        let lines = |number: u8| [0xff, 0xdc, 0, 4, 0, number];
        assert_eq!(sizes_with(&[SCAN, &[0x55], &lines(30), END]), Ok(()));
        assert!(sizes_with(&[SCAN, &[0x55], &lines(31), END]).is_err());
    }

    #[test]
    fn what_decoders_step_over_differently_is_refused_before_the_scan() {
        for marker in [0x02, 0xbf, 0xc8, 0xde, 0xdf, 0xf0, 0xfd] {
            let segment = [0xff, marker, 0, 4, 0, 0];
            assert!(read(&jpeg_after(&segment)).is_err(), "{marker:x}");
            assert!(sizes_with(&[&segment, SCAN, &[0x55]]).is_err(), "{marker:x}");
        }
        assert!(read(&jpeg_after(&[0xff, 0xfe, 0, 1])).is_err());
        let long_scan = [0xff, 0xda, 0, 10, 1, 1, 0, 0, 0x3f, 0, 0, 0];
        assert!(sizes_with(&[&long_scan, &[0x55]]).is_err());
    }

    #[test]
    fn twenty_megabytes_of_markers_behind_the_scan_are_given_up() {
        assert!(sizes_with(&[SCAN, &[0xff, 0xe0, 0, 2].repeat(5 << 20)]).is_err());
    }

    #[test]
    fn a_scan_or_an_end_before_the_frame_is_malformed() {
        assert_eq!(read(&jpeg_after(&[0xff, 0xda])), Err("has a scan before its frame header"));
        assert_eq!(read(&jpeg_after(&[0xff, 0xd9])), Err("ends before its frame header"));
    }
}
