//! Doubts about an answer, which the answer itself shows.

use std::collections::BTreeSet;

use super::result::Page;
use super::warning::{OcrWarning, PageWarning};
use crate::extract::{Extraction, FieldErrorCode};

/// A sign that a page may have been read wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The text ends in a loop.
    Repetition,
    /// The text is cut.
    Truncated,
    /// The text is not whole in its notation.
    Markup,
    /// A field is missing that the schema requires.
    FieldMissing,
    /// A sum does not add up.
    SumWrong,
}

impl Doubt {
    /// The label in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Repetition => "repetition",
            Self::Truncated => "truncated",
            Self::Markup => "markup",
            Self::FieldMissing => "field_missing",
            Self::SumWrong => "sum_wrong",
        }
    }

    const fn of_warning(warning: OcrWarning) -> Option<Self> {
        match warning {
            // A loop is often cut, too: it is named first.
            OcrWarning::RepetitionSuspected => Some(Self::Repetition),
            OcrWarning::Truncated => Some(Self::Truncated),
            OcrWarning::UnbalancedMarkup => Some(Self::Markup),
            OcrWarning::Downscaled | OcrWarning::UsageUnverified | OcrWarning::BoxesAssumeExif => {
                None
            }
        }
    }
}

/// The doubts about one page.
pub(super) fn of_page<E>(page: &Page<E>) -> Vec<Doubt> {
    let plain = page.warnings.iter().filter_map(|warning| match warning {
        PageWarning::Plain(warning) => Doubt::of_warning(*warning),
        _ => None,
    });
    plain.collect()
}

/// The doubts about the fields of a document, with the pages that they are about; none of them if it may be any page.
pub(super) fn of_fields(extraction: &Extraction) -> Vec<(Doubt, BTreeSet<u32>)> {
    let errors = extraction.validation.errors.iter();
    let missing = errors.filter(|error| error.code == FieldErrorCode::RequiredMissing);
    let missing = missing.map(|_| (Doubt::FieldMissing, BTreeSet::new()));
    let wrong = extraction.checks.iter().flatten().filter(|check| !check.holds);
    let wrong = wrong.map(|check| {
        let parts = extraction.fields.iter().filter(|(at, _)| check.pointers.contains(at));
        (Doubt::SumWrong, parts.filter_map(|(_, origin)| origin.page).collect())
    });
    missing.chain(wrong).collect()
}
