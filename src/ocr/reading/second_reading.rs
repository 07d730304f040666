//! Reads pages again at the cap: those whose answer is in doubt, and some of the others to compare the two texts.
//!
//! Only a page with chosen pixels is read again, because at the cap nothing would be different. Each call is admitted by
//! itself. If it is refused or fails, the first answer is delivered.
//!
//! Of two answers, the one with fewer doubts is delivered. If both have as many, it is the one at the cap: it was read
//! from more pixels, and the length of a text says nothing, since a loop is long and a cut text may be whole.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, future, stream};

use super::{PageRead, Pass};
use crate::admission::Refusal;
use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::metering::context::{Held, RequestContext};
use crate::metering::error::MeteringError;
use crate::ocr::audit::AuditedText;
use crate::ocr::doubt::{self, Doubt};
use crate::ocr::error::OcrError;
use crate::ocr::facts::Source;
use crate::ocr::intake::Origin;
use crate::ocr::progress::out_of_time;
use crate::ocr::request::{OcrOptions, OcrRequest, Reading, TextBeside};
use crate::ocr::result::{FailedPage, Page, PageOutcome};
use crate::ocr::sheet::Preparation;
use crate::telemetry::metrics::AuditOutcome;

/// The longest time that an audit may take: that of a call at a busy upstream.
const AUDIT_TIME: Duration = Duration::from_mins(2);

impl Pass<'_> {
    /// Reads one page, and again at the cap if its pixels were chosen and its answer is in doubt. Begins an audit of a
    /// share of the others.
    pub(super) async fn page(&self, number: u32, origin: Origin) -> PageRead {
        let Preparation { request, kept, .. } = self.preparation;
        let (tenant, auditor) = (&request.context.tenant, &self.reader.auditor);
        let is_audited = kept.is_some() && auditor.draws(tenant);
        // The file stays held until the page was drawn again, so it is kept only if that may be.
        let again = (is_audited || request.may_escalate()).then(|| origin.again());
        let mut read = self.read_page(number, origin).await;
        let (Some(again), Some(page)) = (again, read.outcome.done_mut()) else { return read };
        if is_audited && page.source == Source::Blank {
            auditor.audit_blank(Arc::clone(tenant), self.audit(number, again));
            return read;
        }
        if !page.has_fewer_pixels() {
            if is_audited && page.is_held_by_factor() {
                auditor.held_at_the_cap(Arc::clone(tenant), page.audited_text());
            }
            return read;
        }
        let doubts = doubt::of_page(page);
        if let Some(doubt) = doubts.first().filter(|_| tenant.escalate) {
            return self.read_again(read, again, *doubt, is_audited).await;
        }
        if is_audited {
            let (text, reading) = (page.audited_text(), self.audit(number, again.again()));
            auditor.audit(Arc::clone(tenant), text, reading);
        }
        // The fields of the whole document may be in doubt.
        let may_follow = tenant.escalate && request.reading() == Reading::Fields;
        PageRead { again: may_follow.then_some(again), ..read }
    }

    /// Reads a page again at the cap, because of `doubt`.
    async fn read_again(
        &self,
        first: PageRead,
        origin: Origin,
        doubt: Doubt,
        is_audited: bool,
    ) -> PageRead {
        let tenant = &self.preparation.request.context.tenant;
        self.reader.metering.escalated(&self.preparation.request.context, doubt.label());
        self.partly(|| {
            let mut page = first.outcome.done().cloned()?;
            page.not_read_again(out_of_time());
            Some(page)
        });
        let second = self.at_the_cap().read_page(first.outcome.number(), origin).await;
        if let (true, Some(page), Some(reference)) =
            (is_audited, first.outcome.done(), second.outcome.done())
        {
            let (reference, text) = (audited(reference), page.audited_text());
            let is_read = future::ready(Ok(reference));
            self.reader.auditor.audit(Arc::clone(tenant), text, is_read);
        }
        better(first, second)
    }

    /// Reads pages again at the cap, because of `doubt` about the fields of their document.
    pub(in crate::ocr) async fn read_all_again(
        &self,
        pages: Vec<(u32, Origin)>,
        doubt: Doubt,
    ) -> Vec<PageRead> {
        let pass = &self.at_the_cap();
        let reading = stream::iter(pages).map(|(number, origin)| {
            self.reader.metering.escalated(&self.preparation.request.context, doubt.label());
            pass.read_page(number, origin)
        });
        reading.buffer_unordered(self.preparation.intake.limits().at_once).collect().await
    }

    /// The pass that reads pages of this request at the cap. Nobody follows it.
    fn at_the_cap(&self) -> Pass<'_> {
        Pass {
            preparation: Preparation { kept: None, ..self.preparation },
            follower: None,
            is_second: true,
            others: self.others.clone(),
            place: Arc::clone(&self.place),
            barrier: Arc::clone(&self.barrier),
            ..*self
        }
    }

    /// Reads a page at the cap to compare it, on a tab of its own.
    fn audit(
        &self,
        number: u32,
        origin: Origin,
    ) -> impl Future<Output = Result<AuditedText, AuditOutcome>> + Send + use<> {
        let Preparation { intake, request, model, .. } = self.preparation;
        let (reader, intake, model) = (self.reader.clone(), intake.clone(), Arc::clone(model));
        let deadline = reader.clock.instant() + AUDIT_TIME;
        let context = of_audit(&request.context, deadline);
        let options =
            OcrOptions { text_beside: TextBeside::None, metadata: None, ..request.options.clone() };
        let request = OcrRequest { options, context, ..request.clone() };
        async move {
            let preparation = Preparation {
                intake: &intake,
                request: &request,
                model: &model,
                deadline,
                kept: None,
            };
            let pass = Pass { is_second: true, ..Pass::over(&reader, preparation, None, false) };
            match pass.read_page(number, origin).await.outcome {
                PageOutcome::Done(page) => Ok(audited(&page)),
                PageOutcome::Failed(FailedPage { error, .. }) => Err(outcome_of(&error)),
            }
        }
    }
}

/// The context of an audit for the caller of `context`. Nobody waits for it, and the key must still be valid.
fn of_audit(context: &RequestContext, deadline: std::time::Instant) -> RequestContext {
    let tab = Tab::default();
    if let Some(key) = context.tab.names().key {
        tab.opened_with(&key);
    }
    RequestContext {
        tenant: Arc::clone(&context.tenant),
        deadline,
        watch: Watch { standing: context.watch.standing.clone(), ..Watch::default() },
        tab,
        held: Held::default(),
    }
}

/// A page that was read at the cap, to be compared.
fn audited(page: &Page) -> AuditedText {
    AuditedText { text: page.audited_text(), is_in_doubt: !doubt::of_page(page).is_empty() }
}

/// Why a page was not read again to compare it.
const fn outcome_of(error: &OcrError) -> AuditOutcome {
    match error {
        OcrError::Metering(MeteringError::Refused(
            Refusal::Budget { .. } | Refusal::Limit(_) | Refusal::Lapsed(_),
        )) => AuditOutcome::SkippedRefused,
        _ => AuditOutcome::SkippedFailed,
    }
}

/// The better of two readings of a page, with the cost of both.
fn better(mut first: PageRead, second: PageRead) -> PageRead {
    first.receipts.extend(second.receipts);
    let PageOutcome::Done(page) = &mut first.outcome else { return first };
    match second.outcome {
        PageOutcome::Failed(FailedPage { error, .. }) => page.not_read_again(error),
        PageOutcome::Done(other) if doubt::of_page(&other).len() > doubt::of_page(page).len() => {
            page.add_reading(other.image_tokens);
        }
        PageOutcome::Done(mut other) => {
            other.add_reading(page.image_tokens);
            return PageRead { outcome: PageOutcome::Done(other), memory: second.memory, ..first };
        }
    }
    first
}
