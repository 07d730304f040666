//! What a request will cost at most, and the few changes that make sure of it.
//!
//! The changes are all there are (docs/drop-in.md lists them for callers): the bounds of each image, the
//! bound of the answer, and that a stream tells its bill. Everything else is sent as it was written.
//!
//! The bound of the text is the length of the body without its images' addresses: a byte-level tokenizer
//! never makes more tokens than bytes, and whatever the provider puts into a prompt was in the body, or is
//! added by a task of its own, which is bounded apart, or by a switch that is refused (`names`). A prompt too long for the model is left for the provider to refuse, which
//! costs nothing and knows the limit better.

use std::sync::Arc;

use bytes::Bytes;

use super::asked::{Asked, AskedImage};
use super::edits::Edits;
use super::error::PassthroughError;
use super::outline::{Outline, Place};
use super::picture;
use super::{Request, compatible, native};
use crate::auth::tenant::Tenant;
use crate::catalog::{Catalog, Model};
use crate::dashscope::{Forward, Protocol};
use crate::ocr::prepare;
use crate::quote::{self, Cap};
use crate::units::{Pixels, Tokens, Usage};
use crate::vision::resize::Geometry;

/// What a request may cost, and what is known of it beforehand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) model: Arc<Model>,
    pub(super) bound: Usage,
    /// What the images will be billed, where all of them were seen and surely count.
    pub(super) image_tokens: Option<Tokens>,
    /// Tokens that the tenant's cap saved.
    pub(super) saved: Tokens,
    /// The largest `max_pixels` that is sent.
    pub(super) max_pixels: Pixels,
    /// Whether the stream tells its bill to the gateway alone.
    pub(super) hides_bill: bool,
}

/// What is known of one image.
struct ImagePlan {
    geometry: Geometry,
    bound: Tokens,
    exact: Option<Tokens>,
    saved: Tokens,
}

/// Reads a request, quotes it, and writes what is sent.
///
/// # Errors
///
/// [`PassthroughError`] for whatever keeps it from being sent.
pub(super) fn plan(
    catalog: &Catalog,
    tenant: &Tenant,
    request: &Request,
) -> Result<(Plan, Forward), PassthroughError> {
    let outline = Outline::of(&request.body)?;
    let asked = match request.protocol {
        Protocol::Compatible => compatible::read(&outline)?,
        Protocol::Native => native::read(&outline, request.stream)?,
    };
    if asked.stream && !request.may_stream {
        let why = "needs HTTP/1.1, which tells a stream that breaks off from one that ends; behind nginx, \
                   set proxy_http_version 1.1";
        return Err(super::form::fault("/stream", why).into());
    }
    let model = prepare::model_for(catalog, tenant, Some(&asked.model))?;
    let cap = prepare::cap(tenant);
    let images = look_at_images(&outline, &asked, model, cap)?;
    let output = quote::output(model, cap);
    let limits = [asked.max_tokens, asked.max_completion_tokens].into_iter().flatten();
    let output = limits.map(Tokens::new).fold(output, Tokens::min);
    let bound = Usage {
        image: sum(images.iter().map(|image| image.bound)),
        text: text_bound(&outline, &asked, model),
        output,
    };
    let exact: Option<Vec<_>> = images.iter().map(|image| image.exact).collect();
    let image_tokens = exact.filter(|_| asked.messages == 1).map(|exact| sum(exact.into_iter()));
    let forward = Forward {
        protocol: request.protocol,
        body: changed(&outline, &asked, &images, output, &request.body),
        stream: asked.stream,
        resolves_oss: request.resolves_oss,
    };
    let plan = Plan {
        model: Arc::clone(model),
        bound,
        image_tokens,
        saved: sum(images.iter().map(|image| image.saved)),
        max_pixels: images.iter().map(|image| image.geometry.max_pixels).max().unwrap_or_default(),
        hides_bill: asked.stream && !asked.tells_bill,
    };
    Ok((plan, forward))
}

fn look_at_images(
    outline: &Outline<'_>,
    asked: &Asked<'_>,
    model: &Model,
    cap: Cap,
) -> Result<Vec<ImagePlan>, PassthroughError> {
    let look = |image: &AskedImage| {
        let Some(url) = outline.string(image.url) else {
            let why = "must be a text: the image's address";
            return Err(super::form::fault(image.pointer.as_str(), why).into());
        };
        let header = picture::look(&url, &image.pointer)?;
        // Room for the text is the provider's to judge, so none is taken here.
        let quoted = if let Some(header) = header {
            quote::image(model, header.upright(), Tokens::ZERO, image.wish, cap).map(|quote| {
                ImagePlan {
                    geometry: quote.geometry,
                    bound: quote.bound,
                    exact: (!image.wish.straighten).then_some(quote.tokens),
                    saved: quote.saved(),
                }
            })
        } else {
            quote::unseen_image(model, Tokens::ZERO, image.wish, cap).map(|quote| ImagePlan {
                geometry: quote.geometry,
                bound: quote.bound,
                exact: None,
                saved: Tokens::ZERO,
            })
        };
        quoted.map_err(|error| PassthroughError::image(&image.pointer, error.into()))
    };
    asked.images.iter().map(look).collect()
}

fn text_bound(outline: &Outline<'_>, asked: &Asked<'_>, model: &Model) -> Tokens {
    let (mut at, mut bytes) = (0, asked.added_prompt_bytes);
    // Images are found in the order in which they stand.
    for address in asked.images.iter().map(|image| outline.span(image.url)) {
        bytes = bytes.saturating_add(quote::prompt_bytes(outline.text(at..address.start)));
        at = address.end;
    }
    bytes = bytes.saturating_add(quote::prompt_bytes(outline.text(at..outline.length())));
    Tokens::new(bytes).saturating_add(model.figures.template_tokens)
}

/// The body as it is sent.
fn changed(
    outline: &Outline<'_>,
    asked: &Asked<'_>,
    images: &[ImagePlan],
    output: Tokens,
    body: &Bytes,
) -> Vec<Bytes> {
    let mut edits = Edits::default();
    for (asked, image) in asked.images.iter().zip(images) {
        bound_image(outline, asked, &image.geometry, &mut edits);
    }
    let root = Place::ROOT;
    match asked.parameters {
        Some(parameters) => {
            edits.set(outline, parameters, "max_tokens", &output.to_string());
            if asked.max_completion_tokens.is_some_and(|asked| asked > output.get()) {
                edits.set(outline, parameters, "max_completion_tokens", &output.to_string());
            }
        }
        None => edits.set(outline, root, "parameters", &format!("{{\"max_tokens\":{output}}}")),
    }
    if asked.stream && !asked.tells_bill {
        match outline.member(root, "stream_options").filter(|&options| outline.is_object(options)) {
            Some(options) => edits.set(outline, options, "include_usage", "true"),
            None => edits.set(outline, root, "stream_options", "{\"include_usage\":true}"),
        }
    }
    edits.apply(body)
}

fn bound_image(outline: &Outline<'_>, image: &AskedImage, geometry: &Geometry, edits: &mut Edits) {
    let (min, max) = (geometry.min_pixels.to_string(), geometry.max_pixels.to_string());
    if image.is_bare {
        let url = outline.json(image.url);
        let object = format!("{{\"url\":{url},\"min_pixels\":{min},\"max_pixels\":{max}}}");
        edits.replace(outline, image.url, object);
    }
    for &holder in &image.holders {
        edits.set(outline, holder, "min_pixels", &min);
        edits.set(outline, holder, "max_pixels", &max);
    }
}

fn sum(tokens: impl Iterator<Item = Tokens>) -> Tokens {
    tokens.fold(Tokens::ZERO, Tokens::saturating_add)
}
