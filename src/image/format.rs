//! The image formats that DashScope's OCR models read, and the orientation of a stored image.

use serde::{Deserialize, Serialize};

/// A format that the provider accepts (Model Studio, "Text extraction (Qwen-OCR)", image limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JPEG, also as the first picture of a Multi-Picture (MPO) file.
    Jpeg,
    /// PNG. For an animated PNG, the size is that of its still picture.
    Png,
    /// WebP, lossy and lossless.
    Webp,
    /// Windows bitmap.
    Bmp,
    /// TIFF. Only the first page is described.
    Tiff,
    /// HEIF with HEVC pictures, as written by phones.
    Heic,
}

impl Format {
    /// The media type for a `Content-Type` or a data URL, as the vendor lists it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
            Self::Heic => "image/heic",
        }
    }

    /// The display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Heic => "HEIC",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The transformation that a viewer applies to the stored pixels before it shows them.
///
/// The variants are the eight values of the EXIF tag `Orientation` (CIPA DC-008): all combinations of quarter turns
/// and mirroring. HEIC expresses the same transformations with properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// 1: shown as stored.
    #[default]
    Upright,
    /// 2: left and right are exchanged.
    MirroredLeftRight,
    /// 3: turned by half a turn.
    HalfTurn,
    /// 4: top and bottom are exchanged.
    MirroredTopBottom,
    /// 5: mirrored along the diagonal from the top left.
    Transposed,
    /// 6: turned clockwise by a quarter.
    QuarterTurnClockwise,
    /// 7: mirrored along the diagonal from the top right.
    Transversed,
    /// 8: turned counter-clockwise by a quarter.
    QuarterTurnCounterClockwise,
}

/// Every orientation as an optional left-right mirroring followed by clockwise quarter turns.
const BY_MIRROR_AND_TURNS: [[Orientation; 4]; 2] = {
    use Orientation::{
        HalfTurn, MirroredLeftRight, MirroredTopBottom, QuarterTurnClockwise,
        QuarterTurnCounterClockwise, Transposed, Transversed, Upright,
    };
    [
        [Upright, QuarterTurnClockwise, HalfTurn, QuarterTurnCounterClockwise],
        [MirroredLeftRight, Transversed, MirroredTopBottom, Transposed],
    ]
};

impl Orientation {
    /// The orientation for a value of the EXIF tag; upright for an undefined value.
    pub const fn from_exif(value: u32) -> Self {
        match value {
            2 => Self::MirroredLeftRight,
            3 => Self::HalfTurn,
            4 => Self::MirroredTopBottom,
            5 => Self::Transposed,
            6 => Self::QuarterTurnClockwise,
            7 => Self::Transversed,
            8 => Self::QuarterTurnCounterClockwise,
            _ => Self::Upright,
        }
    }

    /// Whether the shown width is the stored height.
    pub const fn swaps_sides(self) -> bool {
        matches!(
            self,
            Self::Transposed
                | Self::QuarterTurnClockwise
                | Self::Transversed
                | Self::QuarterTurnCounterClockwise
        )
    }

    /// The transformation that undoes this one.
    #[must_use]
    pub const fn inverse(self) -> Self {
        match self {
            Self::QuarterTurnClockwise => Self::QuarterTurnCounterClockwise,
            Self::QuarterTurnCounterClockwise => Self::QuarterTurnClockwise,
            own_inverse => own_inverse,
        }
    }

    /// This orientation followed by a number of clockwise quarter turns.
    #[must_use]
    pub fn then_turned_clockwise(self, quarters: usize) -> Self {
        let (mirrored, turns) = self.mirror_and_turns();
        BY_MIRROR_AND_TURNS[mirrored][(turns + quarters) % 4]
    }

    /// This orientation followed by a left-right mirroring.
    #[must_use]
    pub fn then_mirrored_left_right(self) -> Self {
        // Turning and then mirroring equals mirroring and then turning the other way.
        let (mirrored, turns) = self.mirror_and_turns();
        BY_MIRROR_AND_TURNS[1 - mirrored][(4 - turns) % 4]
    }

    const fn mirror_and_turns(self) -> (usize, usize) {
        match self {
            Self::Upright => (0, 0),
            Self::QuarterTurnClockwise => (0, 1),
            Self::HalfTurn => (0, 2),
            Self::QuarterTurnCounterClockwise => (0, 3),
            Self::MirroredLeftRight => (1, 0),
            Self::Transversed => (1, 1),
            Self::MirroredTopBottom => (1, 2),
            Self::Transposed => (1, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Orientation> {
        (1..=8).map(Orientation::from_exif)
    }

    #[test]
    fn four_quarter_turns_or_two_mirrorings_change_nothing() {
        for orientation in all() {
            assert_eq!(orientation.then_turned_clockwise(4), orientation);
            let twice = orientation.then_mirrored_left_right().then_mirrored_left_right();
            assert_eq!(twice, orientation);
        }
    }

    #[test]
    fn a_quarter_turn_always_swaps_the_sides_and_a_mirroring_never() {
        for orientation in all() {
            let swaps = orientation.swaps_sides();
            assert_ne!(orientation.then_turned_clockwise(1).swaps_sides(), swaps);
            assert_eq!(orientation.then_mirrored_left_right().swaps_sides(), swaps);
        }
    }

    #[test]
    fn a_mirrored_quarter_turn_is_a_diagonal_mirroring() {
        let turned = Orientation::Upright.then_turned_clockwise(1);
        assert_eq!(turned, Orientation::from_exif(6));
        assert_eq!(turned.then_mirrored_left_right(), Orientation::from_exif(5));
    }

    #[test]
    fn numbers_outside_one_to_eight_mean_upright() {
        for value in [0, 1, 9, 255, u32::MAX] {
            assert_eq!(Orientation::from_exif(value), Orientation::Upright);
        }
    }
}
