//! What is known of a page before it is drawn, and how it may be drawn.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::image::Size;
use crate::image::format::Format;
use crate::image::region::Region;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A PDF file.
    Pdf,
    /// A TIFF file, of one page or of several.
    Tiff,
    /// A picture of one page.
    Picture,
}

/// A page before it is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PagePlan {
    /// Its size, as a viewer shows it.
    pub size: PageSize,
    /// The picture that the page consists of, if it is nothing but one upright picture that DashScope takes.
    pub stored: Option<StoredPicture>,
    /// The text that the page carries, if it was requested and is sound.
    pub text: Option<TextLayer>,
}

/// The size of a page as a viewer shows it: turned as the file says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum PageSize {
    /// Of a PDF page, in points: 1/72 inch.
    Points {
        /// From left to right.
        width: f32,
        /// From top to bottom.
        height: f32,
    },
    /// Of a picture.
    Pixels(Size),
}

/// A picture within a document that can be sent as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPicture {
    /// Its format.
    pub format: Format,
    /// Its size.
    pub size: Size,
    /// Its length in bytes.
    pub bytes: usize,
}

/// The text that a PDF page carries, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TextLayer {
    /// Its lines.
    pub lines: Vec<LayerLine>,
}

/// The most that the text of a page may take, in bytes. Dense pages of newspapers take a fifth.
pub const LONGEST_TEXT: usize = 256 * 1024;

impl TextLayer {
    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.iter().map(|line| line.text.len() + size_of::<LayerLine>()).sum()
    }

    /// Whether it takes more than [`LONGEST_TEXT`]. The page is then read from its picture.
    pub fn is_too_long(&self) -> bool {
        self.bytes() > LONGEST_TEXT
    }

    /// The lines joined, with an empty line before each paragraph.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            if !text.is_empty() {
                text.push_str(if line.begins_paragraph { "\n\n" } else { "\n" });
            }
            text.push_str(&line.text);
        }
        text
    }
}

/// A line of a text layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerLine {
    /// Its text.
    pub text: String,
    /// Left, top, right and bottom, in points from the top left corner of the page as a viewer shows it.
    pub bbox: [f32; 4],
    /// Whether a paragraph begins with the line: the text has an empty line before it.
    pub begins_paragraph: bool,
}

/// A line that was read of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedLine {
    /// Its text.
    pub text: String,
    /// Its corners from the top left one, clockwise, in pixels from the top left corner of the page.
    pub polygon: [[u32; 2]; 4],
}

/// The lines of a page, to be laid over it as invisible text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLines {
    /// The number of the page, from 1.
    pub page: u32,
    /// The pixels in which the lines are placed.
    pub size: Size,
    /// The lines, in reading order.
    pub lines: Vec<PlacedLine>,
}

/// A picture that was taken into a PDF, on a page of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PicturePage {
    /// Width and height of the page, in points.
    pub points: [f64; 2],
    /// Maps the unit square to the page, so that the picture stands upright.
    pub placement: [f64; 6],
}

/// How a page is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Draw {
    /// The picture that the page consists of, byte for byte.
    AsStored,
    /// The page at this size in pixels.
    At(Size),
    /// A part of the page.
    Part(Part),
}

/// A part of a page, at a size of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The size of the page in whose pixels the region is given.
    pub page: Size,
    /// What is drawn of it.
    pub region: Region,
    /// The size at which it is drawn.
    pub size: Size,
}

impl Part {
    /// All of a page, at this size.
    pub const fn whole(size: Size) -> Self {
        Self { page: size, region: Region::of(size), size }
    }
}

/// A page as a picture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The file.
    pub bytes: Bytes,
    /// Its format.
    pub format: Format,
    /// Its size.
    pub size: Size,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_by_its_bytes_and_by_its_lines() {
        let layer = |lines: usize, length: usize| TextLayer {
            lines: vec![
                LayerLine {
                    text: "x".repeat(length),
                    bbox: [0.0; 4],
                    begins_paragraph: false
                };
                lines
            ],
        };
        let line = size_of::<LayerLine>();
        assert!(!layer(1, LONGEST_TEXT - line).is_too_long());
        assert!(layer(1, LONGEST_TEXT - line + 1).is_too_long());
        assert!(layer(LONGEST_TEXT / line, 1).is_too_long());
    }
}
