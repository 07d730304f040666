//! One call, from its permit to its bill.

pub(crate) mod debt;
pub(crate) mod dispatch;
pub(crate) mod record;
pub(super) mod reply;
mod retry;
pub(crate) mod spending;
pub mod stream;
