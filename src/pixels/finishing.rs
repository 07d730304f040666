//! The memory that resizing, turning and encoding take.

use super::raster::{Samples, bytes};
use super::resize::between_passes;
use crate::image::Size;

/// An upper bound of the bytes that are allocated for what follows the decoding of a picture of `size`, the picture
/// included.
pub(super) fn finishing_memory(size: Size, samples: Samples, to: Size) -> u64 {
    let to = Size::new(to.width.min(size.width), to.height.min(size.height));
    let of = |size| bytes(size, samples).map_or(u64::MAX, |bytes| bytes as u64);
    let resizing =
        of(size).saturating_add(between_passes(size, to, samples)).saturating_add(of(to));
    // The resized picture, a copy that is turned or filtered, and the compressed data and the file, which may be
    // larger than the picture and grow by doubling.
    let encoding = of(to).saturating_mul(7);
    resizing.max(encoding).saturating_add(FIXED)
}

/// What the tables of decoders, the weights of a convolution and small buffers take, in bytes.
pub(super) const FIXED: u64 = 4 << 20;
