//! Reads the coded size of an HEVC picture from its sequence parameter sets (ITU-T H.265, section 7.3.2.2).
//!
//! The `ispe` property only repeats this size. Decoders show the coded picture.

use super::super::byte_order::ByteOrder::Big;
use super::super::size::Size;

/// The NAL unit type of a sequence parameter set.
const PARAMETER_SET: u8 = 33;

/// The length of the NAL unit header: type, layer and temporal layer.
const UNIT_HEADER: usize = 2;

/// The length of a decoder configuration before its arrays of NAL units (ISO/IEC 14496-15, section 8.3.3.1).
const CONFIGURATION: usize = 23;

/// The lengths of a profile and of a level, in bits.
const PROFILE: u32 = 88;
const LEVEL: u32 = 8;

/// The NAL units of a decoder configuration. The last one may be truncated.
pub(super) fn units_of_configuration(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body.get(CONFIGURATION..).unwrap_or_default();
    let mut left = 0;
    std::iter::from_fn(move || {
        while left == 0 {
            left = Big.u16(rest, 1)?;
            rest = &rest[3..];
        }
        left -= 1;
        take_unit(&mut rest, 2)
    })
}

/// The size of the length field before a NAL unit of the coded data, in bytes.
const LENGTH: usize = 4;

/// Whether a decoder configuration specifies length fields of four bytes, as all encoders write them. libheif always
/// reads four bytes and ignores the configuration, which other decoders use.
pub(super) fn has_usual_lengths(configuration: &[u8]) -> bool {
    configuration.get(21).is_some_and(|byte| usize::from(byte & 3) + 1 == LENGTH)
}

/// The NAL units of coded data, each after a length field of four bytes. The last one may be truncated.
pub(super) fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || take_unit(&mut data, LENGTH))
}

fn take_unit<'a>(rest: &mut &'a [u8], length_size: usize) -> Option<&'a [u8]> {
    let number = rest.get(..length_size)?;
    let length = number.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let unit = &rest[length_size..];
    *rest = unit.get(length..).unwrap_or_default();
    Some(&unit[..length.min(unit.len())])
}

/// The error if there is no sequence parameter set, or one that cannot be read.
pub(super) const WITHOUT_SIZE: &str = "does not give the size of its coded picture";

/// The size from a NAL unit; `None` if the unit is not a sequence parameter set of the base layer.
pub(super) fn coded_size(unit: &[u8]) -> Option<Result<Size, &'static str>> {
    let header = Big.u16(unit, 0)?;
    let (kind, layer) = (header >> 9 & 0x3f, header >> 3 & 0x3f);
    (kind == u16::from(PARAMETER_SET) && layer == 0)
        .then(|| parameter_set(&mut Bits::of(&unit[UNIT_HEADER..])).ok_or(WITHOUT_SIZE))
}

fn parameter_set(bits: &mut Bits<'_>) -> Option<Size> {
    bits.skip(4)?;
    let more_layers = bits.read(3)?;
    bits.skip(1 + PROFILE + LEVEL)?;
    skip_layers(bits, more_layers)?;
    bits.number()?;
    let chroma = bits.number()?;
    if chroma == 3 {
        bits.skip(1)?;
    }
    let (width, height) = (bits.number()?, bits.number()?);
    if bits.read(1)? == 0 {
        return Some(Size::new(width, height));
    }
    // The conformance window: the amount cropped from each side, in chroma samples.
    let [left, right, top, bottom] =
        [bits.number()?, bits.number()?, bits.number()?, bits.number()?];
    let horizontal = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let vertical = if chroma == 1 { 2 } else { 1 };
    let cut = |unit: u32, one: u32, other: u32| one.checked_add(other)?.checked_mul(unit);
    Some(Size::new(
        width.checked_sub(cut(horizontal, left, right)?)?,
        height.checked_sub(cut(vertical, top, bottom)?)?,
    ))
}

/// Skips the profiles and levels of the temporal layers, section 7.3.3.
fn skip_layers(bits: &mut Bits<'_>, layers: u32) -> Option<()> {
    let mut skipped = 0;
    for _ in 0..layers {
        skipped += bits.read(1)? * PROFILE + bits.read(1)? * LEVEL;
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers))?;
    }
    bits.skip(skipped)
}

/// Reads bits from the most significant one on, without the emulation prevention bytes.
struct Bits<'a> {
    rest: &'a [u8],
    zeros: u32,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, zeros: 0, byte: 0, left: 0 }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            return self.next_byte();
        }
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        Some(byte)
    }

    fn read(&mut self, count: u32) -> Option<u32> {
        let mut number = 0;
        for _ in 0..count {
            if self.left == 0 {
                (self.byte, self.left) = (self.next_byte()?, 8);
            }
            self.left -= 1;
            number = number << 1 | u32::from(self.byte >> self.left & 1);
        }
        Some(number)
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.read(count).map(|_| ())
    }

    /// An Exp-Golomb number, section 9.2: some zeros, a one, and then as many bits as there were zeros.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1 << zeros) - 1) + self.read(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;

    #[test]
    fn a_parameter_set_gives_its_size_and_other_units_none() {
        for (width, height) in [(40, 30), (64, 64), (1_234, 567), (16_384, 16_383)] {
            let unit = samples::hevc_parameter_set(width, height);
            assert_eq!(coded_size(&unit), Some(Ok(Size::new(width, height))));
            for length in UNIT_HEADER..unit.len() - 3 {
                assert_eq!(coded_size(&unit[..length]), Some(Err(WITHOUT_SIZE)));
            }
        }
        assert_eq!(coded_size(&[0x26, 1, 0xff]), None);
        assert_eq!(coded_size(&[]), None);
    }

    /// The sequence parameter set that x265 writes for a picture of 333x221 pixels, padded to even sides.
    const BY_AN_ENCODER: &[u8] = &[
        0x42, 0x01, 0x01, 0x03, 0x70, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x88, 0x0e, 0x1d, 0x56, 0x5b, 0xa9, 0x24, 0xa6, 0xb9, 0xb8,
    ];

    #[test]
    fn padding_and_inserted_bytes_are_left_out() {
        assert_eq!(coded_size(BY_AN_ENCODER), Some(Ok(Size::new(334, 222))));
    }

    #[test]
    fn units_are_found_by_their_lengths_and_the_last_may_be_cut() {
        let data = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 1];
        let found: Vec<_> = units(&data).collect();
        assert_eq!(found, [&[7, 8][..], &[], &[1]]);
        let arrays = [&[0; 21][..], &[0, 2], &[0x20, 0, 1, 0, 1, 5], &[0x21, 0, 2, 0, 0, 0, 1, 6]];
        let arrays = arrays.concat();
        let found: Vec<_> = units_of_configuration(&arrays).collect();
        assert_eq!(found, [&[5][..], &[], &[6]]);
    }
}
