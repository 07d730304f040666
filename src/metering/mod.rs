//! A metered call: admitted, paid, compared with its quote and told to the caller.
//!
//! Every use case that makes calls stands on this module and on no other use case:
//!
//! - `context`: for whom calls are made, until when, and what the request holds meanwhile.
//! - `access`: the model and the ceilings of a tenant.
//! - `prompt`: sizes of the prompts that the vendor adds.
//! - `forecast`: what a call may cost, known before it is sent.
//! - `run`: admits a call and makes it on a task of its own. Its `Meter` compares the bill with the forecast.
//! - `read_on`: reads a stream to its end, even without a listener.
//! - `spend`: what an answer tells of its calls. The request's `Tab` (`admission::tab`) collects the cost while calls
//!   are made; `Spend` is that cost as JSON, and `Tally` the rest: times, ids, endpoint.
//! - `error`: why a call was not made, or failed.
//!
//! One call of `/ocr` or `/extract` reads one image; one of the drop-in paths may have several images. A use case that makes several calls runs each by itself with the same
//! context, so that each is admitted, settled and compared alone.

pub mod access;
pub mod context;
pub mod error;
pub mod forecast;
pub mod prompt;
pub mod read_on;
pub mod run;
pub mod spend;
