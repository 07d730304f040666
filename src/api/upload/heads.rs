//! Heads of a form's parts, bounded before they are looked at.
//!
//! The library that reads forms looks for the end of a head in all that it has not understood yet, each time
//! that anything more comes. So a head without end, sent in small pieces, would cost the square of its length,
//! and a boundary that never comes likewise. This stands between the body and the library: while the library
//! waits for a head it is given what comes only when the end of one is there, and nothing more past
//! [`HEAD_BYTES`]. Between heads, pieces pass as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt;

use super::coding::compression;

/// The longest head of a part, in bytes, and the most that may stand before the first part. A client writes a
/// hundred bytes, and a file's name may have some hundreds more.
pub(super) const HEAD_BYTES: usize = 8 * 1024;

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// What is wrong with a form before its parts are read.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadFault {
    /// A head, or its boundary, has no end.
    #[error("a part's head has no end")]
    TooLong,
    /// It is not a form but something compressed.
    #[error("the form is compressed")]
    Compressed(&'static str),
    /// The body itself.
    #[error(transparent)]
    Body(#[from] axum::Error),
}

/// Which head the library waits for: an odd number while it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Arc<AtomicU64>);

impl Heads {
    /// The library now waits for a head, or no longer.
    pub(super) fn turn(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn awaited(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|head| head % 2 == 1)
    }

    /// Puts the bound around a request's body.
    pub(super) fn bound(&self, request: Request) -> Request {
        let (parts, body) = request.into_parts();
        let pieces = Pieces { body, heads: self.clone(), ..Pieces::default() };
        let bounded = stream::try_unfold(pieces, async |mut pieces: Pieces| {
            let piece = pieces.next().await?;
            Ok::<_, HeadFault>(piece.map(|piece| (piece, pieces)))
        });
        Request::from_parts(parts, Body::from_stream(bounded))
    }
}

/// The pieces of a body on their way to the library.
#[derive(Debug, Default)]
struct Pieces {
    body: Body,
    heads: Heads,
    has_begun: bool,
    /// The last bytes of what was passed on: the end of a head may be cut in two.
    tail: Vec<u8>,
    /// What is not passed on yet.
    held: BytesMut,
    /// The head that was passed on although its end was not there.
    endless: Option<u64>,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, HeadFault> {
        loop {
            let awaited = self.heads.awaited();
            if awaited.is_some() && awaited == self.endless {
                return Err(HeadFault::TooLong);
            }
            let Some(piece) = self.piece().await? else { return Ok(self.rest().await) };
            let has_end = self.ends_with(&piece);
            // Asked anew: it may have found its head while the piece was on its way.
            let awaited = self.heads.awaited();
            if awaited.is_none() || has_end {
                return Ok(Some(self.released(piece)));
            }
            if self.held.len() + piece.len() > HEAD_BYTES {
                self.endless = awaited;
                return Ok(Some(self.released(piece)));
            }
            self.held.extend_from_slice(&piece);
        }
    }

    /// What is held when the body is over.
    async fn rest(&mut self) -> Option<Bytes> {
        if self.held.is_empty() {
            // The library does not look at what came last if it learns of the end together with it.
            tokio::task::yield_now().await;
            return None;
        }
        Some(self.held.split().freeze())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, HeadFault> {
        while let Some(frame) = self.body.frame().await {
            let Ok(piece) = frame?.into_data() else { continue };
            if !self.has_begun
                && let Some(kind) = compression(&piece)
            {
                return Err(HeadFault::Compressed(kind));
            }
            self.has_begun |= !piece.is_empty();
            return Ok(Some(piece));
        }
        Ok(None)
    }

    /// Whether the end of a head is in `piece`, or in it and what came before it.
    fn ends_with(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(&piece[..piece.len().min(END.len() - 1)]);
        let is_cut = memchr::memmem::find(&self.tail, END).is_some();
        let kept = END.len() - 1;
        if piece.len() > kept {
            self.tail = piece[piece.len() - kept..].to_vec();
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(kept));
        }
        is_cut || memchr::memmem::find(piece, END).is_some()
    }

    /// What is held and then `piece`.
    fn released(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        self.held.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the pieces that the library is given of a body in pieces while it waits for a head,
    /// and whether the body is refused at last.
    async fn given(pieces: Vec<Vec<u8>>) -> (Vec<usize>, bool) {
        let heads = Heads::default();
        heads.turn();
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(stream::iter(pieces));
        let mut bounded = heads.bound(Request::new(body)).into_body();
        let mut lengths = Vec::new();
        while let Some(frame) = bounded.frame().await {
            let Ok(frame) = frame else { return (lengths, true) };
            lengths.push(frame.into_data().unwrap().len());
        }
        (lengths, false)
    }

    #[tokio::test]
    async fn a_head_without_end_is_looked_at_once_however_small_its_pieces() {
        for length in [1, 2, 3, 100, 5_000] {
            let pieces = vec![vec![b'x'; length]; 1_000_000 / length];
            let (lengths, is_refused) = given(pieces).await;
            assert!(is_refused, "{length}");
            assert_eq!(lengths.len(), 1, "{length}");
            assert!(lengths[0] <= HEAD_BYTES + length, "{lengths:?}");
        }
    }

    #[tokio::test]
    async fn a_head_is_given_with_the_piece_that_ends_it_wherever_it_is_cut() {
        let head = b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
        for at in 1..head.len() {
            let (start, end) = head.split_at(at);
            let (lengths, is_refused) = given(vec![start.to_vec(), end.to_vec()]).await;
            assert_eq!((lengths, is_refused), (vec![head.len()], false), "{at}");
        }
        let singly: Vec<_> = head.iter().map(|&byte| vec![byte]).collect();
        assert_eq!(given(singly).await, (vec![head.len()], false));
    }

    #[tokio::test]
    async fn pieces_pass_as_they_come_between_heads() {
        let heads = Heads::default();
        let pieces = [b"abc".to_vec(), vec![7; 100_000], b"d".to_vec()];
        let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
        let mut bounded = heads.bound(Request::new(body)).into_body();
        for length in [3, 100_000, 1] {
            let frame = bounded.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), length);
        }
        assert!(bounded.frame().await.is_none());
    }
}
