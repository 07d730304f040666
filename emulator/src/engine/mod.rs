//! OCR engines: an interface with two implementations.
//!
//! `tesseract` reads the image; `scripted` returns a configured text, so that a test of faults takes
//! microseconds. `choice` opens one of them. An engine gets the image at the size at which the model would
//! have seen it, and does not depend on tokens, tasks or protocols.

pub(crate) mod choice;
mod scripted;
mod tesseract;

use std::future::Future;
use std::pin::Pin;

use image::RgbImage;

/// A reader of images.
pub(crate) trait Engine: std::fmt::Debug + Send + Sync {
    /// Reads one image.
    fn read(
        &self,
        image: RgbImage,
    ) -> Pin<Box<dyn Future<Output = Result<Reading, EngineError>> + Send + '_>>;
}

/// The reason why an image was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// No process slot became free in time.
    Busy,
    /// The OCR run took too long.
    Slow,
    /// The program failed.
    Failed,
}

/// The text of an image, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Width of the image that was read.
    pub(crate) width: u32,
    /// Height of the image that was read.
    pub(crate) height: u32,
    pub(crate) lines: Vec<TextLine>,
}

/// One line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextLine {
    /// The block of the page that the line belongs to.
    pub(crate) block: u32,
    pub(crate) words: Vec<Word>,
}

/// One word and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) bounds: Bounds,
}

/// A rectangle in pixels of the image that was read; the far sides are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) right: u32,
    pub(crate) bottom: u32,
}

impl Reading {
    /// The text, one line of the page on each line.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<String> = self.lines.iter().map(TextLine::text).collect();
        lines.join("\n")
    }
}

impl TextLine {
    /// The words, with spaces if the script uses them.
    pub(crate) fn text(&self) -> String {
        joined(self.words.iter().map(|word| word.text.as_str()))
    }

    /// The rectangle around all words.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        self.words.iter().map(|word| word.bounds).reduce(Bounds::around)
    }
}

impl Bounds {
    /// The smallest rectangle around both.
    pub(crate) fn around(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    pub(crate) fn width(self) -> u32 {
        self.right.saturating_sub(self.left)
    }

    pub(crate) fn height(self) -> u32 {
        self.bottom.saturating_sub(self.top)
    }

    /// Twice the height of its middle, to stay in whole numbers.
    pub(crate) fn middle_doubled(self) -> u32 {
        self.top + self.bottom
    }
}

/// Joins pieces of one line. Chinese and Japanese write no spaces between words, and Tesseract's
/// words are single characters there.
pub(crate) fn joined<'a>(pieces: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for piece in pieces {
        let touches = line.chars().next_back().is_some_and(is_unspaced)
            && piece.chars().next().is_some_and(is_unspaced);
        if !line.is_empty() && !touches {
            line.push(' ');
        }
        line.push_str(piece);
    }
    line
}

/// Whether a character belongs to a script without spaces between words.
pub(crate) fn is_unspaced(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_is_joined_without_spaces_and_latin_with_them() {
        assert_eq!(joined(["总", "额", "12.00", "USD"].into_iter()), "总额 12.00 USD");
    }
}
