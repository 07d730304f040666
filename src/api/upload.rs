//! The three ways of uploading a file, read into one place once.
//!
//! `multipart/form-data` with one part `file`, JSON with Base64, or the file itself as the body, which
//! is whatever is neither of the first two: the type of a file is decided by its bytes. The body is
//! counted as it comes, declared length or not, and a client that goes silent is cut off, so that
//! memory and time are bounded whatever is sent. The upload is held once, as one piece of memory.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt;
use prometheus::IntGauge;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::options::raw::{OPTION_BYTES, RawOptions};
use super::problem::Problem;
use crate::gateway::Gateway;

/// Decoding more than this many bytes takes longer than the reactor may be held.
const DECODE_INLINE_BYTES: usize = 128 * 1024;

/// Members of a JSON upload at most: every option once and the document, with room for repeats.
const MOST_MEMBERS: usize = 64;

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
fn guard(gateway: &Gateway, request: Request) -> Request {
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
async fn collect(mut body: Body, room: usize) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::with_capacity(room);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error, "bad_request"))?;
        if let Ok(data) = frame.into_data() {
            collected.extend_from_slice(&data);
        }
    }
    Ok(collected.freeze())
}

async fn read_multipart(
    request: Request,
    room: usize,
    options: &mut RawOptions,
) -> Result<Bytes, Problem> {
    let malformed = |detail: String| Problem::bad_request("malformed_multipart", detail);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|rejection| {
        malformed(format!("{}. Let your client write the Content-Type.", rejection.body_text()))
    })?;
    let mut file = None;
    loop {
        let part =
            parts.next_field().await.map_err(|error| broken(&error, "malformed_multipart"))?;
        let Some(part) = part else { break };
        let name = part.name().unwrap_or_default().to_owned();
        if name == "file" {
            if file.is_some() {
                let detail = "There are two parts named `file`. Send one file a request.";
                return Err(Problem::bad_request("multiple_files", detail));
            }
            file = Some(read_part(part, room, usize::MAX).await?);
        } else {
            let value = read_part(part, 0, OPTION_BYTES).await?;
            options.add_part(&name, &value)?;
        }
    }
    file.ok_or_else(|| {
        let detail = "There is no part named `file`. With curl: -F file=@page.jpg";
        Problem::bad_request("missing_file", detail)
    })
}

async fn read_part(
    mut part: axum::extract::multipart::Field<'_>,
    room: usize,
    limit: usize,
) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::with_capacity(room);
    loop {
        let piece = part.chunk().await.map_err(|error| broken(&error, "malformed_multipart"))?;
        let Some(piece) = piece else { return Ok(collected.freeze()) };
        if collected.len() + piece.len() > limit {
            let name: String = part.name().unwrap_or_default().chars().take(32).collect();
            let detail = format!("The part `{name}` is longer than {limit} bytes.");
            return Err(Problem::bad_request("invalid_option", detail));
        }
        collected.extend_from_slice(&piece);
    }
}

/// The problem behind an error of a body, however deep the guard's own fault lies in it.
fn broken(error: &(dyn Error + 'static), code: &'static str) -> Problem {
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

fn too_large(actual: u64, allowed: u64) -> Problem {
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

/// The body of a JSON upload: the document, and every other member an option.
///
/// Read by hand instead of derived, so that the document's Base64 is borrowed from the body instead of
/// becoming part of a tree, and an option given twice is noticed.
struct JsonUpload<'a> {
    document: Option<JsonDocument<'a>>,
    options: Vec<(Cow<'a, str>, &'a RawValue)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDocument<'a> {
    r#type: JsonDocumentType,
    #[serde(borrow, default)]
    data: Option<Cow<'a, str>>,
    #[serde(default, rename = "url")]
    _url: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "filename")]
    _filename: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum JsonDocumentType {
    Base64,
    Url,
}

impl<'de> Deserialize<'de> for JsonUpload<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = JsonUpload<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a member `document`")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut members: A,
            ) -> Result<Self::Value, A::Error> {
                let mut upload = JsonUpload { document: None, options: Vec::new() };
                while let Some(name) = members.next_key::<Cow<'de, str>>()? {
                    if upload.options.len() == MOST_MEMBERS {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    if name != "document" {
                        upload.options.push((name, members.next_value()?));
                    } else if upload.document.replace(members.next_value()?).is_some() {
                        return Err(serde::de::Error::duplicate_field("document"));
                    }
                }
                Ok(upload)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Decodes a JSON upload, away from the reactor where it is large.
async fn read_json(body: Bytes, options: &mut RawOptions) -> Result<Bytes, Problem> {
    if body.len() <= DECODE_INLINE_BYTES {
        return decode_json(&body, options);
    }
    let mut given = std::mem::take(options);
    let decoding = tokio::task::spawn_blocking(move || {
        let file = decode_json(&body, &mut given)?;
        Ok::<_, Problem>((file, given))
    });
    let (file, given) = decoding.await.map_err(|_panicked| Problem::internal())??;
    *options = given;
    Ok(file)
}

fn decode_json(body: &[u8], options: &mut RawOptions) -> Result<Bytes, Problem> {
    let upload: JsonUpload<'_> = serde_json::from_slice(body).map_err(|error| {
        // The parser's message may quote the body; its position does not.
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = if error.is_data() { "has the wrong shape" } else { "is not JSON" };
        let detail = format!(
            "The body {what} at {place}. Expected \
             {{\"document\":{{\"type\":\"base64\",\"data\":\"…\"}}, …options}}."
        );
        Problem::bad_request("invalid_json", detail)
    })?;
    let missing = || {
        let detail =
            "There is no document. Send {\"document\":{\"type\":\"base64\",\"data\":\"…\"}}.";
        Problem::bad_request("missing_file", detail)
    };
    let document = upload.document.ok_or_else(missing)?;
    if document.r#type == JsonDocumentType::Url {
        let detail = "Documents by URL are switched off here. Send the bytes as Base64.";
        return Err(Problem::bad_request("invalid_option", detail).flaw("/document/type", detail));
    }
    let data = document.data.ok_or_else(missing)?;
    for (name, value) in upload.options {
        options.add_member(&name, value.get())?;
    }
    decode_base64(&data)
}

/// Decodes Base64 with or without a `data:` prefix, line breaks and padding.
fn decode_base64(data: &str) -> Result<Bytes, Problem> {
    let encoded = match data.strip_prefix("data:") {
        None => data,
        Some(url) => url.split_once(";base64,").map(|(_, encoded)| encoded).ok_or_else(|| {
            let detail = "The data URL does not say `;base64,`.";
            Problem::bad_request("invalid_base64", detail).flaw("/document/data", detail)
        })?,
    };
    let decoded = base64_simd::forgiving_decode_to_vec(encoded.as_bytes());
    decoded.map(Bytes::from).map_err(|_| {
        let detail = "The data is not Base64 in the standard alphabet (A-Z a-z 0-9 + /).";
        Problem::bad_request("invalid_base64", detail).flaw("/document/data", detail)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(json: &str) -> Result<Bytes, &'static str> {
        decode_json(json.as_bytes(), &mut RawOptions::default()).map_err(|problem| problem.code)
    }

    #[test]
    fn base64_is_taken_with_and_without_a_prefix_line_breaks_and_padding() {
        for data in ["aGVsbG8=", "data:image/png;base64,aGVsbG8=", r"aGVs\nbG8=", "aGVsbG8"] {
            let json = format!(r#"{{"document":{{"type":"base64","data":"{data}"}}}}"#);
            assert_eq!(file_of(&json).unwrap(), "hello", "{data}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_json_upload_has_a_code_of_its_own() {
        let cases = [
            ("{", "invalid_json"),
            ("[]", "invalid_json"),
            ("{}", "missing_file"),
            (r#"{"document":{"type":"base64"}}"#, "missing_file"),
            (r#"{"document":{"type":"base64","data":"a_-b"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"data:image/png,AA"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"url","url":"http://x"}}"#, "invalid_option"),
            (r#"{"document":{"type":"base64","data":"AA==","x":1}}"#, "invalid_json"),
            (r#"{"document":{"type":"base64","data":"AA=="},"document":{}}"#, "invalid_json"),
        ];
        for (json, code) in cases {
            assert_eq!(file_of(json), Err(code), "{json}");
        }
    }

    #[test]
    fn members_beside_the_document_are_options() {
        let document = r#""document":{"type":"base64","data":"AA=="}"#;
        let json = |member: &str| format!("{{{member},{document}}}");
        assert!(file_of(&json(r#""max_pixels":5"#)).is_ok());
        assert_eq!(file_of(&json(r#""bogus":[0,0]"#)), Err("unknown_option"));
        assert_eq!(file_of(&json(&vec![r#""pages":1"#; 100].join(","))), Err("invalid_json"));
    }
}
