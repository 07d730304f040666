//! Reads the orientation from an EXIF block (CIPA DC-008).
//!
//! Cameras, editors and messengers write broken EXIF blocks, and viewers show such pictures anyway. So an unreadable
//! block is not an error, and the orientation is then upright.

use std::ops::Range;

use super::byte_order::ByteOrder;
use super::format::Orientation;
use super::tagged::TagDirectory;

/// The prefix of an EXIF block in a JPEG segment and in some WebP files.
const IDENTIFIER: &[u8] = b"Exif\0\0";

/// The tag `Orientation`, which TIFF files also use.
pub(super) const ORIENTATION_TAG: u16 = 0x0112;

/// The orientation in a block without the identifier, as in PNG. Upright if the block has none.
pub(super) fn orientation(block: &[u8]) -> Orientation {
    TagDirectory::first(block)
        .and_then(|directory| directory.number(ORIENTATION_TAG))
        .map_or(Orientation::Upright, Orientation::from_exif)
}

/// The position of the orientation value in a block without the identifier, and its byte order.
pub(super) fn place_of_orientation(block: &[u8]) -> Option<(Range<usize>, ByteOrder)> {
    let directory = TagDirectory::first(block)?;
    Some((directory.place_of_number(ORIENTATION_TAG)?, directory.order()))
}

/// The block after its identifier; `None` if the bytes do not start with the identifier.
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
