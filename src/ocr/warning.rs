//! Warnings of an answer.

use serde::{Deserialize, Serialize};

use super::error::OcrError;

/// A doubt about an answer, or a limit that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// A warning about a page: a code, or an object with a code if there is more to say. `E` describes an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PageWarning<E = OcrError> {
    /// A warning that is only a code.
    Plain(OcrWarning),
    /// The page has its fields, but its text could not be read beside them.
    TextNotRead(TextNotRead<E>),
    /// The answer is in doubt, and the page could not be read again at the cap.
    NotReadAgain(NotReadAgain<E>),
}

/// A page that was not read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename = "not_read_again")]
pub struct NotReadAgain<E> {
    /// Why.
    pub error: E,
}

/// A text that was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename = "text_not_read")]
pub struct TextNotRead<E> {
    /// Why.
    pub error: E,
}

/// A remark on a document as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum DocumentWarning {
    /// All pages begin with the same lines. They are in the text of each.
    RepeatedHeader(RepeatedText),
    /// All pages end with the same lines. They are in the text of each.
    RepeatedFooter(RepeatedText),
}

/// Lines that are on several pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatedText {
    /// The pages, from 1.
    pub pages: Vec<u32>,
    /// The lines as they are on the first of these pages. Elsewhere the page number differs.
    pub text: String,
}

impl DocumentWarning {
    /// Its code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RepeatedHeader(_) => "repeated_header",
            Self::RepeatedFooter(_) => "repeated_footer",
        }
    }
}

impl<E> PageWarning<E> {
    /// Its code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Plain(warning) => warning.code(),
            Self::TextNotRead(_) => "text_not_read",
            Self::NotReadAgain(_) => "not_read_again",
        }
    }

    /// Whether the end of the text may be missing or wrong.
    pub(super) const fn doubts_the_end(&self) -> bool {
        matches!(self, Self::Plain(warning) if warning.doubts_the_end())
    }

    /// The same warning with another description of an error.
    pub(super) fn map_error<F>(self, map: impl FnOnce(E) -> F) -> PageWarning<F> {
        match self {
            Self::Plain(warning) => PageWarning::Plain(warning),
            Self::TextNotRead(TextNotRead { error }) => {
                PageWarning::TextNotRead(TextNotRead { error: map(error) })
            }
            Self::NotReadAgain(NotReadAgain { error }) => {
                PageWarning::NotReadAgain(NotReadAgain { error: map(error) })
            }
        }
    }
}

impl OcrWarning {
    /// Its code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::RepetitionSuspected => "repetition_suspected",
            Self::UnbalancedMarkup => "unbalanced_markup",
            Self::Downscaled => "downscaled",
            Self::UsageUnverified => "usage_unverified",
            Self::BoxesAssumeExif => "boxes_assume_exif",
        }
    }

    /// Whether the end of the text may be missing or wrong.
    const fn doubts_the_end(self) -> bool {
        matches!(self, Self::Truncated | Self::RepetitionSuspected | Self::UnbalancedMarkup)
    }

    /// The warnings that apply.
    pub(super) fn those<const N: usize>(found: [(bool, Self); N]) -> Vec<Self> {
        found.into_iter().filter_map(|(is_so, warning)| is_so.then_some(warning)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_code_is_what_the_answer_has() {
        for warning in [
            OcrWarning::Truncated,
            OcrWarning::RepetitionSuspected,
            OcrWarning::UnbalancedMarkup,
            OcrWarning::Downscaled,
            OcrWarning::UsageUnverified,
            OcrWarning::BoxesAssumeExif,
        ] {
            assert_eq!(json!(warning), Value::from(warning.code()));
            assert_eq!(json!(PageWarning::<()>::Plain(warning)), Value::from(warning.code()));
        }
        let unread = PageWarning::TextNotRead(TextNotRead { error: "why" });
        assert_eq!(json!(unread), json!({ "code": unread.code(), "error": "why" }));
        let unread = PageWarning::NotReadAgain(NotReadAgain { error: "why" });
        assert_eq!(json!(unread), json!({ "code": unread.code(), "error": "why" }));
        let text = RepeatedText { pages: vec![1, 2], text: "ACME".to_owned() };
        for warning in
            [DocumentWarning::RepeatedHeader(text.clone()), DocumentWarning::RepeatedFooter(text)]
        {
            assert_eq!(json!(warning)["code"], warning.code());
            assert_eq!(json!(warning)["pages"], json!([1, 2]));
        }
    }
}
