//! The answers, in the shape that callers see (`openapi.yaml`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::error::OcrError;
use super::facts::{DocumentFacts, PageFacts, Source};
use super::lines::{self, Frame, TextLine};
use super::notation::Notation;
use super::page_text::PageText;
use super::request::{Detail, OcrRequest, Reading};
use super::sent::{Sent, SentReason};
use super::warning::{DocumentWarning, NotReadAgain, OcrWarning, PageWarning, TextNotRead};
use crate::auth::tenant::Tenant;
use crate::capacity::account::HeldBytes;
use crate::catalog::Model;
use crate::dashscope::completion::{Completion, FinishReason, Receipt};
use crate::document::page::TextLayer;
use crate::document::workers::draft::SearchableFile;
use crate::extract::page_answer::PageAnswer;
use crate::extract::{Extraction, ExtractionWarning};
use crate::ledger::budget::RemainingTokens;
use crate::metering::spend::Spend;
use crate::units::{Cost, Pixels, Tokens, Usage};

/// How often a page's text is in memory until the answer is written, at most: in the page, in an event, in the text of
/// all pages, and twice in the answer as JSON, which may need more bytes for it.
const COPIES: u64 = 6;

/// Bytes of a line beside its text: here and as JSON, with nine coordinates each time.
const LINE_BYTES: u64 = 384;

/// The answer of `/ocr`. `E` describes the failure of a page.
#[derive(Debug, Clone, Serialize)]
pub struct OcrAnswer<E = OcrError> {
    /// The id of the answer.
    pub id: Uuid,
    /// `succeeded`, or `partial` if some pages failed. If all failed, there is an error instead.
    pub status: Status,
    /// The text of all pages, joined by form feeds.
    pub text: String,
    /// The pages, in their order in the document.
    pub pages: Vec<PageOutcome<Page<E>, E>>,
    /// Warnings about the whole.
    pub warnings: Vec<DocumentWarning>,
    /// The members after the pages.
    #[serde(flatten)]
    pub facts: Facts,
    /// The memory of the pages of a document, which counts until the answer is written.
    #[serde(skip)]
    pub memory: Vec<Arc<HeldBytes>>,
    /// The document with the lines as invisible text, if it was requested. The pages then have no lines.
    #[serde(skip)]
    pub searchable: Option<SearchableFile>,
}

/// The answer of `/extract`. `E` describes the failure of a page.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractAnswer<E = OcrError> {
    /// The id of the answer.
    pub id: Uuid,
    /// `succeeded`, or `partial` if some pages failed. If all failed, there is an error instead.
    pub status: Status,
    /// The text of all pages, joined by form feeds: what the model wrote for the fields, or the text that was read
    /// beside them.
    pub text: String,
    /// The fields of all pages that were read, with details of each.
    #[serde(flatten)]
    pub extraction: Extraction,
    /// The pages, in their order in the document.
    pub pages: Vec<PageOutcome<Page<E>, E>>,
    /// The members after the pages.
    #[serde(flatten)]
    pub facts: Facts,
    /// The memory of the pages of a document, which counts until the answer is written.
    #[serde(skip)]
    pub memory: Vec<Arc<HeldBytes>>,
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
    /// Some pages were read.
    Partial,
}

/// Whether a page was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageStatus {
    /// It was read.
    Succeeded,
    /// It has an error.
    Failed,
}

/// One page of an answer: what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PageOutcome<P = Page, E = OcrError> {
    /// It succeeded.
    Done(P),
    /// It failed.
    Failed(FailedPage<E>),
}

/// A page that was read. `E` describes why a part of it was not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<E = OcrError> {
    /// Its number, from 1.
    pub page: u32,
    /// `succeeded`.
    pub status: PageStatus,
    /// What its text came from.
    pub source: Source,
    /// Its text.
    pub text: String,
    /// Width in pixels as a viewer shows it.
    pub width: u32,
    /// Height in pixels as a viewer shows it.
    pub height: u32,
    /// Its resolution in pixels for an inch, if it is a page of a PDF.
    #[serde(skip)]
    pub dpi: Option<u32>,
    /// How it was sent; none if no model read it.
    pub sent: Option<Sent>,
    /// Its image tokens in all calls for it.
    pub image_tokens: ImageTokens,
    /// Its lines, if they were requested.
    pub lines: Option<Vec<TextLine>>,
    /// The reason why the model stopped: `stop`, or `length` if the answer was cut at its limit. None if no model read
    /// the page. If it was read twice, that of the text.
    pub finish_reason: Option<String>,
    /// Warnings about the page.
    pub warnings: Vec<PageWarning<E>>,
    /// The notation of its text.
    #[serde(skip)]
    pub(super) notation: Notation,
    /// What the model wrote of its fields, until those of all pages are merged.
    #[serde(skip)]
    pub(super) fields: Option<PageAnswer>,
}

/// A page that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedPage<E = OcrError> {
    /// Its number, from 1.
    pub page: u32,
    /// `failed`.
    pub status: PageStatus,
    /// Empty, so that the texts of all pages can be joined.
    pub text: &'static str,
    /// Why it failed.
    pub error: E,
}

/// An event while pages are read.
#[derive(Debug, Clone)]
pub enum PageEvent {
    /// The model wrote more of a page's text.
    Text {
        /// The page.
        page: u32,
        /// The new text.
        text: String,
    },
    /// A page is done.
    Done(Box<PageOutcome>),
}

/// Tokens of the image of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTokens {
    /// As known before sending, with one call for each reading. For a page that was read again at the cap, the sum of
    /// both sizes.
    pub estimated: Tokens,
    /// As billed for all calls that were answered; null if the upstream did not state one of the bills. More than
    /// estimated if a call was repeated because its answer could not be parsed.
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

/// The upstream's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamFacts {
    /// Its own ids of the calls, for its support.
    pub request_ids: Vec<String>,
    /// The endpoint that answered last; none if no page was sent.
    pub endpoint: Option<String>,
}

/// Durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// From the end of the upload to the answer.
    pub total: u64,
    /// The part of it that was spent waiting for the upstream.
    pub upstream: u64,
}

/// The answer of `/estimate`. `E` describes the failure of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate<E = OcrError> {
    /// The pages.
    pub pages: Vec<PageOutcome<PageEstimate, E>>,
    /// The most that the calls of the pages can be billed.
    pub bound: RequestBound,
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
    /// What its text would come from.
    pub source: Source,
    /// Width in pixels as a viewer shows it.
    pub width: u32,
    /// Height in pixels as a viewer shows it.
    pub height: u32,
    /// How it would be sent; none if no model would read it.
    pub sent: Option<Sent>,
    /// Its image tokens in all calls: exact, unless the vendor straightens it.
    pub image_tokens: Tokens,
}

/// The most that the calls of a request can be billed: one for each page, or two for its fields, because those that
/// cannot be parsed are asked for once more, and one for the text beside them; and all of these again at the cap, if
/// the answer may be read again.
///
/// Each call is admitted by itself, so a budget must have as much free as the pages that are read at the same time
/// need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestBound {
    /// Exact, unless the vendor straightens the image; then the most that it can cost.
    pub image_tokens: Tokens,
    /// A bound of prompt and template.
    pub text_tokens: Tokens,
    /// The `max_tokens` that is sent.
    pub output_tokens: Tokens,
    /// All of them.
    pub total_tokens: Tokens,
    /// The cost of all tokens.
    pub cost: Cost,
    /// The most that is counted beside them: an attempt whose bill stays unknown counts at its bound, and each call may
    /// have one that is repeated.
    pub unverified_tokens: Tokens,
    /// The cost of these.
    pub unverified_cost: Cost,
}

impl PageEstimate {
    pub(super) fn of(facts: &PageFacts) -> Self {
        let PageFacts { number, source, shown, .. } = *facts;
        Self {
            page: number,
            source,
            width: shown.width,
            height: shown.height,
            sent: facts.is_read.then(|| Sent::of(facts)),
            image_tokens: facts.image_tokens(),
        }
    }
}

impl RequestBound {
    /// The bound of calls that can be billed `usage`. `are_repeated`: whether an attempt is repeated if its bill is
    /// unknown.
    pub(super) fn of(usage: &Usage, model: &Model, are_repeated: bool) -> Self {
        let beside = if are_repeated { *usage } else { Usage::default() };
        let cost = |usage| Cost::of(model.price.of(usage), model.price.currency);
        Self {
            image_tokens: usage.image,
            text_tokens: usage.text,
            output_tokens: usage.output,
            total_tokens: usage.total(),
            cost: cost(usage),
            unverified_tokens: beside.total(),
            unverified_cost: cost(&beside),
        }
    }
}

impl<E> PageOutcome<Page<E>, E> {
    pub(super) const fn number(&self) -> u32 {
        match self {
            Self::Done(page) => page.page,
            Self::Failed(page) => page.page,
        }
    }

    /// The same outcome with another description of failures.
    pub fn map_error<F>(self, map: impl FnMut(E) -> F) -> PageOutcome<Page<F>, F> {
        match self {
            Self::Done(page) => PageOutcome::Done(page.map_error(map)),
            Self::Failed(page) => PageOutcome::Failed(page.map_error(map)),
        }
    }
}

impl<P, E> PageOutcome<P, E> {
    /// The page, if it succeeded.
    pub const fn done(&self) -> Option<&P> {
        match self {
            Self::Done(page) => Some(page),
            Self::Failed(_) => None,
        }
    }

    /// The page to change, if it succeeded.
    pub(super) const fn done_mut(&mut self) -> Option<&mut P> {
        match self {
            Self::Done(page) => Some(page),
            Self::Failed(_) => None,
        }
    }

    pub(super) const fn failed(page: u32, error: E) -> Self {
        Self::Failed(FailedPage::of(page, error))
    }
}

impl<E> FailedPage<E> {
    const fn of(page: u32, error: E) -> Self {
        Self { page, status: PageStatus::Failed, text: "", error }
    }

    fn map_error<F>(self, map: impl FnOnce(E) -> F) -> FailedPage<F> {
        FailedPage::of(self.page, map(self.error))
    }
}

impl Status {
    pub(super) fn of<P, E>(pages: &[PageOutcome<P, E>]) -> Self {
        let are_all_done = pages.iter().all(|page| page.done().is_some());
        if are_all_done { Self::Succeeded } else { Self::Partial }
    }
}

/// The texts of all pages, joined by form feeds.
pub(super) fn text_of<E>(pages: &[PageOutcome<Page<E>, E>]) -> String {
    let texts = pages.iter().map(|page| page.done().map_or("", |page| &page.text));
    texts.collect::<Vec<_>>().join("\u{c}")
}

impl<E> OcrAnswer<E> {
    /// The codes of all warnings about the document and its pages, each once.
    pub fn warning_codes(&self) -> BTreeSet<&'static str> {
        let of_pages = codes_of(&self.pages);
        self.warnings.iter().map(DocumentWarning::code).chain(of_pages).collect()
    }

    /// The same answer with another description of failures.
    pub fn map_errors<F>(self, mut map: impl FnMut(E) -> F) -> OcrAnswer<F> {
        let Self { id, status, text, pages, warnings, facts, memory, searchable } = self;
        let pages = pages.into_iter().map(|page| page.map_error(&mut map)).collect();
        OcrAnswer { id, status, text, pages, warnings, facts, memory, searchable }
    }
}

/// The codes of the warnings about the pages.
fn codes_of<E>(pages: &[PageOutcome<Page<E>, E>]) -> impl Iterator<Item = &'static str> {
    let pages = pages.iter().filter_map(PageOutcome::done);
    pages.flat_map(|page| page.warnings.iter().map(PageWarning::code))
}

impl<E> ExtractAnswer<E> {
    /// The codes of all warnings about the fields and the pages, each once.
    pub fn warning_codes(&self) -> BTreeSet<&'static str> {
        let of_fields = self.extraction.warnings.iter().map(ExtractionWarning::code);
        of_fields.chain(codes_of(&self.pages)).collect()
    }

    /// The same answer with another description of failures.
    pub fn map_errors<F>(self, mut map: impl FnMut(E) -> F) -> ExtractAnswer<F> {
        let Self { id, status, text, extraction, pages, facts, memory } = self;
        let pages = pages.into_iter().map(|page| page.map_error(&mut map)).collect();
        ExtractAnswer { id, status, text, extraction, pages, facts, memory }
    }
}

impl<E> Estimate<E> {
    /// The same estimate with another description of failures.
    pub fn map_errors<F>(self, mut map: impl FnMut(E) -> F) -> Estimate<F> {
        let Self { pages, bound, limits, model } = self;
        let pages = pages.into_iter().map(|page| match page {
            PageOutcome::Done(page) => PageOutcome::Done(page),
            PageOutcome::Failed(page) => PageOutcome::Failed(page.map_error(&mut map)),
        });
        let pages = pages.collect();
        Estimate { pages, bound, limits, model }
    }
}

impl Page {
    /// A page that a model read by one call.
    pub(super) fn of(
        facts: &PageFacts,
        completion: &Completion,
        request: &OcrRequest,
        reading: Reading,
    ) -> Self {
        let PageFacts { number, source, shown, dpi, .. } = *facts;
        let task = request.task_for(reading);
        let detail = match reading {
            Reading::Fields => Detail::Text,
            Reading::Text => request.options.detail,
        };
        let frame = Frame { sent: facts.quote.image.size, part: facts.part(), shown };
        let reading = PageText::of(completion, task.as_ref(), detail, frame);
        let warnings = warnings(facts, completion, &reading);
        Self {
            page: number,
            status: PageStatus::Succeeded,
            source,
            text: reading.text,
            width: shown.width,
            height: shown.height,
            dpi,
            sent: Some(Sent::of(facts)),
            image_tokens: ImageTokens::of(facts.quote.image.tokens, [&completion.receipt]),
            lines: reading.lines,
            finish_reason: Some(finish_reason(&completion.finish_reason)),
            warnings,
            notation: reading.notation,
            fields: None,
        }
    }

    /// The page whose fields are those of `self` and whose text is that of `text`.
    pub(super) fn with_text(self, text: Self) -> Self {
        let mut warnings = text.warnings;
        for warning in self.warnings {
            if warnings.iter().all(|other| other.code() != warning.code()) {
                warnings.push(warning);
            }
        }
        Self {
            sent: self.sent,
            image_tokens: self.image_tokens,
            finish_reason: text.finish_reason.or(self.finish_reason),
            warnings,
            fields: self.fields,
            ..text
        }
    }

    /// The page whose fields are those of `self`. It has no text, because of `error`.
    pub(super) fn without_text(mut self, error: OcrError) -> Self {
        self.warnings.push(PageWarning::TextNotRead(TextNotRead { error }));
        Self { text: String::new(), notation: Notation::Text, ..self }
    }

    /// Notes that the page could not be read again at the cap because of `error`.
    pub(super) fn not_read_again(&mut self, error: OcrError) {
        self.warnings.push(PageWarning::NotReadAgain(NotReadAgain { error }));
    }

    /// Notes in two readings of one page that it was read twice. Each then has the image tokens of both.
    pub(super) fn note_both_readings(first: &mut Self, second: &mut Self) {
        let image_tokens = first.image_tokens.plus(second.image_tokens);
        for page in [first, second] {
            page.image_tokens = image_tokens;
            if let Some(sent) = &mut page.sent {
                sent.escalated = true;
            }
        }
    }

    /// Whether it was sent with fewer pixels than without a choice.
    pub(super) fn has_fewer_pixels(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.reason == SentReason::Auto)
    }

    /// Whether only the factor of the tenant kept it from being sent with fewer pixels.
    pub(super) fn is_held_by_factor(&self) -> bool {
        let choice = self.sent.as_ref().and_then(|sent| sent.choice);
        choice.is_some_and(|choice| choice.is_held_by_factor)
    }

    /// What is compared with another reading of the page: the values of its fields, or its text.
    pub(super) fn text_to_compare(&self) -> String {
        self.fields.as_ref().map_or_else(|| self.text.clone(), PageAnswer::values)
    }

    /// Whether its text was to be read beside its fields and was not.
    pub(super) fn lacks_text(&self) -> bool {
        self.warnings.iter().any(|warning| matches!(warning, PageWarning::TextNotRead(_)))
    }

    /// A page that is answered from its own text. Its size is the one at which it would have been drawn.
    pub(super) fn of_layer(
        facts: &PageFacts,
        layer: &TextLayer,
        points: [f32; 2],
        detail: Detail,
    ) -> Self {
        let PageFacts { number, source, shown, dpi, .. } = *facts;
        Self {
            page: number,
            status: PageStatus::Succeeded,
            source,
            text: layer.text(),
            width: shown.width,
            height: shown.height,
            dpi,
            sent: None,
            image_tokens: ImageTokens { estimated: Tokens::ZERO, billed: Some(Tokens::ZERO) },
            lines: (detail == Detail::Lines).then(|| lines::of_layer(layer, points, shown)),
            finish_reason: None,
            warnings: Vec::new(),
            notation: Notation::Text,
            fields: None,
        }
    }

    /// A blank page.
    pub(super) fn blank(facts: &PageFacts, detail: Detail) -> Self {
        Self::of_layer(facts, &TextLayer::default(), [1.0, 1.0], detail)
    }
}

impl<E> Page<E> {
    /// The same page with another description of errors.
    pub fn map_error<F>(self, mut map: impl FnMut(E) -> F) -> Page<F> {
        let Self {
            page,
            status,
            source,
            text,
            width,
            height,
            dpi,
            sent,
            image_tokens,
            lines,
            finish_reason,
            warnings,
            notation,
            fields,
        } = self;
        let warnings = warnings.into_iter().map(|warning| warning.map_error(&mut map)).collect();
        Page {
            page,
            status,
            source,
            text,
            width,
            height,
            dpi,
            sent,
            image_tokens,
            lines,
            finish_reason,
            warnings,
            notation,
            fields,
        }
    }

    /// Its text as Markdown.
    pub fn markdown(&self) -> Cow<'_, str> {
        self.notation.markdown(&self.text)
    }

    /// The memory that the page takes until the answer is written, in bytes, by estimate.
    pub(super) fn bytes(&self) -> u64 {
        let text = |text: &str| COPIES * text.len() as u64;
        let lines = self.lines.iter().flatten().map(|line| LINE_BYTES + text(&line.text));
        let fields = self.fields.as_ref().map_or(0, |fields| COPIES * fields.bytes());
        text(&self.text) + lines.sum::<u64>() + fields
    }
}

impl ImageTokens {
    /// The tokens of calls with these receipts. The billed number is unknown if one of the bills is.
    pub(super) fn of<'a>(
        estimated: Tokens,
        receipts: impl IntoIterator<Item = &'a Receipt>,
    ) -> Self {
        let bills = receipts
            .into_iter()
            .map(|receipt| receipt.verified.then_some(receipt.settlement.usage.image));
        Self { estimated, billed: bills.sum() }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            estimated: self.estimated.saturating_add(other.estimated),
            billed: self.billed.zip(other.billed).map(|(own, other)| own.saturating_add(other)),
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

fn warnings(facts: &PageFacts, completion: &Completion, reading: &PageText) -> Vec<PageWarning> {
    let of_the_call = [
        (
            facts.quote.image.capped && facts.quote.image.saved() > Tokens::ZERO,
            OcrWarning::Downscaled,
        ),
        (!completion.receipt.verified, OcrWarning::UsageUnverified),
        (facts.is_turned && reading.lines.is_some(), OcrWarning::BoxesAssumeExif),
    ];
    let all = reading.warnings.iter().copied().chain(OcrWarning::those(of_the_call));
    all.map(PageWarning::Plain).collect()
}

impl TenantLimits {
    pub(super) fn of(model: &Model, tenant: &Tenant, remaining: RemainingTokens) -> Self {
        let default = model.figures.default_max_pixels;
        Self { max_pixels: tenant.max_pixels.unwrap_or(default), tokens_remaining: remaining }
    }
}

impl Timing {
    pub(super) fn of(total: Duration, upstream: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { total: millis(total), upstream: millis(upstream) }
    }
}
