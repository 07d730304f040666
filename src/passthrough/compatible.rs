//! Where OpenAI's chat completions keep what costs something.

use super::asked::{
    Asked, AskedImage, Dialect, check_answers, read_limit, read_messages, read_wish,
};
use super::form::{FormFault, Object, fault};
use super::names;
use super::outline::{Outline, Place};

/// Bytes of the prompt that the model gives itself where none is sent (Model Studio, "Qwen-OCR API
/// reference").
pub(super) const DEFAULT_PROMPT_BYTES: u64 = 101;

const MESSAGES: Dialect = Dialect { pointer: "/messages", image: "image_url", read_image };

/// Reads a request.
pub(super) fn read<'a>(outline: &Outline<'a>) -> Result<Asked<'a>, FormFault> {
    let place = Place::ROOT;
    let root = Object::at(outline, place, "")?;
    names::check_switches(&root)?;
    check_answers(&root)?;
    names::check_media(&root, None)?;
    if root.member("input").is_some() {
        return Err(
            root.wrong("input", "belongs to DashScope's own protocol: messages stand at the top")
        );
    }
    let (images, messages) = read_messages(outline, root.member("messages"), &MESSAGES)?;
    let stream = root.flag("stream")?;
    Ok(Asked {
        model: root.text("model")?,
        images,
        messages,
        parameters: Some(place),
        max_tokens: read_limit(&root, "max_tokens")?,
        max_completion_tokens: read_limit(&root, "max_completion_tokens")?,
        stream,
        tells_bill: stream && tells_bill(outline, &root)?,
        added_prompt_bytes: DEFAULT_PROMPT_BYTES,
    })
}

fn tells_bill(outline: &Outline<'_>, root: &Object<'_, '_>) -> Result<bool, FormFault> {
    let Some(options) = root.member("stream_options") else { return Ok(false) };
    Object::at(outline, options, "/stream_options")?.flag("include_usage")
}

/// The bounds may stand inside `image_url`, as some of the vendor's pages show, and beside it, as its
/// reference does. Which place the service reads is not known for sure, so both are to be written.
fn read_image(
    item: Object<'_, '_>,
    image: Place,
    pointer: String,
) -> Result<AskedImage, FormFault> {
    let outline = item.outline();
    if !outline.is_object(image) {
        let (wish, holders) = (read_wish(&[item])?, vec![item.place()]);
        return Ok(AskedImage { url: image, holders, is_bare: true, wish, pointer });
    }
    let inside = Object::at(outline, image, &pointer)?;
    let Some(url) = inside.member("url") else {
        return Err(fault(pointer, "must have the image's address as its member `url`"));
    };
    let (wish, holders) = (read_wish(&[inside, item])?, vec![image, item.place()]);
    Ok(AskedImage { url, holders, is_bare: false, wish, pointer })
}
