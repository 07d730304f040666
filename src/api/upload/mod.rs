//! The three ways of uploading a file, read into one place once.
//!
//! `multipart/form-data` with one part `file`, JSON with Base64, or the file itself as the body, which
//! is whatever is neither of the first two: the type of a file is decided by its bytes. The body is
//! counted as it comes, declared length or not, and a client that goes silent is cut off, so that
//! memory and time are bounded whatever is sent. The upload is held once, as one piece of memory.

mod body;
mod json;
mod multipart;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use prometheus::IntGauge;

use self::body::{collect, guard, too_large};
use self::json::read_json;
use self::multipart::read_multipart;
use super::options::raw::RawOptions;
use super::problem::Problem;
use crate::gateway::Gateway;

/// An uploaded file and the options that came with it.
#[derive(Debug)]
pub(super) struct Upload {
    /// The file.
    pub(super) file: Bytes,
    /// The options, as yet unread.
    pub(super) options: RawOptions,
    /// Counts the file's bytes as held until it is dropped.
    pub(super) held: HeldBytes,
}

/// Reads the upload of a request.
///
/// # Errors
///
/// 400, 408 or 413, each with what to change.
pub(super) async fn read(gateway: &Gateway, request: Request) -> Result<Upload, Problem> {
    let room = declared_room(gateway, &request)?;
    let mut options = RawOptions::default();
    options.add_query(request.uri().query().unwrap_or_default())?;
    let form = Form::of(request.headers());
    let request = guard(gateway, request);
    let file = match form {
        Form::Multipart => read_multipart(request, room, &mut options).await?,
        Form::Json => read_json(collect(request.into_body(), room).await?, &mut options).await?,
        Form::File => collect(request.into_body(), room).await?,
    };
    if file.is_empty() {
        return Err(Problem::bad_request("empty_file", "The file has no bytes. Send an image."));
    }
    let held = HeldBytes::holding(gateway, file.len());
    Ok(Upload { file, options, held })
}

/// Reads a body whole, whatever it is.
///
/// # Errors
///
/// 400, 408 or 413, each with what to change.
pub(super) async fn read_whole(
    gateway: &Gateway,
    request: Request,
) -> Result<(Bytes, HeldBytes), Problem> {
    let room = declared_room(gateway, &request)?;
    let body = collect(guard(gateway, request).into_body(), room).await?;
    let held = HeldBytes::holding(gateway, body.len());
    Ok((body, held))
}

/// Bytes that the sender declared; none where it declared none.
///
/// # Errors
///
/// 413 where it declared more than is taken.
fn declared_room(gateway: &Gateway, request: &Request) -> Result<usize, Problem> {
    let (limit, declared) = (gateway.bounds.body_bytes, declared_length(request.headers()));
    if let Some(length) = declared.filter(|&length| length > limit) {
        return Err(too_large(length, limit));
    }
    Ok(declared.map_or(0, |length| usize::try_from(length).unwrap_or(0)))
}

/// How the file is wrapped.
enum Form {
    Multipart,
    Json,
    File,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            return Self::Multipart;
        }
        let is_json = essence.eq_ignore_ascii_case("application/json");
        if is_json { Self::Json } else { Self::File }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Bytes that are counted as held in memory until this is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    gauge: IntGauge,
    bytes: i64,
}

impl HeldBytes {
    fn holding(gateway: &Gateway, bytes: usize) -> Self {
        let gauge = gateway.metrics.in_flight_bytes().clone();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        gauge.add(bytes);
        Self { gauge, bytes }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}
