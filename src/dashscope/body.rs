//! A request body around pictures, made while it is sent.
//!
//! A picture is held once, as the bytes that came in. Base64 and the JSON around it would be
//! another four thirds of it for each attempt in flight, so the text is made in pieces of 64 KiB as
//! the connection asks for them, and making the body again for a retry costs some reference
//! counts. What a caller has written as Base64 already is sent from where it was received. The length
//! is known beforehand and sent, because the vendor's gateway is known to dislike chunked bodies.
//!
//! A body also remembers whether its last piece was handed over. Until then the upstream cannot
//! have had a whole JSON document, and so cannot have billed anything, however the connection
//! ended.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes of the picture that are encoded at once: a multiple of three, so that only the last piece
/// is padded, and some ten microseconds of work.
const PIECE: usize = 48 * 1024;

/// A JSON document in parts.
#[derive(Clone)]
pub(super) struct Document {
    parts: VecDeque<Part>,
}

/// One part of a document. None is empty.
#[derive(Clone)]
enum Part {
    /// Text of the document.
    Text(Bytes),
    /// A picture, to be written as Base64.
    Picture(Bytes),
}

impl Document {
    /// The document `json`, whose first string that ends in `;base64,` takes the picture.
    ///
    /// The first is the right one as long as the caller puts nothing before it that others wrote;
    /// where there is none, the picture is appended, which no server takes for JSON.
    pub(super) fn new(json: String, picture: Bytes) -> Self {
        const HOLE: &str = ";base64,\"";
        let at = json.find(HOLE).map_or(json.len(), |found| found + HOLE.len() - 1);
        let json = Bytes::from(json);
        let (before, after) = (json.slice(..at), json.slice(at..));
        Self::of([Part::Text(before), Part::Picture(picture), Part::Text(after)])
    }

    /// The document that these pieces of text make.
    pub(super) fn verbatim(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self::of(pieces.into_iter().map(Part::Text))
    }

    fn of(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { parts: parts.into_iter().filter(|part| part.length() > 0).collect() }
    }

    /// A body that sends the document, and the flag that says whether all of it was handed over.
    pub(super) fn body(&self) -> (DocumentBody, Arc<AtomicBool>) {
        let handed_over = Arc::new(AtomicBool::new(false));
        let body = DocumentBody { left: self.parts.clone(), handed_over: Arc::clone(&handed_over) };
        (body, handed_over)
    }
}

impl Part {
    /// Bytes of it as they are sent.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Picture(picture) => base64_simd::STANDARD.encoded_length(picture.len()),
        }
    }
}

/// One sending of a [`Document`].
pub(super) struct DocumentBody {
    left: VecDeque<Part>,
    handed_over: Arc<AtomicBool>,
}

impl DocumentBody {
    fn next_piece(&mut self) -> Option<Bytes> {
        let piece = match self.left.pop_front()? {
            Part::Text(text) => text,
            Part::Picture(mut picture) => {
                let piece = picture.split_to(picture.len().min(PIECE));
                if !picture.is_empty() {
                    self.left.push_front(Part::Picture(picture));
                }
                base64_simd::STANDARD.encode_type::<Vec<u8>>(&piece).into()
            }
        };
        if self.left.is_empty() {
            self.handed_over.store(true, Ordering::Release);
        }
        Some(piece)
    }

    fn length(&self) -> usize {
        self.left.iter().map(Part::length).sum()
    }
}

impl Body for DocumentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(document: &Document) -> (Vec<u8>, u64) {
        let (mut body, handed_over) = document.body();
        let length = body.size_hint().exact().unwrap();
        let mut all = Vec::new();
        while let Some(piece) = body.next_piece() {
            assert!(piece.len() <= 64 * 1024, "a piece of {} bytes", piece.len());
            all.extend_from_slice(&piece);
            assert_eq!(handed_over.load(Ordering::Acquire), body.is_end_stream());
        }
        (all, length)
    }

    proptest! {
        #[test]
        fn a_picture_of_any_length_lands_in_its_string(
            picture in prop::collection::vec(any::<u8>(), 0..300),
            pieces in 0..2_usize,
            text in any::<String>(),
        ) {
            let picture: Vec<u8> = vec![7; pieces * PIECE].into_iter().chain(picture).collect();
            let text = format!("{text}data:image/png;base64,\"");
            let json = serde_json::json!([{"url": "data:image/png;base64,"}, text]).to_string();
            let (all, length) = sent(&Document::new(json, picture.clone().into()));
            prop_assert_eq!(all.len() as u64, length);
            let url = format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(&picture));
            let expected = serde_json::json!([{"url": url}, text]);
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&all).unwrap(), expected);
        }
    }

    #[test]
    fn a_body_that_was_not_read_to_its_end_was_not_handed_over() {
        let document = Document::new("\"data:a/b;base64,\"".to_owned(), Bytes::from_static(b"abc"));
        let (mut body, handed_over) = document.body();
        body.next_piece();
        body.next_piece();
        assert!(!handed_over.load(Ordering::Acquire));
    }
}
