//! Receives a body: checks its length and its pace, and collects it in one buffer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, Sleep};

use super::error::UploadError;
use crate::api::problem::Problem;
use crate::capacity::account::{HeldBytes, NoRoom};
use crate::code::ErrorCode;
use crate::gateway::Gateway;

/// Pieces of a body that may be of any size. hyper hands over one piece each time the connection's task is polled,
/// which costs some 1.2 µs whatever the length of the piece (`bench/form`). A body of 20 MiB in chunks of one byte
/// would cost half a minute.
const ANY_PIECES: u64 = 13_824;

/// The least average size in bytes of the pieces past [`ANY_PIECES`]. Clients that stream send some kilobytes at once.
/// Chunks are also split at packet boundaries: a chunk of a kilobyte arrives in 1.7 pieces on average. Bodies of up to
/// 11 MiB in such chunks pass, and bodies of up to 20 MiB if the chunks are not split.
const LEAST_PIECE: u64 = 2048;

/// An error while a body arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It is longer than a body may be.
    TooLarge { actual: u64, limit: u64 },
    /// It arrived in too many pieces for its length.
    TooManyPieces { actual: u64, limit: u64 },
    /// Nothing arrived for too long, or the whole body took too long.
    TooSlow,
    /// The connection ended before the body.
    BrokeOff,
}

impl From<BodyFault> for UploadError {
    fn from(fault: BodyFault) -> Self {
        Self::Wrong(match fault {
            BodyFault::TooLarge { actual, limit } => too_large(actual, limit),
            BodyFault::TooManyPieces { actual, limit } => too_many_pieces(actual, limit),
            BodyFault::TooSlow => too_slow(),
            BodyFault::BrokeOff => {
                Problem::new(ErrorCode::BadRequest, "The body broke off before its end.")
            }
        })
    }
}

/// A request's body, piece by piece, within the limits of length, silence, time and fragmentation.
#[derive(Debug)]
pub(super) struct Pieces {
    body: Body,
    limit: u64,
    length: u64,
    number: u64,
    patience: Patience,
}

impl Pieces {
    /// A body, within the gateway's limits.
    pub(super) fn of(gateway: &Gateway, body: Body) -> Self {
        let bounds = &gateway.bounds;
        Self {
            body,
            limit: bounds.body_bytes,
            length: 0,
            number: 0,
            patience: Patience::new(bounds.body_idle, bounds.body_total),
        }
    }

    /// The next piece; none at the end of the body.
    ///
    /// # Errors
    ///
    /// [`BodyFault`] if a limit is exceeded or the body is incomplete.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let piece = std::future::poll_fn(|context| self.poll(context)).await?;
        let Some(piece) = piece else { return Ok(None) };
        self.patience.renew();
        self.count(piece.len() as u64)?;
        Ok(Some(piece))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyFault>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return self.patience.poll_spent(context).map(|()| Err(BodyFault::TooSlow));
            };
            let Some(frame) = frame else { return Poll::Ready(Ok(None)) };
            let Ok(frame) = frame else { return Poll::Ready(Err(BodyFault::BrokeOff)) };
            // Trailers are ignored.
            if let Ok(piece) = frame.into_data() {
                return Poll::Ready(Ok(Some(piece)));
            }
        }
    }

    fn count(&mut self, length: u64) -> Result<(), BodyFault> {
        self.length += length;
        self.number += 1;
        if self.length > self.limit {
            return Err(BodyFault::TooLarge { actual: self.length, limit: self.limit });
        }
        let limit = ANY_PIECES + self.length / LEAST_PIECE;
        if self.number > limit {
            return Err(BodyFault::TooManyPieces { actual: self.number, limit });
        }
        Ok(())
    }
}

/// The timeout of a body.
///
/// A reset of the timer for each piece would cost more than the piece. So the timer is only reset when it fires, to the
/// timeout after the last piece.
#[derive(Debug)]
struct Patience {
    idle: Duration,
    until: Instant,
    last: Instant,
    timer: Pin<Box<Sleep>>,
    waker: Option<Waker>,
}

impl Patience {
    fn new(idle: Duration, total: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep(idle.min(total)));
        Self { idle, until: now + total, last: now, timer, waker: None }
    }

    /// Records that a piece arrived.
    fn renew(&mut self) {
        self.last = Instant::now();
    }

    /// Ready once the timeout has passed.
    fn poll_spent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A poll of a timer costs a tenth of a piece, and this timer already has the task's waker.
        let is_known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if is_known && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        // If the task has no budget left, the timer is pending and has not stored the waker.
        self.waker = tokio::task::coop::has_budget_remaining().then(|| context.waker().clone());
        loop {
            let end = self.until.min(self.last + self.idle);
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }
}

/// The memory of one body. It grows if the length was not declared.
///
/// If a body of undeclared length exceeds [`FIRST_BYTES`], address space for the longest body is reserved at once. The
/// system allocates memory only for pages that are written, so the body counts with the bytes that have arrived. A
/// buffer that doubles would be moved each time. The allocator would keep the old memory for a second, as much as the
/// body has, and it would not be counted.
#[derive(Debug)]
pub(in crate::api) struct Room {
    declared: usize,
    is_declared: bool,
    limit: usize,
    memory: Arc<HeldBytes>,
}

/// The address space that is reserved for the first bytes of a body of undeclared length.
const FIRST_BYTES: usize = 64 * 1024;

/// The unit in which memory is filled, in bytes.
const PAGE_BYTES: usize = 4096;

/// Bytes of a JSON tree for each byte of its text. The worst case is a list of digits: two characters each become a
/// value of 32 bytes in an array that has grown by doubling.
const TREE_BYTES: u64 = 32;

/// The longest option that is not counted, in bytes: all sixteen options take a quarter of a megabyte.
const SHORT_OPTION: usize = 512;

impl Room {
    /// Memory for a body of the declared length, which `memory` holds already, or of at most `limit` bytes.
    pub(in crate::api) fn new(declared: Option<u64>, limit: u64, memory: Arc<HeldBytes>) -> Self {
        let length = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            declared: declared.map_or(0, length),
            is_declared: declared.is_some(),
            limit: length(limit),
            memory,
        }
    }

    /// Reserves the memory that an option of this length may need. Short options fit into the memory that each request
    /// has in addition to its upload.
    pub(in crate::api) fn take_for_option(&self, length: usize) -> Result<(), NoRoom> {
        if length <= SHORT_OPTION {
            return Ok(());
        }
        self.memory.take(TREE_BYTES * length as u64)
    }

    /// An empty buffer. If the length was declared, the whole body fits in it without a move.
    pub(super) fn for_all(&self) -> Vec<u8> {
        Vec::with_capacity(self.declared)
    }

    /// Appends `piece`. The memory for a body of undeclared length is reserved first.
    pub(super) async fn append(&self, gathered: &mut Vec<u8>, piece: &[u8]) -> Result<(), NoRoom> {
        let length = gathered.len() + piece.len();
        if !self.is_declared {
            let more = self.filled(length) - self.filled(gathered.len());
            if more > 0 {
                self.memory.take_or_reclaim(more as u64).await?;
            }
            if length > gathered.capacity() {
                let first = FIRST_BYTES.min(self.limit);
                let reserved = if length <= first { first } else { self.limit };
                // If the address space is limited and too small, the buffer grows as the body arrives.
                if gathered.try_reserve_exact(reserved.max(length) - gathered.len()).is_err() {
                    gathered.reserve(piece.len());
                }
            }
        }
        gathered.extend_from_slice(piece);
        Ok(())
    }

    /// The memory of the first `length` bytes of a body, in bytes: whole pages.
    fn filled(&self, length: usize) -> usize {
        length.next_multiple_of(PAGE_BYTES).min(self.limit.max(length))
    }

    /// The whole body, without the unused address space.
    pub(super) fn whole(&self, mut gathered: Vec<u8>) -> Vec<u8> {
        if !self.is_declared {
            gathered.shrink_to_fit();
        }
        gathered
    }
}

/// Reads a whole body into one buffer.
pub(super) async fn collect(mut pieces: Pieces, room: &Room) -> Result<Vec<u8>, UploadError> {
    let mut collected = room.for_all();
    while let Some(piece) = pieces.next().await? {
        room.append(&mut collected, &piece).await?;
    }
    Ok(room.whole(collected))
}

pub(super) fn too_large(actual: u64, allowed: u64) -> Problem {
    let detail = format!(
        "The body has {actual} bytes or more; the limit is {allowed}. Send a smaller image: it is \
         scaled down for reading anyway."
    );
    Problem::new(ErrorCode::BodyTooLarge, detail).limit("server.max_body_bytes", actual, allowed)
}

fn too_slow() -> Problem {
    let detail = "The body came too slowly. Send it again on a better connection.";
    Problem::new(ErrorCode::RequestTimeout, detail).retryable()
}

fn too_many_pieces(actual: u64, allowed: u64) -> Problem {
    let detail = format!(
        "The body came in {actual} pieces so far; for its length {allowed} are allowed. Send chunks of at \
         least {LEAST_PIECE} bytes, through a buffer, or send the body with a Content-Length."
    );
    Problem::new(ErrorCode::BadRequest, detail).limit("body_pieces", actual, allowed)
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;
    use crate::capacity::account::ByteAccount;

    fn room(allowed: u64, declared: Option<u64>) -> (Arc<ByteAccount>, Room) {
        let gauge = IntGauge::new("held", "held").unwrap();
        let account = Arc::new(ByteAccount::new(allowed, gauge));
        let memory = Arc::new(account.hold(declared.unwrap_or(0)).unwrap());
        (account, Room::new(declared, 10_000, memory))
    }

    #[tokio::test]
    async fn a_body_of_undeclared_length_counts_as_the_pages_that_it_fills() {
        let (account, room) = room(20_000, None);
        let mut gathered = room.for_all();
        for (length, held) in
            [(1, 4096), (100, 4096), (3, 4096), (4000, 8192), (5000, 10_000), (896, 10_000)]
        {
            room.append(&mut gathered, &vec![7; length]).await.unwrap();
            assert_eq!(account.held(), held, "{} bytes", gathered.len());
        }
        assert_eq!(gathered.len(), 10_000);
    }

    #[tokio::test]
    async fn a_body_of_undeclared_length_is_moved_only_while_it_is_short() {
        const LIMIT: usize = 1 << 20;
        let gauge = IntGauge::new("held", "held").unwrap();
        let account = Arc::new(ByteAccount::new(LIMIT as u64, gauge));
        for piece in [7, 1000, 60_000, 700_000] {
            let room = Room::new(None, LIMIT as u64, Arc::new(account.hold(0).unwrap()));
            let (mut gathered, mut left_behind) = (room.for_all(), 0);
            while gathered.len() + piece <= LIMIT {
                let before = gathered.capacity();
                room.append(&mut gathered, &vec![7; piece]).await.unwrap();
                left_behind += if gathered.capacity() > before { before } else { 0 };
                assert!(account.held() < (gathered.len() + PAGE_BYTES) as u64);
            }
            assert!(left_behind <= FIRST_BYTES, "{left_behind} in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn a_whole_body_keeps_no_more_than_it_fills() {
        let (_, room) = room(20_000, None);
        let mut gathered = room.for_all();
        room.append(&mut gathered, &[7; 5000]).await.unwrap();
        assert_eq!(room.whole(gathered).capacity(), 5000);
    }

    #[tokio::test]
    async fn a_body_of_declared_length_takes_nothing_more_and_is_never_moved() {
        let (account, room) = room(20_000, Some(9000));
        let mut gathered = room.for_all();
        let at = gathered.as_ptr();
        for _ in 0..9 {
            room.append(&mut gathered, &[7; 1000]).await.unwrap();
        }
        assert_eq!((gathered.as_ptr(), account.held()), (at, 9000));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_what_was_gathered_is_left_alone() {
        let (_, room) = room(9000, None);
        let mut gathered = room.for_all();
        room.append(&mut gathered, &[7; 6000]).await.unwrap();
        let refused = room.append(&mut gathered, &[7; 3000]).await.unwrap_err();
        assert_eq!((refused.actual, refused.allowed, gathered.len()), (10_000, 9000, 6000));
    }
}
