//! The request and the reply on the connection.

pub(crate) mod answer;
mod body;
pub mod check;
pub(crate) mod events;
pub(crate) mod incoming;
pub(crate) mod memory;
mod received;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod stream_parser;
pub(super) mod transport;
pub(crate) mod uploads;
