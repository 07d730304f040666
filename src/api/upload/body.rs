//! The bytes of a body as they come in: counted, timed, and gathered into one piece of memory.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;

use super::Fault;
use super::coding::unannounced;
use super::heads::{HEAD_BYTES, HeadFault};
use crate::api::problem::Problem;
use crate::capacity::account::{HeldBytes, NoRoom};
use crate::gateway::Gateway;

/// What can go wrong while a body comes in.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum BodyFault {
    #[error("the body is longer than {limit} bytes")]
    TooLarge { actual: u64, limit: u64 },
    #[error("the body came too slowly")]
    TooSlow,
    #[error("the body broke off")]
    BrokeOff,
}

/// Puts the limits of length, silence and time around a request's body.
pub(super) fn guard(gateway: &Gateway, request: Request) -> Request {
    let (limit, idle) = (gateway.bounds.body_bytes, gateway.bounds.body_idle);
    let until = tokio::time::Instant::now() + gateway.bounds.body_total;
    let (parts, body) = request.into_parts();
    let guarded = stream::try_unfold((body, 0), move |(mut body, read)| async move {
        if read > 0 {
            // multer takes what there is until it has to wait, so without this the body of a fast sender
            // would pile up beside the part that it is collected in.
            tokio::task::yield_now().await;
        }
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let piece = next_piece(&mut body, idle.min(left)).await?;
        let Some(piece) = piece else { return Ok(None) };
        let read = read + piece.len() as u64;
        if read > limit {
            return Err(BodyFault::TooLarge { actual: read, limit });
        }
        Ok(Some((piece, (body, read))))
    });
    Request::from_parts(parts, Body::from_stream(guarded))
}

async fn next_piece(body: &mut Body, patience: Duration) -> Result<Option<Bytes>, BodyFault> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        match frame.map_err(|_late| BodyFault::TooSlow)? {
            None => return Ok(None),
            Some(Err(_)) => return Err(BodyFault::BrokeOff),
            Some(Ok(frame)) => {
                // Trailers carry nothing that is wanted.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Room for one body: the memory that was taken for it, and more where its length was not declared.
#[derive(Debug)]
pub(super) struct Room {
    declared: usize,
    is_declared: bool,
    limit: usize,
    memory: Arc<HeldBytes>,
}

/// Bytes of a tree for each byte of the text that it is made of: of a list of digits, each is a value of 32
/// bytes in an array that has grown by doubling, and two characters long.
const TREE_BYTES: u64 = 32;

/// The longest option that counts as nothing, in bytes: all sixteen of them become a quarter of a megabyte.
const SHORT_OPTION: usize = 512;

impl Room {
    /// Room for a body of the declared length, which `memory` holds already, or of at most `limit` bytes.
    pub(super) fn new(declared: Option<u64>, limit: u64, memory: Arc<HeldBytes>) -> Self {
        let length = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            declared: declared.map_or(0, length),
            is_declared: declared.is_some(),
            limit: length(limit),
            memory,
        }
    }

    /// Takes what an option of so many bytes may become. Short ones fit into what each request is given
    /// beside its upload.
    pub(super) fn take_for_option(&self, length: usize) -> Result<(), NoRoom> {
        if length <= SHORT_OPTION {
            return Ok(());
        }
        self.memory.take(TREE_BYTES * length as u64)
    }

    /// An empty piece of memory that takes the whole body without being moved, if its length was declared.
    pub(super) fn for_all(&self) -> Vec<u8> {
        Vec::with_capacity(self.declared)
    }

    /// Appends `piece`. What does not fit into `gathered` is taken before it is allocated.
    pub(super) fn append(&self, gathered: &mut Vec<u8>, piece: &[u8]) -> Result<(), NoRoom> {
        let (length, capacity) = (gathered.len() + piece.len(), gathered.capacity());
        if length > capacity {
            // Doubling, so that a body is not copied for each of its pieces, but to the limit at most.
            let grown = capacity.saturating_mul(2).min(self.limit).max(length);
            if !self.is_declared {
                // While it is moved, memory has the body twice, but no thread moves two at once.
                self.memory.take((grown - capacity) as u64)?;
            }
            gathered.reserve_exact(grown - gathered.len());
        }
        gathered.extend_from_slice(piece);
        Ok(())
    }
}

/// Reads a whole body into one piece of memory.
pub(super) async fn collect(mut body: Body, room: &Room) -> Result<Vec<u8>, Fault> {
    let mut collected = room.for_all();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error, "bad_request"))?;
        if let Ok(data) = frame.into_data() {
            room.append(&mut collected, &data)?;
        }
    }
    Ok(collected)
}

/// The problem behind an error of a body, however deep the guard's own fault lies in it.
pub(super) fn broken(error: &(dyn Error + 'static), code: &'static str) -> Problem {
    let mut source = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref::<BodyFault>() {
            Some(BodyFault::TooLarge { actual, limit }) => return too_large(*actual, *limit),
            Some(BodyFault::TooSlow) => return too_slow(),
            Some(BodyFault::BrokeOff) => {
                return Problem::bad_request(code, "The body broke off before its end.");
            }
            None => {}
        }
        match cause.downcast_ref::<HeadFault>() {
            Some(HeadFault::TooLong) => return endless_head(code),
            Some(HeadFault::Compressed(kind)) => return unannounced(kind),
            Some(HeadFault::Body(_)) | None => source = cause.source(),
        }
    }
    Problem::bad_request(code, "The body cannot be read: it is cut off or its parts are malformed.")
}

fn endless_head(code: &'static str) -> Problem {
    let detail = format!(
        "The head of a part, or what stands before the first boundary, has no end within {HEAD_BYTES} bytes. \
         Let your client write the form and its Content-Type."
    );
    Problem::bad_request(code, detail)
}

pub(super) fn too_large(actual: u64, allowed: u64) -> Problem {
    let detail = format!(
        "The body has {actual} bytes or more; the limit is {allowed}. Send a smaller image: it is \
         scaled down for reading anyway."
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", detail)
        .limit("server.max_body_bytes", actual, allowed)
}

fn too_slow() -> Problem {
    let detail = "The body came too slowly. Send it again on a better connection.";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body came too slowly", detail)
        .retryable()
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

    #[test]
    fn never_more_is_allocated_than_was_taken_nor_more_taken_than_the_limit_of_a_body() {
        let (account, room) = room(20_000, None);
        let mut gathered = room.for_all();
        for length in [1, 100, 3, 4000, 5000, 896] {
            room.append(&mut gathered, &vec![7; length]).unwrap();
            let held = account.held();
            assert!(gathered.capacity() as u64 <= held && held <= 10_000, "{held}");
        }
        assert_eq!(gathered.len(), 10_000);
    }

    #[test]
    fn a_body_of_declared_length_takes_nothing_more_and_is_never_moved() {
        let (account, room) = room(20_000, Some(9000));
        let mut gathered = room.for_all();
        let at = gathered.as_ptr();
        for _ in 0..9 {
            room.append(&mut gathered, &[7; 1000]).unwrap();
        }
        assert_eq!((gathered.as_ptr(), account.held()), (at, 9000));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_was_gathered_is_left_alone() {
        let (_, room) = room(1000, None);
        let mut gathered = room.for_all();
        room.append(&mut gathered, &[7; 600]).unwrap();
        let refused = room.append(&mut gathered, &[7; 600]).unwrap_err();
        assert_eq!((refused.actual, refused.allowed, gathered.len()), (1200, 1000, 600));
    }
}
