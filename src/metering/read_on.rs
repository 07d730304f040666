//! Reads a stream to its end, even without a listener.
//!
//! The bill comes at the end of a stream. So reading continues if a listener leaves or is too slow
//! (docs/adr/0011-streams-are-read-to-their-end.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::dashscope::stream::{Piece, Streaming};

/// The time that a listener may leave a message waiting. With a longer time, a slow listener could hold up the upstream
/// until the upstream gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Capacity of the channel to a listener, in messages: enough that neither side waits for the other to be woken, few
/// enough that the connection's own buffers hold most of the backlog of a slow listener.
pub const WAITING_MESSAGES: usize = 2;

/// The sending end of the channel to one listener. Once the listener has left one clone, it has left all of them.
#[derive(Debug, Clone)]
pub struct Listener<M> {
    /// `None` once the listener has left.
    sender: Option<mpsc::Sender<M>>,
    has_left: Arc<AtomicBool>,
}

impl<M: Send> Listener<M> {
    /// A listener that receives from the other end of `sender`.
    pub fn new(sender: mpsc::Sender<M>) -> Self {
        Self { sender: Some(sender), has_left: Arc::default() }
    }

    /// Sends a message, unless the listener has left. A listener that does not take it in time counts as left.
    pub async fn tell(&mut self, message: M) {
        let Some(sender) = &self.sender else { return };
        if self.has_left.load(Ordering::Relaxed) {
            self.sender = None;
        } else if sender.send_timeout(message, PATIENCE).await.is_err() {
            tracing::debug!("the caller left a stream; it is read on for its bill");
            self.has_left.store(true, Ordering::Relaxed);
            self.sender = None;
        }
    }

    /// Reads `stream` until it ends or breaks off. Passes each piece through `message` and sends the result to the
    /// listener.
    pub async fn read_on(
        &mut self,
        stream: &mut Streaming,
        mut message: impl FnMut(Piece) -> Option<M> + Send,
    ) {
        while let Some(piece) = stream.next().await {
            if let Some(message) = message(piece) {
                self.tell(message).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_takes_nothing_in_time_counts_as_left() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut listener = Listener::new(sender);
        listener.tell("taken").await;
        listener.tell("too late").await;
        listener.tell("not sent").await;
        assert_eq!(receiver.recv().await, Some("taken"));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_has_left_one_stream_holds_up_no_other_of_its_streams() {
        let (sender, _receiver) = mpsc::channel(1);
        let mut first = Listener::new(sender);
        let mut second = first.clone();
        first.tell("taken").await;
        first.tell("too late").await;
        let before = tokio::time::Instant::now();
        second.tell("not sent").await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
