//! The parts of a request that affect its cost, and their positions in the body.
//!
//! The two protocols put the same parts in different places. The reader of each (`compatible`, `native`) makes an
//! [`Asked`], which all later steps use. No other member is read.

use std::borrow::Cow;

use super::member::{MemberFault, Object, fault};
use super::member_table::{self, MemberTable};
use super::outline::{Outline, OutlineNode};
use crate::quote::Wish;
use crate::units::Pixels;

/// The parts of a request that affect its cost.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) model: Cow<'a, str>,
    /// Every image of every message. Models before qwen3.5-ocr read the last message only, but a bound cannot rely
    /// on that.
    pub(super) images: Vec<AskedImage>,
    /// The number of messages.
    pub(super) messages: usize,
    /// The object that `max_tokens` belongs in; none if it does not exist yet.
    pub(super) parameters: Option<OutlineNode>,
    /// The requested limit of the answer's tokens.
    pub(super) max_tokens: Option<u64>,
    /// The same limit by its newer name, which OpenAI's clients may write instead or as well.
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) stream: bool,
    /// Whether a stream states its bill.
    pub(super) tells_bill: bool,
    /// A bound of the bytes that the vendor adds to the caller's text.
    pub(super) added_prompt_bytes: u64,
}

/// One image of a request.
#[derive(Debug)]
pub(super) struct AskedImage {
    /// The image's address.
    pub(super) url: OutlineNode,
    /// The objects that get its bounds.
    pub(super) holders: Vec<OutlineNode>,
    /// Whether the protocol's object is replaced by a bare address, so that the gateway must write an object around it.
    pub(super) is_bare: bool,
    pub(super) wish: Wish,
    /// Its position, as a JSON Pointer.
    pub(super) pointer: String,
}

/// The most images of one request. A model reads 30,000 tokens, about a hundred for each.
const MOST_IMAGES: usize = 256;

/// Reads one image, given its content item, the node of the image's member, and that member's JSON Pointer.
pub(super) type ReadImage =
    fn(Object<'_, '_>, OutlineNode, String) -> Result<AskedImage, MemberFault>;

/// The layout of a protocol's messages.
pub(super) struct MessageSyntax {
    /// The member that holds the messages, as a JSON Pointer.
    pub(super) pointer: &'static str,
    /// The members that an item of content may have.
    pub(super) item: &'static MemberTable,
    /// The member of a content item that holds an image.
    pub(super) image: &'static str,
    /// The `type` of an item with that member, if it has one.
    pub(super) image_type: &'static str,
    pub(super) read_image: ReadImage,
}

/// The images of all messages, and the number of messages.
pub(super) fn read_messages(
    outline: &Outline<'_>,
    messages: Option<OutlineNode>,
    dialect: &MessageSyntax,
) -> Result<(Vec<AskedImage>, usize), MemberFault> {
    let is_filled =
        |&list: &OutlineNode| outline.is_array(list) && outline.elements(list).next().is_some();
    let Some(list) = messages.filter(is_filled) else {
        return Err(fault(dialect.pointer, "must be a list of at least one message"));
    };
    let mut images = Vec::new();
    let mut count = 0;
    for message in outline.elements(list) {
        let pointer = format!("{}/{count}", dialect.pointer);
        read_message(Object::at(outline, message, &pointer)?, &pointer, dialect, &mut images)?;
        count += 1;
    }
    if images.len() > MOST_IMAGES {
        let why = format!("have {} images; at most {MOST_IMAGES} are taken", images.len());
        return Err(fault(dialect.pointer, why));
    }
    Ok((images, count))
}

/// Refuses any item that could be an image but was not read as one: the vendor would bill it, and no bound would
/// include it.
fn read_message(
    message: Object<'_, '_>,
    pointer: &str,
    dialect: &MessageSyntax,
    images: &mut Vec<AskedImage>,
) -> Result<(), MemberFault> {
    check_role(&message, pointer)?;
    member_table::MESSAGE.check(&message)?;
    let outline = message.outline();
    let Some(content) = message.member("content") else { return Ok(()) };
    if outline.is_text(content) {
        return Ok(());
    }
    if !outline.is_array(content) {
        return Err(message.wrong("content", "must be a text or a list of items"));
    }
    for (number, item) in outline.elements(content).enumerate() {
        let pointer = format!("{pointer}/content/{number}");
        read_item(Object::at(outline, item, &pointer)?, &pointer, dialect, images)?;
    }
    Ok(())
}

fn read_item(
    item: Object<'_, '_>,
    pointer: &str,
    dialect: &MessageSyntax,
    images: &mut Vec<AskedImage>,
) -> Result<(), MemberFault> {
    dialect.item.check(&item)?;
    if item.json("text").is_some_and(|text| text.starts_with(['[', '{'])) {
        return Err(item.wrong("text", "must be a text"));
    }
    let Some(image) = item.member(dialect.image) else {
        if item.json("text").is_none() {
            let why = format!("must have a text as `text`, or `{}`", dialect.image);
            return Err(fault(pointer, why));
        }
        check_no_wish(&item, dialect.image)?;
        return check_type(&item, "text");
    };
    check_type(&item, dialect.image_type)?;
    images.push((dialect.read_image)(item, image, format!("{pointer}/{}", dialect.image))?);
    Ok(())
}

/// Refuses an image's options on an item of text: the vendor may read them from any item of a message, and no bound
/// includes them.
fn check_no_wish(item: &Object<'_, '_>, image: &str) -> Result<(), MemberFault> {
    let wish = read_wish(item, &[*item])?;
    let wished = [
        ("min_pixels", wish.min_pixels.is_some()),
        ("max_pixels", wish.max_pixels.is_some()),
        ("enable_rotate", wish.straighten),
    ];
    match wished.into_iter().find(|&(_, is_wished)| is_wished) {
        Some((name, _)) => Err(item.wrong(name, format!("belongs in an item with `{image}`"))),
        None => Ok(()),
    }
}

/// Refuses a `type` that contradicts the other members, because readers may go by either.
fn check_type(item: &Object<'_, '_>, expected: &str) -> Result<(), MemberFault> {
    let Some(kind) = item.member("type") else { return Ok(()) };
    if item.outline().string(kind).is_some_and(|kind| kind == expected) {
        return Ok(());
    }
    Err(item.wrong("type", format!("must be {expected}, by the other members of the item")))
}

/// Refuses roles other than those of the user and of the model's earlier answers.
fn check_role(message: &Object<'_, '_>, pointer: &str) -> Result<(), MemberFault> {
    match &*message.text("role")? {
        "user" | "assistant" => Ok(()),
        "system" | "developer" => {
            let why = "is a system message, which the Qwen-OCR models do not take: they have one of \
                       their own. Put the instruction into the user's message";
            Err(fault(pointer, why))
        }
        _ => Err(message.wrong("role", "must be user or assistant")),
    }
}

/// Reads the token limit of an answer from the member `name`. Some servers read 0 as no limit, so it is refused.
pub(super) fn read_limit(
    parameters: &Object<'_, '_>,
    name: &str,
) -> Result<Option<u64>, MemberFault> {
    match parameters.number(name)? {
        Some(0) => Err(parameters.wrong(name, "must be at least 1")),
        limit => Ok(limit),
    }
}

/// Refuses a request for several answers: each would be billed, and the vendor documents none for its OCR models.
pub(super) fn check_answers(parameters: &Object<'_, '_>) -> Result<(), MemberFault> {
    match parameters.number("n")? {
        None | Some(1) => Ok(()),
        Some(_) => Err(parameters.wrong("n", "must be 1: the Qwen-OCR models give one answer")),
    }
}

/// Reads the options of an item's image. Its bounds may be in any of `objects`.
pub(super) fn read_wish(
    item: &Object<'_, '_>,
    objects: &[Object<'_, '_>],
) -> Result<Wish, MemberFault> {
    let read = |name: &'static str| {
        let mut found = None;
        for object in objects {
            let Some(pixels) = object.number(name)? else { continue };
            if found.replace(pixels).is_some_and(|before| before != pixels) {
                return Err(object.wrong(name, "is given twice with different values"));
            }
        }
        Ok(found.map(Pixels::new))
    };
    let (min_pixels, max_pixels) = (read("min_pixels")?, read("max_pixels")?);
    Ok(Wish { min_pixels, max_pixels, straighten: item.flag("enable_rotate")? })
}
