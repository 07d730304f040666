//! A page as a file that can be sent.

use super::error::{DocumentError, Resource};
use super::page::Drawn;
use crate::pixels::encode::{Encoding, encode};
use crate::pixels::raster::Raster;
use crate::quote::limits::LARGEST_FILE;

/// The qualities of JPEG that are tried until a picture is small enough to be sent. At the last one, small text begins
/// to suffer.
const QUALITIES: [u8; 3] = [90, 75, 50];

/// The picture as a file of at most [`LARGEST_FILE`] bytes. It keeps its size, because its size was quoted.
///
/// # Errors
///
/// [`DocumentError::TooComplex`] if it is too long even at the lowest quality.
pub(super) fn encoded(raster: &Raster) -> Result<Drawn, DocumentError> {
    let fitting = Encoding::fitting(raster);
    let smaller = QUALITIES.map(|quality| Encoding::Jpeg { quality });
    let others = smaller.into_iter().filter(|other| *other != fitting);
    let mut actual = 0;
    for encoding in [fitting].into_iter().chain(others) {
        let file = encode(raster, encoding).map_err(|error| DocumentError::PictureUndecodable {
            what: format!("cannot be encoded: {error}"),
        })?;
        actual = file.len() as u64;
        if actual <= LARGEST_FILE {
            let (format, size) = (encoding.format(), raster.size());
            return Ok(Drawn { bytes: file.into(), format, size });
        }
    }
    let (resource, allowed) = (Resource::EncodedBytes, LARGEST_FILE);
    Err(DocumentError::TooComplex { resource, actual: Some(actual), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Size;
    use crate::pixels::raster::Samples;

    #[test]
    fn noise_that_no_format_makes_small_enough_is_refused_with_both_numbers() {
        // A xorshift generator: its bytes do not compress.
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        });
        let size = Size::new(4500, 4500);
        let raster = Raster::new(size, Samples::Gray, noise.take(4500 * 4500).collect()).unwrap();
        let refused = encoded(&raster).unwrap_err();
        let DocumentError::TooComplex { resource: Resource::EncodedBytes, actual, allowed } =
            refused
        else {
            panic!("{refused:?}")
        };
        assert!(actual.is_some_and(|actual| actual > allowed));
    }
}
