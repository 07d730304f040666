//! Reads the header of an image from its address.
//!
//! Only a data URL is read, because it holds the image. The gateway fetches no address: callers could make it request
//! anything inside the network, and the vendor might fetch another file a moment later.
//!
//! A large JPEG of one scan is decoded from Base64 in pieces. Any other file is decoded as a whole, and its memory is
//! counted meanwhile. If the memory does not fit, the request is refused, because nothing was paid for it yet.

use std::sync::Arc;

use base64_simd::AsOut as _;

use super::error::DropinError;
use super::member::fault;
use crate::capacity::account::{ByteAccount, NoRoom};
use crate::image::data_url::{self, HeadError};
use crate::image::header::ImageHeader;
use crate::image::probe::{Marker, ProbeError, probe, probe_beginning};
use crate::metering::error::ImageError;
use crate::quote::limits;

/// The header of the image in `url`, decoded in memory of `account`; none if `url` is the address of an image.
pub(super) fn look(
    url: &str,
    pointer: &str,
    account: &Arc<ByteAccount>,
) -> Result<Option<ImageHeader>, DropinError> {
    if data_url::is_data_url(url.as_bytes()) {
        return inline(url, pointer, account).map(Some);
    }
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if ["http", "https", "oss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Ok(None);
    }
    let why = "must be an address: https://…, data:image/png;base64,…, or oss://…";
    Err(fault(pointer, why).into())
}

fn inline(
    url: &str,
    pointer: &str,
    account: &Arc<ByteAccount>,
) -> Result<ImageHeader, DropinError> {
    let of_image = |error: ImageError| DropinError::image(pointer, error);
    limits::check_data_url(url.len() as u64).map_err(|error| of_image(error.into()))?;
    let data = letters(url).map_err(|why| fault(pointer, why))?;
    let header = header_of(data, account).map_err(|blind| match blind {
        LookError::NotBase64 => {
            let why = "is not Base64 in the standard alphabet (A-Z a-z 0-9 + /), padded with = and \
                       without line breaks";
            fault(pointer, why).into()
        }
        LookError::NoRoom(no_room) => DropinError::NoRoom(no_room),
    })?;
    let header = header.map_err(|error| of_image(error.into()))?;
    limits::check(&header, data.len() / 4 * 3).map_err(|error| of_image(error.into()))?;
    Ok(header)
}

/// Media types that name no format.
const UNSAID: [&[u8]; 4] = [b"", b"image", b"application/octet-stream", b"binary/octet-stream"];

/// The Base64 of an image's data URL.
///
/// # Errors
///
/// What is wrong with the URL, as the predicate of a sentence.
fn letters(url: &str) -> Result<&[u8], String> {
    let head =
        data_url::head_to_forward(url.as_bytes()).map_err(|error: HeadError| error.to_string())?;
    let kind = head.media_type.to_ascii_lowercase();
    // Another reader may go by the media type and read the file as a document.
    let is_unsaid = UNSAID.contains(&kind.as_slice());
    if !is_unsaid && !kind.starts_with(b"image/") {
        return Err("is a data URL of another media type than image/…".to_owned());
    }
    Ok(&url.as_bytes()[head.length..])
}

/// Letters of Base64 that are decoded at once: 192 KiB of a picture, more than most cameras write before its data.
const PIECE: usize = 256 * 1024;

/// The reason why a file was not read.
#[derive(Debug, PartialEq, Eq)]
enum LookError {
    /// The letters are not strict Base64. Decoders differ about other letters, padding in the middle, and line
    /// breaks.
    NotBase64,
    /// There is not enough memory to decode it.
    NoRoom(NoRoom),
}

/// Reads the image's header. The whole file is read, because a second size may come at its end.
fn header_of(
    data: &[u8],
    account: &Arc<ByteAccount>,
) -> Result<Result<ImageHeader, ProbeError>, LookError> {
    let hold = |letters: usize| account.hold((letters / 4 * 3) as u64).map_err(LookError::NoRoom);
    if data.len() > PIECE {
        let _held = hold(PIECE)?;
        if let Some(header) = header_in_pieces(data)? {
            return Ok(Ok(header));
        }
    }
    let _held = hold(data.len())?;
    let file = base64_simd::STANDARD.decode_to_vec(data).map_err(|_letter| LookError::NotBase64)?;
    Ok(probe(&file))
}

/// The header of a large JPEG of one scan, decoded in pieces so that the file is not held twice; `None` for any other
/// file. Most photographs are such files.
fn header_in_pieces(data: &[u8]) -> Result<Option<ImageHeader>, LookError> {
    let Some((beginning, mut rest)) = data.split_at_checked(PIECE) else { return Ok(None) };
    let mut buffer = vec![0; PIECE / 4 * 3];
    let beginning = decode(beginning, rest.is_empty(), &mut buffer)?;
    let Some((header, mut coded)) = probe_beginning(beginning) else { return Ok(None) };
    let mut is_over = false;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rest.len().min(PIECE));
        let file = decode(piece, left.is_empty(), &mut buffer)?;
        match coded.marker_in(file).filter(|_| !is_over) {
            None => {}
            Some(Marker::End) => is_over = true,
            Some(Marker::Other) => return Ok(None),
        }
        rest = left;
    }
    Ok(Some(header))
}

/// Decodes a piece of Base64. Only the last piece may be padded.
fn decode<'b>(piece: &[u8], is_last: bool, buffer: &'b mut [u8]) -> Result<&'b [u8], LookError> {
    let decoded = base64_simd::STANDARD.decode(piece, buffer.as_out());
    let file: &[u8] = decoded.map_err(|_letter| LookError::NotBase64)?;
    if is_last || file.len() == piece.len() / 4 * 3 { Ok(file) } else { Err(LookError::NotBase64) }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;
    use proptest::prelude::*;

    use super::*;
    use crate::image::Size;
    use crate::image::samples::{jpeg, whole_png};

    /// The beginning of a JPEG up to its coded data.
    fn photo() -> Vec<u8> {
        [&jpeg(640, 480)[..], &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]].concat()
    }

    /// An account of so many bytes.
    fn account(allowed: u64) -> Arc<ByteAccount> {
        Arc::new(ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap()))
    }

    fn look(url: &str, pointer: &str) -> Result<Option<ImageHeader>, DropinError> {
        super::look(url, pointer, &account(u64::MAX))
    }

    #[test]
    fn what_is_decoded_is_held_meanwhile_and_refused_where_there_is_no_room() {
        let large = |mut file: Vec<u8>| {
            file.resize(1 << 20, 0);
            url(&file)
        };
        let account = account(1 << 19);
        let (photo, drawing) = (large(photo()), large(whole_png(640, 480)));
        assert!(super::look(&photo, "/x", &account).is_ok());
        let refused = super::look(&drawing, "/x", &account).unwrap_err();
        let DropinError::NoRoom(NoRoom { actual, allowed, .. }) = refused else {
            panic!("{refused}")
        };
        // The letters are padded to whole groups.
        assert_eq!((actual, allowed), ((1_u64 << 20).div_ceil(3) * 3, 1 << 19));
        assert_eq!(account.held(), 0);
        let upload = account.hold(1 << 19).unwrap();
        assert!(super::look(&photo, "/x", &account).is_err(), "a piece is held, too");
        drop(upload);
    }

    fn url(bytes: &[u8]) -> String {
        format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(bytes))
    }

    fn wrong(url: &str) -> String {
        look(url, "/x").unwrap_err().to_string()
    }

    #[test]
    fn a_data_url_tells_its_size_however_long_it_is() {
        const END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
        for padding in [0, 1, 100, 1 << 20] {
            let bytes = [&whole_png(640, 480)[..], END, &vec![0; padding]].concat();
            let header = look(&url(&bytes), "/x").unwrap().unwrap();
            assert_eq!(header.stored, Size::new(640, 480), "{padding}");
        }
    }

    proptest! {
        #[test]
        fn a_large_file_says_in_pieces_what_it_says_as_a_whole(
            letters in PIECE - 8..PIECE * 3,
            markers in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            is_jpeg in prop::bool::weighted(0.9),
            data in 0..0x70_u8,
        ) {
            let mut file = if is_jpeg { photo() } else { whole_png(640, 480) };
            let begun = file.len();
            file.resize(letters / 4 * 3, data);
            for (place, marker) in markers {
                let place = begun + place.index(file.len() - begun - 1);
                file[place..place + 2].copy_from_slice(&[0xff, marker]);
            }
            let written = base64_simd::STANDARD.encode_to_string(&file);
            let header = header_of(written.as_bytes(), &account(u64::MAX));
            prop_assert_eq!(header, Ok(probe(&file)));
        }
    }

    #[test]
    fn an_address_is_taken_and_not_looked_at() {
        for address in ["https://a/b.png", "HTTP://a/b", "oss://a/b"] {
            assert_eq!(look(address, "/x").unwrap(), None, "{address}");
        }
        for address in ["", "file:///etc/passwd", "/etc/passwd", "ftp://a", "a.png"] {
            assert!(wrong(address).starts_with("/x must be an address"), "{address}");
        }
    }

    #[test]
    fn a_data_url_is_base64_to_its_last_letter() {
        let whole = url(&[whole_png(640, 480), vec![7; 100_000]].concat());
        assert!(look(&whole, "/x").is_ok());
        let head = "data:image/png;base64,".len();
        let places = [head, head + 1, head + 87_380, whole.len() - 40, whole.len() - 9];
        for place in places {
            for letter in ["%", "-", "_", "=", "\0", "\n", " ", ",", "\u{e9}", "\u{ff21}"] {
                let mut spoilt = whole.clone();
                spoilt.replace_range(place..=place, letter);
                assert!(wrong(&spoilt).contains("Base64"), "{letter:?} at {place}");
            }
            let mut two = whole.clone();
            two.insert_str(place, ",data:image/png;base64,");
            assert!(wrong(&two).contains("Base64"), "a second one at {place}");
        }
        for end in
            ["A", "AA", "AAA", "=", "A===", "====", "AA=A", "AB==", "AAB=", "AA==\n", "AA==AA=="]
        {
            let unpadded = whole.trim_end_matches('=');
            let full = &unpadded[..head + (unpadded.len() - head) / 4 * 4];
            assert!(wrong(&format!("{full}{end}")).contains("Base64"), "{end:?}");
        }
    }

    #[test]
    fn a_data_url_says_that_it_is_an_image_or_nothing() {
        let letters = base64_simd::STANDARD.encode_to_string(whole_png(640, 480));
        for kind in [
            "image/png",
            "IMAGE/Jpeg",
            "image/jpg;name=a.jpg",
            "image",
            "",
            "application/octet-stream",
            "binary/octet-stream",
        ] {
            assert!(look(&format!("data:{kind};base64,{letters}"), "/x").is_ok(), "{kind}");
        }
        for kind in ["application/pdf", "video/mp4", "text/html", "audio/wav", "imagex/png"] {
            let refused = wrong(&format!("data:{kind};base64,{letters}"));
            assert!(refused.contains("media type"), "{kind}: {refused}");
        }
    }

    #[test]
    fn a_data_url_that_holds_no_image_is_told_what_it_holds() {
        assert!(wrong("data:image/png,abc").contains("base64"));
        assert!(wrong("data:image/png;base64,a_-b").contains("standard alphabet"));
        assert!(wrong(&url(b"GIF89a\x01\0\x01\0")).contains("seen: GIF"));
        assert!(wrong(&url(&whole_png(640, 5))).contains("5 px"));
        assert!(
            wrong(&format!("data:image/png;base64,{}", "A".repeat(10_485_760)))
                .contains("10485760")
        );
    }
}
