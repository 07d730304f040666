//! The engine that ignores the image and returns a configured text.

use std::future::{Future, ready};
use std::pin::Pin;

use image::RgbImage;

use super::{Bounds, Engine, EngineError, Reading, TextLine, Word};

/// Height of a simulated line in pixels.
const LINE_HEIGHT: u32 = 16;

/// Width of a simulated character in pixels.
const CHARACTER_WIDTH: u32 = 8;

/// Returns the same text for every image.
#[derive(Debug)]
pub(crate) struct Scripted {
    text: String,
}

impl Scripted {
    /// An engine that returns `text`, with `{width}` and `{height}` filled in.
    pub(crate) fn new(text: String) -> Self {
        Self { text }
    }

    fn reading(&self, width: u32, height: u32) -> Reading {
        let text = self
            .text
            .replace("{width}", &width.to_string())
            .replace("{height}", &height.to_string());
        let lines = (0..).zip(text.lines()).map(|(row, line)| placed(line, row)).collect();
        Reading { width, height, lines }
    }
}

impl Engine for Scripted {
    fn read(
        &self,
        image: RgbImage,
    ) -> Pin<Box<dyn Future<Output = Result<Reading, EngineError>> + Send + '_>> {
        Box::pin(ready(Ok(self.reading(image.width(), image.height()))))
    }
}

/// A line of text with its words side by side, as if in a fixed-pitch font.
fn placed(line: &str, row: u32) -> TextLine {
    let mut left = 0;
    let mut words = Vec::new();
    for text in line.split(' ') {
        let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let right = left + characters.saturating_mul(CHARACTER_WIDTH);
        let bounds =
            Bounds { left, top: row * LINE_HEIGHT, right, bottom: (row + 1) * LINE_HEIGHT };
        if !text.is_empty() {
            words.push(Word { text: text.to_owned(), bounds });
        }
        left = right + CHARACTER_WIDTH;
    }
    TextLine { block: 1, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_comes_back_with_the_size_filled_in() {
        let engine = Scripted::new("TOTAL 9.00\nread at {width}x{height}".to_owned());
        assert_eq!(engine.reading(640, 480).text(), "TOTAL 9.00\nread at 640x480");
    }
}
