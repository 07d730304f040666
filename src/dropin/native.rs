//! Reads the costly parts of a request in DashScope's own protocol.

use super::added_prompt::added_bytes;
use super::asked::{
    Asked, AskedImage, MessageSyntax, check_answers, read_limit, read_messages, read_wish,
};
use super::member::{MemberFault, Object};
use super::member_table;
use super::outline::{Outline, OutlineNode};
use crate::dashscope::settings::UnknownMembers;
use crate::metering::prompt;

const MESSAGES: MessageSyntax = MessageSyntax {
    pointer: "/input/messages",
    item: &member_table::NATIVE_ITEM,
    image: "image",
    image_type: "image",
    read_image,
};

/// Reads a request. The caller reads `stream` from the headers.
pub(super) fn read<'a>(
    outline: &Outline<'a>,
    stream: bool,
    unknown: UnknownMembers,
) -> Result<Asked<'a>, MemberFault> {
    let root = Object::at(outline, OutlineNode::ROOT, "")?;
    member_table::NATIVE_ROOT.check_open(&root, unknown)?;
    let mut list = None;
    if let Some(input) = root.member("input") {
        let input = Object::at(outline, input, "/input")?;
        member_table::INPUT.check(&input)?;
        list = input.member("messages");
    }
    let (images, messages) = read_messages(outline, list, &MESSAGES)?;
    let parameters = root.member("parameters");
    let (mut max_tokens, mut added_prompt_bytes) = (None, prompt::DEFAULT_BYTES);
    if let Some(parameters) = parameters {
        let parameters = Object::at(outline, parameters, "/parameters")?;
        member_table::PARAMETERS.check_open(&parameters, unknown)?;
        check_answers(&parameters)?;
        max_tokens = read_limit(&parameters, "max_tokens")?;
        added_prompt_bytes = added_bytes(&parameters)?;
    }
    Ok(Asked {
        model: root.text("model")?,
        images,
        messages,
        parameters,
        max_tokens,
        max_completion_tokens: None,
        stream,
        // Every event of this protocol states the bill so far.
        tells_bill: true,
        added_prompt_bytes,
    })
}

fn read_image(
    item: Object<'_, '_>,
    image: OutlineNode,
    pointer: String,
) -> Result<AskedImage, MemberFault> {
    let (wish, holders) = (read_wish(&item, &[item])?, vec![item.node()]);
    Ok(AskedImage { url: image, holders, is_bare: false, wish, pointer })
}
