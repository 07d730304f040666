//! Checks an image against the provider's size limits before it is sent.
//!
//! A refusal by DashScope costs a round trip, and its message is "do not meet the model restrictions". The gateway's
//! message gives the limit and both numbers. The limits are from Model Studio, "Text extraction (Qwen-OCR)", image
//! limits, and from its "Error messages" page. The checks use the longer and the shorter side, so the orientation of
//! the image has no effect.

use crate::image::format::Format;
use crate::image::header::ImageHeader;

/// Both sides must be larger than 10 pixels, according to the guide and the live error. The error page says "at least
/// 10". The stricter limit satisfies both.
const SHORTEST_SIDE: u32 = 11;

/// The maximum ratio of the longer side to the shorter side.
pub(super) const WIDEST_ASPECT: u64 = 200;

/// The longer side of 4K (3840x2160). All formats are accepted up to this size.
const LONGER_SIDE_4K: u32 = 3_840;

/// The longer side of 8K (7680x4320). JPEG and PNG are accepted up to this size. Larger images are not documented.
pub(super) const LONGER_SIDE_8K: u32 = 7_680;

/// The maximum length of a data URL, in bytes, as given in the provider's error message.
const LONGEST_DATA_URL: u64 = 10_485_760;

/// A file of at most so many bytes fits into a data URL, whatever its format: the head of the URL has less than 32
/// bytes.
pub const LARGEST_FILE: u64 = (LONGEST_DATA_URL - 32) / 4 * 3;

/// A limit of the provider that an image violates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitViolation {
    /// The shorter side has too few pixels.
    #[error("the image's shorter side is {actual} px; at least {allowed} px are needed")]
    SideTooSmall {
        /// The shorter side, in pixels.
        actual: u32,
        /// The accepted minimum.
        allowed: u32,
    },
    /// The image is too long and thin.
    #[error("the image's aspect ratio is {actual}:1; at most {allowed}:1 is accepted")]
    AspectRatio {
        /// The longer side divided by the shorter side, rounded up.
        actual: u64,
        /// The accepted maximum.
        allowed: u64,
    },
    /// The longer side has more pixels than the format may have.
    #[error("the image's longer side is {actual} px; {format} may have at most {allowed} px")]
    TooLargeForFormat {
        /// The image's format.
        format: Format,
        /// The longer side, in pixels.
        actual: u32,
        /// The accepted maximum for this format.
        allowed: u32,
    },
    /// The file is too large to be sent inside a request.
    #[error("the image is {actual} bytes long as a data URL; at most {allowed} are accepted")]
    DataUrlTooLong {
        /// The data URL's length, in bytes.
        actual: u64,
        /// The accepted maximum.
        allowed: u64,
    },
}

impl LimitViolation {
    /// Whether a smaller copy of the image violates no limit.
    pub const fn is_of_size(&self) -> bool {
        matches!(self, Self::TooLargeForFormat { .. } | Self::DataUrlTooLong { .. })
    }
}

/// Compares an image of `bytes` bytes with the provider's limits.
///
/// # Errors
///
/// The first violated limit, in this order: shorter side, aspect ratio, longer side for the format, data URL length.
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

/// The maximum side for a format.
///
/// The vendor gives landscape resolutions and does not document how a portrait page is measured. Only the longer side
/// is compared, which is the lenient interpretation: an A4 page scanned at 600 dpi, 4961x7016, passes as 8K although
/// its shorter side is over 4320. If the provider refuses such a page, the call costs no tokens. If the gateway refused
/// a page that the provider accepts, the user could not process it.
const fn longest_side(format: Format) -> u32 {
    match format {
        Format::Jpeg | Format::Png => LONGER_SIDE_8K,
        Format::Webp | Format::Bmp | Format::Tiff | Format::Heic => LONGER_SIDE_4K,
    }
}

/// The length of the data URL of a file: the head, such as `data:image/png;base64,`, and four characters for every
/// three bytes.
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
