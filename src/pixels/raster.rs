//! A decoded picture: eight bits a sample, one or three samples a pixel, no transparency.

use crate::image::Size;
use crate::image::format::Orientation;

/// The samples of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Samples {
    /// One: how bright it is.
    Gray,
    /// Three: red, green and blue.
    Rgb,
}

impl Samples {
    /// The number of bytes that a pixel takes.
    pub const fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// A decoded picture. Its rows are stored from top to bottom, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Raster {
    size: Size,
    samples: Samples,
    data: Vec<u8>,
    is_uncertain: bool,
}

impl Raster {
    /// A picture of these samples; `None` if their number is not that of the pixels, or if there are no pixels.
    pub fn new(size: Size, samples: Samples, data: Vec<u8>) -> Option<Self> {
        let is_whole = bytes(size, samples) == Some(data.len()) && !data.is_empty();
        is_whole.then_some(Self { size, samples, data, is_uncertain: false })
    }

    /// A picture of one colour: `level` in all samples.
    pub(super) fn filled(size: Size, samples: Samples, level: u8) -> Option<Self> {
        Self::new(size, samples, vec![level; bytes(size, samples)?])
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The samples of each pixel.
    pub fn samples(&self) -> Samples {
        self.samples
    }

    /// All samples.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Whether others may see another picture: transparent pixels were laid on white, or rows that are lost are white.
    pub fn is_uncertain(&self) -> bool {
        self.is_uncertain
    }

    /// The same picture. `is_uncertain`: whether others may see another one.
    #[must_use]
    pub(super) fn uncertain_if(mut self, is_uncertain: bool) -> Self {
        self.is_uncertain = is_uncertain;
        self
    }

    /// All samples, without a copy.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The picture as a viewer shows it that obeys `orientation`.
    ///
    /// Takes the memory of a second picture of this size, so a large picture is resized first.
    #[must_use]
    pub fn upright(mut self, orientation: Orientation) -> Self {
        if orientation == Orientation::Upright {
            return self;
        }
        let (from, size) = (self.size, upright_size(self.size, orientation));
        let data = match self.samples {
            Samples::Gray => turned::<1>(&self.data, from, orientation),
            Samples::Rgb => turned::<3>(&self.data, from, orientation),
        };
        (self.size, self.data) = (size, data);
        self
    }

    /// The same picture in gray if all its pixels are gray ([`are_gray`]), else unchanged.
    #[must_use]
    pub fn without_empty_colour(mut self) -> Self {
        if self.samples == Samples::Gray {
            return self;
        }
        let (pixels, _) = self.data.as_chunks::<3>();
        if !are_gray(pixels) {
            return self;
        }
        self.data = pixels.iter().map(|[_, green, _]| *green).collect();
        self.samples = Samples::Gray;
        self
    }
}

/// Leaves out the samples.
impl std::fmt::Debug for Raster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Raster({} {:?})", self.size, self.samples)
    }
}

/// The most that the levels of red and blue differ from green in a pixel that counts as gray.
///
/// A gray scan that is stored as a JPEG in colour comes back with differences of one or two levels, from rounding. Four
/// levels of 256 are not visible.
const GRAY: u8 = 4;

/// Whether all pixels are gray: red, green and blue, and what else a pixel has.
pub fn are_gray<const N: usize>(pixels: &[[u8; N]]) -> bool {
    const { assert!(N >= 3) };
    // Compared in groups, which the compiler turns into vector code.
    let most_colour = |group: &[[u8; N]]| {
        let colour = |pixel: &[u8; N]| pixel[0].abs_diff(pixel[1]).max(pixel[1].abs_diff(pixel[2]));
        group.iter().map(colour).fold(0, u8::max)
    };
    pixels.chunks(1_024).all(|group| most_colour(group) <= GRAY)
}

/// The bytes of a picture; `None` if they exceed the address space.
pub(super) fn bytes(size: Size, samples: Samples) -> Option<usize> {
    usize::try_from(size.pixels().get()).ok()?.checked_mul(samples.count())
}

fn upright_size(stored: Size, orientation: Orientation) -> Size {
    if orientation.swaps_sides() { stored.turned() } else { stored }
}

/// The side of the squares in which rows become columns. The rows of a square stay in the first-level cache.
const SQUARE: usize = 32;

fn turned<const N: usize>(data: &[u8], from: Size, orientation: Orientation) -> Vec<u8> {
    use Orientation::{
        HalfTurn, MirroredLeftRight, MirroredTopBottom, QuarterTurnClockwise,
        QuarterTurnCounterClockwise, Transversed,
    };
    let (stored, _) = data.as_chunks::<N>();
    let (width, height) = (from.width as usize, from.height as usize);
    // The column of the stored picture that becomes the first row, or the row that does.
    let is_from_right = matches!(
        orientation,
        MirroredLeftRight | HalfTurn | Transversed | QuarterTurnCounterClockwise
    );
    let is_from_bottom =
        matches!(orientation, MirroredTopBottom | HalfTurn | Transversed | QuarterTurnClockwise);
    let row_of = |row: usize| if is_from_bottom { height - 1 - row } else { row };
    if !orientation.swaps_sides() {
        let mut upright = Vec::with_capacity(stored.len());
        for row in 0..height {
            let row = &stored[row_of(row) * width..][..width];
            if is_from_right {
                upright.extend(row.iter().rev());
            } else {
                upright.extend_from_slice(row);
            }
        }
        return upright.into_flattened();
    }
    let mut upright = vec![[0; N]; stored.len()];
    for top in (0..width).step_by(SQUARE) {
        for left in (0..height).step_by(SQUARE) {
            for row in top..(top + SQUARE).min(width) {
                let column = if is_from_right { width - 1 - row } else { row };
                let into = &mut upright[row * height..][..height];
                for (place, pixel) in into.iter_mut().enumerate().skip(left).take(SQUARE) {
                    *pixel = stored[row_of(place) * width + column];
                }
            }
        }
    }
    upright.into_flattened()
}

#[cfg(test)]
mod tests {
    use super::super::drawn::scene;
    use super::*;

    fn orientations() -> impl Iterator<Item = Orientation> {
        (1..=8).map(Orientation::from_exif)
    }

    /// Where a viewer shows the stored pixel (x, y), by the definition of the tag: which sides of the picture row 0 and
    /// column 0 are.
    fn shown(value: u32, (x, y): (u32, u32), stored: Size) -> (u32, u32) {
        let (right, bottom) = (stored.width - 1 - x, stored.height - 1 - y);
        match value {
            1 => (x, y),
            2 => (right, y),
            3 => (right, bottom),
            4 => (x, bottom),
            5 => (y, x),
            6 => (bottom, x),
            7 => (bottom, right),
            _ => (y, right),
        }
    }

    #[test]
    fn every_pixel_comes_to_the_place_that_the_orientation_defines() {
        for (samples, size) in
            [(Samples::Gray, Size::new(70, 41)), (Samples::Rgb, Size::new(3, 66))]
        {
            let (stored, count) = (scene(size, samples), samples.count());
            for value in 1..=8 {
                let upright = stored.clone().upright(Orientation::from_exif(value));
                for (y, x) in (0..size.height).flat_map(|y| (0..size.width).map(move |x| (y, x))) {
                    let (column, row) = shown(value, (x, y), size);
                    let from = (y * size.width + x) as usize * count;
                    let to = (row * upright.size.width + column) as usize * count;
                    assert_eq!(
                        stored.data[from..][..count],
                        upright.data[to..][..count],
                        "{value}"
                    );
                }
            }
        }
    }

    #[test]
    fn turning_and_mirroring_one_after_the_other_equals_both_at_once() {
        let stored = scene(Size::new(37, 5), Samples::Rgb);
        for orientation in orientations() {
            let upright = stored.clone().upright(orientation);
            let then_turned = upright.clone().upright(Orientation::QuarterTurnClockwise);
            let at_once = orientation.then_turned_clockwise(1);
            assert_eq!(then_turned, stored.clone().upright(at_once), "{orientation:?}");
            let then_mirrored = upright.upright(Orientation::MirroredLeftRight);
            let at_once = orientation.then_mirrored_left_right();
            assert_eq!(then_mirrored, stored.clone().upright(at_once), "{orientation:?}");
        }
    }

    #[test]
    fn colour_is_left_out_only_if_no_pixel_has_any() {
        let size = Size::new(9, 4);
        let gray = scene(size, Samples::Gray);
        let data: Vec<u8> = gray.data.iter().flat_map(|&level| [level; 3]).collect();
        let empty = Raster::new(size, Samples::Rgb, data.clone()).unwrap();
        assert_eq!(empty.without_empty_colour(), gray);
        let last = |level: u8| {
            let mut data = data.clone();
            // The last sample is blue.
            data.pop();
            data.push(level);
            Raster::new(size, Samples::Rgb, data).unwrap()
        };
        let level = *gray.data.last().unwrap();
        assert_eq!(last(level ^ GRAY).without_empty_colour(), gray, "it is not visible");
        let coloured = last(level.wrapping_add(GRAY + 1));
        assert_eq!(coloured.clone().without_empty_colour(), coloured);
    }

    #[test]
    fn samples_must_be_as_many_as_the_pixels_need() {
        let size = Size::new(2, 3);
        assert!(Raster::new(size, Samples::Gray, vec![0; 6]).is_some());
        assert!(Raster::new(size, Samples::Rgb, vec![0; 17]).is_none());
        assert!(Raster::new(Size::new(0, 3), Samples::Gray, Vec::new()).is_none());
    }
}
