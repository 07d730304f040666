//! Upper bounds, in bytes, of the prompts that the vendor adds to a request.
//!
//! A token is never shorter than a byte, so a bound of the bytes bounds the tokens. The vendor does not publish the
//! exact prompts of most built-in tasks. Its samples (Qwen-OCR API reference) show their tokens, from which these
//! lengths are estimated: a token of such text is rarely longer than six bytes, and half is added for safety.

use crate::dashscope::Task;

/// The default prompt of a model: "Please output only the text content from the image without any additional
/// descriptions or formatting." (Qwen-OCR API reference).
pub const DEFAULT_BYTES: u64 = 101;

/// The longest built-in prompt, that of key information extraction without its schema: some 200 Chinese characters of
/// three bytes each in the vendor's page, plus one half for safety.
pub const LONGEST_BYTES: u64 = 900;

/// The bound of a built-in task's prompt. Key information extraction adds the schema.
pub const fn task_bytes(task: &Task) -> u64 {
    match task {
        Task::TextRecognition | Task::MultiLan => DEFAULT_BYTES,
        // Samples show 25, 66, 46 and 20 tokens: times six bytes, times one and a half, rounded up.
        Task::AdvancedRecognition => 225,
        Task::TableParsing => 600,
        Task::DocumentParsing => 420,
        Task::FormulaRecognition => 180,
        Task::KeyInformationExtraction { .. } => LONGEST_BYTES,
    }
}
