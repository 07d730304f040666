//! One call, from its permit to its bill.
//!
//! Read in this order:
//!
//! 1. `dispatch`: the loop of attempts, until an answer begins or the call is given up.
//! 2. `retry`: whether and when a failed attempt is followed by another.
//! 3. `record`: records an attempt in the metrics, the log, and the state that later calls use. `progress` has the
//!    call's attempts and waits so far.
//! 4. `reply`: the answer, whole or as a `stream`, with the permit that pays for it.
//! 5. `settle`: the end of the permit, at the bill or at the bound.
//!
//! `upload_policy` is the one request without a permit: it spends nothing.

pub(super) mod dispatch;
mod progress;
mod record;
pub(super) mod reply;
mod retry;
mod settle;
pub mod stream;
pub(super) mod upload_policy;
