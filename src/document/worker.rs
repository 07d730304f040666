//! The main loop of a worker process: sets its limits (`cage`), then answers one request after the other.
//!
//! The process has no further threads and no environment, and it ends at the end of its input. A panic ends it, so that
//! no state of a reader that failed is used again. The service finds the cause in the way in which the process ended
//! (`process`).

use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use bytes::Bytes;

use super::cage::{Cage, CageError, CageLimits};
use super::error::{DocumentError, Resource};
use super::page::Drawn;
use super::pdf::fonts::Fonts;
use super::reader::{Reader, ReaderSettings};
use super::wire::{self, LONGEST_REPLY, Reply, Request};
use crate::quote::limits::LARGEST_FILE;
use crate::units::Pixels;

/// What a worker is started with.
#[derive(Debug)]
pub struct WorkerSetup {
    /// The limits of its cage.
    pub limits: CageLimits,
    /// Pixels that a page, or a picture on it, may have.
    pub page_pixels: u64,
    /// The font for CJK text whose font is not in the PDF.
    pub font: Option<PathBuf>,
}

/// A worker that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It cannot close its cage.
    #[error(transparent)]
    Cage(#[from] CageError),
    /// The font cannot be read.
    #[error("the font {}: {cause}", path.display())]
    Font {
        /// Its file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The pipe to the service is broken.
    #[error("the pipe to the service: {0}")]
    Pipe(#[from] io::Error),
}

/// An answer with its payload.
type Answer = (Reply, Bytes);

/// Answers requests until the input ends.
///
/// # Errors
///
/// [`WorkerError`], after which nothing was or is read.
pub fn run(setup: &WorkerSetup) -> Result<(), WorkerError> {
    // The text of a panic may quote the document, and many of them would fill the pipe.
    std::panic::set_hook(Box::new(|_| {}));
    let fonts = match setup.font.clone() {
        Some(path) => Fonts::load(&path).map_err(|cause| WorkerError::Font { path, cause })?,
        None => Fonts::default(),
    };
    let page_pixels = Pixels::new(setup.page_pixels);
    let settings = ReaderSettings { page_pixels, memory: setup.limits.memory, fonts };
    let cage = Cage::close(setup.limits)?;
    let (mut input, mut output) = (BufReader::new(io::stdin().lock()), io::stdout().lock());
    let unfiltered = cage.unfiltered.clone();
    wire::write_reply(&mut output, &Reply::Ready { unfiltered }, &[])?;
    let mut open = None;
    while let Some((request, file)) = wire::read_request(&mut input)? {
        cage.grant_step()?;
        if matches!(request, Request::Close) {
            drop((open.take(), file));
            let has_grown = cage.has_grown(setup.limits.memory);
            wire::write_reply(&mut output, &Reply::Closed { has_grown }, &[])?;
            continue;
        }
        let (reply, payload) = match answer(&mut open, request, file, &settings) {
            Ok(answer) => answer,
            Err(error) => (Reply::Failed(error.shortened()), Bytes::new()),
        };
        wire::write_reply(&mut output, &reply, &payload)?;
    }
    Ok(output.flush()?)
}

fn answer(
    open: &mut Option<Reader>,
    request: Request,
    file: Vec<u8>,
    settings: &ReaderSettings,
) -> Result<Answer, DocumentError> {
    let bare = |reply| Ok((reply, Bytes::new()));
    match (request, open) {
        (Request::Open { kind }, open) => {
            *open = None;
            let reader = Reader::open(kind, file, settings)?;
            let pages = reader.page_count();
            *open = Some(reader);
            bare(Reply::Opened { pages })
        }
        (Request::Plan { page, text }, Some(reader)) => {
            let mut planned = Reply::Planned(reader.plan(page, text)?);
            if wire::head_length(&planned) > LONGEST_REPLY as usize {
                // A text of millions of characters is not that of a page.
                planned = Reply::Planned(reader.plan(page, false)?);
            }
            bare(planned)
        }
        (Request::Measure { page, size }, Some(reader)) => {
            bare(Reply::Measured(reader.measure(page, size)?))
        }
        (Request::Draw { page, draw }, Some(reader)) => {
            let Drawn { bytes, format, size } = reader.draw(page, draw)?;
            check_length(bytes.len() as u64)?;
            Ok((Reply::Drawn { format, size }, bytes))
        }
        (Request::Prepare, Some(reader)) => match reader.made_updatable()? {
            Some(file) => Ok((Reply::Prepared { is_anew: true }, file.into())),
            None => bare(Reply::Prepared { is_anew: false }),
        },
        (Request::Enclose { page, index }, Some(reader)) => {
            let (page, picture) = reader.enclose(page, index)?;
            Ok((Reply::Enclosed(page), picture.into()))
        }
        (Request::AddText, Some(reader)) => {
            let rest = reader.with_text(&file)?;
            check_length(rest.len() as u64)?;
            Ok((Reply::TextAdded, rest.into()))
        }
        // The service does not ask that.
        (_, None) | (Request::Close, _) => Err(DocumentError::Interrupted),
    }
}

/// Checks that the service takes a payload of this length.
const fn check_length(actual: u64) -> Result<(), DocumentError> {
    if actual > LARGEST_FILE {
        let (resource, allowed) = (Resource::EncodedBytes, LARGEST_FILE);
        return Err(DocumentError::TooComplex { resource, actual: Some(actual), allowed });
    }
    Ok(())
}
