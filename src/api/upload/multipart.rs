//! An upload as `multipart/form-data`. It has one part `file`, and every other part is an option.
//!
//! The body is collected in one buffer. The file is a slice of it, without a copy.

use std::ops::Range;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use httparse::Status;

use super::body::{Pieces, Room};
use super::coding::{compression, unannounced};
use super::error::UploadError;
use super::parameters::parameter;
use super::parts::{BOUNDARY_BYTES, Found, FrameFault, HEAD_BYTES, Parts};
use crate::api::options::misnamed;
use crate::api::options::raw::{OPTION_BYTES, RawOptions};
use crate::api::problem::{Flaw, Problem};
use crate::code::ErrorCode;

/// Bytes that are collected before they are parsed.
const GATHERED: usize = 4 * 1024;

/// The most parts of a form: every option once, the file, and some repeated options.
const MOST_PARTS: usize = 64;

/// The most header lines of a part. Clients write two or three.
const MOST_HEADERS: usize = 32;

/// Transfer encodings that leave the content as it is.
const PLAIN: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];

/// Reads a form.
pub(super) async fn read_multipart(
    headers: &HeaderMap,
    mut pieces: Pieces,
    room: &Room,
    options: &mut RawOptions,
) -> Result<Bytes, UploadError> {
    let mut form = FormParser::new(&boundary_of(headers)?);
    let (mut body, mut looked_at) = (room.for_all(), 0);
    while let Some(piece) = pieces.next().await? {
        if form.is_whole {
            form.pass_over(piece.len())?;
            continue;
        }
        room.append(&mut body, &piece).await?;
        if body.len() - looked_at >= GATHERED {
            form.look_at(&body, room, options)?;
            looked_at = body.len();
        }
    }
    form.look_at(&body, room, options)?;
    let file = form.finish()?;
    Ok(Bytes::from(room.whole(body)).slice(file))
}

/// The boundary from the headers.
fn boundary_of(headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let boundary = content_type.and_then(|value| parameter(value.as_bytes(), "boundary"));
    let length = boundary.as_ref().map_or(0, Vec::len);
    boundary.filter(|_| (1..=BOUNDARY_BYTES).contains(&length)).ok_or_else(|| {
        let what = match length {
            0 => "names no boundary, or more than one".to_owned(),
            _ => format!("names a boundary of {length} bytes; the limit is {BOUNDARY_BYTES}"),
        };
        malformed(format!(
            "The Content-Type of the form {what}. Let your client write the Content-Type."
        ))
    })
}

/// Parses a form while its body arrives.
struct FormParser {
    parts: Parts,
    number: usize,
    part: CurrentPart,
    file: Option<Range<usize>>,
    is_whole: bool,
    /// Bytes after the last boundary.
    epilogue: usize,
}

/// The part that is being read.
enum CurrentPart {
    None,
    File,
    Option(String),
}

impl FormParser {
    fn new(boundary: &[u8]) -> Self {
        let parts = Parts::new(boundary);
        Self { parts, number: 0, part: CurrentPart::None, file: None, is_whole: false, epilogue: 0 }
    }

    /// Parses the bytes that were added to the body.
    fn look_at(
        &mut self,
        body: &[u8],
        room: &Room,
        options: &mut RawOptions,
    ) -> Result<(), UploadError> {
        if !self.parts.has_begun()
            && let Some(kind) = compression(body)
        {
            return Err(unannounced(kind).into());
        }
        while !self.is_whole {
            match self.parts.next(body).map_err(misframed)? {
                Found::Head(head) => self.begin(&body[head])?,
                Found::Content(content) => self.end(body, content, room, options)?,
                Found::Unfinished(length) => return Ok(self.check_length(length)?),
                Found::End(at) => {
                    self.is_whole = true;
                    self.pass_over(body.len() - at)?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: &[u8]) -> Result<(), Problem> {
        self.number += 1;
        if self.number > MOST_PARTS {
            return Err(malformed(format!("The form has more than {MOST_PARTS} parts.")));
        }
        let name = name_of(head)?;
        self.part = if name == "file" {
            if self.file.is_some() {
                let detail = "There are two parts named `file`. Send one file a request.";
                return Err(Problem::new(ErrorCode::MultipleFiles, detail));
            }
            CurrentPart::File
        } else if RawOptions::knows(&name) {
            CurrentPart::Option(name)
        } else {
            // The error does not need the content, which may have megabytes.
            let advice = "The file goes into the part `file` (with curl: -F file=@page.jpg)";
            return Err(misnamed("part", &name, advice));
        };
        Ok(())
    }

    fn end(
        &mut self,
        body: &[u8],
        content: Range<usize>,
        room: &Room,
        options: &mut RawOptions,
    ) -> Result<(), UploadError> {
        self.check_length(content.len())?;
        match std::mem::replace(&mut self.part, CurrentPart::None) {
            CurrentPart::File => self.file = Some(content),
            CurrentPart::Option(name) => {
                room.take_for_option(content.len())?;
                let text = str::from_utf8(&body[content]);
                let text = text.map_err(|_| misplaced(&name, "is not UTF-8"))?;
                options.add_part(&name, text.to_owned())?;
            }
            CurrentPart::None => {}
        }
        Ok(())
    }

    /// Refuses an option as soon as it is too long.
    fn check_length(&self, length: usize) -> Result<(), Problem> {
        match &self.part {
            CurrentPart::Option(name) if length > OPTION_BYTES => {
                Err(misplaced(name, &format!("is longer than {OPTION_BYTES} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// Counts the bytes after the last boundary, which are not read.
    fn pass_over(&mut self, length: usize) -> Result<(), Problem> {
        self.epilogue += length;
        if self.epilogue > HEAD_BYTES {
            return Err(malformed(format!(
                "More than {HEAD_BYTES} bytes stand behind the last boundary of the form."
            )));
        }
        Ok(())
    }

    /// The range of the file in the body.
    fn finish(self) -> Result<Range<usize>, Problem> {
        if !self.parts.has_begun() {
            let detail = "The boundary that the Content-Type names is not in the body. \
                          Let your client write the form and its Content-Type.";
            return Err(malformed(detail));
        }
        if !self.is_whole {
            return Err(malformed("The form is cut off: it ends before its last boundary."));
        }
        self.file.ok_or_else(|| {
            let detail = "There is no part named `file`. With curl: -F file=@page.jpg";
            Problem::new(ErrorCode::MissingFile, detail)
        })
    }
}

/// The name in a part's head. A part with an encoded content is refused.
fn name_of(head: &[u8]) -> Result<String, Problem> {
    let mut lines = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let Ok(Status::Complete((_, lines))) = httparse::parse_headers(head, &mut lines) else {
        return Err(malformed(format!(
            "The head of a part cannot be read: it has more than {MOST_HEADERS} lines, or one that is no \
             header."
        )));
    };
    let values = |name: &'static str| {
        let named = lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        named.map(|line| line.value)
    };
    let mut encodings = values("content-transfer-encoding").map(<[u8]>::trim_ascii);
    if encodings.any(|encoding| !PLAIN.iter().any(|plain| encoding.eq_ignore_ascii_case(plain))) {
        return Err(malformed(
            "A part has a Content-Transfer-Encoding, which forms no longer have (RFC 7578, section 4.7). Send \
             its content as it is.",
        ));
    }
    let mut dispositions = values("content-disposition");
    let disposition = dispositions.next().filter(|_| dispositions.next().is_none());
    let name = disposition.and_then(|disposition| parameter(disposition, "name"));
    name.and_then(|name| String::from_utf8(name).ok()).ok_or_else(|| {
        let detail = "The name of a part cannot be read: it is missing, there twice, or not UTF-8. A file goes \
                      into the part `file`: Content-Disposition: form-data; name=\"file\"";
        Problem::new(ErrorCode::UnknownOption, detail)
    })
}

fn misframed(fault: FrameFault) -> Problem {
    let what = match fault {
        FrameFault::TooLong => format!(
            "The head of a part, or what stands before the first boundary, has no end within {HEAD_BYTES} bytes."
        ),
        FrameFault::NoLineEnd => {
            "Behind a boundary stands neither the end of its line nor `--`.".to_owned()
        }
    };
    malformed(format!("{what} Let your client write the form and its Content-Type."))
}

fn malformed(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::MalformedMultipart, detail)
}

/// The refusal of an option whose value may be a file.
fn misplaced(name: &str, why: &str) -> Problem {
    let detail = format!("The part `{name}` {why}. A file goes into the part `file`.");
    let errors = [Flaw::of(name, ErrorCode::InvalidOption, why)].into();
    Problem { errors, ..Problem::new(ErrorCode::InvalidOption, detail) }
}
