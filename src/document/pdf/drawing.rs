//! Draws a page, or a part of it.

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::page::Page;
use hayro::kurbo::Affine;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::vello_cpu::{Pixmap, RasterizerSettings, RenderContext, Resources, TargetInit};
use hayro::{RenderCache, RenderSettings};

use super::page_box::PageBox;
use crate::document::error::DocumentError;
use crate::document::page::{Kind, Part};
use crate::image::Size;
use crate::pixels::raster::{Raster, Samples, are_gray};

/// The longest side in which hayro scales pictures.
const LONGEST_SIDE: u16 = 32_767;

/// Draws a part of `page`, on white.
///
/// # Errors
///
/// [`DocumentError::PageTooLarge`] for a side that cannot be drawn.
pub(super) fn draw(
    page: &Page<'_>,
    sheet: &PageBox,
    part: Part,
    settings: &InterpreterSettings,
) -> Result<Raster, DocumentError> {
    let pixmap = painted(page, sheet, part, settings)?;
    let unencodable = || DocumentError::undecodable(Kind::Pdf, "has a page that cannot be encoded");
    raster(&pixmap, part.size).ok_or_else(unencodable)
}

/// Paints the page. Its caches are made for it alone: they keep the decoded pictures of every page and cannot be
/// cleared.
fn painted(
    page: &Page<'_>,
    sheet: &PageBox,
    Part { page: whole, region, size }: Part,
    settings: &InterpreterSettings,
) -> Result<Pixmap, DocumentError> {
    let (width, height) = (drawable(size.width)?, drawable(size.height)?);
    let ratio = |to: u32, from: f64| f64::from(to) / from;
    let to_whole = Affine::scale_non_uniform(
        ratio(whole.width, sheet.width),
        ratio(whole.height, sheet.height),
    );
    let to_corner = Affine::translate((-f64::from(region.left), -f64::from(region.top)));
    let (across, down) = (region.size().width.max(1), region.size().height.max(1));
    let to_size = Affine::scale_non_uniform(
        ratio(size.width, across.into()),
        ratio(size.height, down.into()),
    );
    let scale = to_size * to_corner * to_whole;
    let cache = RenderCache::new();
    let mut context = RenderContext::new(width, height);
    let render = RenderSettings::default();
    hayro::render_into(page, &cache, settings, &render, &mut context, scale * sheet.upright);
    context.flush();
    let mut pixmap = Pixmap::new(width, height);
    let rasterizer = RasterizerSettings {
        target_init: TargetInit::Clear(WHITE),
        ..RasterizerSettings::default()
    };
    context.render_with(&mut pixmap, &mut Resources::default(), rasterizer);
    Ok(pixmap)
}

/// A side that can be drawn.
fn drawable(side: u32) -> Result<u16, DocumentError> {
    let actual = u64::from(side);
    let drawn = u16::try_from(side).ok().filter(|side| (1..=LONGEST_SIDE).contains(side));
    drawn.ok_or(DocumentError::PageTooLarge { actual, allowed: LONGEST_SIDE.into() })
}

/// The colors of a page, which is opaque; gray if it has none.
fn raster(pixmap: &Pixmap, size: Size) -> Option<Raster> {
    let (pixels, _) = pixmap.data_as_u8_slice().as_chunks::<4>();
    if are_gray(pixels) {
        return Raster::new(size, Samples::Gray, pixels.iter().map(|pixel| pixel[1]).collect());
    }
    let mut samples = vec![0; pixels.len().saturating_mul(3)];
    let (colors, _) = samples.as_chunks_mut::<3>();
    for (color, [red, green, blue, _]) in colors.iter_mut().zip(pixels) {
        *color = [*red, *green, *blue];
    }
    Raster::new(size, Samples::Rgb, samples)
}
