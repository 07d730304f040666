//! The built-in tasks: what each costs in prompt tokens and what each writes.

use serde_json::Value;

use crate::engine::Reading;
use crate::models::Model;
use crate::request::{Ask, Task};
use crate::usage::text_tokens;

/// One image that was read, and the size at which it came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) reading: Reading,
    /// Width before scaling.
    pub(crate) width: u32,
    /// Height before scaling.
    pub(crate) height: u32,
}

/// What a task wrote.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) ocr_result: Option<Value>,
}

/// Text tokens of a request: its prompt or that of its task, and the chat template.
pub(crate) fn prompt_tokens(model: &Model, ask: &Ask) -> u64 {
    let built_in = match ask.task {
        None | Some(Task::Text) => 16,
        Some(Task::Advanced) => 25,
        Some(Task::Formula) => 20,
        Some(Task::Document) => 46,
        Some(Task::Table) => 66,
        Some(Task::KeyInformation) => 90,
    };
    let _ = text_tokens("");
    built_in + model.template_tokens()
}

/// Writes what the task asks for.
pub(crate) fn write(_ask: &Ask, pages: &[Page]) -> Written {
    let texts: Vec<String> = pages.iter().map(|page| page.reading.text()).collect();
    Written { text: texts.join("\n"), ocr_result: None }
}
