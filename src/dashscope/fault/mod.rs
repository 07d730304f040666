//! The meaning of a failure for the caller, the bill and the endpoint.

pub mod error;
pub(crate) mod health;
pub(crate) mod verdict;
