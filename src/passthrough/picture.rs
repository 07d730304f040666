//! What can be known of an image by its address.
//!
//! A data URL holds the image, so its header says what it costs. Nothing else is looked at: the gateway
//! fetches no address, since that would let callers make it ask for anything inside the network, and
//! what it fetched might not be what the provider fetches a moment later.

use super::PassthroughError;
use super::form::fault;
use crate::ocr::error::OcrError;
use crate::vision::limits;
use crate::vision::probe::{ImageHeader, ProbeError, probe, probe_beginning};

/// Letters of Base64 that are decoded first: 64 KiB, which hold the header of nearly every image and show
/// that there is a picture behind it. A multiple of four.
const BEGINNING: usize = 64 * 1024 / 3 * 4;

/// The header of the image at `url`; none where the image is elsewhere.
pub(super) fn look(url: &str, pointer: &str) -> Result<Option<ImageHeader>, PassthroughError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" | "oss" => Ok(None),
        "data" => inline(url, pointer).map(Some),
        _ => {
            let why = "must be an address: https://…, data:image/png;base64,…, or oss://…";
            Err(fault(pointer, why).into())
        }
    }
}

fn inline(url: &str, pointer: &str) -> Result<ImageHeader, PassthroughError> {
    let of_image = |error: OcrError| PassthroughError::image(pointer, error);
    limits::check_data_url(url.len() as u64).map_err(|error| of_image(error.into()))?;
    let data = url.split_once(',').filter(|(head, _)| head.ends_with(";base64"));
    let Some((_, data)) = data else {
        return Err(fault(pointer, "is a data URL that does not say `;base64,`").into());
    };
    let Some(header) = header_of(data.as_bytes()) else {
        let why = "is not Base64 in the standard alphabet (A-Z a-z 0-9 + /)";
        return Err(fault(pointer, why).into());
    };
    let header = header.map_err(|error| of_image(error.into()))?;
    limits::check(&header, data.len() / 4 * 3).map_err(|error| of_image(error.into()))?;
    Ok(header)
}

/// What the image says of itself; none where it is not Base64.
fn header_of(data: &[u8]) -> Option<Result<ImageHeader, ProbeError>> {
    let decode = |data| base64_simd::forgiving_decode_to_vec(data).ok();
    let beginning = data.get(..BEGINNING).and_then(decode);
    // Whitespace among the letters makes the file seem longer than it is, which does no harm.
    let length = data.len() / 4 * 3;
    // A header that lies further back than the beginning reads as one that is cut off.
    if let Some(header) = beginning.and_then(|bytes| probe_beginning(&bytes, length).ok()) {
        return Some(Ok(header));
    }
    decode(data).map(|bytes| probe(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::Size;
    use crate::vision::samples::whole_png;

    fn url(bytes: &[u8]) -> String {
        format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(bytes))
    }

    fn wrong(url: &str) -> String {
        look(url, "/x").unwrap_err().to_string()
    }

    #[test]
    fn a_data_url_tells_its_size_however_long_it_is() {
        for padding in [0, 1, 100, 1 << 20] {
            let bytes = [whole_png(640, 480), vec![0; padding]].concat();
            let header = look(&url(&bytes), "/x").unwrap().unwrap();
            assert_eq!(header.stored, Size::new(640, 480), "{padding}");
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
