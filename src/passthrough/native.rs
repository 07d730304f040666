//! Where DashScope's own protocol keeps what costs something.

use super::asked::{
    Asked, AskedImage, Dialect, check_answers, read_limit, read_messages, read_wish,
};
use super::compatible::DEFAULT_PROMPT_BYTES;
use super::form::{FormFault, Object};
use super::names;
use super::outline::{Outline, Place};
use crate::extract::result_schema;
use crate::quote::Wish;

/// A bound of the bytes of any built-in prompt: the longest is that of key information, some 200 Chinese
/// characters of three bytes in the vendor's page, and half as much again.
const TASK_PROMPT_BYTES: u64 = 900;

const MESSAGES: Dialect = Dialect { pointer: "/input/messages", image: "image", read_image };

/// Reads a request; whether it is to be streamed stands in its head.
pub(super) fn read<'a>(outline: &Outline<'a>, stream: bool) -> Result<Asked<'a>, FormFault> {
    let root = Object::at(outline, Place::ROOT, "")?;
    let input =
        root.member("input").map(|input| Object::at(outline, input, "/input")).transpose()?;
    if root.member("messages").is_some() {
        return Err(root.wrong("messages", "belong into `input`"));
    }
    let messages = input.and_then(|input| input.member("messages"));
    let (images, messages) = read_messages(outline, messages, &MESSAGES)?;
    let parameters = root.member("parameters");
    let read = parameters.map(|place| Object::at(outline, place, "/parameters")).transpose()?;
    for object in [Some(root), input, read].into_iter().flatten() {
        names::check_switches(&object)?;
        names::check_media(&object, None)?;
    }
    read.as_ref().map_or(Ok(()), check_answers)?;
    Ok(Asked {
        model: root.text("model")?,
        images,
        messages,
        parameters,
        max_tokens: read.map_or(Ok(None), |parameters| read_limit(&parameters, "max_tokens"))?,
        max_completion_tokens: None,
        stream,
        // Every event does.
        tells_bill: true,
        added_prompt_bytes: added_prompt_bytes(read)?,
    })
}

/// With a task the provider puts a prompt of its own, and a schema in words, beside the caller's text.
fn added_prompt_bytes(parameters: Option<Object<'_, '_>>) -> Result<u64, FormFault> {
    const OPTIONS: &str = "/parameters/ocr_options";
    const CONFIG: &str = "/parameters/ocr_options/task_config";
    let Some(parameters) = parameters else { return Ok(DEFAULT_PROMPT_BYTES) };
    let outline = parameters.outline();
    let Some(options) = parameters.member("ocr_options") else { return Ok(DEFAULT_PROMPT_BYTES) };
    let options = Object::at(outline, options, OPTIONS)?;
    let config = options.member("task_config");
    let config = config.map(|config| Object::at(outline, config, CONFIG)).transpose()?;
    let schema = config.and_then(|config| config.json("result_schema"));
    Ok(TASK_PROMPT_BYTES.saturating_add(schema.map_or(0, schema_bytes)))
}

/// A schema that `serde_json` cannot hold, such as one with half a surrogate pair, is bounded by the longest
/// spelling of every byte.
fn schema_bytes(json: &str) -> u64 {
    const LONGEST_SPELLING: u64 = 16;
    match serde_json::from_str(json) {
        Ok(schema) => result_schema::prompt_bytes_bound(&schema),
        Err(_) => LONGEST_SPELLING.saturating_mul(json.len() as u64),
    }
}

fn read_image(
    item: Object<'_, '_>,
    image: Place,
    pointer: String,
) -> Result<AskedImage, FormFault> {
    let wish = Wish { straighten: item.flag("enable_rotate")?, ..read_wish(&[item])? };
    let holders = vec![item.place()];
    Ok(AskedImage { url: image, holders, is_bare: false, wish, pointer })
}
