//! The body of a request, made while it is sent.
//!
//! A picture is held once, as the bytes that came in. Its Base64 in JSON would take another four thirds of it for each
//! attempt in flight. So the text is made in pieces of 64 KiB as the connection asks for them, and a retry costs some
//! reference counts. Base64 from a caller is sent from where it was received. The length is computed and sent in
//! advance, because the vendor's gateway is known to have problems with chunked bodies.
//!
//! A body remembers whether its last piece was handed over. Before that the upstream cannot have had a complete JSON
//! document, so it cannot have billed anything, however the connection ended.
//!
//! An upstream may answer without reading the request and leave the connection open. hyper would then keep the
//! connection, and the upload, until the upstream closes it. So each attempt holds a [`Sending`]: when that is dropped,
//! the rest of the document is released and the body fails, at which hyper closes the connection. hyper asks the body
//! for more only while it has room, so its buffers must not be full while an upstream is slow: the next [`BATCH`] of
//! pieces is given out when the one before has been written. An upstream that takes less than a piece of a batch leaves
//! no room, and the system ends the connection after `STALLED`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes of the picture that are encoded at once, in some ten microseconds: a multiple of three, so that only the last
/// piece is padded.
const PIECE: usize = 48 * 1024;

/// The most bytes that are handed over at once: the length of an encoded [`PIECE`].
const LONGEST_PIECE: usize = 64 * 1024;

/// Pieces in a batch. They fill hyper's buffers (408 KiB, or 16 pieces), which hyper then writes before it asks for
/// more. Fewer pieces would cost more system calls.
const BATCH: usize = 7;

/// How long an upstream may read nothing of a request before the system ends the connection (`TCP_USER_TIMEOUT`,
/// tcp(7), on Linux). Waiting for an answer does not count.
#[cfg(target_os = "linux")]
pub(crate) const STALLED: Duration = Duration::from_secs(30);

/// A JSON document in parts.
#[derive(Clone)]
pub(crate) struct RequestDocument {
    parts: VecDeque<BodyPart>,
}

/// One part of a document. None is empty.
#[derive(Clone)]
enum BodyPart {
    /// Text.
    Text(Bytes),
    /// A picture, which is sent as Base64.
    Picture(Bytes),
}

impl RequestDocument {
    /// The document `json`, with the picture in its first string that ends in `;base64,`.
    ///
    /// This is the intended string as long as no caller's text precedes it. Without such a string, the picture is
    /// appended, which no server accepts as JSON.
    pub(crate) fn new(json: String, picture: Bytes) -> Self {
        const HOLE: &str = ";base64,\"";
        let at = json.find(HOLE).map_or(json.len(), |found| found + HOLE.len() - 1);
        let json = Bytes::from(json);
        let (before, after) = (json.slice(..at), json.slice(at..));
        Self::of([BodyPart::Text(before), BodyPart::Picture(picture), BodyPart::Text(after)])
    }

    /// The document of these pieces of text.
    pub(crate) fn verbatim(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self::of(pieces.into_iter().map(BodyPart::Text))
    }

    fn of(parts: impl IntoIterator<Item = BodyPart>) -> Self {
        Self { parts: parts.into_iter().filter(|part| part.length() > 0).collect() }
    }

    /// A body that sends the document, and the attempt's side of the sending.
    pub(crate) fn body(&self) -> (DocumentBody, Sending) {
        let left = self.parts.clone();
        let progress = SendProgress {
            left,
            given: 0,
            on_the_way: 0,
            waits: false,
            is_stopped: false,
            waker: None,
        };
        let handed_over = Arc::new(AtomicBool::new(false));
        let flow = Arc::new(SendFlow { progress: Mutex::new(progress), handed_over });
        (DocumentBody { flow: Arc::clone(&flow) }, Sending { flow })
    }
}

impl BodyPart {
    /// Its length as sent, in bytes.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Picture(picture) => base64_simd::STANDARD.encoded_length(picture.len()),
        }
    }
}

/// The connection's side of one sending of a [`RequestDocument`].
pub(crate) struct DocumentBody {
    flow: Arc<SendFlow>,
}

/// The attempt's side of one sending of a [`RequestDocument`]. Dropping it stops the sending: the rest is released, and
/// the connection is closed unless all pieces were handed over.
#[derive(Debug)]
pub(crate) struct Sending {
    flow: Arc<SendFlow>,
}

/// The sending was stopped, because the attempt is over.
#[derive(Debug, thiserror::Error)]
#[error("the attempt ended before its request was sent")]
pub(crate) struct Stopped;

/// The state that both sides of a sending share.
struct SendFlow {
    progress: Mutex<SendProgress>,
    handed_over: Arc<AtomicBool>,
}

struct SendProgress {
    left: VecDeque<BodyPart>,
    /// Pieces of this batch that were given out.
    given: usize,
    /// Pieces that hyper holds.
    on_the_way: usize,
    /// Whether the connection waits for the batch to be written.
    waits: bool,
    is_stopped: bool,
    /// The connection that asked last.
    waker: Option<Waker>,
}

impl Sending {
    /// Whether the last piece was handed over; still valid when this has been dropped.
    pub(crate) fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flow.handed_over)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut progress = self.flow.progress();
        progress.is_stopped = true;
        let (left, waker) = (std::mem::take(&mut progress.left), progress.waker.take());
        drop(progress);
        drop(left);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl SendFlow {
    fn progress(&self) -> MutexGuard<'_, SendProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece was written, or dropped with its connection.
    fn written(&self) {
        let mut progress = self.progress();
        progress.on_the_way -= 1;
        if progress.on_the_way > 0 {
            return;
        }
        progress.given = 0;
        let waker = if std::mem::take(&mut progress.waits) { progress.waker.take() } else { None };
        drop(progress);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl SendProgress {
    fn next_piece(&mut self) -> Option<Bytes> {
        let piece = match self.left.pop_front()? {
            BodyPart::Text(mut text) => {
                let piece = text.split_to(text.len().min(LONGEST_PIECE));
                if !text.is_empty() {
                    self.left.push_front(BodyPart::Text(text));
                }
                piece
            }
            BodyPart::Picture(mut picture) => {
                let piece = picture.split_to(picture.len().min(PIECE));
                if !picture.is_empty() {
                    self.left.push_front(BodyPart::Picture(picture));
                }
                base64_simd::STANDARD.encode_type::<Vec<u8>>(&piece).into()
            }
        };
        Some(piece)
    }

    /// Remembers the task to wake when more may be given out or the sending is stopped.
    fn asked_by(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// A piece that hyper holds.
struct OnTheWay {
    piece: Bytes,
    flow: Arc<SendFlow>,
}

impl AsRef<[u8]> for OnTheWay {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.flow.written();
    }
}

impl Body for DocumentBody {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let mut progress = self.flow.progress();
        if progress.is_stopped {
            return Poll::Ready(Some(Err(Stopped)));
        }
        progress.asked_by(context.waker());
        if progress.given == BATCH {
            progress.waits = true;
            return Poll::Pending;
        }
        let Some(piece) = progress.next_piece() else { return Poll::Ready(None) };
        if progress.left.is_empty() {
            self.flow.handed_over.store(true, Ordering::Release);
        }
        progress.given += 1;
        progress.on_the_way += 1;
        drop(progress);
        let piece = Bytes::from_owner(OnTheWay { piece, flow: Arc::clone(&self.flow) });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let progress = self.flow.progress();
        progress.left.is_empty() && !progress.is_stopped
    }

    fn size_hint(&self) -> SizeHint {
        let left: usize = self.flow.progress().left.iter().map(BodyPart::length).sum();
        SizeHint::with_exact(left as u64)
    }
}

/// Leaves the content out.
impl std::fmt::Debug for SendFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendFlow").field("handed_over", &self.handed_over).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn next(body: &mut DocumentBody) -> Result<Bytes, Stopped> {
        let frame = body.frame().now_or_never().expect("the batch before was written");
        frame.expect("the body goes on").map(|frame| frame.into_data().unwrap())
    }

    fn sent(document: &RequestDocument) -> (Vec<u8>, u64) {
        let (mut body, sending) = document.body();
        let length = body.size_hint().exact().unwrap();
        let handed_over = sending.handed_over();
        let mut all = Vec::new();
        while !body.is_end_stream() {
            let piece = next(&mut body).unwrap();
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
            let (all, length) = sent(&RequestDocument::new(json, picture.clone().into()));
            prop_assert_eq!(all.len() as u64, length);
            let url = format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(&picture));
            let expected = serde_json::json!([{"url": url}, text]);
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&all).unwrap(), expected);
        }
    }

    #[test]
    fn a_text_of_many_pieces_is_sent_as_it_is() {
        let text: Vec<u8> = (0..300_001_u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let pieces = [text[..200_000].to_vec(), text[200_000..].to_vec()];
        let (all, length) = sent(&RequestDocument::verbatim(pieces.map(Bytes::from)));
        assert!(all == text && length == 300_001);
    }

    #[test]
    fn a_body_that_was_not_read_to_its_end_was_not_handed_over() {
        let document =
            RequestDocument::new("\"data:a/b;base64,\"".to_owned(), Bytes::from_static(b"abc"));
        let (mut body, sending) = document.body();
        for _ in 0..2 {
            next(&mut body).unwrap();
        }
        assert!(!sending.handed_over().load(Ordering::Acquire));
    }

    #[test]
    fn a_batch_is_given_out_when_the_one_before_was_written() {
        let document =
            RequestDocument::verbatim([Bytes::from(vec![7; (BATCH + 1) * LONGEST_PIECE])]);
        let (mut body, sending) = document.body();
        let mut batch: Vec<_> = (0..BATCH).map(|_| next(&mut body).unwrap()).collect();
        let last = batch.pop();
        drop(batch);
        assert!(body.frame().now_or_never().is_none(), "one piece is not written yet");
        drop(last);
        assert_eq!(next(&mut body).unwrap().len(), LONGEST_PIECE);
        assert!(sending.handed_over().load(Ordering::Acquire));
    }

    #[test]
    fn a_sending_that_is_stopped_lets_the_document_go_and_fails_its_body() {
        struct Upload(Vec<u8>, Arc<AtomicBool>);
        impl AsRef<[u8]> for Upload {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Upload {
            fn drop(&mut self) {
                self.1.store(true, Ordering::Release);
            }
        }
        let is_gone = Arc::new(AtomicBool::new(false));
        let bytes = vec![7; 3 * LONGEST_PIECE];
        let upload = Bytes::from_owner(Upload(bytes, Arc::clone(&is_gone)));
        let (mut body, sending) = RequestDocument::new("\";base64,\"".to_owned(), upload).body();
        for _ in 0..2 {
            next(&mut body).unwrap();
        }
        drop(sending);
        assert!(is_gone.load(Ordering::Acquire) && !body.is_end_stream());
        assert!(next(&mut body).is_err());
    }
}
