//! A metered call: it is admitted, paid for, compared with its quote and reported to the caller.
//!
//! Every use case that makes calls uses this module and imports no other use case:
//!
//! - `context`: the tenant, the deadline, and the resources that a request holds.
//! - `access`: the models that a tenant may use, and the ceilings of its calls.
//! - `prompt`: sizes of the prompts that the vendor adds.
//! - `forecast`: the maximum cost of a call, computed before it is sent.
//! - `run`: admits a call and makes it on a task of its own. Its `Meter` compares the bill with the forecast.
//! - `read_on`: reads a stream to its end, even without a listener.
//! - `spend`: the figures that an answer reports about its calls. The request's `Tab` (`admission::tab`) collects the
//!   cost while calls are made. `Spend` is that cost as JSON. `Tally` has the rest: ids, endpoint.
//! - `error`: the reasons why a call was not made, or why it failed.
//!
//! One call of `/ocr` or `/extract` reads one image. One call of the drop-in paths may have several images. A use case
//! that makes several calls runs each of them separately with the same context, so that each is admitted, settled and
//! compared separately.

pub mod access;
pub mod context;
pub mod error;
pub mod forecast;
pub mod prompt;
pub mod read_on;
pub mod run;
pub mod spend;
