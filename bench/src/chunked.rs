//! Chunked bodies (RFC 9112, section 7.1), received in pieces of any size.

use std::io;

use crate::http::malformed;

/// The position of the parser in a chunked body.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    at: Place,
    /// The size that is being read, or the rest of the current chunk.
    left: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the line with a chunk's size.
    #[default]
    Size,
    /// In that line, after the size.
    Extension,
    /// In a chunk or its line break.
    Chunk,
    /// In the line after the last chunk.
    Trailer,
    /// In the line after the last chunk, before its line feed.
    LastBreak,
    Over,
}

impl Chunked {
    /// Parses the received bytes and appends their part of the body to `body`.
    ///
    /// # Errors
    ///
    /// The bytes are no chunks, have trailers, or continue after the last chunk.
    pub(crate) fn push(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> io::Result<()> {
        while let [first, rest @ ..] = bytes {
            if self.at == Place::Chunk {
                let (taken, rest) = bytes.split_at(bytes.len().min(self.left));
                // The last two bytes are the line break.
                let content = taken.len().min(self.left.saturating_sub(2));
                body.extend_from_slice(&taken[..content]);
                self.left -= taken.len();
                bytes = rest;
                if self.left == 0 {
                    self.at = Place::Size;
                }
                continue;
            }
            self.frame(*first)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Whether the last chunk and its end have arrived.
    pub(crate) fn is_over(&self) -> bool {
        self.at == Place::Over
    }

    /// A byte between two chunks.
    fn frame(&mut self, byte: u8) -> io::Result<()> {
        self.at = match (self.at, byte) {
            (Place::Size | Place::Extension, b'\n') if self.left == 0 => Place::Trailer,
            (Place::Size | Place::Extension, b'\n') => {
                self.left += 2;
                Place::Chunk
            }
            (Place::Size, b'\r' | b';') | (Place::Extension, _) => Place::Extension,
            (Place::Size, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or_else(|| malformed("no size"))?;
                let grown =
                    self.left.checked_mul(16).and_then(|left| left.checked_add(digit as usize));
                self.left = grown.ok_or_else(|| malformed("a chunk without end"))?;
                Place::Size
            }
            (Place::Trailer, b'\r') => Place::LastBreak,
            (Place::LastBreak, b'\n') => Place::Over,
            _ => return Err(malformed("something after the last chunk")),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &[u8] = b"5\r\nfirst\r\n1A;name=value\r\nand a second of 26 letters\r\n0\r\n\r\n";
    const BODY: &str = "firstand a second of 26 letters";

    #[test]
    fn a_body_is_the_same_wherever_the_bytes_were_split() {
        for split in 0..=WIRE.len() {
            let (mut chunked, mut body) = (Chunked::default(), Vec::new());
            chunked.push(&WIRE[..split], &mut body).unwrap();
            assert_eq!(chunked.is_over(), split == WIRE.len());
            chunked.push(&WIRE[split..], &mut body).unwrap();
            assert!(chunked.is_over());
            assert_eq!(String::from_utf8(body).unwrap(), BODY);
        }
    }

    #[test]
    fn what_are_no_chunks_is_an_error() {
        for wire in [&b"data: x\n\n"[..], b"ffffffffffffffffff\r\n", b"0\r\nTrailer: x\r\n\r\n"] {
            assert!(Chunked::default().push(wire, &mut Vec::new()).is_err());
        }
        let mut chunked = Chunked::default();
        chunked.push(WIRE, &mut Vec::new()).unwrap();
        assert!(chunked.push(b"H", &mut Vec::new()).is_err());
    }
}
