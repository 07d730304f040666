//! Reading aloud: what the model writes is told while it writes.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::request::Held;
use crate::admission::Permit;
use crate::dashscope::completion::Completion;
use crate::dashscope::error::CallError;
use crate::dashscope::{Call, Client, Streamed};

/// How long a listener may leave a piece waiting, so that the upstream is not kept waiting for its sake.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the call and tells `listener` what the model writes. Who listens no more does not end it: read
/// on, it tells its bill.
pub(super) async fn call(
    client: &Client,
    permit: Permit,
    (call, memory): (Call, Held),
    deadline: Instant,
    listener: mpsc::Sender<String>,
) -> Result<Completion, CallError> {
    let mut stream = match client.stream(permit, &call, deadline).await? {
        Streamed::Whole(completion) => return Ok(*completion),
        Streamed::Stream(stream) => stream,
    };
    // It may go on for minutes, and needs the picture no more.
    drop((call, memory));
    let (mut text, mut listener) = (String::new(), Some(listener));
    while let Some(piece) = stream.next().await {
        let piece = piece.text();
        text.push_str(&piece);
        if piece.is_empty() {
            continue;
        }
        let Some(listening) = &listener else { continue };
        if listening.send_timeout(piece, PATIENCE).await.is_err() {
            listener = None;
        }
    }
    match stream.end().await {
        Ok((finish_reason, receipt)) => Ok(Completion {
            text,
            processed_text: None,
            words: None,
            kv_result: None,
            finish_reason,
            receipt,
        }),
        Err(broken) => Err(broken.error),
    }
}
