//! What goes over the connection, and how what comes back is read.

pub(crate) mod answer;
mod body;
pub mod check;
pub(crate) mod events;
pub(crate) mod incoming;
pub(crate) mod memory;
pub(crate) mod pieces;
mod received;
pub(crate) mod request;
pub(crate) mod tap;
pub(super) mod transport;
pub(crate) mod uploads;
