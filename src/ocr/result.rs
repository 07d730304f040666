//! The answers, in the shape that callers see (`openapi.yaml`).

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::lines::TextLine;
use super::notation::Notation;
use super::page_text::PageText;
use super::prepare::Prepared;
use super::request::OcrRequest;
use super::warning::OcrWarning;
use crate::auth::tenant::Tenant;
use crate::dashscope::completion::{Completion, FinishReason};
use crate::extract::Extraction;
use crate::image::format::Orientation;
use crate::ledger::budget::RemainingTokens;
use crate::metering::spend::Spend;
use crate::quote::{ImageQuote, Quote};
use crate::units::{Cost, Pixels, Tokens};

/// The answer of `/ocr`.
#[derive(Debug, Clone, Serialize)]
pub struct OcrAnswer {
    /// The id of the answer.
    pub id: Uuid,
    /// `succeeded`: an image has one page, and if it cannot be read there is an error instead.
    pub status: Status,
    /// The text of all pages, joined by form feeds.
    pub text: String,
    /// The pages.
    pub pages: Vec<Page>,
    /// Warnings about the whole.
    pub warnings: Vec<OcrWarning>,
    /// The members after the pages.
    #[serde(flatten)]
    pub facts: Facts,
}

/// The answer of `/extract`.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractAnswer {
    /// The id of the answer.
    pub id: Uuid,
    /// `succeeded`.
    pub status: Status,
    /// The model's text.
    pub text: String,
    /// The fields, with details of each.
    #[serde(flatten)]
    pub extraction: Extraction,
    /// The pages.
    pub pages: Vec<Page>,
    /// The members after the pages.
    #[serde(flatten)]
    pub facts: Facts,
}

/// The members that every answer has beside its pages.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The cost of the request.
    pub usage: Spend,
    /// The tenant's limits.
    pub limits: TenantLimits,
    /// The model that was called.
    pub model: String,
    /// The file.
    pub document: DocumentFacts,
    /// The upstream's part.
    pub upstream: UpstreamFacts,
    /// Durations, in milliseconds.
    pub timing_ms: Timing,
    /// The caller's own object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// Whether all pages were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All pages were read.
    Succeeded,
}

/// One page.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// Its number, from 1.
    pub page: u32,
    /// `succeeded`.
    pub status: Status,
    /// Its text.
    pub text: String,
    /// Width in pixels as a viewer shows it.
    pub width: u32,
    /// Height in pixels as a viewer shows it.
    pub height: u32,
    /// How it was sent.
    pub sent: Sent,
    /// Its image tokens.
    pub image_tokens: ImageTokens,
    /// Its lines, if they were requested.
    pub lines: Option<Vec<TextLine>>,
    /// The reason why the model stopped: `stop`, or `length` if the answer was cut at its limit.
    pub finish_reason: String,
    /// Warnings about the page.
    pub warnings: Vec<OcrWarning>,
    /// The notation of its text.
    #[serde(skip)]
    pub(super) notation: Notation,
}

/// How an image is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Width that the model reads.
    pub width: u32,
    /// Height that the model reads.
    pub height: u32,
    /// The parameter as sent.
    pub min_pixels: Pixels,
    /// The parameter as sent.
    pub max_pixels: Pixels,
    /// Whether the tenant's cap overruled the wish or made the image smaller.
    pub capped: bool,
}

/// Tokens of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageTokens {
    /// Known before sending.
    pub estimated: Tokens,
    /// As billed; null if the upstream did not state it.
    pub billed: Option<Tokens>,
}

/// The tenant's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantLimits {
    /// The cap of one image; the model's own default if the tenant has none.
    pub max_pixels: Pixels,
    /// Tokens that are left of budgets; null if there is no budget.
    pub tokens_remaining: RemainingTokens,
}

/// The uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentFacts {
    /// Its type, by its bytes.
    pub media_type: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
    /// The number of its pages.
    pub pages: u32,
}

/// The upstream's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamFacts {
    /// Its own ids of the calls, for its support.
    pub request_ids: Vec<String>,
    /// The endpoint that answered.
    pub endpoint: String,
}

/// Durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// From the end of the upload to the answer.
    pub total: u64,
    /// The part of it that was spent waiting for the upstream.
    pub upstream: u64,
}

/// The answer of `/estimate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The pages.
    pub pages: Vec<PageEstimate>,
    /// The most that one call can be billed.
    pub bound: CallBound,
    /// The tenant's limits.
    pub limits: TenantLimits,
    /// The model that would be called.
    pub model: String,
}

/// The cost of one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PageEstimate {
    /// Its number, from 1.
    pub page: u32,
    /// Width in pixels as a viewer shows it.
    pub width: u32,
    /// Height in pixels as a viewer shows it.
    pub height: u32,
    /// How it would be sent.
    pub sent: Sent,
    /// Its image tokens: exact, unless the vendor straightens it.
    pub image_tokens: Tokens,
}

/// The most that one call can be billed, which budgets must have free for it.
///
/// `/extract` may make a second call if the model's fields cannot be parsed, and an attempt whose bill is unknown may
/// be repeated once. Each is admitted by itself at a bound of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallBound {
    /// Exact, unless the vendor straightens the image; then the most that it can cost.
    pub image_tokens: Tokens,
    /// A bound of prompt and template.
    pub text_tokens: Tokens,
    /// The `max_tokens` that is sent.
    pub output_tokens: Tokens,
    /// All of them.
    pub total_tokens: Tokens,
    /// Their cost.
    pub cost: Cost,
}

impl Estimate {
    pub(super) fn of(quote: &Quote, tenant: &Tenant, remaining: RemainingTokens) -> Self {
        let page = PageEstimate {
            page: 1,
            width: quote.image.size.width,
            height: quote.image.size.height,
            sent: Sent::of(&quote.image),
            image_tokens: quote.image.tokens,
        };
        Self {
            pages: vec![page],
            bound: CallBound {
                image_tokens: quote.bound.image,
                text_tokens: quote.bound.text,
                output_tokens: quote.bound.output,
                total_tokens: quote.bound.total(),
                cost: Cost::of(quote.cost_bound(), quote.model.price.currency),
            },
            limits: TenantLimits::of(quote, tenant, remaining),
            model: quote.model.name.clone(),
        }
    }
}

impl OcrAnswer {
    /// The text of all pages as Markdown.
    pub fn markdown(&self) -> String {
        let pages = self.pages.iter().map(|page| page.notation.markdown(&page.text));
        pages.collect::<Vec<_>>().join("\n\n")
    }
}

impl Page {
    pub(super) fn of(prepared: &Prepared, completion: &Completion, request: &OcrRequest) -> Self {
        let image = &prepared.quote.image;
        let task = request.dashscope_task();
        let detail = request.options.detail;
        let reading = PageText::of(completion, task.as_ref(), detail, image.size);
        let warnings = warnings(prepared, completion, &reading);
        Self {
            page: 1,
            status: Status::Succeeded,
            text: reading.text,
            width: image.size.width,
            height: image.size.height,
            sent: Sent::of(image),
            image_tokens: ImageTokens {
                estimated: image.tokens,
                billed: completion
                    .receipt
                    .verified
                    .then_some(completion.receipt.settlement.usage.image),
            },
            lines: reading.lines,
            finish_reason: finish_reason(&completion.finish_reason),
            warnings,
            notation: reading.notation,
        }
    }
}

fn finish_reason(reason: &FinishReason) -> String {
    match reason {
        FinishReason::Stop => "stop".to_owned(),
        FinishReason::Length => "length".to_owned(),
        FinishReason::Other(code) => {
            code.as_ref().map_or("unknown".to_owned(), ToString::to_string)
        }
    }
}

fn warnings(prepared: &Prepared, completion: &Completion, reading: &PageText) -> Vec<OcrWarning> {
    let image = &prepared.quote.image;
    let turned = prepared.header.orientation != Orientation::default();
    let of_the_call = [
        (image.saved() > Tokens::ZERO, OcrWarning::Downscaled),
        (prepared.header.pages > 1, OcrWarning::FurtherPagesIgnored),
        (!completion.receipt.verified, OcrWarning::UsageUnverified),
        (turned && reading.lines.is_some(), OcrWarning::BoxesAssumeExif),
    ];
    [&reading.warnings[..], &OcrWarning::those(of_the_call)].concat()
}

impl Sent {
    fn of(image: &ImageQuote) -> Self {
        Self {
            width: image.sent.width,
            height: image.sent.height,
            min_pixels: image.geometry.min_pixels,
            max_pixels: image.geometry.max_pixels,
            capped: image.capped,
        }
    }
}

impl TenantLimits {
    pub(super) fn of(quote: &Quote, tenant: &Tenant, remaining: RemainingTokens) -> Self {
        let default = quote.model.figures.default_max_pixels;
        Self { max_pixels: tenant.max_pixels.unwrap_or(default), tokens_remaining: remaining }
    }
}

impl DocumentFacts {
    pub(super) fn of(prepared: &Prepared) -> Self {
        Self {
            media_type: prepared.header.format.media_type(),
            bytes: prepared.length,
            pages: prepared.header.pages,
        }
    }
}

impl Timing {
    pub(super) fn of(total: Duration, upstream: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { total: millis(total), upstream: millis(upstream) }
    }
}
