//! Token counts.
//!
//! Image tokens come from [`geometry`](crate::geometry). Text tokens are an approximation, since the vocabulary is not
//! available: four bytes count as a token. The counts of the built-in prompts were measured on the vendor's samples.

use crate::geometry::PixelLimits;
use crate::models::Model;

/// UTF-8 bytes counted as one token of text.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Tokens of all images, each with its two markers.
    pub image: u64,
    /// Tokens of the prompt and the chat template.
    pub text: u64,
    /// Tokens written.
    pub output: u64,
}

impl Usage {
    /// Input tokens.
    pub const fn input(&self) -> u64 {
        self.image + self.text
    }

    /// Input and output tokens.
    pub const fn total(&self) -> u64 {
        self.input() + self.output
    }
}

/// Image tokens that a model bills for an upright image of `width` by `height` pixels.
///
/// `None` for an unknown model. For tests that compare another implementation with this one.
pub fn image_tokens(model: &str, width: u32, height: u32, limits: PixelLimits) -> Option<u64> {
    let geometry = Model::named(model)?.geometry_within(limits);
    Some(geometry.scale(width, height).tokens)
}

/// Approximate tokens of a text, by its length.
pub(crate) fn text_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

/// Tokens of a written text: at least one, since even an empty answer ends with one.
pub(crate) fn output_tokens(text: &str) -> u64 {
    text_tokens(text).max(1)
}

/// The beginning of `text` that fits into `most` tokens.
pub(crate) fn within_tokens(text: &str, most: u64) -> &str {
    let bytes = usize::try_from(most.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX);
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "qwen-vl-ocr-2025-11-20";
    const OLD: &str = "qwen-vl-ocr-2025-08-28";

    fn scaled(model: &str, width: u32, height: u32, max_pixels: Option<i64>) -> (u32, u32, u64) {
        let limits = PixelLimits { min_pixels: None, max_pixels };
        let scaled = Model::named(model).unwrap().geometry_within(limits).scale(width, height);
        (scaled.width, scaled.height, scaled.tokens)
    }

    #[test]
    fn the_documented_samples_cost_what_the_vendor_says() {
        assert_eq!(scaled(NEW, 689, 487, None), (704, 480, 332));
        assert_eq!(scaled(OLD, 689, 487, None), (700, 476, 427));
        assert_eq!(scaled(OLD, 1500, 1734, None), (1512, 1736, 3350));
        assert_eq!(scaled(NEW, 6000, 3000, None), (4096, 2048, 8194));
        assert_eq!(scaled(OLD, 6000, 3000, None), (3584, 1792, 8194));
    }

    #[test]
    fn the_computed_samples_of_the_newer_models_agree() {
        for (width, height, expected) in [
            (1500, 1734, (1504, 1728, 2540)),
            (1240, 1754, (1248, 1760, 2147)),
            (1654, 2339, (1664, 2336, 3798)),
            (2480, 3508, (2432, 3424, 8134)),
            (3840, 2160, (3840, 2176, 8162)),
            (1920, 1080, (1920, 1088, 2042)),
            (1024, 1024, (1024, 1024, 1026)),
            (4032, 3024, (3328, 2496, 8114)),
            (100, 100, (96, 96, 11)),
            (80, 80, (64, 64, 6)),
            (11, 11, (64, 64, 6)),
        ] {
            assert_eq!(scaled(NEW, width, height, None), expected, "{width}x{height}");
        }
    }

    #[test]
    fn the_computed_samples_of_the_older_models_agree() {
        for (width, height, expected) in [
            (1240, 1754, (1232, 1764, 2774)),
            (1654, 2339, (1652, 2352, 4958)),
            (2480, 3508, (2128, 2996, 8134)),
            (3840, 2160, (3360, 1876, 8042)),
            (1920, 1080, (1932, 1092, 2693)),
            (1024, 1024, (1036, 1036, 1371)),
            (4032, 3024, (2912, 2184, 8114)),
            (100, 100, (112, 112, 18)),
            (80, 80, (84, 84, 11)),
            (11, 11, (56, 56, 6)),
        ] {
            assert_eq!(scaled(OLD, width, height, None), expected, "{width}x{height}");
        }
    }

    #[test]
    fn max_pixels_moves_the_size_and_stops_at_the_models_maximum() {
        assert_eq!(scaled(NEW, 2480, 3508, Some(1_048_576)), (832, 1216, 990));
        assert_eq!(scaled(NEW, 2480, 3508, Some(i64::MAX)), (2496, 3520, 8582));
        assert_eq!(scaled(OLD, 2480, 3508, Some(i64::MAX)), (2492, 3500, 11127));
        assert_eq!(scaled(NEW, 8000, 6000, Some(i64::MAX)), (6400, 4800, 30_002));
        assert_eq!(scaled(OLD, 8000, 6000, Some(i64::MAX)), (5600, 4200, 30_002));
        assert_eq!(scaled(NEW, 100, 100, Some(-5)), scaled(NEW, 100, 100, Some(3_072)));
    }

    #[test]
    fn a_shrinking_sliver_keeps_one_cell_and_a_growing_one_follows_the_formula() {
        assert_eq!(scaled(NEW, 20_000, 110, Some(3_072)).1, 32);
        assert_eq!(scaled(NEW, 2000, 12, None), (736, 32, 25));
    }

    #[test]
    fn a_cut_text_never_costs_more_than_its_budget() {
        for text in ["plain words", "列车在十点三十分开车", "é😀é😀é😀é😀"] {
            for most in 1..8 {
                assert!(text_tokens(within_tokens(text, most)) <= most, "{text} at {most}");
            }
        }
    }
}
