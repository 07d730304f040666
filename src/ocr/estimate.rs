//! Estimates the cost of a request without sending anything.

use super::error::OcrError;
use super::prepare;
use super::request::OcrRequest;
use super::result::Estimate;
use crate::catalog::Catalog;
use crate::ledger::budget::RemainingTokens;

/// Estimates the cost of the request, for `/estimate` and the command line.
///
/// # Errors
///
/// [`OcrError`] for each reason to refuse the request before it is sent, except exhausted limits and budgets.
pub async fn estimate(catalog: &Catalog, request: &OcrRequest) -> Result<Estimate, OcrError> {
    let prepared = prepare::quoted(catalog, request).await?;
    Ok(Estimate::of(&prepared.quote, &request.context.tenant, RemainingTokens::default()))
}
