//! Reads the costly parts of a request for OpenAI's chat completions.

use super::added_prompt;
use super::asked::{
    Asked, AskedImage, MessageSyntax, check_answers, read_limit, read_messages, read_wish,
};
use super::member::{MemberFault, Object, fault};
use super::member_table;
use super::outline::{Outline, OutlineNode};
use crate::dashscope::settings::UnknownMembers;

const MESSAGES: MessageSyntax = MessageSyntax {
    pointer: "/messages",
    item: &member_table::COMPATIBLE_ITEM,
    image: "image_url",
    image_type: "image_url",
    read_image,
};

/// Reads a request.
pub(super) fn read<'a>(
    outline: &Outline<'a>,
    unknown: UnknownMembers,
) -> Result<Asked<'a>, MemberFault> {
    let node = OutlineNode::ROOT;
    let root = Object::at(outline, node, "")?;
    member_table::COMPATIBLE_ROOT.check_open(&root, unknown)?;
    check_answers(&root)?;
    let (images, messages) = read_messages(outline, root.member("messages"), &MESSAGES)?;
    let (stream, tells_bill) = (root.flag("stream")?, tells_bill(&root)?);
    Ok(Asked {
        model: root.text("model")?,
        images,
        messages,
        parameters: Some(node),
        max_tokens: read_limit(&root, "max_tokens")?,
        max_completion_tokens: read_limit(&root, "max_completion_tokens")?,
        stream,
        tells_bill: stream && tells_bill,
        added_prompt_bytes: added_prompt::added_bytes(&root)?,
    })
}

fn tells_bill(root: &Object<'_, '_>) -> Result<bool, MemberFault> {
    let Some(options) = root.member("stream_options") else { return Ok(false) };
    let options = Object::at(root.outline(), options, "/stream_options")?;
    member_table::STREAM_OPTIONS.check(&options)?;
    options.flag("include_usage")
}

/// The bounds may be inside `image_url`, as in some of the vendor's pages, or beside it, as in its reference. It is
/// unknown which one the service reads, so the gateway writes both. `enable_rotate` is documented for the native
/// protocol only. The quote assumes that the service obeys it here too.
fn read_image(
    item: Object<'_, '_>,
    image: OutlineNode,
    pointer: String,
) -> Result<AskedImage, MemberFault> {
    let outline = item.outline();
    if !outline.is_object(image) {
        let (wish, holders) = (read_wish(&item, &[item])?, vec![item.node()]);
        return Ok(AskedImage { url: image, holders, is_bare: true, wish, pointer });
    }
    let inside = Object::at(outline, image, &pointer)?;
    member_table::IMAGE_URL.check(&inside)?;
    let Some(url) = inside.member("url") else {
        return Err(fault(pointer, "must have the image's address as its member `url`"));
    };
    let (wish, holders) = (read_wish(&item, &[inside, item])?, vec![image, item.node()]);
    Ok(AskedImage { url, holders, is_bare: false, wish, pointer })
}
