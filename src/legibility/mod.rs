//! Finds how large the text of a picture is, and where anything can be seen.
//!
//! The height of the smallest body text is measured in lines of text and not in single marks: noise, halftone, photos
//! and rules hardly ever form rows of neighbours of like height. What is doubtful is not measured, so that a picture
//! is rather sent too large. A margin is only what has nothing visible, however faint.
//!
//! 1. `gray`: the picture is reduced to at most 2.4 megapixels of gray.
//! 2. `marks`: ink and what is visible differ from the mean of their surroundings (`means`), by levels that depend
//!    on the noise of the ground (`ground`).
//! 3. `components`: ink is divided into connected parts.
//! 4. `lines`: parts form characters, and characters form lines, across or down the picture.
//! 5. `height`: the heights and strokes of the characters in lines are measured.
//! 6. `margins`: blocks of the picture that have nothing visible are blank, unless they differ in colour (`colour`), or a
//!    hairline (`hairlines`) or a soft shape (`shades`) shows in sums over many pixels (`sums`). Dust and the shadow of an
//!    edge (`shadow`) do not count.
//!
//! All of it is pure and synchronous, and takes CPU time in proportion to the pixels. So it is called in a document
//! worker ([`document`](crate::document)) and never in the service itself.

mod bitmap;
mod colour;
mod components;
mod forest;
mod gray;
mod grid;
mod ground;
mod hairlines;
mod height;
mod lines;
mod margins;
mod marks;
mod means;
mod near;
mod shades;
mod shadow;
mod sums;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod drawn;
#[cfg(test)]
mod tests;

pub use self::height::TextHeight;

use serde::{Deserialize, Serialize};

use self::colour::coloured;
use self::components::components;
use self::gray::Gray;
use self::height::Text;
use self::margins::{Seen, content};
use self::marks::Marks;
use self::sums::Sums;
use crate::image::region::Region;
use crate::pixels::raster::Raster;

/// What decides how far a picture can be shrunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Legibility {
    /// The smallest body text. `None` if there is no text or too little to be sure.
    pub text: Option<TextHeight>,
    /// The part of the picture that holds all that can be seen, with a margin. `None` if the picture is blank.
    pub content: Option<Region>,
}

/// A narrower picture has no whole block in which something could be seen, so nothing is said about it.
const LEAST_SIDE: usize = bitmap::BLOCK;

/// Measures the text of a picture and finds its blank margins. How the picture is turned changes the
/// content by a block at most.
pub fn legibility(picture: &Raster) -> Legibility {
    let gray = Gray::of(picture);
    if gray.shorter_side() < LEAST_SIDE {
        return Legibility { text: None, content: Some(Region::of(picture.size())) };
    }
    let sums = Sums::of(&gray);
    let marks = Marks::of(&gray, &sums);
    // Too many parts are texture. It has no text, but it can be seen.
    let text = Text::of(components(&marks.ink).unwrap_or_default(), gray.longer_side());
    let coloured = coloured(picture, gray.factor);
    let seen = Seen { marks: &marks, gray: &gray, coloured, sums: &sums };
    let content = content(&seen, &text, picture.size());
    let text = text.body.map(|body| TextHeight { height: gray.in_picture(body.height), ..body });
    Legibility { text, content }
}
