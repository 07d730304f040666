//! A request of either protocol, reduced to the parts that determine its answer.
//!
//! Bodies are read as plain JSON values and never through types, so that this crate cannot share a mistake with a
//! gateway that writes them. Reading is lenient up to the first error: that becomes the [`problem`](Ask::problem),
//! while everything readable is still recorded, images first of all. Parsing, Base64 and image headers are work for the
//! blocking pool.

use serde_json::{Map, Value};

use crate::address::Addresses;
use crate::call::ImageSeen;
use crate::error::Refusal;
use crate::geometry::PixelLimits;
use crate::models::Model;
use crate::picture::Picture;

/// The maximum nesting depth of a `result_schema`.
const DEEPEST_SCHEMA: usize = 3;

/// The requested output.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    /// Compatible protocol: whether a stream ends with a usage chunk.
    pub(crate) include_usage: bool,
    /// Native protocol: whether events hold only the new text instead of all text so far.
    pub(crate) incremental: bool,
    pub(crate) max_tokens: Option<i64>,
    /// The texts that count for the model.
    pub(crate) prompt: String,
    pub(crate) images: Vec<AskedImage>,
    pub(crate) task: Option<Task>,
    /// The task as written, including unknown ones.
    pub(crate) task_name: Option<String>,
    pub(crate) schema: Option<Map<String, Value>>,
    /// The first error in the request.
    pub(crate) problem: Option<Refusal>,
}

/// One image of a request.
#[derive(Debug)]
pub(crate) struct AskedImage {
    pub(crate) seen: ImageSeen,
    /// The image, or the reason why it cannot be read.
    pub(crate) picture: Result<Picture, Refusal>,
    /// Whether the model reads the message that contains it.
    pub(crate) counts: bool,
}

/// A built-in task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Text,
    Advanced,
    KeyInformation,
    Table,
    Document,
    Formula,
}

/// One part of a message, from a protocol's reader.
#[derive(Debug)]
pub(crate) enum Item {
    Text(String),
    Image(ImageItem),
}

/// An image in a message.
#[derive(Debug, Default)]
pub(crate) struct ImageItem {
    pub(crate) url: String,
    /// The limits inside `image_url`.
    pub(crate) inside: PixelLimits,
    /// The limits beside `image_url` or `image`.
    pub(crate) beside: PixelLimits,
    /// Native protocol: whether a tilted image is straightened.
    pub(crate) enable_rotate: Option<bool>,
}

/// One message with its readable parts.
#[derive(Debug)]
struct Message {
    role: String,
    items: Vec<Item>,
}

impl Task {
    /// The task with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "text_recognition" | "multi_lan" => Self::Text,
            "advanced_recognition" => Self::Advanced,
            "key_information_extraction" => Self::KeyInformation,
            "table_parsing" => Self::Table,
            "document_parsing" => Self::Document,
            "formula_recognition" => Self::Formula,
            _ => return None,
        })
    }
}

impl Ask {
    /// A request that could not be read at all.
    pub(crate) fn refused(problem: Refusal) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }

    /// Records an error, unless there was one before.
    pub(crate) fn object_to(&mut self, problem: Refusal) {
        self.problem.get_or_insert(problem);
    }

    /// Reads the members that both protocols share: the model, and numbers in `parameters`.
    pub(crate) fn read_common(&mut self, body: &Value, parameters: &Value) {
        self.model = body.get("model").and_then(Value::as_str).map(str::to_owned);
        if self.model.is_none() {
            self.object_to(Refusal::invalid_parameter("you must provide a model parameter"));
        }
        match whole_number(parameters, "max_tokens") {
            Ok(max_tokens) => self.max_tokens = max_tokens,
            Err(problem) => self.object_to(problem),
        }
    }

    /// Reads the messages, with a reader for the parts of the protocol's messages.
    pub(crate) fn read_messages(
        &mut self,
        list: Option<&Value>,
        item: fn(&Value) -> Result<Item, Refusal>,
        addresses: &Addresses,
    ) {
        let list = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let messages = list.iter().map(|message| self.message(message, item)).collect();
        self.take_messages(messages, addresses);
    }

    /// Reads `ocr_options` of the native protocol.
    pub(crate) fn take_options(&mut self, options: &Value) {
        let Some(name) = options.get("task").and_then(Value::as_str) else { return };
        self.task_name = Some(name.to_owned());
        self.task = Task::named(name);
        if self.task.is_none() {
            self.object_to(Refusal::invalid_parameter(format!("Invalid ocr_options.task: {name}")));
        }
        match options.pointer("/task_config/result_schema") {
            None | Some(Value::Null) => {}
            Some(Value::Object(schema)) if depth(schema) <= DEEPEST_SCHEMA => {
                self.schema = Some(schema.clone());
            }
            Some(Value::Object(_)) => self.object_to(Refusal::invalid_parameter(
                "result_schema must not be nested more than 3 levels deep",
            )),
            Some(_) => {
                self.object_to(Refusal::invalid_parameter("result_schema must be an object"));
            }
        }
    }

    fn message(&mut self, message: &Value, item: fn(&Value) -> Result<Item, Refusal>) -> Message {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut items = Vec::new();
        match message.get("content") {
            Some(Value::String(text)) => items.push(Item::Text(text.clone())),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match item(part) {
                        Ok(item) => items.push(item),
                        Err(problem) => self.object_to(problem),
                    }
                }
            }
            _ => {}
        }
        Message { role, items }
    }

    /// Adds the messages. A model that keeps no conversation reads the last one only.
    fn take_messages(&mut self, messages: Vec<Message>, addresses: &Addresses) {
        if messages.last().is_none_or(|message| message.role != "user" || message.items.is_empty())
        {
            self.object_to(Refusal::invalid_parameter(
                "Role must be user or assistant and Content length must be greater than 0",
            ));
        }
        let model = self.model.as_deref().and_then(Model::named);
        let keeps_all = model.is_some_and(Model::reads_everything);
        let last = messages.len().saturating_sub(1);
        let mut texts = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            let counts = message.role != "system" && (keeps_all || index == last);
            for item in message.items {
                match item {
                    Item::Text(text) if counts && !text.is_empty() => texts.push(text),
                    Item::Text(_) => {}
                    Item::Image(item) => {
                        self.images.push(AskedImage::open(&item, counts, addresses));
                    }
                }
            }
        }
        self.prompt = texts.join("\n");
    }
}

impl AskedImage {
    /// The limits that apply: if both places have one, the smaller.
    pub(crate) fn limits(&self) -> PixelLimits {
        let smaller = |one: Option<i64>, other: Option<i64>| one.into_iter().chain(other).min();
        PixelLimits {
            min_pixels: smaller(self.seen.min_pixels_inside, self.seen.min_pixels_beside),
            max_pixels: smaller(self.seen.max_pixels_inside, self.seen.max_pixels_beside),
        }
    }

    fn open(item: &ImageItem, counts: bool, addresses: &Addresses) -> Self {
        let mut seen = ImageSeen {
            min_pixels_inside: item.inside.min_pixels,
            max_pixels_inside: item.inside.max_pixels,
            min_pixels_beside: item.beside.min_pixels,
            max_pixels_beside: item.beside.max_pixels,
            enable_rotate: item.enable_rotate,
            ..ImageSeen::default()
        };
        let picture = addresses.open(&item.url, &mut seen);
        if let Ok(picture) = &picture {
            (seen.width, seen.height) = (Some(picture.width), Some(picture.height));
        }
        Self { seen, picture, counts }
    }
}

/// Parses the JSON of a body.
///
/// # Errors
///
/// The service's refusal of invalid JSON.
pub(crate) fn json(body: &[u8]) -> Result<Value, Refusal> {
    // The vendor's own recordings begin with a byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).map_err(|_| {
        Refusal::invalid_parameter("Required body invalid, please check the request body format.")
    })
}

/// The pixel limits among an item's members.
///
/// # Errors
///
/// The refusal of a value that is not a whole number.
pub(crate) fn pixel_limits(item: &Value) -> Result<PixelLimits, Refusal> {
    Ok(PixelLimits {
        min_pixels: whole_number(item, "min_pixels")?,
        max_pixels: whole_number(item, "max_pixels")?,
    })
}

/// A member that is a whole number, absent or null.
fn whole_number(parent: &Value, name: &str) -> Result<Option<i64>, Refusal> {
    match parent.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .or_else(|| value.as_u64().map(|_| i64::MAX))
            .map(Some)
            .ok_or_else(|| Refusal::invalid_parameter(format!("{name} must be an integer"))),
    }
}

/// Levels of an object: one more than those of its deepest member. An array counts as its template does.
fn depth(schema: &Map<String, Value>) -> usize {
    fn below(value: &Value) -> usize {
        match value {
            Value::Object(members) => depth(members),
            Value::Array(elements) => elements.iter().map(below).max().unwrap_or(0),
            _ => 0,
        }
    }
    1 + schema.values().map(below).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smaller_of_two_limits_binds() {
        let limits = |max| PixelLimits { min_pixels: None, max_pixels: max };
        let (inside, beside) = (limits(Some(900)), limits(Some(800)));
        let item = ImageItem { inside, beside, ..ImageItem::default() };
        let image = AskedImage::open(&item, true, &Addresses::default());
        assert_eq!(image.limits().max_pixels, Some(800));
    }

    #[test]
    fn a_schema_may_nest_three_levels() {
        let schema = |value: Value| depth(value.as_object().unwrap());
        assert_eq!(schema(json!({"a": {"b": {"c": ""}}})), 3);
        assert_eq!(schema(json!({"a": [{"b": {"c": {}}}]})), 4);
    }

    #[test]
    fn a_pixel_limit_that_is_text_is_refused() {
        assert!(pixel_limits(&json!({"max_pixels": "8388608"})).is_err());
        assert_eq!(pixel_limits(&json!({"max_pixels": 7})).unwrap().max_pixels, Some(7));
    }
}
