//! Pages of fax machines: ITU-T T.4 (Group 3) and T.6 (Group 4).
//!
//! A row that is lost on the line is common there and spoils no page: rows that cannot be decoded stay white.

use std::borrow::Cow;

use hayro_ccitt::{DecodeSettings, Decoder, DecoderContext, EncodingMode};

use super::fields::{Colours, Fax, Fields, STRIP_LENGTHS, STRIP_OFFSETS, damaged};
use crate::image::Size;
use crate::image::tagged::TagDirectory;
use crate::pixels::error::PixelsError;
use crate::pixels::raster::{Raster, Samples};

const WHITE: u8 = u8::MAX;

pub(super) fn decode(
    file: &[u8],
    directory: &TagDirectory<'_>,
    fields: &Fields,
    fax: Fax,
) -> Result<Raster, PixelsError> {
    let Size { width, height } = fields.size;
    let too_large = || damaged("it is larger than the address space");
    let mut page = Raster::filled(fields.size, Samples::Gray, WHITE).ok_or_else(too_large)?;
    let is_inverted = fields.colours == Colours::Gray { is_inverted: false };
    let mut context = DecoderContext::new(DecodeSettings {
        columns: width,
        rows: fields.chunk.height.min(height),
        end_of_block: true,
        end_of_line: matches!(fax, Fax::Group3 { .. }),
        rows_are_byte_aligned: fax == Fax::Runs,
        encoding: match fax {
            Fax::Group4 => EncodingMode::Group4,
            Fax::Group3 { is_two_dimensional: true } => EncodingMode::Group3_2D,
            Fax::Group3 { .. } | Fax::Runs => EncodingMode::Group3_1D,
        },
        strict: false,
    });
    let strip_bytes = width as usize * fields.chunk.height as usize;
    let (mut rows, mut fault) = (0, None);
    let strips = strips(file, directory)?;
    for (strip, into) in strips.into_iter().zip(page.data_mut().chunks_mut(strip_bytes)) {
        let strip = if fields.is_from_low_bit { reversed(strip) } else { Cow::Borrowed(strip) };
        let into = into.chunks_exact_mut(width as usize);
        let mut sink = Rows { left: into, is_inverted, decoded: 0 };
        if let Err(error) = hayro_ccitt::decode(&strip, &mut sink, &mut context) {
            fault = Some(format!("{error:?}"));
        }
        rows += sink.decoded;
    }
    match fault {
        Some(fault) if rows == 0 => Err(damaged(format!("no row can be decoded: {fault}"))),
        // What is missing is white here. Others may see something else, or refuse the page.
        _ => Ok(page.uncertain_if(fault.is_some() || rows < height as usize)),
    }
}

/// The bytes of each strip, up to the end of the file.
fn strips<'a>(file: &'a [u8], directory: &TagDirectory<'_>) -> Result<Vec<&'a [u8]>, PixelsError> {
    let mut lengths = directory.numbers(STRIP_LENGTHS);
    let strips: Vec<&[u8]> = directory
        .numbers(STRIP_OFFSETS)
        .map(|offset| {
            let length = lengths.next().map_or(usize::MAX, |length| length as usize);
            let rest = file.get(offset as usize..).unwrap_or_default();
            &rest[..length.min(rest.len())]
        })
        .collect();
    check_total(file, strips.iter().map(|strip| strip.len()))?;
    Ok(strips)
}

/// Checks that strips do not share their bytes: many strips of all bytes take time without end.
pub(super) fn check_total(
    file: &[u8],
    mut lengths: impl Iterator<Item = usize>,
) -> Result<(), PixelsError> {
    let total = lengths.try_fold(0_usize, usize::checked_add);
    if total.is_some_and(|total| total <= file.len().saturating_mul(2)) {
        Ok(())
    } else {
        Err(damaged("its strips are longer than the file"))
    }
}

fn reversed(strip: &[u8]) -> Cow<'_, [u8]> {
    strip.iter().map(|byte| byte.reverse_bits()).collect()
}

/// Writes decoded rows into the page.
struct Rows<'a> {
    left: std::slice::ChunksExactMut<'a, u8>,
    is_inverted: bool,
    decoded: usize,
}

impl Decoder for Rows<'_> {
    fn push_row(&mut self, changes: &[u32]) {
        let Some(row) = self.left.next() else { return };
        self.decoded += 1;
        let (before, after) = if self.is_inverted { (0, WHITE) } else { (WHITE, 0) };
        let first = changes.first().map_or(row.len(), |&first| row.len().min(first as usize));
        row[..first].fill(before);
        for (index, &start) in changes.iter().enumerate() {
            let end = changes.get(index + 1).map_or(row.len(), |&end| end as usize);
            let level = if index % 2 == 0 { after } else { before };
            if let Some(run) = row.get_mut(start as usize..end) {
                run.fill(level);
            }
        }
    }
}
