//! Computes how DashScope scales an image, and how many tokens it bills for the result.
//!
//! The provider divides an image into square cells. It bills one token per cell and two tokens for the markers around
//! the image (Model Studio, "Text extraction (Qwen-OCR)", image tokens). It first rounds both sides to whole cells. If
//! the area is then outside the limits, it scales the image.
//!
//! The vendor's sample is a Python program with 64-bit floats. This code performs the same operations in the same
//! order, since the last bit matters: an image of 6000x3000 maps to exactly 128x64 cells, and a result that is one unit
//! in the last place smaller would lose a row. Exact integer arithmetic would differ from the sample for some sizes at
//! such an edge: between a dozen and a few hundred of the thirty million sizes up to 7680 pixels per side, depending on
//! the limits.
//!
//! The `smart_resize` that is published with the Qwen models (`qwen-vl-utils`) differs for slivers. It gives each side
//! at least one cell, even if a side below half a cell is rounded to zero. The vendor does not document which of the
//! two is used for billing. Shrinking follows the published code here, since a sliver under a small limit would
//! otherwise have no cells. For rounding, [`image_tokens`] follows the documentation and [`clamped_image_tokens`]
//! follows the published code. The larger result is the upper bound for a call.

use crate::image::Size;
use crate::units::{Pixels, Tokens};

use super::limits::WIDEST_ASPECT;

/// The tokens of the markers before and after an image. `image_tokens` in the provider's usage data includes them.
pub const MARKERS: Tokens = Tokens::new(2);

/// The parameters with which a model scales an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The side of a cell, in pixels: 32 or 28, depending on the model generation.
    pub cell: u32,
    /// An image with a smaller rounded area is enlarged.
    pub min_pixels: Pixels,
    /// An image with a larger rounded area is shrunk.
    pub max_pixels: Pixels,
}

/// The size to which the provider scales the image: whole cells, within the limits if the provider's formula keeps
/// them. An image with a side of zero has the result 0x0.
///
/// The formula can exceed `max_pixels` in two cases. Enlarging rounds up, so the result can exceed a `max_pixels` that
/// is close to `min_pixels`. A sliver can exceed it because its shorter side is at least one cell.
pub fn smart_resize(image: Size, geometry: &Geometry) -> Size {
    resize(image, geometry, 0.0)
}

/// Scales the image, and rounds each side to at least `least` cells.
fn resize(image: Size, geometry: &Geometry, least: f64) -> Size {
    if image.shorter_side() == 0 {
        return Size::new(0, 0);
    }
    let cell = f64::from(geometry.cell);
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let rounded = whole_cells(image, cell, |side| (side / cell).round_ties_even().max(least));
    if rounded.pixels() > geometry.max_pixels {
        // The factor is computed from the original sides, although the condition uses the rounded ones.
        let shrink = (height * width / area(geometry.max_pixels)).sqrt();
        return whole_cells(image, cell, |side| (side / shrink / cell).floor().max(1.0));
    }
    if rounded.pixels() < geometry.min_pixels {
        let enlarge = (area(geometry.min_pixels) / (height * width)).sqrt();
        return whole_cells(image, cell, |side| (side * enlarge / cell).ceil());
    }
    rounded
}

/// The tokens that are billed for an image: its cells and the two markers.
pub fn image_tokens(image: Size, geometry: &Geometry) -> Tokens {
    tokens(smart_resize(image, geometry), geometry)
}

/// The billed tokens according to the published code, which rounds no side to zero. The result differs from
/// [`image_tokens`] only if a side is at most half a cell.
pub fn clamped_image_tokens(image: Size, geometry: &Geometry) -> Tokens {
    tokens(resize(image, geometry, 1.0), geometry)
}

fn tokens(resized: Size, geometry: &Geometry) -> Tokens {
    let cells = |side: u32| u64::from(side.checked_div(geometry.cell).unwrap_or(0));
    Tokens::new(cells(resized.width) * cells(resized.height)).saturating_add(MARKERS)
}

/// The maximum number of tokens for an image of any size under `geometry`, with either formula. It is the upper bound
/// for an image that the gateway does not read, such as one given by URL.
///
/// An image within the limits has at most the cells of `max_pixels`. Two branches of the formula can exceed that
/// number: shrinking keeps a sliver at one row of cells, and enlarging rounds both sides up. The maximum aspect ratio
/// that the provider accepts bounds the excess.
pub fn most_image_tokens(geometry: &Geometry) -> Tokens {
    let (area, most) = (area_of_cell(geometry), geometry.max_pixels.get());
    let sliver = longest_row(most.div_ceil(area));
    let cells = (most / area).max(sliver).max(most_enlarged_cells(geometry));
    Tokens::new(cells).saturating_add(MARKERS)
}

/// The maximum number of pixels to which an image of any size can be enlarged under `geometry`.
pub fn most_enlarged(geometry: &Geometry) -> Pixels {
    Pixels::new(most_enlarged_cells(geometry).saturating_mul(area_of_cell(geometry)))
}

/// If the sides are `a` and `b` cells before they are rounded up, the result is below `(a + 1) * (b + 1)` cells.
fn most_enlarged_cells(geometry: &Geometry) -> u64 {
    let cells = geometry.min_pixels.get().div_ceil(area_of_cell(geometry));
    let shorter = (cells / WIDEST_ASPECT).isqrt().saturating_add(2);
    cells.saturating_add(longest_row(cells)).saturating_add(shorter)
}

/// The longer side, in cells, of the widest accepted image with this number of cells.
fn longest_row(cells: u64) -> u64 {
    WIDEST_ASPECT.saturating_mul(cells).isqrt().saturating_add(1)
}

fn area_of_cell(geometry: &Geometry) -> u64 {
    u64::from(geometry.cell).pow(2).max(1)
}

/// Both sides in pixels. `fit` computes the number of cells of a side.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole numbers that are not negative; the cast stops at the largest side"
)]
fn whole_cells(image: Size, cell: f64, fit: impl Fn(f64) -> f64) -> Size {
    let side = |pixels: u32| (fit(f64::from(pixels)) * cell) as u32;
    Size::new(side(image.width), side(image.height))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 pixels, far above every limit")]
fn area(pixels: Pixels) -> f64 {
    pixels.get() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELL_32: Geometry = geometry(32, 8_388_608);
    const CELL_28: Geometry = geometry(28, 6_422_528);

    const fn geometry(cell: u32, max_pixels: u64) -> Geometry {
        let min_pixels = if cell == 32 { 3_072 } else { 3_136 };
        Geometry { cell, min_pixels: Pixels::new(min_pixels), max_pixels: Pixels::new(max_pixels) }
    }

    fn assert_row(image: (u32, u32), geometry: Geometry, resized: (u32, u32), tokens: u64) {
        let image = Size::new(image.0, image.1);
        assert_eq!(smart_resize(image, &geometry), Size::new(resized.0, resized.1), "{image}");
        assert_eq!(image_tokens(image, &geometry), Tokens::new(tokens), "{image}");
    }

    #[test]
    fn the_bills_in_the_vendors_samples_are_met() {
        assert_row((689, 487), CELL_32, (704, 480), 332);
        assert_row((689, 487), CELL_28, (700, 476), 427);
        assert_row((1_500, 1_734), CELL_28, (1_512, 1_736), 3_350);
        assert_row((6_000, 3_000), CELL_32, (4_096, 2_048), 8_194);
        assert_row((6_000, 3_000), CELL_28, (3_584, 1_792), 8_194);
    }

    #[test]
    fn common_sizes_in_cells_of_32_match_the_formula() {
        assert_row((1_500, 1_734), CELL_32, (1_504, 1_728), 2_540);
        assert_row((1_240, 1_754), CELL_32, (1_248, 1_760), 2_147);
        assert_row((1_654, 2_339), CELL_32, (1_664, 2_336), 3_798);
        assert_row((2_480, 3_508), CELL_32, (2_432, 3_424), 8_134);
        assert_row((2_480, 3_508), geometry(32, 30_720_000), (2_496, 3_520), 8_582);
        assert_row((2_480, 3_508), geometry(32, 1_048_576), (832, 1_216), 990);
        assert_row((3_840, 2_160), CELL_32, (3_840, 2_176), 8_162);
        assert_row((1_920, 1_080), CELL_32, (1_920, 1_088), 2_042);
        assert_row((1_024, 1_024), CELL_32, (1_024, 1_024), 1_026);
        assert_row((4_032, 3_024), CELL_32, (3_328, 2_496), 8_114);
        assert_row((100, 100), CELL_32, (96, 96), 11);
        assert_row((8_000, 6_000), geometry(32, 30_720_000), (6_400, 4_800), 30_002);
    }

    #[test]
    fn common_sizes_in_cells_of_28_match_the_formula() {
        assert_row((1_240, 1_754), CELL_28, (1_232, 1_764), 2_774);
        assert_row((1_654, 2_339), CELL_28, (1_652, 2_352), 4_958);
        assert_row((2_480, 3_508), CELL_28, (2_128, 2_996), 8_134);
        assert_row((2_480, 3_508), geometry(28, 23_520_000), (2_492, 3_500), 11_127);
        assert_row((3_840, 2_160), CELL_28, (3_360, 1_876), 8_042);
        assert_row((1_920, 1_080), CELL_28, (1_932, 1_092), 2_693);
        assert_row((1_024, 1_024), CELL_28, (1_036, 1_036), 1_371);
        assert_row((4_032, 3_024), CELL_28, (2_912, 2_184), 8_114);
        assert_row((100, 100), CELL_28, (112, 112), 18);
        assert_row((8_000, 6_000), geometry(28, 23_520_000), (5_600, 4_200), 30_002);
    }

    #[test]
    fn half_a_cell_is_rounded_to_the_even_number_of_cells() {
        assert_row((80, 80), CELL_32, (64, 64), 6);
        assert_row((80, 80), CELL_28, (84, 84), 11);
        assert_row((144, 112), CELL_32, (128, 128), 18);
    }

    #[test]
    fn the_smallest_images_are_enlarged() {
        assert_row((11, 11), CELL_32, (64, 64), 6);
        assert_row((11, 11), CELL_28, (56, 56), 6);
    }

    #[test]
    fn a_sliver_that_rounds_to_nothing_is_scaled_by_the_lower_limit() {
        assert_row((2_000, 12), CELL_32, (736, 32), 25);
    }

    /// The published `smart_resize`, line by line.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers of cells that are not negative"
    )]
    fn published(image: Size, geometry: &Geometry) -> u64 {
        let factor = f64::from(geometry.cell);
        let (height, width) = (f64::from(image.height), f64::from(image.width));
        let (least, most) = (area(geometry.min_pixels), area(geometry.max_pixels));
        let mut h_bar = factor.max((height / factor).round_ties_even() * factor);
        let mut w_bar = factor.max((width / factor).round_ties_even() * factor);
        if h_bar * w_bar > most {
            let beta = ((height * width) / most).sqrt();
            h_bar = factor.max((height / beta / factor).floor() * factor);
            w_bar = factor.max((width / beta / factor).floor() * factor);
        } else if h_bar * w_bar < least {
            let beta = (least / (height * width)).sqrt();
            h_bar = (height * beta / factor).ceil() * factor;
            w_bar = (width * beta / factor).ceil() * factor;
        }
        (h_bar / factor) as u64 * (w_bar / factor) as u64 + MARKERS.get()
    }

    #[test]
    fn a_sliver_that_rounds_to_nothing_costs_a_row_of_cells_by_the_published_code() {
        for (sides, documented, clamped) in
            [((2_000, 12), 25, 64), ((12, 2_000), 25, 64), ((300, 16), 10, 11), ((60, 11), 7, 7)]
        {
            let image = Size::new(sides.0, sides.1);
            assert_eq!(image_tokens(image, &CELL_32), Tokens::new(documented), "{image}");
            assert_eq!(clamped_image_tokens(image, &CELL_32), Tokens::new(clamped), "{image}");
        }
    }

    #[test]
    fn a_sliver_that_is_shrunk_keeps_one_cell() {
        assert_row((8_000, 40), geometry(32, 100_000), (4_448, 32), 141);
        assert_row((40, 8_000), geometry(32, 100_000), (32, 4_448), 141);
    }

    #[test]
    fn an_image_a_little_above_the_limit_that_rounds_below_it_is_not_shrunk() {
        assert_row((1_039, 1_024), geometry(32, 1_048_576), (1_024, 1_024), 1_026);
    }

    #[test]
    fn on_an_edge_the_floats_of_the_vendors_program_decide() {
        // Exact arithmetic would give two cells per side, and 50x39 cells.
        assert_row((19, 19), CELL_28, (84, 84), 11);
        assert_row((1_760, 1_375), geometry(32, 2_000_000), (1_568, 1_248), 1_913);
    }

    #[test]
    fn sides_of_zero_and_the_largest_sides_do_not_panic() {
        let sides = [0, 1, 31, 2_147_483_647, u32::MAX];
        for (width, height) in sides.into_iter().flat_map(|w| sides.map(|h| (w, h))) {
            for geometry in [CELL_32, CELL_28, geometry(0, 0), geometry(u32::MAX, u64::MAX)] {
                assert!(image_tokens(Size::new(width, height), &geometry) >= MARKERS);
            }
        }
        assert_eq!(image_tokens(Size::new(0, 9), &CELL_32), MARKERS);
    }

    /// The documented formula in exact integers. With sides h and w and an area limit m, a shrunk side is the largest k
    /// cells of f pixels with k·f ≤ h·√(m/(h·w)), that is k² ≤ h·m/(f²·w). An enlarged side is the smallest k with
    /// k² ≥ h·m/(f²·w).
    fn exact_cells(image: Size, geometry: &Geometry) -> (u128, u128) {
        let cell = u128::from(geometry.cell);
        let (width, height) = (u128::from(image.width), u128::from(image.height));
        let nearest = |side: u128| {
            let (below, over) = (side / cell, 2 * (side % cell));
            below + u128::from(over > cell || (over == cell && below % 2 == 1))
        };
        let rounded = (nearest(width), nearest(height));
        let rounded_area = rounded.0 * rounded.1 * cell * cell;
        let (least, most) =
            (u128::from(geometry.min_pixels.get()), u128::from(geometry.max_pixels.get()));
        if rounded_area > most {
            let cells =
                |side: u128, other: u128| (side * most / (cell * cell * other)).isqrt().max(1);
            return (cells(width, height), cells(height, width));
        }
        if rounded_area < least {
            let cells = |side: u128, other: u128| {
                let square = (side * least).div_ceil(cell * cell * other);
                (square - 1).isqrt() + 1
            };
            return (cells(width, height), cells(height, width));
        }
        rounded
    }

    fn assert_exact(image: Size, geometry: &Geometry) {
        let resized = smart_resize(image, geometry);
        let cells = (resized.width / geometry.cell, resized.height / geometry.cell);
        let exact = exact_cells(image, geometry);
        assert_eq!((cells.0.into(), cells.1.into()), exact, "{image} {geometry:?}");
    }

    #[test]
    fn ten_thousand_random_sizes_agree_with_exact_integers() {
        // Xorshift (Marsaglia 2003): pseudo-random, and the same in every run.
        let mut state = 0x9e37_79b9_u32;
        let mut side = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            11 + state % 8_000
        };
        for _ in 0..10_000 {
            let image = Size::new(side(), side());
            for max_pixels in [3_072, 262_144, 786_432, 1_048_576, 8_388_608, 30_720_000] {
                assert_exact(image, &geometry(32, max_pixels));
            }
            for max_pixels in [3_136, 200_704, 1_003_520, 6_422_528, 23_520_000] {
                assert_exact(image, &geometry(28, max_pixels));
            }
        }
    }

    fn any_geometry() -> impl Strategy<Value = Geometry> {
        (prop::bool::ANY, 4_000..30_720_000_u64)
            .prop_map(|(is_new, max_pixels)| geometry(if is_new { 32 } else { 28 }, max_pixels))
    }

    proptest! {
        #[test]
        fn exchanging_the_sides_costs_the_same(
            width in any::<u32>(), height in any::<u32>(), geometry in any_geometry(),
        ) {
            let size = Size::new(width, height);
            prop_assert_eq!(image_tokens(size, &geometry), image_tokens(size.turned(), &geometry));
        }

        #[test]
        fn the_published_code_is_met_for_every_size_and_differs_only_for_slivers(
            width in 1..20_000_u32, height in 1..2_000_u32, geometry in any_geometry(),
        ) {
            for image in [Size::new(width, height), Size::new(width, height % 20 + 1)] {
                let clamped = clamped_image_tokens(image, &geometry);
                prop_assert_eq!(clamped.get(), published(image, &geometry), "{}", image);
                if 2 * image.shorter_side() > geometry.cell {
                    prop_assert_eq!(clamped, image_tokens(image, &geometry), "{}", image);
                }
            }
        }

        #[test]
        fn no_image_costs_more_than_its_cap_unless_a_side_is_at_one_cell(
            width in 1..20_000_u32, height in 1..20_000_u32, geometry in any_geometry(),
        ) {
            let image = Size::new(width, height);
            let resized = smart_resize(image, &geometry);
            let area = u64::from(geometry.cell) * u64::from(geometry.cell);
            let most = geometry.max_pixels.get() / area + MARKERS.get();
            let was_enlarged = resized.width > width + geometry.cell / 2;
            if resized.shorter_side() > geometry.cell && !was_enlarged {
                prop_assert!(image_tokens(image, &geometry).get() <= most);
            }
        }

        #[test]
        fn no_image_that_the_provider_takes_costs_more_than_the_bound_of_an_unseen_one(
            shorter in 11..2_000_u32, thousandths in 1_000..=200_000_u32, lowered in 0..4_u32,
            geometry in any_geometry(),
        ) {
            let longer = shorter * thousandths / 1_000;
            let max_pixels = Pixels::new(geometry.max_pixels.get() >> (4 * lowered));
            let geometry = Geometry { max_pixels: max_pixels.max(geometry.min_pixels), ..geometry };
            let enlarging = Geometry { min_pixels: geometry.max_pixels, ..geometry };
            for geometry in [geometry, enlarging] {
                let image = Size::new(longer, shorter);
                for tokens in [image_tokens(image, &geometry), clamped_image_tokens(image, &geometry)] {
                    prop_assert!(tokens <= most_image_tokens(&geometry), "{geometry:?}");
                }
            }
        }
    }
}
