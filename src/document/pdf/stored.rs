//! A picture within a page that the provider takes byte for byte.

use std::io::Cursor;

use hayro::hayro_syntax::Filter;
use hayro::hayro_syntax::object::{Array, Dict, Name, Object, Stream};

use crate::document::page::StoredPicture;
use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::probe::probe;
use crate::quote::limits;

/// The JPEG that a picture is stored as, if any viewer shows it as the page does.
///
/// Nothing of the file may change its pixels: no other filter, mask, inversion or colors of its own. JPEG with four
/// colors is left out, because programs do not agree whether it is inverted. Its own orientation, which PDF ignores,
/// must be upright.
pub(super) fn picture(stream: &Stream<'_>) -> Option<(StoredPicture, Vec<u8>)> {
    let dict = stream.dict();
    let changed = [b"SMask".as_slice(), b"Mask", b"SMaskInData", b"ImageMask"];
    if stream.filters().as_slice() != [Filter::DctDecode]
        || changed.iter().any(|key| dict.contains_key(key))
        || inverts(dict)
        || transforms_colors(dict)
    {
        return None;
    }
    let file = stream.raw_data().into_owned();
    let components = components(dict)?;
    if components != jpeg_components(&file)? {
        return None;
    }
    let header = probe(&file).ok()?;
    let declared = Size::new(dict.get::<u32>(b"Width")?, dict.get::<u32>(b"Height")?);
    let as_shown = header.format == Format::Jpeg
        && header.orientation == Orientation::Upright
        && header.stored == declared;
    limits::check(&header, file.len()).ok()?;
    let picture = StoredPicture { format: header.format, size: header.stored, bytes: file.len() };
    as_shown.then_some((picture, file))
}

/// Whether the dictionary maps the samples to other levels than 0 to 1.
fn inverts(dict: &Dict<'_>) -> bool {
    let levels = dict.get::<Array<'_>>(b"Decode");
    let levels: Vec<f32> = levels.iter().flat_map(Array::iter::<f32>).collect();
    levels.chunks(2).any(|range| range != [0.0, 1.0])
}

/// Whether the dictionary says how the colors are stored, against what the JPEG says itself.
fn transforms_colors(dict: &Dict<'_>) -> bool {
    let says = |params: &Dict<'_>| params.contains_key(b"ColorTransform");
    let listed = dict.get::<Array<'_>>(b"DecodeParms");
    dict.get::<Dict<'_>>(b"DecodeParms").as_ref().is_some_and(says)
        || listed.iter().flat_map(Array::iter::<Dict<'_>>).any(|params| says(&params))
}

/// The components of the color space: 1 for gray, 3 for red, green and blue. Other spaces are `None`.
fn components(dict: &Dict<'_>) -> Option<u8> {
    let (name, profile) = match dict.get::<Object<'_>>(b"ColorSpace")? {
        Object::Name(name) => (name, None),
        Object::Array(space) => {
            let mut parts = space.iter::<Object<'_>>();
            let name = parts.next()?.into_name()?;
            (name, parts.next().and_then(Object::into_stream))
        }
        _ => return None,
    };
    match name.as_ref() {
        b"DeviceGray" | b"CalGray" => Some(1),
        b"DeviceRGB" | b"CalRGB" => Some(3),
        b"ICCBased" => {
            let profile = profile?;
            let lab = profile.dict().get::<Array<'_>>(b"Alternate").is_some_and(|space| {
                space.iter::<Name<'_>>().next().is_some_and(|name| name.as_ref() == b"Lab")
            });
            let components = profile.dict().get::<u8>(b"N")?;
            (!lab && matches!(components, 1 | 3)).then_some(components)
        }
        _ => None,
    }
}

/// The components of a JPEG whose coding is common: baseline or progressive Huffman.
fn jpeg_components(file: &[u8]) -> Option<u8> {
    let mut decoder = jpeg_decoder::Decoder::new(Cursor::new(file));
    decoder.read_info().ok()?;
    match decoder.info()?.pixel_format {
        jpeg_decoder::PixelFormat::L8 => Some(1),
        jpeg_decoder::PixelFormat::RGB24 => Some(3),
        _ => None,
    }
}
