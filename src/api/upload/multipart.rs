//! An upload as `multipart/form-data`: one part `file`, every other part an option.

use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;

use super::Fault;
use super::body::{Room, broken};
use crate::api::options::raw::{OPTION_BYTES, RawOptions};
use crate::api::problem::Problem;

/// Reads a form.
pub(super) async fn read_multipart(
    request: Request,
    room: &Room,
    options: &mut RawOptions,
) -> Result<Bytes, Fault> {
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
                return Err(Problem::bad_request("multiple_files", detail).into());
            }
            file = Some(read_part(part, room, room.for_all(), usize::MAX).await?);
        } else {
            let value = read_part(part, room, Vec::new(), OPTION_BYTES).await?;
            room.take_for_option(value.len())?;
            options.add_part(&name, &value)?;
        }
    }
    file.map(Bytes::from).ok_or_else(|| {
        let detail = "There is no part named `file`. With curl: -F file=@page.jpg";
        Problem::bad_request("missing_file", detail).into()
    })
}

async fn read_part(
    mut part: axum::extract::multipart::Field<'_>,
    room: &Room,
    mut collected: Vec<u8>,
    limit: usize,
) -> Result<Vec<u8>, Fault> {
    loop {
        let piece = part.chunk().await.map_err(|error| broken(&error, "malformed_multipart"))?;
        let Some(piece) = piece else { return Ok(collected) };
        if collected.len() + piece.len() > limit {
            let name: String = part.name().unwrap_or_default().chars().take(32).collect();
            let detail = format!("The part `{name}` is longer than {limit} bytes.");
            return Err(Problem::bad_request("invalid_option", detail).into());
        }
        room.append(&mut collected, &piece)?;
    }
}
