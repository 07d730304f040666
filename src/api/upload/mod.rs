//! Reads uploads, in three forms.
//!
//! An upload is `multipart/form-data` with one part `file`, JSON with Base64, or the file itself as a body of any other
//! type, because the bytes of a file determine its format. The length of the body is counted while it arrives, because
//! the declared length may be wrong, and a client that stops sending is disconnected. So memory and time are bounded
//! for any input. The upload exists once in memory, in one buffer that was reserved in `in_flight_bytes` before its
//! allocation.

pub(super) mod body;
mod coding;
pub(super) mod error;
pub(super) mod json;
mod multipart;
mod parameters;
mod parts;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use self::body::{Pieces, Room, collect, too_large};
use self::coding::{compression, require_identity, unannounced};
use self::error::UploadError;
use self::json::{DocumentUpload, FileFinder};
use self::multipart::read_multipart;
use super::entrance::{Entered, announced_length};
use super::options::raw::RawOptions;
use super::problem::Problem;
use crate::code::ErrorCode;
use crate::gateway::Gateway;

/// An uploaded file and the options beside it.
#[derive(Debug)]
pub(super) struct Upload {
    /// The file.
    pub(super) file: Bytes,
    /// The options, not parsed yet.
    pub(super) options: RawOptions,
}

/// Reads the upload of a request.
///
/// # Errors
///
/// 400, 408, 413, 415, 429 or 503, each with what to change.
pub(super) async fn read(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
) -> Result<Upload, Problem> {
    let room = room_for(gateway, entered, &request)?;
    let upload = read_form(gateway, room, request).await;
    let upload = upload.map_err(|error| error.told(gateway, entered))?;
    require_bytes(&upload.file)?;
    Ok(upload)
}

fn require_bytes(file: &Bytes) -> Result<(), Problem> {
    if file.is_empty() {
        return Err(Problem::new(ErrorCode::EmptyFile, "The file has no bytes. Send an image."));
    }
    Ok(())
}

async fn read_form(gateway: &Gateway, room: Room, request: Request) -> Result<Upload, UploadError> {
    let mut options = RawOptions::default();
    let query = request.uri().query().unwrap_or_default();
    room.take_for_option(query.len())?;
    options.add_query(query)?;
    let (parts, body) = request.into_parts();
    let pieces = Pieces::of(gateway, body);
    let file = match UploadForm::of(&parts.headers) {
        UploadForm::Multipart => {
            read_multipart(&parts.headers, pieces, &room, &mut options).await?
        }
        UploadForm::Json => {
            let body = collect(pieces, &room).await?;
            require_text(&body)?;
            let (file, all) = json::decode(body, room, DocumentUpload { options }).await?;
            options = all;
            file
        }
        UploadForm::File => collect(pieces, &room).await?.into(),
    };
    Ok(Upload { file, options })
}

/// Reads a JSON body that holds a file as Base64, in the form of another protocol.
///
/// # Errors
///
/// 400, 408, 413, 415, 429 or 503, each with what to change.
pub(super) async fn read_json<F: FileFinder>(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
    finder: F,
) -> Result<(Bytes, F::Beside), Problem> {
    let room = room_for(gateway, entered, &request)?;
    let reading = async {
        let body = collect(Pieces::of(gateway, request.into_body()), &room).await?;
        require_text(&body)?;
        json::decode(body, room, finder).await
    };
    let (file, beside) = reading.await.map_err(|error| error.told(gateway, entered))?;
    require_bytes(&file)?;
    Ok((file, beside))
}

/// Reads a whole body of text, in any format.
///
/// # Errors
///
/// 400, 408, 413, 415, 429 or 503, each with what to change.
pub(super) async fn read_whole(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
) -> Result<Bytes, Problem> {
    let room = room_for(gateway, entered, &request)?;
    let body = collect(Pieces::of(gateway, request.into_body()), &room).await;
    let body = body.map_err(|error| error.told(gateway, entered))?;
    require_text(&body)?;
    Ok(body.into())
}

/// The memory for the body of a request.
///
/// # Errors
///
/// 400 if its type is ambiguous, 413 if its declared length is over the limit, 415 if it is compressed.
fn room_for(gateway: &Gateway, entered: &Entered, request: &Request) -> Result<Room, Problem> {
    require_one_type(request.headers())?;
    require_identity(request.headers())?;
    let (limit, declared) = (gateway.bounds.body_bytes, announced_length(request.headers()));
    if let Some(length) = declared.filter(|&length| length > limit) {
        return Err(too_large(length, limit));
    }
    Ok(Room::new(declared, limit, Arc::clone(&entered.memory)))
}

/// Refuses a body with more than one type, because a proxy in front may have interpreted it as the other type.
///
/// # Errors
///
/// 400 if two `Content-Type` headers differ, or if one has two types.
fn require_one_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return Ok(()) };
    if types.all(|other| other == first) && !is_list(first.as_bytes()) {
        return Ok(());
    }
    let detail = "The request has more than one Content-Type. Send one, the type of its body.";
    Err(Problem::new(ErrorCode::BadRequest, detail))
}

/// Whether a header has more than one value, for example because a proxy joined two headers with a comma.
fn is_list(header: &[u8]) -> bool {
    let (mut is_quoted, mut bytes) = (false, header.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            // A backslash escapes the next byte.
            b'\\' if is_quoted => _ = bytes.next(),
            b',' if !is_quoted => return true,
            _ => {}
        }
    }
    false
}

/// A media type without its parameters (RFC 9110, section 8.3.1).
fn essence(content_type: &HeaderValue) -> &[u8] {
    let content_type = content_type.as_bytes();
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

/// Refuses a body that cannot be text because it is compressed.
fn require_text(body: &[u8]) -> Result<(), Problem> {
    compression(body).map_or(Ok(()), |kind| Err(unannounced(kind)))
}

/// The form of the upload.
enum UploadForm {
    Multipart,
    Json,
    File,
}

impl UploadForm {
    fn of(headers: &HeaderMap) -> Self {
        let essence = headers.get(header::CONTENT_TYPE).map(essence).unwrap_or_default();
        if essence.eq_ignore_ascii_case(b"multipart/form-data") {
            return Self::Multipart;
        }
        let is_json = essence.eq_ignore_ascii_case(b"application/json");
        if is_json { Self::Json } else { Self::File }
    }
}
