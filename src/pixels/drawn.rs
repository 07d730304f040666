//! Pictures for the tests of this module.

use super::raster::{Raster, Samples};
use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::header::ImageHeader;

/// A smooth picture whose levels differ along both sides and between the colours.
pub(super) fn scene(size: Size, samples: Samples) -> Raster {
    let level = |part: u32, whole: u32| low(255 * part / whole.max(1));
    let pixels = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    let data = pixels.flat_map(|(x, y)| {
        let (across, down) = (level(x, size.width), level(y, size.height));
        let all = [across, down, (across / 2).wrapping_add(down / 2)];
        all.into_iter().take(samples.count())
    });
    Raster::new(size, samples, data.collect()).unwrap()
}

/// A level that is known to be below 256.
pub(super) fn low(level: u32) -> u8 {
    u8::try_from(level).unwrap()
}

/// The header of a file of this format and size.
pub(super) fn header(format: Format, size: Size) -> ImageHeader {
    ImageHeader::new(format, size, Orientation::Upright)
}

/// The largest difference between samples of two pictures of one kind.
pub(super) fn difference(one: &Raster, other: &Raster) -> u8 {
    assert_eq!((one.size(), one.samples()), (other.size(), other.samples()));
    let pairs = one.data().iter().zip(other.data());
    pairs.map(|(one, other)| one.abs_diff(*other)).max().unwrap()
}
