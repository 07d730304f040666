//! Names of members that decide what a request costs, and what is done about names like them.
//!
//! A request passes as it was written, so whatever is not understood here reaches a server that may
//! understand it. Three kinds of names are therefore not left alone. Switches that make a call dearer
//! than its bound (`DEARER`) are refused unless they are off. Media other than images are refused, since
//! nothing here tells their cost. And a name that differs from a known one in case, `_` or `-` alone is
//! refused, because some JSON libraries take it for the same (fastjson does by default): the member that
//! is bounded must be the only one that is read.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::form::{FormFault, Object};

/// Members that are read here.
const READ: [&str; 21] = [
    "content",
    "enable_rotate",
    "include_usage",
    "input",
    "max_completion_tokens",
    "max_pixels",
    "max_tokens",
    "messages",
    "min_pixels",
    "model",
    "n",
    "ocr_options",
    "parameters",
    "result_schema",
    "role",
    "stream",
    "stream_options",
    "task_config",
    "text",
    "type",
    "url",
];

/// Switches of the service or of its chat template under which a call costs what its body does not tell:
/// tokens of thought, pages of a search, more pixels than `max_pixels`, instructions for tools, several
/// answers. The OCR models are documented for none of them (Model Studio, "Qwen-OCR API reference").
const DEARER: [&str; 15] = [
    "audio",
    "best_of",
    "chat_template_kwargs",
    "enable_code_interpreter",
    "enable_search",
    "enable_thinking",
    "functions",
    "num_return_sequences",
    "plugins",
    "reasoning_effort",
    "search_options",
    "thinking",
    "thinking_budget",
    "tools",
    "vl_high_resolution_images",
];

/// Media, by the names that one of the protocols or a model of the same family has for them.
const MEDIA: [&str; 13] = [
    "audio",
    "audio_url",
    "file",
    "file_url",
    "image",
    "image_file",
    "image_url",
    "images",
    "input_audio",
    "input_file",
    "input_image",
    "video",
    "video_url",
];

/// Values that switch nothing on. 1 is not among them: lenient readers take it for true.
const OFF: [&str; 4] = ["false", "null", "[]", "{}"];

/// The known names without what lenient readers overlook.
static FOLDED: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let known = READ.into_iter().chain(DEARER).chain(MEDIA);
    known.filter_map(|name| Some((folded(name)?, name))).collect()
});

/// Letters of the longest known name; a longer one is none of them.
const LONGEST: usize = 32;

/// Refuses members that are spelt almost as one that matters.
pub(super) fn check_spelling(object: &Object<'_, '_>) -> Result<(), FormFault> {
    for name in object.names() {
        let meant = folded(name).and_then(|folded| FOLDED.get(&folded));
        if let Some(meant) = meant.filter(|meant| **meant != name) {
            let why =
                format!("is spelt otherwise than `{meant}`, which some servers take for the same");
            return Err(object.wrong(name, why));
        }
    }
    Ok(())
}

/// Refuses switches that make a call dearer than can be told from its body.
pub(super) fn check_switches(object: &Object<'_, '_>) -> Result<(), FormFault> {
    let on = |name: &&&str| object.json(name).is_some_and(|json| !OFF.contains(&json));
    match DEARER.iter().find(on) {
        None => Ok(()),
        Some(name) => {
            let why =
                "makes a call cost more than can be told from it, so it cannot be held to a budget";
            Err(object.wrong(name, why))
        }
    }
}

/// Refuses media where there may be none but `own`.
pub(super) fn check_media(object: &Object<'_, '_>, own: Option<&str>) -> Result<(), FormFault> {
    let there = |name: &&&str| Some(**name) != own && object.member(name).is_some();
    match MEDIA.iter().find(there) {
        None => Ok(()),
        Some(name) => {
            let why = "is no medium that the cost can be told of here: send images, as content of messages";
            Err(object.wrong(name, why))
        }
    }
}

/// A name without what lenient readers overlook; none where it is longer than any that is known.
fn folded(name: &str) -> Option<String> {
    let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-'));
    let folded: String = letters.flat_map(char::to_lowercase).take(LONGEST + 1).collect();
    (folded.len() <= LONGEST).then_some(folded)
}

#[cfg(test)]
mod tests {
    use super::super::outline::{Outline, Place};
    use super::*;

    fn checked(
        json: &str,
        check: impl Fn(&Object<'_, '_>) -> Result<(), FormFault>,
    ) -> Result<(), String> {
        let outline = Outline::of(json.as_bytes()).unwrap();
        let object = Object::at(&outline, Place::ROOT, "").map_err(|fault| fault.to_string())?;
        check(&object).map_err(|fault| fault.pointer)
    }

    #[test]
    fn a_name_that_a_lenient_reader_takes_for_another_is_refused() {
        for name in
            ["maxPixels", "MAX_PIXELS", "max-pixels", "maxpixels", "N", "imageUrl", "Stream"]
        {
            let fault = checked(&format!("{{\"{name}\":1}}"), |_| Ok(())).unwrap_err();
            assert!(fault.contains("is spelt otherwise"), "{name}: {fault}");
        }
        assert!(checked(r#"{"max_pixels":1,"maximum":2,"x_max_pixels":3}"#, |_| Ok(())).is_ok());
    }

    #[test]
    fn every_switch_is_refused_unless_it_is_off() {
        for name in DEARER {
            for off in OFF {
                assert!(
                    checked(&format!("{{\"{name}\":{off}}}"), check_switches).is_ok(),
                    "{name}"
                );
            }
            for on in ["true", "\"a\"", "[{}]", "1", "{\"a\":1}"] {
                let fault = checked(&format!("{{\"{name}\":{on}}}"), check_switches);
                assert_eq!(fault, Err(format!("/{name}")));
            }
        }
    }

    #[test]
    fn other_media_are_refused_unless_they_are_null() {
        let check = |object: &Object<'_, '_>| check_media(object, Some("image"));
        assert!(checked(r#"{"image":"a","text":"b","audio":null}"#, check).is_ok());
        assert_eq!(checked(r#"{"image":"a","video":"b"}"#, check), Err("/video".to_owned()));
    }
}
