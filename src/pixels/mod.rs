//! Pixels: decodes, shrinks, turns and encodes pictures.
//!
//! Everything here is pure and synchronous, and takes CPU time and memory in proportion to the pixels. So it is called
//! in a document worker ([`document`](crate::document)) and never in the service itself.
