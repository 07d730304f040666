//! Reads the metadata of an encoded image without decoding it.
//!
//! [`probe`](probe::probe) reads format, dimensions and orientation from the header, and refuses a file that gives two
//! sizes. The code is pure and synchronous. Most files take microseconds. A JPEG is searched to its end for a second
//! size, at about a gigabyte per second.
//!
//! No pixel is decoded. A file without any picture data is refused. A file with damaged pixels passes; the provider
//! refuses it without billing. The module [`quote`](crate::quote) has the provider's limits and token counts.

pub mod as_stored;
pub mod data_url;
pub mod format;
pub mod header;
pub mod probe;
pub mod region;

mod bmp;
pub(crate) mod byte_order;
mod exif;
mod heic;
mod jpeg;
mod kind;
mod png;
mod polyglot;
pub(crate) mod resolution;
mod second_size;
mod size;
pub(crate) mod tagged;
mod tiff;
mod webp;

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod samples;

pub use size::Size;
