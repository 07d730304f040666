//! The steps before a call: find the model, read the image's header, quote.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::OcrError;
use super::request::{OcrRequest, Rotate};
use crate::capacity::account::HeldBytes;
use crate::catalog::Catalog;
use crate::dashscope::{Call, Image};
use crate::image::as_stored::Patch;
use crate::image::format::Orientation;
use crate::image::header::ImageHeader;
use crate::image::probe::probe;
use crate::metering::access;
use crate::metering::error::{ImageError, MeteringError};
use crate::quote::limits;
use crate::quote::{self, Quote};

/// An image with its header and quote.
pub(super) struct Prepared {
    /// The file to send.
    bytes: Bytes,
    /// Its size in bytes.
    pub(super) length: usize,
    /// The header of that file.
    pub(super) header: ImageHeader,
    /// Its quote.
    pub(super) quote: Quote,
    /// The bytes to overwrite before the file is sent.
    patch: Option<Patch>,
}

/// The call that reads one page, with the memory that counts for its file.
pub(super) struct PageCall {
    pub(super) call: Call,
    _memory: Option<Arc<HeldBytes>>,
}

/// Longest file that is read on the reactor, in bytes. A JPEG is read to its end, so a longer one takes too long.
const INLINE_BYTES: usize = 1024 * 1024;

/// Quotes the request and patches its file for sending. Only [`Prepared`] holds the file afterwards.
pub(super) async fn to_send(
    catalog: &Catalog,
    request: &mut OcrRequest,
) -> Result<Prepared, OcrError> {
    let mut prepared = quoted(catalog, request).await?;
    request.image = Bytes::new();
    let Some(patch) = prepared.patch.take() else { return Ok(prepared) };
    let (file, memory) = (std::mem::take(&mut prepared.bytes), request.context.held.memory.clone());
    // A checksum over several megabytes takes milliseconds.
    let patching = tokio::task::spawn_blocking(move || {
        let file = patched(file, &patch);
        drop(memory);
        file
    });
    prepared.bytes = patching.await.map_err(|_panicked| MeteringError::Interrupted)?;
    Ok(prepared)
}

/// Overwrites some bytes of a file, in place unless the file is shared.
fn patched(file: Bytes, patch: &Patch) -> Bytes {
    let mut file = file.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    patch.apply(&mut file);
    file.freeze()
}

/// The header of the file. A large file is read on the blocking pool.
async fn look(request: &OcrRequest) -> Result<ImageHeader, OcrError> {
    if request.image.len() <= INLINE_BYTES {
        return Ok(checked_header(&request.image)?);
    }
    let (file, memory) = (request.image.clone(), request.context.held.memory.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let header = checked_header(&file);
        // The memory counts until the file is dropped.
        drop((file, memory));
        header
    });
    Ok(looking.await.map_err(|_panicked| MeteringError::Interrupted)??)
}

fn checked_header(file: &[u8]) -> Result<ImageHeader, ImageError> {
    let header = probe(file)?;
    limits::check(&header, file.len())?;
    Ok(header)
}

/// Finds the model, reads the header and quotes.
pub(super) async fn quoted(catalog: &Catalog, request: &OcrRequest) -> Result<Prepared, OcrError> {
    let tenant = &request.context.tenant;
    let model = access::model_for(catalog, tenant, request.options.model.as_deref())?;
    if request.dashscope_task().is_some() && !model.figures.builtin_tasks {
        return Err(OcrError::NoTasks { model: model.name.clone() });
    }
    let mut header = look(request).await?;
    if let Some(pages) = &request.options.pages {
        pages.resolve(1, 1)?;
    }
    let mut patch = None;
    if request.options.rotate == Rotate::Off {
        patch = Patch::of(&request.image, &header)?;
        header.orientation = Orientation::Upright;
    }
    let (size, prompt_bytes) = (header.upright(), request.prompt_bytes());
    let quote = quote::quote(&model, size, prompt_bytes, request.wish(), access::cap(tenant))
        .map_err(ImageError::from)?;
    let (bytes, length) = (request.image.clone(), request.image.len());
    Ok(Prepared { bytes, length, header, quote, patch })
}

impl Prepared {
    /// Makes the call that reads the page.
    pub(super) fn call(&self, request: &OcrRequest) -> PageCall {
        let geometry = &self.quote.image.geometry;
        let call = Call {
            image: Image {
                media_type: self.header.format.media_type(),
                bytes: self.bytes.clone(),
                min_pixels: geometry.min_pixels,
                max_pixels: geometry.max_pixels,
                rotate: request.options.rotate == Rotate::Auto,
            },
            prompt: request.prompt().map(str::to_owned),
            task: request.dashscope_task(),
        };
        PageCall { call, _memory: request.context.held.memory.clone() }
    }

    /// Makes the call that reads the page, if it is the only one: only this call holds the file and its memory, and a
    /// stream drops both when it begins.
    pub(super) fn only_call(&mut self, request: &mut OcrRequest) -> PageCall {
        let call = self.call(request);
        (self.bytes, request.context.held.memory) = (Bytes::new(), None);
        call
    }
}
