//! Reads pages again at the cap: those whose answer is in doubt, and some of the others to compare the two texts.
//!
//! Only a page with chosen pixels is read again, because at the cap nothing would be different. Each call is admitted
//! by itself. If it is refused or fails, the first answer is delivered.
//!
//! Of two answers, the one with fewer doubts is delivered. If both have as many, it is the one at the cap: it was read
//! from more pixels, and the length of a text says nothing, since a loop is long and a cut text may be whole.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, future, stream};

use super::{PageRead, Pass};
use crate::admission::Refusal;
use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::metering::context::{Held, RequestContext};
use crate::metering::error::MeteringError;
use crate::ocr::audit::ReferenceText;
use crate::ocr::doubt::{self, Doubt};
use crate::ocr::error::OcrError;
use crate::ocr::facts::Source;
use crate::ocr::intake::Origin;
use crate::ocr::progress::{PagesRead, out_of_time};
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
        let Preparation { request, legible, .. } = self.preparation;
        let is_audited = legible.is_some() && self.reader.auditor.draws(&request.context.tenant);
        // The file stays held until the page was drawn again, so it is kept only if that may be.
        let again = (is_audited || request.may_escalate()).then(|| origin.again());
        let read = self.read_page(number, origin).await;
        match again {
            Some(again) => self.followed_up(read, again, is_audited).await,
            None => read,
        }
    }

    /// Does what follows the first reading of a page, and returns the page as it is delivered.
    async fn followed_up(&self, read: PageRead, again: Origin, is_audited: bool) -> PageRead {
        let request = self.preparation.request;
        let Some(page) = read.outcome.done() else { return read };
        let may_escalate = request.context.tenant.escalate && page.has_fewer_pixels();
        if may_escalate && let Some(doubt) = doubt::of_page(page).first() {
            return self.read_again(read, again, *doubt, is_audited).await;
        }
        if is_audited {
            self.audit(page, again.again());
        }
        // The fields of the whole document may be in doubt.
        let may_follow = may_escalate && request.reading() == Reading::Fields;
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
            let is_read = future::ready(Ok(ReferenceText::of(reference)));
            self.reader.auditor.audit(Arc::clone(tenant), page.text_to_compare(), is_read);
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
            preparation: Preparation { legible: None, ..self.preparation },
            follower: None,
            is_second: true,
            others: self.others.clone(),
            place: Arc::clone(&self.place),
            barrier: Arc::clone(&self.barrier),
            ..*self
        }
    }

    /// Begins the audit of a page, if there is something to learn from it.
    fn audit(&self, page: &Page, again: Origin) {
        let auditor = &self.reader.auditor;
        let tenant = Arc::clone(&self.preparation.request.context.tenant);
        if page.source == Source::Blank {
            auditor.audit_blank(tenant, self.reference(page.page, again));
        } else if page.has_fewer_pixels() {
            auditor.audit(tenant, page.text_to_compare(), self.reference(page.page, again));
        } else if page.is_held_by_factor() {
            auditor.held_at_the_cap(tenant, page.text_to_compare());
        }
    }

    /// Reads a page at the cap for an audit, on a tab of its own.
    fn reference(
        &self,
        number: u32,
        origin: Origin,
    ) -> impl Future<Output = Result<ReferenceText, AuditOutcome>> + Send + use<> {
        let Preparation { intake, request, model, .. } = self.preparation;
        let (reader, intake, model) = (self.reader.clone(), intake.clone(), Arc::clone(model));
        let deadline = reader.clock.instant() + AUDIT_TIME;
        let context = audit_context(&request.context, deadline);
        let options =
            OcrOptions { text_beside: TextBeside::None, metadata: None, ..request.options.clone() };
        let request = OcrRequest { options, context, ..request.clone() };
        async move {
            let preparation = Preparation {
                intake: &intake,
                request: &request,
                model: &model,
                deadline,
                legible: None,
            };
            let pass = Pass { is_second: true, ..Pass::over(&reader, preparation, None, false) };
            match pass.read_page(number, origin).await.outcome {
                PageOutcome::Done(page) => Ok(ReferenceText::of(&page)),
                PageOutcome::Failed(FailedPage { error, .. }) => Err(outcome_of(&error)),
            }
        }
    }
}

/// The context of an audit for the caller of `context`. Nobody waits for it, and the key must still be valid.
fn audit_context(context: &RequestContext, deadline: Instant) -> RequestContext {
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
        PageOutcome::Done(mut other) => {
            Page::note_both_readings(page, &mut other);
            if doubt::of_page(&other).len() <= doubt::of_page(page).len() {
                let outcome = PageOutcome::Done(other);
                return PageRead { outcome, memory: second.memory, ..first };
            }
        }
    }
    first
}

impl PagesRead {
    /// Puts pages that were read again in the place of their first readings, with the cost of both. Returns the first
    /// readings that were replaced.
    pub(in crate::ocr) fn replace(&mut self, second: Vec<PageRead>) -> Vec<Page> {
        let mut replaced = Vec::new();
        for PageRead { outcome, receipts, memory, .. } in second {
            for receipt in &receipts {
                self.tally.add(receipt);
            }
            let Some(page) = self.done_mut(outcome.number()) else { continue };
            match outcome {
                PageOutcome::Failed(FailedPage { error, .. }) => page.not_read_again(error),
                PageOutcome::Done(mut other) => {
                    Page::note_both_readings(page, &mut other);
                    replaced.push(mem::replace(page, other));
                    self.memory.extend(memory);
                }
            }
        }
        replaced
    }

    /// Puts first readings back that were [replaced](Self::replace).
    pub(in crate::ocr) fn restore(&mut self, replaced: Vec<Page>) {
        for page in replaced {
            if let Some(second) = self.done_mut(page.page) {
                *second = page;
            }
        }
    }

    fn done_mut(&mut self, number: u32) -> Option<&mut Page> {
        let mut done = self.pages.iter_mut().filter_map(PageOutcome::done_mut);
        done.find(|page| page.page == number)
    }
}
