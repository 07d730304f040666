//! How long the prompts are that the vendor adds to a request, in bytes and at most.
//!
//! A token is never shorter than a byte, so a bound of the bytes bounds the tokens. The vendor does not document the
//! prompts of most built-in tasks to the letter. Its samples (Qwen-OCR API reference) show their tokens, from which
//! these lengths are estimated: a token of such text is rarely longer than six bytes, and half is added for safety.

use crate::dashscope::Task;

/// The prompt of a model that is sent none: "Please output only the text content from the image without any
/// additional descriptions or formatting." (Qwen-OCR API reference).
pub const DEFAULT_BYTES: u64 = 101;

/// The longest built-in prompt, which is that of key information without its schema: some 200 Chinese
/// characters of three bytes each in the vendor's page, and half as much again.
pub const LONGEST_BYTES: u64 = 900;

/// The prompt of a built-in task. That of key information has the schema beside it.
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
