//! The only module that communicates with DashScope.
//!
//! [`Client::call`] takes a [`Permit`](crate::admission::Permit) and returns a [`Completion`](completion::Completion)
//! with its cost. The model, `max_tokens` and the tokens that the account's rate counts come from the permit and not
//! from the [`Call`], so a call cannot cost more than was admitted. [`Client::stream`] requests a streamed answer, and
//! [`Client::send_dropin`] sends a request that a caller wrote in either protocol. Only callers of the last one see the
//! upstream's own error messages; others see codes and request ids.
//!
//! `call/dispatch.rs` is the loop that every call runs through. Each folder imports only from those above it:
//!
//! 1. `fault`: the meaning of a failure, and its cause.
//! 2. `wire`: the data on the connection, and how an answer or a stream is read.
//! 3. `pace`: when a call may leave, by the account's rate and a fair queue.
//! 4. `pool`: the choice of an endpoint, and which endpoints are closed.
//! 5. `call`: one call from its permit to its bill, with retries and streams.
//!
//! Only this module uses reqwest.

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

pub use self::call::reply::{DropinAnswer, Streamed};
pub use self::call::stream;
pub use self::client::Client;
pub use self::fault::error;
pub use self::protocol::{Call, DropinCall, Image, Protocol, Task};
pub use self::wire::check;
pub(crate) use self::wire::memory::AnswerRoom;
pub use self::wire::transport::ClientError;

/// The text of a recorded answer, for tests; `None` if the recordings are missing.
#[cfg(test)]
pub(crate) fn recorded_words(name: &str) -> Option<Vec<completion::Word>> {
    wire::answer::recorded(200, name)?.ok()?.words
}

#[cfg(test)]
mod tests;
