//! The provider's limits on an image's size, checked before the image is sent.
//!
//! A refusal by DashScope costs a round trip and reads "do not meet the model restrictions"; one by
//! the gateway names the limit and both numbers. The rules are those of Model Studio, "Text
//! extraction (Qwen-OCR)", image limits, and of its "Error messages" page. Sides are compared, so
//! it does not matter whether the image is stored upright.

use crate::image::format::Format;
use crate::image::header::ImageHeader;

/// Both sides must be larger than 10 pixels: the guide's wording and the live error's. The error
/// page says "at least 10"; the stricter one is safe with either.
const SHORTEST_SIDE: u32 = 11;

/// The longer side may be at most this many times the shorter.
pub(super) const WIDEST_ASPECT: u64 = 200;

/// The longer side of 4K, 3840x2160, up to which all formats are read.
const LONGER_SIDE_4K: u32 = 3_840;

/// The longer side of 8K, 7680x4320, up to which JPEG and PNG are read. Beyond it nothing is
/// documented.
const LONGER_SIDE_8K: u32 = 7_680;

/// The longest data URL, in bytes of its text: the number that the provider's error message names.
const LONGEST_DATA_URL: u64 = 10_485_760;

/// A limit of the provider that an image breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitViolation {
    /// The shorter side has too few pixels.
    #[error("the image's shorter side is {actual} px; at least {allowed} px are needed")]
    SideTooSmall {
        /// The shorter side, in pixels.
        actual: u32,
        /// The least that is accepted.
        allowed: u32,
    },
    /// The image is too long and thin.
    #[error("the image's aspect ratio is {actual}:1; at most {allowed}:1 is accepted")]
    AspectRatio {
        /// The longer side over the shorter, rounded up.
        actual: u64,
        /// The most that is accepted.
        allowed: u64,
    },
    /// The image has more pixels on its longer side than its format may have.
    #[error("the image's longer side is {actual} px; {format} may have at most {allowed} px")]
    TooLargeForFormat {
        /// The image's format.
        format: Format,
        /// The longer side, in pixels.
        actual: u32,
        /// The most that is accepted for this format.
        allowed: u32,
    },
    /// The file is too large to be sent inside a request.
    #[error("the image is {actual} bytes long as a data URL; at most {allowed} are accepted")]
    DataUrlTooLong {
        /// The data URL's length, in bytes.
        actual: u64,
        /// The most that is accepted.
        allowed: u64,
    },
}

/// Compares an image of `bytes` bytes with the provider's limits.
///
/// # Errors
///
/// The first limit that is broken: shortest side, aspect ratio, longest side of the format, length.
pub fn check(header: &ImageHeader, bytes: usize) -> Result<(), LimitViolation> {
    let (shorter, longer) = (header.stored.shorter_side(), header.stored.longer_side());
    if shorter < SHORTEST_SIDE {
        return Err(LimitViolation::SideTooSmall { actual: shorter, allowed: SHORTEST_SIDE });
    }
    let aspect = u64::from(longer).div_ceil(shorter.into());
    if aspect > WIDEST_ASPECT {
        return Err(LimitViolation::AspectRatio { actual: aspect, allowed: WIDEST_ASPECT });
    }
    let (format, allowed) = (header.format, longest_side(header.format));
    if longer > allowed {
        return Err(LimitViolation::TooLargeForFormat { format, actual: longer, allowed });
    }
    check_data_url(data_url_bytes(format, bytes))
}

/// Compares the length in bytes of a data URL with the provider's limit.
///
/// # Errors
///
/// [`LimitViolation::DataUrlTooLong`].
pub const fn check_data_url(length: u64) -> Result<(), LimitViolation> {
    if length > LONGEST_DATA_URL {
        return Err(LimitViolation::DataUrlTooLong { actual: length, allowed: LONGEST_DATA_URL });
    }
    Ok(())
}

/// The longest side that a format may have.
///
/// The vendor gives landscape resolutions and does not say how a portrait page is measured. Only
/// the longer side is compared, which is the lenient reading: an A4 page scanned at 600 dots an
/// inch, 4961x7016, passes as 8K although its shorter side is over 4320. A page wrongly sent costs
/// one refused call and no tokens; a page wrongly refused costs the user the page.
const fn longest_side(format: Format) -> u32 {
    match format {
        Format::Jpeg | Format::Png => LONGER_SIDE_8K,
        Format::Webp | Format::Bmp | Format::Tiff | Format::Heic => LONGER_SIDE_4K,
    }
}

/// How long the data URL of a file is: `data:image/png;base64,` and four letters for three bytes.
fn data_url_bytes(format: Format, bytes: usize) -> u64 {
    let prefix = "data:".len() + format.media_type().len() + ";base64,".len();
    let letters = bytes.div_ceil(3).saturating_mul(4);
    u64::try_from(prefix.saturating_add(letters)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Size;
    use crate::image::format::Orientation;

    fn checked(format: Format, width: u32, height: u32) -> Result<(), LimitViolation> {
        let header = ImageHeader::new(format, Size::new(width, height), Orientation::Upright);
        check(&header, 1_000)
    }

    #[test]
    fn a_side_of_eleven_pixels_passes_and_ten_do_not() {
        assert_eq!(checked(Format::Png, 65, 11), Ok(()));
        let too_small = LimitViolation::SideTooSmall { actual: 10, allowed: 11 };
        assert_eq!(checked(Format::Png, 10, 65), Err(too_small));
        assert_eq!(checked(Format::Png, 65, 10), Err(too_small));
    }

    #[test]
    fn an_aspect_of_exactly_200_passes_and_one_pixel_more_does_not() {
        assert_eq!(checked(Format::Png, 11, 2_200), Ok(()));
        let too_thin = LimitViolation::AspectRatio { actual: 201, allowed: 200 };
        assert_eq!(checked(Format::Png, 11, 2_201), Err(too_thin));
        assert_eq!(checked(Format::Png, 2_201, 11), Err(too_thin));
    }

    #[test]
    fn real_scans_in_portrait_pass() {
        assert_eq!(checked(Format::Jpeg, 4_961, 7_016), Ok(()));
        assert_eq!(checked(Format::Tiff, 2_560, 3_300), Ok(()));
    }

    #[test]
    fn each_format_ends_at_its_longest_side() {
        for format in [Format::Webp, Format::Bmp, Format::Tiff, Format::Heic] {
            assert_eq!(checked(format, 2_160, 3_840), Ok(()));
            assert!(checked(format, 3_841, 2_160).is_err(), "{format}");
        }
        for format in [Format::Jpeg, Format::Png] {
            assert_eq!(checked(format, 7_680, 4_320), Ok(()));
            let too_large =
                LimitViolation::TooLargeForFormat { format, actual: 7_681, allowed: 7_680 };
            assert_eq!(checked(format, 100, 7_681), Err(too_large));
        }
    }

    #[test]
    fn a_data_url_is_counted_with_its_prefix_and_padding() {
        assert_eq!(data_url_bytes(Format::Png, 0), 22);
        for (bytes, letters) in [(1, 4), (2, 4), (3, 4), (4, 8)] {
            assert_eq!(data_url_bytes(Format::Jpeg, bytes), 23 + letters);
        }
    }

    #[test]
    fn a_file_of_the_vendors_longest_data_url_passes_and_one_byte_more_does_not() {
        let header = ImageHeader::new(Format::Jpeg, Size::new(40, 30), Orientation::Upright);
        assert_eq!(check(&header, 7_864_302), Ok(()));
        assert!(check(&header, 7_864_303).is_err());
    }
}
