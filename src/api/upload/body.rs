//! The bytes of a body as they come in: counted, timed, and gathered into one piece of memory.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt;

use crate::api::problem::Problem;
use crate::gateway::Gateway;

/// What can go wrong while a body comes in.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum BodyFault {
    #[error("the body is longer than {limit} bytes")]
    TooLarge { actual: u64, limit: u64 },
    #[error("the body came too slowly")]
    TooSlow,
    #[error("the body broke off")]
    BrokeOff,
}

/// Puts the limits of length, silence and time around a request's body.
pub(super) fn guard(gateway: &Gateway, request: Request) -> Request {
    let (limit, idle) = (gateway.bounds.body_bytes, gateway.bounds.body_idle);
    let until = tokio::time::Instant::now() + gateway.bounds.body_total;
    let (parts, body) = request.into_parts();
    let guarded = stream::try_unfold((body, 0), move |(mut body, read)| async move {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let piece = next_piece(&mut body, idle.min(left)).await?;
        let Some(piece) = piece else { return Ok(None) };
        let read = read + piece.len() as u64;
        if read > limit {
            return Err(BodyFault::TooLarge { actual: read, limit });
        }
        Ok(Some((piece, (body, read))))
    });
    Request::from_parts(parts, Body::from_stream(guarded))
}

async fn next_piece(body: &mut Body, patience: Duration) -> Result<Option<Bytes>, BodyFault> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        match frame.map_err(|_late| BodyFault::TooSlow)? {
            None => return Ok(None),
            Some(Err(_)) => return Err(BodyFault::BrokeOff),
            Some(Ok(frame)) => {
                // Trailers carry nothing that is wanted.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads a whole body into one piece of memory; `room` is what its sender declared.
pub(super) async fn collect(mut body: Body, room: usize) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::with_capacity(room);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error, "bad_request"))?;
        if let Ok(data) = frame.into_data() {
            collected.extend_from_slice(&data);
        }
    }
    Ok(collected.freeze())
}

/// The problem behind an error of a body, however deep the guard's own fault lies in it.
pub(super) fn broken(error: &(dyn Error + 'static), code: &'static str) -> Problem {
    let mut source = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref::<BodyFault>() {
            Some(BodyFault::TooLarge { actual, limit }) => return too_large(*actual, *limit),
            Some(BodyFault::TooSlow) => return too_slow(),
            Some(BodyFault::BrokeOff) => {
                return Problem::bad_request(code, "The body broke off before its end.");
            }
            None => source = cause.source(),
        }
    }
    Problem::bad_request(code, "The body cannot be read: it is cut off or its parts are malformed.")
}

pub(super) fn too_large(actual: u64, allowed: u64) -> Problem {
    let detail = format!(
        "The body has {actual} bytes or more; the limit is {allowed}. Send a smaller image: it is \
         scaled down for reading anyway."
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", detail)
        .limit("server.max_body_bytes", actual, allowed)
}

fn too_slow() -> Problem {
    let detail = "The body came too slowly. Send it again on a better connection.";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body came too slowly", detail)
        .retryable()
}
