//! Estimates the cost of a request without sending anything. Pages are planned but not drawn. Where their pixels are
//! chosen, they are measured, too.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::error::OcrError;
use super::facts::PageFacts;
use super::intake::{Intake, Job, Origin};
use super::request::OcrRequest;
use super::result::{Estimate, PageEstimate, PageOutcome, RequestBound, TenantLimits};
use super::sheet::Preparation;
use crate::catalog::Model;
use crate::ledger::budget::RemainingTokens;
use crate::units::Usage;

/// Estimates the cost of the request, for `/estimate` and the command line.
///
/// # Errors
///
/// [`OcrError`] for each reason to refuse the request before it is sent, except exhausted limits and budgets. If no
/// page can be sent, the error of the first.
pub async fn estimate(intake: &Intake, request: &OcrRequest) -> Result<Estimate, OcrError> {
    let mut request = request.clone();
    let deadline = request.context.deadline;
    let Job { model, pages, .. } = intake.open(&mut request, deadline).await?;
    let legible = intake.legible(&request);
    let preparation = Preparation { intake, request: &request, model: &model, deadline, legible };
    let planned = stream::iter(pages.each())
        .map(|(number, origin)| async move { (number, planned(preparation, number, origin).await) })
        .buffered(intake.limits().at_once)
        .collect::<Vec<_>>()
        .await;
    if let Some(error) = first_of_all_errors(&planned) {
        return Err(error);
    }
    Ok(summed(intake, planned, &request, &model))
}

/// The facts of one page.
async fn planned(
    preparation: Preparation<'_>,
    number: u32,
    origin: Origin,
) -> Result<PageFacts, OcrError> {
    match origin {
        Origin::Picture(picture) => Ok(preparation.plan_picture(&picture).await?.into_facts()),
        Origin::In(document) => Ok(preparation.plan(&document, number).await?.facts),
    }
}

/// The first error, if there is nothing else.
fn first_of_all_errors(planned: &[(u32, Result<PageFacts, OcrError>)]) -> Option<OcrError> {
    let errors: Option<Vec<_>> = planned.iter().map(|(_, page)| page.as_ref().err()).collect();
    errors?.first().copied().cloned()
}

fn summed(
    intake: &Intake,
    planned: Vec<(u32, Result<PageFacts, OcrError>)>,
    request: &OcrRequest,
    model: &Arc<Model>,
) -> Estimate {
    let mut bound = Usage::default();
    let mut pages = Vec::new();
    for (number, page) in planned {
        pages.push(match page {
            Ok(facts) => {
                bound = bound.plus(&facts.bound(request.reading()));
                if request.may_escalate() {
                    bound = bound.plus(&facts.bound_again());
                }
                PageOutcome::Done(PageEstimate::of(&facts))
            }
            Err(error) => PageOutcome::failed(number, error),
        });
    }
    Estimate {
        pages,
        bound: RequestBound::of(&bound, model, intake.repeats_unknown_bills(request)),
        limits: TenantLimits::of(model, &request.context.tenant, RemainingTokens::default()),
        model: model.name.clone(),
    }
}
