//! What the caller should know of a text beside the text.

use serde::Serialize;

/// Something that the caller should know.
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
    /// The file has further pages that were not read.
    FurtherPagesIgnored,
    /// The upstream did not say what it billed; the bound is counted as unverified.
    UsageUnverified,
    /// The image is turned by its EXIF block; that the provider turns it likewise is not documented,
    /// so boxes may be in the frame of the stored pixels.
    BoxesAssumeExif,
}

impl OcrWarning {
    /// Those that are so.
    pub(super) fn those<const N: usize>(found: [(bool, Self); N]) -> Vec<Self> {
        found.into_iter().filter_map(|(is_so, warning)| is_so.then_some(warning)).collect()
    }
}
