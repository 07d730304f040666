//! What a request would cost. Nothing is sent.

use super::error::OcrError;
use super::prepare;
use super::request::OcrRequest;
use super::result::Estimate;
use crate::catalog::Catalog;
use crate::ledger::budget::RemainingTokens;

/// What the request would cost: the function behind `/estimate` and the command line.
///
/// # Errors
///
/// [`OcrError`] for each reason to refuse the request before it is sent, except limits and budgets that are used
/// up.
pub async fn estimate(catalog: &Catalog, request: &OcrRequest) -> Result<Estimate, OcrError> {
    let prepared = prepare::quoted(catalog, request).await?;
    Ok(Estimate::of(&prepared.quote, &request.context.tenant, RemainingTokens::default()))
}
