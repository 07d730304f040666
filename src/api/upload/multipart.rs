//! An upload as `multipart/form-data`: one part `file`, every other part an option.

use axum::extract::{FromRequest, Multipart, Request};
use bytes::{Bytes, BytesMut};

use super::body::broken;
use crate::api::options::raw::{OPTION_BYTES, RawOptions};
use crate::api::problem::Problem;

/// Reads a form; `room` is what its sender declared.
pub(super) async fn read_multipart(
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
