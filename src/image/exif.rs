//! The orientation out of an EXIF block (CIPA DC-008).
//!
//! Cameras, editors and messengers write broken EXIF blocks, and no viewer refuses the picture for
//! it. So nothing here fails: if a block cannot be read, the picture is shown as stored.

use std::ops::Range;

use super::byte_order::ByteOrder;
use super::format::Orientation;
use super::tagged::Directory;

/// What a JPEG segment and some WebP files write before the block itself.
const IDENTIFIER: &[u8] = b"Exif\0\0";

/// The tag `Orientation`, which TIFF files have too.
pub(super) const ORIENTATION_TAG: u16 = 0x0112;

/// The orientation that a bare block, as in PNG, names. Upright where it names none.
pub(super) fn orientation(block: &[u8]) -> Orientation {
    Directory::first(block)
        .and_then(|directory| directory.number(ORIENTATION_TAG))
        .map_or(Orientation::Upright, Orientation::from_exif)
}

/// Where the number of the orientation stands in a bare block, and its byte order.
pub(super) fn place_of_orientation(block: &[u8]) -> Option<(Range<usize>, ByteOrder)> {
    let directory = Directory::first(block)?;
    Some((directory.place_of_number(ORIENTATION_TAG)?, directory.order()))
}

/// The block behind its identifier; `None` where the bytes start with something else.
pub(super) fn identified_block(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(IDENTIFIER)
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder;
    use super::super::samples;
    use super::*;

    #[test]
    fn every_orientation_is_read_in_both_byte_orders() {
        for order in [ByteOrder::Big, ByteOrder::Little] {
            for value in 1..=8 {
                let block = samples::exif(order, value);
                assert_eq!(orientation(&block), Orientation::from_exif(u32::from(value)));
            }
        }
    }

    #[test]
    fn a_block_cut_anywhere_or_with_a_wrong_number_is_upright() {
        let block = samples::exif(ByteOrder::Little, 6);
        for length in 0..block.len() - 4 {
            assert_eq!(orientation(&block[..length]), Orientation::Upright, "{length}");
        }
        assert_eq!(orientation(&samples::exif(ByteOrder::Big, 9)), Orientation::Upright);
    }
}
