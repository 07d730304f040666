//! Parameters of `Content-Type` and `Content-Disposition` (RFC 2045, section 5.1; RFC 7578, section 4.2).

/// The value of a parameter, without quotation marks and escapes. None if it is missing, has no end, or occurs twice,
/// because parsers differ in which of two they use.
pub(super) fn parameter(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let (mut found, mut rest) = (None, after(header, b';')?);
    while let Some((key, value, behind)) = next(rest) {
        if key.eq_ignore_ascii_case(name.as_bytes()) && found.replace(value).is_some() {
            return None;
        }
        rest = behind;
    }
    found
}

/// The first parameter that has a value, and the text after it.
fn next(mut rest: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    loop {
        let end = memchr::memchr2(b'=', b';', rest)?;
        let (key, behind) = (rest[..end].trim_ascii(), &rest[end + 1..]);
        if rest[end] == b';' {
            rest = behind;
            continue;
        }
        let behind = behind.trim_ascii_start();
        if let Some(quoted) = behind.strip_prefix(b"\"") {
            let (value, behind) = unquoted(quoted)?;
            return Some((key, value, after(behind, b';').unwrap_or_default()));
        }
        let end = memchr::memchr(b';', behind).unwrap_or(behind.len());
        let value = behind[..end].trim_ascii().to_vec();
        return Some((key, value, behind.get(end + 1..).unwrap_or_default()));
    }
}

/// Reads up to the closing quotation mark. A backslash escapes a quotation mark and a backslash. Before any other
/// character it is part of a Windows path.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut value, mut rest) = (Vec::new(), text);
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        value.extend_from_slice(&rest[..at]);
        match rest[at..] {
            [b'"', ref behind @ ..] => return Some((value, behind)),
            [_, escaped @ (b'"' | b'\\'), ref behind @ ..] => {
                value.push(escaped);
                rest = behind;
            }
            _ => {
                value.push(b'\\');
                rest = &rest[at + 1..];
            }
        }
    }
}

fn after(text: &[u8], byte: u8) -> Option<&[u8]> {
    memchr::memchr(byte, text).map(|at| &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_every_common_spelling() {
        for header in [
            r#"form-data; name="file""#,
            "form-data;name=file",
            r#"form-data; NAME = "file" ; filename="a.png""#,
            r#"form-data; filename="a; name=b.png"; name="file""#,
            r#"form-data; filename="a\"; name=\"b.png"; name="file""#,
            r#"form-data; filename="C:\dir\new.png"; name=file;"#,
            r#"form-data; x; filename*=UTF-8''name%3db; name="file""#,
            r#"form-data; name="file"; filename="without an end"#,
            r#"; name="file"; name*=x"#,
        ] {
            assert_eq!(parameter(header.as_bytes(), "name").unwrap(), b"file", "{header}");
        }
        assert_eq!(parameter(br#"x; name="a\\b\c\"""#, "name").unwrap(), br#"a\b\c""#);
        assert_eq!(parameter("x; name=\"\u{6587}\"".as_bytes(), "name").unwrap(), "文".as_bytes());
    }

    #[test]
    fn a_name_that_is_missing_has_no_end_or_is_there_twice_is_none() {
        for header in [
            "",
            "form-data",
            "form-data; filename=name",
            "form-data; filename=\"name=x\"",
            "form-data; name=\"file",
            "form-data; name",
            "name=file",
            "form-data; name=file; name=file",
            "form-data; name=file; Name=\"prompt\"",
        ] {
            assert_eq!(parameter(header.as_bytes(), "name"), None, "{header}");
        }
    }
}
