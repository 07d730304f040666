//! All that is known before anything is sent: the model, the image by its header, and the quote.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::OcrError;
use super::request::{Request, Rotate};
use super::result::Estimate;
use crate::auth::tenant::{OnExceed, Tenant};
use crate::catalog::{Catalog, Model};
use crate::dashscope::{Call, Image};
use crate::image::as_stored::Patch;
use crate::image::format::Orientation;
use crate::image::header::ImageHeader;
use crate::image::probe::{ProbeError, probe};
use crate::ledger::budget::RemainingTokens;
use crate::quote::limits;
use crate::quote::{self, Cap, Quote};
use crate::units::Tokens;

/// An image that was looked at and quoted.
pub(super) struct Prepared {
    /// The file, as it is sent.
    bytes: Bytes,
    /// Its size in bytes.
    pub(super) length: usize,
    /// What its header says, as it is sent.
    pub(super) header: ImageHeader,
    /// What it will cost.
    pub(super) quote: Quote,
    /// What is still to be overwritten in it.
    patch: Option<Patch>,
}

/// The longest file that is looked at where its request is served. A JPEG is read to its end, which takes
/// longer.
const INLINE_BYTES: usize = 1024 * 1024;

/// What the request would cost: the function behind `/estimate` and the command line.
///
/// # Errors
///
/// [`OcrError`] for whatever would have the request refused before it is sent.
pub async fn estimate(
    catalog: &Catalog,
    tenant: &Tenant,
    request: &Request,
) -> Result<Estimate, OcrError> {
    let prepared = quoted(catalog, tenant, request).await?;
    Ok(Estimate::of(&prepared.quote, tenant, RemainingTokens::default()))
}

/// Quotes the request and makes its file what is sent, which is held here alone from then on.
pub(super) async fn to_send(
    catalog: &Catalog,
    tenant: &Tenant,
    request: &mut Request,
) -> Result<Prepared, OcrError> {
    let mut prepared = quoted(catalog, tenant, request).await?;
    request.image = Bytes::new();
    let Some(patch) = prepared.patch.take() else { return Ok(prepared) };
    let (file, memory) = (std::mem::take(&mut prepared.bytes), Arc::clone(&request.memory));
    // A checksum over some megabytes takes milliseconds.
    let patching = tokio::task::spawn_blocking(move || {
        let file = patched(file, &patch);
        drop(memory);
        file
    });
    prepared.bytes = patching.await.map_err(|_panicked| OcrError::Interrupted)?;
    Ok(prepared)
}

/// Overwrites some bytes of a file, in place where nobody else holds it.
fn patched(file: Bytes, patch: &Patch) -> Bytes {
    let mut file = file.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    patch.apply(&mut file);
    file.freeze()
}

/// Looks at the file, a large one on the blocking pool.
async fn look(request: &Request) -> Result<Result<ImageHeader, ProbeError>, OcrError> {
    if request.image.len() <= INLINE_BYTES {
        return Ok(probe(&request.image));
    }
    let (file, memory) = (request.image.clone(), Arc::clone(&request.memory));
    let looking = tokio::task::spawn_blocking(move || {
        let header = probe(&file);
        // The memory counts until nobody holds the file.
        drop((file, memory));
        header
    });
    looking.await.map_err(|_panicked| OcrError::Interrupted)
}

/// Finds the model, looks at the header and quotes.
async fn quoted(
    catalog: &Catalog,
    tenant: &Tenant,
    request: &Request,
) -> Result<Prepared, OcrError> {
    let model = model_for(catalog, tenant, request.options.model.as_deref())?;
    if request.dashscope_task().is_some() && !model.figures.builtin_tasks {
        return Err(OcrError::NoTasks { model: model.name.clone() });
    }
    let mut header = look(request).await??;
    limits::check(&header, request.image.len())?;
    let mut patch = None;
    if request.options.rotate == Rotate::Off {
        patch = Patch::of(&request.image, &header)?;
        header.orientation = Orientation::Upright;
    }
    let (size, prompt_bytes) = (header.upright(), request.prompt_bytes());
    let quote = quote::quote(&model, size, prompt_bytes, request.wish(), cap(tenant))?;
    let (bytes, length) = (request.image.clone(), request.image.len());
    Ok(Prepared { bytes, length, header, quote, patch })
}

/// Characters of a model's name that an error repeats.
const LONGEST_ECHO: usize = 64;

/// The ceilings of a tenant's calls.
pub(crate) fn cap(tenant: &Tenant) -> Cap {
    Cap {
        max_pixels: tenant.max_pixels,
        reject: matches!(tenant.on_exceed, OnExceed::Reject),
        max_tokens: tenant.max_tokens.map(|most| Tokens::new(most.get())),
    }
}

/// The model of this name that the tenant may use, sold in its regions; the default where none is named.
///
/// Whoever sends the request asks the model where it may go, so nothing is sent to another region
/// (docs/adr/0014-regions.md).
///
/// # Errors
///
/// [`OcrError::UnknownModel`], [`OcrError::ModelNotAllowed`] and [`OcrError::RegionNotAllowed`].
pub(crate) fn model_for(
    catalog: &Catalog,
    tenant: &Tenant,
    name: Option<&str>,
) -> Result<Arc<Model>, OcrError> {
    let Some(listing) = catalog.find(name) else {
        return Err(OcrError::UnknownModel {
            // It may be anything, and of any length.
            model: name.unwrap_or_default().chars().take(LONGEST_ECHO).collect(),
            known: catalog.sold_in(&tenant.regions).map(|model| model.name.clone()).collect(),
        });
    };
    let model = || listing.name().to_owned();
    if !tenant.allows(listing.name()) {
        return Err(OcrError::ModelNotAllowed { model: model(), allowed: tenant.models.clone() });
    }
    listing.sold_in(&tenant.regions).ok_or_else(|| OcrError::RegionNotAllowed {
        model: model(),
        allowed: tenant.regions.clone(),
        available: listing.regions().map(str::to_owned).collect(),
    })
}

impl Prepared {
    /// The call that it makes.
    pub(super) fn call(&self, request: &Request) -> Call {
        let geometry = &self.quote.image.geometry;
        Call {
            image: Image {
                media_type: self.header.format.media_type(),
                bytes: self.bytes.clone(),
                min_pixels: geometry.min_pixels,
                max_pixels: geometry.max_pixels,
                rotate: request.options.rotate == Rotate::Auto,
            },
            prompt: request.prompt().map(str::to_owned),
            task: request.dashscope_task(),
        }
    }

    /// The only call that it makes, which alone holds the file from then on: a stream lets go of it when it
    /// begins.
    pub(super) fn only_call(&mut self, request: &Request) -> Call {
        let call = self.call(request);
        self.bytes = Bytes::new();
        call
    }
}
