//! Resolves the image of a request: a data URL, or an address that this emulator hosts.
//!
//! Nothing is ever fetched. A test or an upload can put a file at an `http`, `https` or `oss` address, and its bytes
//! alone determine its type. For any other address the answer is that the download failed.

use std::sync::Arc;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::call::ImageSeen;
use crate::error::Refusal;
use crate::head::is_enabled;
use crate::picture::{Picture, Unreadable};
use crate::world::World;

/// The longest data URL in bytes, as the service's own message states it.
const LONGEST_DATA_URL: usize = 10_485_760;

/// The addresses that one request may use.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    world: Arc<World>,
    /// Whether `oss` addresses are looked up.
    resolves_oss: bool,
}

impl Addresses {
    /// The files hosted in a world, limited by the request's headers.
    pub(crate) fn of(world: &Arc<World>, headers: &HeaderMap) -> Self {
        let resolves_oss = is_enabled(headers, "x-dashscope-ossresourceresolve");
        Self { world: Arc::clone(world), resolves_oss }
    }

    /// Opens an image and records its kind.
    ///
    /// # Errors
    ///
    /// The refusal of an address that is invalid or not hosted, and of bytes that are not an image.
    pub(crate) fn open(&self, url: &str, seen: &mut ImageSeen) -> Result<Picture, Refusal> {
        match scheme(url).as_str() {
            "data" => open_data_url(url, seen),
            "oss" if !self.resolves_oss => Err(not_a_url()),
            "http" | "https" | "oss" => {
                let failed = || Refusal::invalid_content("Failed to download multimodal content");
                let bytes = self.world.hosting.find(url).ok_or_else(failed)?;
                seen.bytes = bytes.len();
                Picture::probe(bytes).map_err(unreadable)
            }
            _ => Err(not_a_url()),
        }
    }
}

/// Whether an address is one that the service would fetch.
pub(crate) fn is_remote(url: &str) -> bool {
    matches!(scheme(url).as_str(), "http" | "https" | "oss")
}

/// The refusal of an image that cannot be read.
pub(crate) fn unreadable(why: Unreadable) -> Refusal {
    Refusal::invalid_content(&why.message())
}

fn scheme(url: &str) -> String {
    url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase()
}

/// Opens a data URL (RFC 2397).
fn open_data_url(url: &str, seen: &mut ImageSeen) -> Result<Picture, Refusal> {
    if url.len() > LONGEST_DATA_URL {
        return Err(Refusal::invalid_content(&format!(
            "Exceeded limit on max bytes per data-uri item : {LONGEST_DATA_URL}"
        )));
    }
    let (head, payload) = url.split_once(',').ok_or_else(not_a_url)?;
    let head = &head["data:".len()..];
    let media_type = head.strip_suffix(";base64").ok_or_else(not_a_url)?;
    seen.media_type = Some(media_type.to_owned());

    let undecodable = || unreadable(Unreadable::Undecodable);
    let bytes: Bytes = STANDARD.decode(payload).map_err(|_| undecodable())?.into();
    seen.bytes = bytes.len();
    let picture = Picture::probe(bytes).map_err(unreadable)?;
    if !picture.is_a(media_type) {
        return Err(Refusal::invalid_content("Invalid image format or corrupted file"));
    }
    Ok(picture)
}

fn not_a_url() -> Refusal {
    Refusal::invalid_content(
        "The provided URL does not appear to be valid. Ensure it is correctly formatted.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let addresses = Addresses { resolves_oss: true, ..Addresses::default() };
        let outcome = addresses.open(url, &mut ImageSeen::default());
        outcome.unwrap_err().message().to_owned()
    }

    #[test]
    fn an_address_is_never_fetched() {
        for url in ["http://127.0.0.1/x.png", "HTTPS://example.org/x.png", "oss://a/b"] {
            assert!(refusal(url).ends_with("Failed to download multimodal content"), "{url}");
        }
    }

    #[test]
    fn what_is_no_base64_data_url_is_no_url() {
        for url in ["data:image/png,abc", "data:image/png;base64", "/etc/passwd", "", "file:///x"] {
            assert!(refusal(url).contains("does not appear to be valid"), "{url}");
        }
    }

    #[test]
    fn the_length_of_a_data_url_is_limited_before_it_is_decoded() {
        let url = format!("data:image/png;base64,{}", "A".repeat(LONGEST_DATA_URL));
        assert!(refusal(&url).ends_with("max bytes per data-uri item : 10485760"));
    }
}
