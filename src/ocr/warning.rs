//! Warnings of an answer.

use serde::Serialize;

/// A doubt about an answer, or a limit that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OcrWarning {
    /// The model stopped at its output limit: the text is cut.
    Truncated,
    /// The text ends in a loop: the model repeated one fragment until it was stopped.
    RepetitionSuspected,
    /// The text is not whole in the notation that its task writes.
    UnbalancedMarkup,
    /// The image was read smaller than it is because of the tenant's cap.
    Downscaled,
    /// The upstream did not state its bill; the bound counts as unverified.
    UsageUnverified,
    /// The image's EXIF block turns it. It is not documented that the vendor turns it too, so boxes may be in the frame
    /// of the stored pixels.
    BoxesAssumeExif,
}

impl OcrWarning {
    /// The warnings that apply.
    pub(super) fn those<const N: usize>(found: [(bool, Self); N]) -> Vec<Self> {
        found.into_iter().filter_map(|(is_so, warning)| is_so.then_some(warning)).collect()
    }
}
