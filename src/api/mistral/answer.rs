//! The answer.
//!
//! Members that the model does not provide are empty, as Mistral's API allows: pictures, hyperlinks, blocks and
//! confidence. Some members are added, which Mistral's SDKs ignore: the id and the cost of the request, the warnings of
//! a page, and why an annotation does not follow its schema.

use std::borrow::Cow;

use serde::Serialize;
use uuid::Uuid;

use super::request::MistralRequest;
use crate::api::page_problem::PageProblem;
use crate::extract::{Extraction, Validation};
use crate::metering::spend::Spend;
use crate::ocr::markdown::repeated::{RepeatedLines, SplitPage};
use crate::ocr::result::{Facts, Page};
use crate::ocr::warning::PageWarning;

/// The resolution of a page that is a picture, in pixels for an inch: that at which a pixel is a point. Mistral's API
/// requires a number, and the pixels of a picture have no other size.
const PICTURE_DPI: u32 = 72;

/// The answer to a request.
#[derive(Debug, Serialize)]
pub(in crate::api) struct MistralAnswer<'a> {
    pages: Vec<MistralPage<'a>>,
    model: &'a str,
    document_annotation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<&'a Validation>,
    usage_info: UsageInfo,
    id: Uuid,
    usage: &'a Spend,
}

#[derive(Debug, Serialize)]
struct MistralPage<'a> {
    index: u32,
    markdown: Cow<'a, str>,
    images: [(); 0],
    dimensions: Dimensions,
    tables: [(); 0],
    hyperlinks: [(); 0],
    header: Option<String>,
    footer: Option<String>,
    confidence_scores: (),
    blocks: (),
    warnings: &'a [PageWarning<PageProblem>],
}

#[derive(Debug, Serialize)]
struct Dimensions {
    dpi: u32,
    height: u32,
    width: u32,
}

#[derive(Debug, Serialize)]
struct UsageInfo {
    pages_processed: usize,
    doc_size_bytes: usize,
}

impl<'a> MistralAnswer<'a> {
    /// The answer that has these pages.
    pub(in crate::api) fn of(
        id: Uuid,
        pages: &[&'a Page<PageProblem>],
        facts: &'a Facts,
        extraction: Option<&'a Extraction>,
        asked: &MistralRequest,
    ) -> Self {
        let texts: Vec<_> = pages.iter().map(|page| (page.page, page.markdown())).collect();
        let lines = apart(&texts, asked);
        let usage_info =
            UsageInfo { pages_processed: pages.len(), doc_size_bytes: facts.document.bytes };
        let pages =
            pages.iter().zip(texts).map(|(page, (_, text))| MistralPage::of(page, text, lines));
        Self {
            pages: pages.collect(),
            model: &facts.model,
            document_annotation: extraction.map(|extraction| extraction.data.to_string()),
            validation: extraction.map(|extraction| &extraction.validation),
            usage_info,
            id,
            usage: &facts.usage,
        }
    }
}

/// The repeated lines that are wanted apart from the text.
fn apart(texts: &[(u32, Cow<'_, str>)], asked: &MistralRequest) -> RepeatedLines {
    if !asked.extract_header && !asked.extract_footer {
        return RepeatedLines::default();
    }
    let texts: Vec<_> = texts.iter().map(|(number, text)| (*number, &**text)).collect();
    let RepeatedLines { header, footer } = RepeatedLines::of(&texts);
    RepeatedLines {
        header: if asked.extract_header { header } else { 0 },
        footer: if asked.extract_footer { footer } else { 0 },
    }
}

impl<'a> MistralPage<'a> {
    fn of(page: &'a Page<PageProblem>, text: Cow<'a, str>, apart: RepeatedLines) -> Self {
        let (markdown, header, footer) = if apart == RepeatedLines::default() {
            (text, None, None)
        } else {
            let SplitPage { header, body, footer } = apart.split(&text);
            let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            (body.to_owned().into(), filled(header), filled(footer))
        };
        Self {
            index: page.page.saturating_sub(1),
            markdown,
            images: [],
            dimensions: Dimensions {
                dpi: page.dpi.unwrap_or(PICTURE_DPI),
                height: page.height,
                width: page.width,
            },
            tables: [],
            hyperlinks: [],
            header,
            footer,
            confidence_scores: (),
            blocks: (),
            warnings: &page.warnings,
        }
    }
}
