//! Documents: a file becomes pages, and each page becomes a picture that the upstream reads.
//!
//! Files are parsed and drawn in worker processes, so that no file can take the service down
//! (docs/adr/0022-documents.md).

pub mod cage;
pub mod error;
pub mod page;
pub mod pdf;
pub mod process;
pub mod range;
pub mod settings;
pub mod worker;
pub mod workers;

mod reader;
mod searchable;
mod sendable;
mod turns;
mod upright;
mod wire;
