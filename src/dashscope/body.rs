//! A request body around a picture, made while it is sent.
//!
//! A picture is held once, as the bytes that came in. Base64 and the JSON around it would be
//! another four thirds of it for each attempt in flight, so the text is made in pieces of 64 KiB as
//! the connection asks for them, and making the body again for a retry costs three reference
//! counts. The length is known beforehand and sent, because the vendor's gateway is known to
//! dislike chunked bodies.
//!
//! A body also remembers whether its last piece was handed over. Until then the upstream cannot
//! have had a whole JSON document, and so cannot have billed anything, however the connection
//! ended.

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

/// A JSON document with a hole where the Base64 of a picture goes.
#[derive(Clone)]
pub(super) struct Document {
    before: Bytes,
    picture: Bytes,
    after: Bytes,
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
        Self { before: json.slice(..at), picture, after: json.slice(at..) }
    }

    /// A body that sends the document, and the flag that says whether all of it was handed over.
    pub(super) fn body(&self) -> (DocumentBody, Arc<AtomicBool>) {
        let handed_over = Arc::new(AtomicBool::new(false));
        let body = DocumentBody {
            next: Part::Before,
            document: self.clone(),
            handed_over: Arc::clone(&handed_over),
        };
        (body, handed_over)
    }
}

/// What is sent next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Before,
    Picture,
    After,
    Nothing,
}

/// One sending of a [`Document`].
pub(super) struct DocumentBody {
    next: Part,
    /// What is left of it.
    document: Document,
    handed_over: Arc<AtomicBool>,
}

impl DocumentBody {
    fn next_piece(&mut self) -> Option<Bytes> {
        match self.next {
            Part::Before => {
                self.next =
                    if self.document.picture.is_empty() { Part::After } else { Part::Picture };
                Some(std::mem::take(&mut self.document.before))
            }
            Part::Picture => {
                let picture = &mut self.document.picture;
                let piece = picture.split_to(picture.len().min(PIECE));
                if picture.is_empty() {
                    self.next = Part::After;
                }
                Some(base64_simd::STANDARD.encode_type::<Vec<u8>>(&piece).into())
            }
            Part::After => {
                self.next = Part::Nothing;
                self.handed_over.store(true, Ordering::Release);
                Some(std::mem::take(&mut self.document.after))
            }
            Part::Nothing => None,
        }
    }

    fn left(&self) -> usize {
        let Document { before, picture, after } = &self.document;
        before.len() + base64_simd::STANDARD.encoded_length(picture.len()) + after.len()
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
        self.next == Part::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left() as u64)
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
