//! The one place that speaks to DashScope.
//!
//! [`Client::call`] takes a [`Permit`](crate::admission::Permit) and gives back a
//! [`Completion`](completion::Completion) together with what it cost. Model, `max_tokens` and the tokens that the
//! pacer reckons with are read from the permit and not from the [`Call`], so that what is sent can never be dearer
//! than what was admitted.
//!
//! `call/dispatch.rs` reads top to bottom what happens to a call. The folders are its steps:
//!
//! - `pool`: to which endpoint it goes, and which endpoints are closed.
//! - `pace`: when it may leave, by the account's rate and a fair queue.
//! - `wire`: what goes over the connection, and how an answer or a stream is read.
//! - `fault`: what a failure means, and whose fault it is.
//! - `call`: one call from its permit to its bill, with retries and streams.
//!
//! reqwest appears below this module and nowhere else.
//!
//! [`Client::call`] asks for a whole answer, [`Client::stream`] for one that comes while it is written,
//! and [`Client::forward`] sends what a caller has put into the words of either protocol itself. No word
//! of the upstream's prose leaves this module but to callers of the last: others see codes and request
//! ids.

mod call;
mod client;
pub mod completion;
mod fault;
mod pace;
mod pool;
mod protocol;
pub mod proxy;
pub mod settings;
mod wire;

pub use self::call::reply::{Forwarded, Streamed};
pub use self::call::stream;
pub use self::client::Client;
pub use self::fault::error;
pub use self::protocol::{Call, Forward, Image, Protocol, Task};
pub use self::wire::check;
pub use self::wire::transport::ClientError;

/// The words of a recorded answer, for tests; none where the recordings are not at hand.
#[cfg(test)]
pub(crate) fn recorded_words(name: &str) -> Option<Vec<completion::Word>> {
    wire::answer::recorded(200, name)?.ok()?.words
}

#[cfg(test)]
mod tests;
