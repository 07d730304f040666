//! A metered call: admitted, paid, compared with its quote and told to the caller.
//!
//! Every use case that makes calls stands on this module and on no other use case:
//!
//! - `context`: for whom calls are made, until when, and what the request holds meanwhile.
//! - `access`: the model and the ceilings of a tenant.
//! - `prompt`: sizes of the prompts that the vendor adds.
//! - `forecast`: what a call may cost, known before it is sent.
//! - `run`: admits a call, makes it on a task of its own, and compares its bill with the forecast.
//! - `read_on`: reads a stream to its end, even without a listener.
//! - `spend`: what the calls of a request cost, in the words of an answer.
//!
//! One call reads one image or one page. A use case that makes several calls runs each by itself with the same
//! context, so that each is admitted, settled and compared alone.

pub mod access;
pub mod context;
pub mod error;
pub mod forecast;
pub mod prompt;
pub mod read_on;
pub mod run;
pub mod spend;
