//! Streams a page's text to a listener while the model writes it.

use std::time::Instant;

use super::result::PageEvent;
use super::sheet::PageCall;
use crate::admission::Permit;
use crate::dashscope::completion::Completion;
use crate::dashscope::error::CallError;
use crate::dashscope::stream::Piece;
use crate::dashscope::{Client, Streamed};
use crate::metering::read_on::Listener;

/// Makes the call that reads a page, and sends the model's text to `listener` piece by piece.
pub(super) async fn call(
    client: &Client,
    permit: Permit,
    mut call: PageCall,
    deadline: Instant,
    mut listener: Listener<PageEvent>,
) -> Result<Completion, CallError> {
    let mut stream = match client.stream_in(call.room.take(), permit, &call.call, deadline).await? {
        Streamed::Whole(completion) => return Ok(*completion),
        Streamed::Stream(stream) => stream,
    };
    // A stream may take minutes and no longer needs the picture.
    let page = call.page;
    drop(call);
    let mut text = String::new();
    let told = |piece: Piece| {
        let piece = piece.text();
        text.push_str(&piece);
        (!piece.is_empty()).then_some(PageEvent::Text { page, text: piece })
    };
    listener.read_on(&mut stream, told).await;
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
