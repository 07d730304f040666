//! The Qwen-OCR models and their limits.
//!
//! Numbers are those of the vendor's pages "Text extraction (Qwen-OCR)" and "Qwen-OCR API reference". Where the pages
//! contradict each other the newer one is followed: the alias `qwen-vl-ocr` counts cells of 32 pixels like the snapshot
//! it points to, and stops at 4,096 output tokens. The input limit of `qwen3.5-ocr` is not published; it is assumed to
//! be that of its predecessors.

use crate::geometry::{Geometry, PixelLimits};

/// The most input tokens of one call.
pub(crate) const MOST_INPUT_TOKENS: u64 = 30_000;

/// The model's generation, which determines how text and images are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Of October 2024: cells of 28 pixels, no built-in tasks.
    First,
    /// Of 2025 up to August: cells of 28 pixels.
    Second,
    /// On Qwen3-VL, from November 2025: cells of 32 pixels.
    Third,
    /// On Qwen3.5: it keeps the conversation, and a task does not replace the prompt.
    Fourth,
}

/// One model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) generation: Generation,
    /// Output tokens if the caller sets no limit.
    pub(crate) default_max_tokens: u64,
    /// The highest limit that a caller may set.
    pub(crate) most_tokens: u64,
}

/// Every supported model; any other name is unknown.
pub(crate) const MODELS: [Model; 7] = [
    Model::new("qwen3.5-ocr", Generation::Fourth, 32_768),
    Model::new("qwen-vl-ocr", Generation::Third, 4_096),
    Model::new("qwen-vl-ocr-latest", Generation::Third, 8_192),
    Model::new("qwen-vl-ocr-2025-11-20", Generation::Third, 8_192),
    Model::new("qwen-vl-ocr-2025-08-28", Generation::Second, 4_096),
    Model::new("qwen-vl-ocr-2025-04-13", Generation::Second, 4_096),
    Model::new("qwen-vl-ocr-2024-10-28", Generation::First, 4_096),
];

impl Model {
    const fn new(name: &'static str, generation: Generation, most_tokens: u64) -> Self {
        Self { name, generation, default_max_tokens: most_tokens, most_tokens }
    }

    /// The model with this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// The default geometry, and the highest `max_pixels`.
    const fn geometry(&self) -> (Geometry, u32) {
        match self.generation {
            Generation::First | Generation::Second => {
                (Geometry { cell: 28, min_pixels: 3_136, max_pixels: 6_422_528 }, 23_520_000)
            }
            Generation::Third | Generation::Fourth => {
                (Geometry { cell: 32, min_pixels: 3_072, max_pixels: 8_388_608 }, 30_720_000)
            }
        }
    }

    /// The geometry under the caller's limits, which are clamped to the model's range.
    pub(crate) fn geometry_within(&self, asked: PixelLimits) -> Geometry {
        let (default, most) = self.geometry();
        let clamp = |pixels: Option<i64>, otherwise: u32| {
            pixels.map_or(otherwise, |pixels| {
                let within = pixels.clamp(i64::from(default.min_pixels), i64::from(most));
                u32::try_from(within).unwrap_or(most)
            })
        };
        Geometry {
            cell: default.cell,
            min_pixels: clamp(asked.min_pixels, default.min_pixels),
            max_pixels: clamp(asked.max_pixels, default.max_pixels),
        }
    }

    /// Bytes of the largest image that is read from an address: 10 MB, and 20 MB for Qwen3.5.
    pub(crate) fn longest_download(&self) -> usize {
        let megabytes = if self.generation == Generation::Fourth { 20 } else { 10 };
        megabytes * 1024 * 1024
    }

    /// Text tokens of the chat template around a prompt: 8, and 11 more for the fixed system line of the older models.
    /// Measured on the vendor's samples; for Qwen3.5 it is an assumption.
    pub(crate) const fn template_tokens(&self) -> u64 {
        match self.generation {
            Generation::First | Generation::Second => 19,
            Generation::Third | Generation::Fourth => 8,
        }
    }

    /// Whether the model supports `ocr_options.task`.
    pub(crate) fn has_tasks(&self) -> bool {
        self.generation != Generation::First
    }

    /// Whether earlier messages, and a prompt beside a task, count.
    pub(crate) fn reads_everything(&self) -> bool {
        self.generation == Generation::Fourth
    }
}
