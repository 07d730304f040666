//! The decoded length of a stream, bounded before hayro decodes it.
//!
//! hayro decodes a stream whole, and Deflate can blow up a thousandfold with each pass: 304 bytes become 100 MiB.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};
use hayro::hayro_syntax::Filter;
use hayro::hayro_syntax::object::Stream;

/// The most bytes that one byte may become in a pass of Deflate.
const DEFLATE_GROWTH: u64 = 1_032;

/// The same of LZW: within 4,096 codes of nine bits or more, a code stands for 2,048 bytes on average.
const LZW_GROWTH: u64 = 1_821;

/// The same of run lengths: two bytes become 128.
const RUN_LENGTH_GROWTH: u64 = 64;

/// The same of ASCII85: `z` stands for four bytes.
const ASCII85_GROWTH: u64 = 4;

/// A stream that decodes to more bytes than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Decodes a stream of operators. One that cannot be decoded is empty, as it is for hayro.
///
/// # Errors
///
/// [`TooLong`] if it has more than `most` bytes. A stream in LZW is measured only after it is decoded.
pub(super) fn decoded<'a>(stream: &Stream<'a>, most: u64) -> Result<Cow<'a, [u8]>, TooLong> {
    check(stream, most)?;
    let decoded = stream.decoded_data().unwrap_or_default();
    if length(&decoded) > most { Err(TooLong) } else { Ok(decoded) }
}

/// Checks a stream that hayro is about to decode. A stream in LZW passes.
///
/// # Errors
///
/// [`TooLong`] if it has more than `most` bytes.
pub(super) fn check(stream: &Stream<'_>, most: u64) -> Result<(), TooLong> {
    if may_exceed(stream, most) && exceeds(stream, most) { Err(TooLong) } else { Ok(()) }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Whether the filters could make more than `most` bytes of the stored ones.
fn may_exceed(stream: &Stream<'_>, most: u64) -> bool {
    let growth = |filter: &Filter| match filter {
        Filter::FlateDecode => DEFLATE_GROWTH,
        Filter::LzwDecode => LZW_GROWTH,
        Filter::RunLengthDecode => RUN_LENGTH_GROWTH,
        Filter::Ascii85Decode => ASCII85_GROWTH,
        _ => 1,
    };
    let stored = length(&stream.raw_data());
    stream.filters().iter().map(growth).fold(stored, u64::saturating_mul) > most
}

/// Inflates the stream without keeping more than `most` bytes of a pass.
fn exceeds(stream: &Stream<'_>, most: u64) -> bool {
    let mut bytes = stream.raw_data();
    for filter in stream.filters() {
        match filter {
            Filter::Crypt => {}
            Filter::FlateDecode => bytes = Cow::Owned(inflated(&bytes, most)),
            _ => return false,
        }
        if length(&bytes) > most {
            return true;
        }
    }
    false
}

/// The beginning of what `data` inflates to, at most one byte more than `most`.
fn inflated(data: &[u8], most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A damaged stream counts up to its damage: hayro draws that part.
    let zlib = ZlibDecoder::new(data).take(most.saturating_add(1)).read_to_end(&mut bytes);
    if zlib.is_err() && bytes.is_empty() {
        let _ = DeflateDecoder::new(data).take(most.saturating_add(1)).read_to_end(&mut bytes);
    }
    bytes
}
