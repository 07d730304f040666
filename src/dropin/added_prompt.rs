//! A bound of the text that the vendor adds to the caller's.
//!
//! A model without a prompt uses a default prompt, and a built-in task uses another. The vendor may write a schema into
//! the prompt as text: DashScope does so with a task's schema, and some servers do so with `response_format`.

use super::member::{MemberFault, Object};
use super::member_table;
use crate::extract::result_schema;
use crate::metering::prompt;

/// The most bytes that the vendor adds to the text of a request with these parameters.
///
/// `ocr_options` are not documented for the compatible protocol. Some callers send them, so they count as if they had
/// an effect.
///
/// # Errors
///
/// [`MemberFault`] if the options cannot be read.
pub(super) fn added_bytes(parameters: &Object<'_, '_>) -> Result<u64, MemberFault> {
    let format = parameters.json("response_format").map_or(0, schema_bytes);
    Ok(own_prompt_bytes(parameters)?.saturating_add(format))
}

fn own_prompt_bytes(parameters: &Object<'_, '_>) -> Result<u64, MemberFault> {
    let Some(options) = parameters.member("ocr_options") else { return Ok(prompt::DEFAULT_BYTES) };
    let pointer = parameters.pointer_to("ocr_options");
    let options = Object::at(parameters.outline(), options, &pointer)?;
    member_table::OCR_OPTIONS.check(&options)?;
    let Some(config) = options.member("task_config") else { return Ok(prompt::LONGEST_BYTES) };
    let pointer = options.pointer_to("task_config");
    let config = Object::at(options.outline(), config, &pointer)?;
    member_table::TASK_CONFIG.check(&config)?;
    let schema = config.json("result_schema").map_or(0, schema_bytes);
    Ok(prompt::LONGEST_BYTES.saturating_add(schema))
}

/// A bound for a schema. One that `serde_json` cannot hold, such as one with half a surrogate pair, is bounded by the
/// longest spelling of every byte.
fn schema_bytes(json: &str) -> u64 {
    const LONGEST_SPELLING: u64 = 16;
    match serde_json::from_str(json) {
        Ok(schema) => result_schema::prompt_bytes_bound(&schema),
        Err(_) => LONGEST_SPELLING.saturating_mul(json.len() as u64),
    }
}
