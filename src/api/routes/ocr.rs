//! `POST /ocr`: the text of an image.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{ocr_request, tell_spend};
use crate::api::accept;
use crate::api::entrance::{Entered, enter};
use crate::api::options::{Format, Purpose};
use crate::api::problem::Problem;
use crate::api::upload;
use crate::gateway::Gateway;

/// Reads the text of the uploaded image.
pub(in crate::api) async fn ocr(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter(&gateway, request.headers()).await?;
    let result = recognize(&gateway, &entered, request).await;
    Ok(entered.answer(result))
}

async fn recognize(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let upload = upload::read(gateway, request).await?;
    let wishes = upload.options.read(Purpose::Text).await?;
    let format = accept::negotiate(wishes.format, &headers)?;
    let request = ocr_request(gateway, entered, upload.file, wishes.options);
    let answer = gateway.ocr.recognize(&entered.tenant, request).await?;
    let mut response = match format {
        Format::Json => Json(&answer).into_response(),
        Format::Text => plain_text(answer.text),
    };
    tell_spend(&mut response, &answer.facts.usage, &answer.pages);
    Ok(response)
}

fn plain_text(text: String) -> Response {
    let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}
