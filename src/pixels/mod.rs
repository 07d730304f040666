//! Pixels: decodes, shrinks, turns and encodes pictures.
//!
//! Everything here is pure and synchronous, and takes CPU time and memory in proportion to the pixels. So it is called
//! in a document worker ([`document`](crate::document)) and never in the service itself.
//!
//! [`decode`] makes a [`Raster`](raster::Raster) of a file whose header was probed. The decoders are those of well-kept
//! crates, each with explicit limits. What they find must agree with the probed header, since the price of a picture is
//! computed from that header.

pub mod decode;
pub mod encode;
pub mod error;
pub mod raster;
pub mod resize;
pub mod tiff;

mod colour;
mod finishing;
mod jpeg;
mod png;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod drawn;
