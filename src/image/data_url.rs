//! The head of a data URL (RFC 2397): the part before the Base64 data.
//!
//! Parsers locate the Base64 data in different ways: after the first comma, after the last comma, or after `base64,`.
//! If there is only one comma, directly after `;base64`, all of them find the same data.

/// The maximum length of the head, in bytes. Media types in use are shorter than 100 bytes.
const LONGEST_HEAD: usize = 256;

const SCHEME: &[u8] = b"data:";

/// What stands before the comma if the data are Base64.
const MARKER: &[u8] = b";base64";

/// The head of a data URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The media type without its parameters; empty if there is none.
    pub media_type: &'a [u8],
    /// The length of the head, which is the offset of the Base64 data.
    pub length: usize,
}

/// Why a head is refused: parsers may interpret it differently, or it does not announce Base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// There is no `;base64` before the first comma.
    #[error("is a data URL that does not say `;base64,`")]
    NotBase64,
    /// The head is not a media type with parameters.
    #[error("is a data URL whose media type is none: write data:image/png;base64,…")]
    MediaType,
}

/// Whether this is a data URL.
pub fn is_data_url(url: &[u8]) -> bool {
    url.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Reads the head of a data URL that is decoded here. `;base64` may be in upper case (RFC 2397 compares tokens without
/// case).
///
/// # Errors
///
/// [`HeadError`] if the head is refused.
pub fn head(url: &[u8]) -> Result<Head<'_>, HeadError> {
    head_before(url, |marker| marker.eq_ignore_ascii_case(MARKER))
}

/// Reads the head of a data URL that is also sent to another parser, which may know `;base64` only in lower case.
///
/// # Errors
///
/// [`HeadError`] if the head is refused.
pub fn head_to_forward(url: &[u8]) -> Result<Head<'_>, HeadError> {
    head_before(url, |marker| marker == MARKER)
}

fn head_before(url: &[u8], is_marker: impl Fn(&[u8]) -> bool) -> Result<Head<'_>, HeadError> {
    let near = &url[..url.len().min(LONGEST_HEAD)];
    let comma = memchr::memchr(b',', near).ok_or(HeadError::NotBase64)?;
    let written = near.get(SCHEME.len()..comma).ok_or(HeadError::NotBase64)?;
    let (described, _) = written
        .split_last_chunk::<{ MARKER.len() }>()
        .filter(|(_, marker)| is_marker(&marker[..]))
        .ok_or(HeadError::NotBase64)?;
    let mut parts = described.split(|&byte| byte == b';');
    let media_type = parts.next().unwrap_or_default();
    // Qwen's own examples use `data:image;base64,`.
    let is_short = media_type.is_empty() || media_type.eq_ignore_ascii_case(b"image");
    let is_type = is_short || are_two_tokens(media_type, b'/');
    if is_type && parts.all(|parameter| are_two_tokens(parameter, b'=')) {
        return Ok(Head { media_type, length: comma + 1 });
    }
    Err(HeadError::MediaType)
}

/// Whether a text consists of two tokens (RFC 9110) separated by `between`.
fn are_two_tokens(text: &[u8], between: u8) -> bool {
    let mut tokens = text.split(|&byte| byte == between);
    let mut is_next = || tokens.next().is_some_and(is_token);
    is_next() && is_next() && tokens.next().is_none()
}

fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base64_begins_behind_the_only_comma() {
        for (written, media_type) in [
            ("data:image/png;base64,", "image/png"),
            ("DATA:IMAGE/PNG;base64,", "IMAGE/PNG"),
            ("data:;base64,", ""),
            ("data:image;base64,", "image"),
            ("data:image/svg+xml;charset=utf-8;name=a.png;base64,", "image/svg+xml"),
            ("data:image/*;base64,", "image/*"),
        ] {
            let url = format!("{written}AAAA");
            assert!(is_data_url(url.as_bytes()));
            let expected = Head { media_type: media_type.as_bytes(), length: written.len() };
            assert_eq!(head(url.as_bytes()), Ok(expected), "{url}");
        }
    }

    #[test]
    fn the_marker_of_base64_may_be_in_upper_case_unless_another_parser_reads_it_too() {
        let url = b"data:image/png;BASE64,AAAA";
        assert_eq!(head(url), Ok(Head { media_type: b"image/png", length: url.len() - 4 }));
        assert_eq!(head_to_forward(url), Err(HeadError::NotBase64));
        assert_eq!(head_to_forward(b"data:image/png;base64,AAAA"), head(url));
    }

    #[test]
    fn a_head_that_readers_may_read_differently_is_refused() {
        let long = format!("data:image/png;x={};base64,AAAA", "a".repeat(300));
        for (url, error) in [
            ("data:image/png,AAAA", HeadError::NotBase64),
            ("data:,AAAA;base64,AAAA", HeadError::NotBase64),
            ("data:image/png;base64", HeadError::NotBase64),
            ("data:image/png;base64 ,AAAA", HeadError::NotBase64),
            ("data:base64,AAAA", HeadError::NotBase64),
            ("data:,", HeadError::NotBase64),
            (&long, HeadError::NotBase64),
            ("data:png;base64,AAAA", HeadError::MediaType),
            ("data:image/png;base64;base64,AAAA", HeadError::MediaType),
            ("data:image/png;;base64,AAAA", HeadError::MediaType),
            ("data:image/png;a;base64,AAAA", HeadError::MediaType),
            ("data:image/png;a=\"b\";base64,AAAA", HeadError::MediaType),
            ("data:image%2Fpng;base64,AAAA", HeadError::MediaType),
            ("data:image/png/x;base64,AAAA", HeadError::MediaType),
            ("data:image/png\0;base64,AAAA", HeadError::MediaType),
            ("data: image/png;base64,AAAA", HeadError::MediaType),
            ("data:data:image/png;base64,AAAA", HeadError::MediaType),
        ] {
            assert_eq!(head(url.as_bytes()), Err(error), "{url}");
        }
    }
}
