//! What a failure means for the caller, for the bill and for the endpoint.

pub mod error;
pub(crate) mod health;
pub(crate) mod verdict;
