//! Refuses compressed bodies: a few kilobytes can become gigabytes, and image formats are compressed already.

use axum::http::{HeaderMap, header};

use crate::api::problem::Problem;
use crate::code::ErrorCode;

/// The first bytes of compression formats.
const MAGIC: [(&[u8], &str); 3] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "Zstandard"), (b"PK\x03\x04", "ZIP")];

/// Refuses a body whose headers declare a compression.
///
/// # Errors
///
/// 415 if `Content-Encoding` contains anything but `identity`.
pub(super) fn require_identity(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii);
    let is_coded = |coding: &&[u8]| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity");
    let Some(coding) = codings.find(is_coded) else { return Ok(()) };
    let shown: String = String::from_utf8_lossy(coding).chars().take(32).collect();
    Err(compressed(&format!("The body is compressed (Content-Encoding: {shown}).")))
}

/// The compression format of a body that should be text; none if it is not compressed.
pub(super) fn compression(body: &[u8]) -> Option<&'static str> {
    MAGIC.iter().find(|(magic, _)| body.starts_with(magic)).map(|(_, name)| *name)
}

/// The refusal of a body that is compressed by `kind` but does not declare it.
pub(super) fn unannounced(kind: &str) -> Problem {
    compressed(&format!("The body is compressed: it begins like {kind}."))
}

fn compressed(what: &str) -> Problem {
    let detail = format!("{what} Send it as it is, without Content-Encoding.");
    Problem::new(ErrorCode::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, value.parse().unwrap())]);
        require_identity(&headers).err().map(|problem| problem.detail.into())
    }

    #[test]
    fn any_coding_is_named_and_none_is_taken_but_identity() {
        assert!(of("GZip").unwrap().contains("(Content-Encoding: GZip)"));
        assert!(of("identity, br").unwrap().contains("(Content-Encoding: br)"));
        assert!(of("snappy").is_some());
        for plain in ["", "identity", "Identity , identity"] {
            assert_eq!(of(plain), None, "{plain}");
        }
        assert!(require_identity(&HeaderMap::new()).is_ok());
    }
}
