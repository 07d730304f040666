//! Upper bounds of the prompts that the vendor adds to a request, in bytes.
//!
//! A token is never shorter than a byte, so a bound of the bytes is a bound of the tokens. The prompts of most
//! built-in tasks are not documented to the letter. The vendor's samples (Qwen-OCR API reference) show their
//! tokens: 25, 66, 46 and 20. A token of such text is rarely longer than six bytes, and the bounds leave half
//! as much again.

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
        Task::AdvancedRecognition => 225,
        Task::TableParsing => 600,
        Task::DocumentParsing => 420,
        Task::FormulaRecognition => 180,
        Task::KeyInformationExtraction { .. } => LONGEST_BYTES,
    }
}
