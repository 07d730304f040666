//! What an encoded image says about itself, known without decoding it.
//!
//! [`probe`](probe::probe) reads format, sides and orientation from the header, and refuses a file that gives two
//! sizes. All of it is pure and synchronous. Most files take microseconds. A JPEG is searched to its end for a second
//! size, at about a gigabyte a second.
//!
//! No pixel is decoded. A file without any picture data is refused. A file whose pixels are damaged passes; the
//! provider refuses it without billing. What the provider accepts and bills is in [`quote`](crate::quote).

pub mod as_stored;
pub mod data_url;
pub mod format;
pub mod header;
pub mod probe;

mod bmp;
mod byte_order;
mod exif;
mod heic;
mod jpeg;
mod kind;
mod png;
mod polyglot;
mod second_size;
mod size;
mod tagged;
mod tiff;
mod webp;

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod samples;

pub use size::Size;
