//! An upload as `multipart/form-data`: one part `file`, every other part an option.

use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;

use super::Fault;
use super::body::{Room, broken};
use super::heads::{HEAD_BYTES, Heads};
use crate::api::options::misnamed;
use crate::api::options::raw::{OPTION_BYTES, RawOptions};
use crate::api::problem::{Flaw, Problem};

/// The code of whatever is wrong with the form itself.
const MALFORMED: &str = "malformed_multipart";

/// Reads a form.
pub(super) async fn read_multipart(
    request: Request,
    room: &Room,
    options: &mut RawOptions,
) -> Result<Bytes, Fault> {
    let heads = Heads::default();
    let parts = Multipart::from_request(heads.bound(request), &()).await;
    let mut parts = parts.map_err(|rejection| {
        let why = rejection.body_text();
        let detail = format!("{why}. Let your client write the Content-Type.");
        Problem::bad_request(MALFORMED, detail)
    })?;
    let mut file = None;
    loop {
        heads.turn();
        let part = parts.next_field().await.map_err(|error| broken(&error, MALFORMED))?;
        heads.turn();
        let Some(part) = part else { break };
        let name = name_of(&part)?;
        if name == "file" {
            if file.is_some() {
                let detail = "There are two parts named `file`. Send one file a request.";
                return Err(Problem::bad_request("multiple_files", detail).into());
            }
            file = Some(read_part(part, room, room.for_all(), usize::MAX).await?);
        } else if RawOptions::knows(&name) {
            let value = read_part(part, room, Vec::new(), OPTION_BYTES).await?;
            room.take_for_option(value.len())?;
            let text = String::from_utf8(value).map_err(|_| misplaced(&name, "is not UTF-8"))?;
            options.add_part(&name, text)?;
        } else {
            // Its content says nothing more, and may be megabytes.
            let advice = "The file goes into the part `file` (with curl: -F file=@page.jpg)";
            return Err(misnamed("part", &name, advice).into());
        }
    }
    file.map(Bytes::from).ok_or_else(|| {
        let detail = "There is no part named `file`. With curl: -F file=@page.jpg";
        Problem::bad_request("missing_file", detail).into()
    })
}

/// The name of a part whose head is not too long.
fn name_of(part: &Field<'_>) -> Result<String, Problem> {
    let head = part.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    if head.sum::<usize>() > HEAD_BYTES {
        let detail = format!("The head of a part is longer than {HEAD_BYTES} bytes.");
        return Err(Problem::bad_request(MALFORMED, detail));
    }
    // The library puts the replacement character where a name is not UTF-8.
    let name = part.name().filter(|name| !name.contains(char::REPLACEMENT_CHARACTER));
    name.map(str::to_owned).ok_or_else(|| {
        let detail = "The name of a part cannot be read: it is missing or not UTF-8. A file goes into the \
                      part `file`: Content-Disposition: form-data; name=\"file\"";
        Problem::bad_request("unknown_option", detail)
    })
}

async fn read_part(
    mut part: Field<'_>,
    room: &Room,
    mut collected: Vec<u8>,
    limit: usize,
) -> Result<Vec<u8>, Fault> {
    loop {
        let piece = part.chunk().await.map_err(|error| broken(&error, MALFORMED))?;
        let Some(piece) = piece else { return Ok(collected) };
        if collected.len() + piece.len() > limit {
            let why = format!("is longer than {limit} bytes");
            return Err(misplaced(part.name().unwrap_or_default(), &why).into());
        }
        room.append(&mut collected, &piece)?;
    }
}

/// The refusal of an option's value that may be a file.
fn misplaced(name: &str, why: &str) -> Problem {
    let detail = format!("The part `{name}` {why}. A file goes into the part `file`.");
    let errors = [Flaw::of(name, "invalid_option", why)].into();
    Problem { errors, ..Problem::bad_request("invalid_option", detail) }
}
