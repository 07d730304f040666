//! Writes what hayro has read: objects of a file, for another place in it or for a new file.

use std::fmt::Write as _;

use hayro::hayro_syntax::object::{Array, Dict, MaybeRef, ObjRef, Object, ObjectIdentifier};

use crate::document::searchable::object::{ObjectId, name, string};

/// The number and generation of an object, if they are within their ranges.
pub(super) fn id(id: ObjectIdentifier) -> Option<ObjectId> {
    let generation = u16::try_from(id.gen_number).ok()?;
    Some(ObjectId { number: id.obj_number, generation })
}

/// Writes an object. References stay as they are; `seen` is told each. A stream, which is an object of its own, is
/// null.
pub(super) fn object(object: &Object<'_>, seen: &mut dyn FnMut(ObjRef), to: &mut Vec<u8>) {
    match object {
        Object::Null(_) | Object::Stream(_) => to.extend_from_slice(b"null"),
        Object::Boolean(value) => to.extend_from_slice(value.to_string().as_bytes()),
        Object::Number(value) => to.extend_from_slice(number(value.as_f64()).as_bytes()),
        Object::String(value) => to.extend_from_slice(&string(value.as_bytes())),
        Object::Name(value) => to.extend_from_slice(&name(value)),
        Object::Array(value) => array(value, seen, to),
        Object::Dict(value) => {
            to.extend_from_slice(b"<<");
            entries(value, &[], seen, to);
            to.extend_from_slice(b">>");
        }
    }
}

/// Writes the entries of a dictionary, but those with one of the `left_out` keys.
pub(super) fn entries(
    dict: &Dict<'_>,
    left_out: &[&[u8]],
    seen: &mut dyn FnMut(ObjRef),
    to: &mut Vec<u8>,
) {
    for (key, value) in dict.entries().filter(|(key, _)| !left_out.contains(&key.as_ref())) {
        to.extend_from_slice(&name(&key));
        to.push(b' ');
        item(&value, seen, to);
    }
}

/// Writes the items of an array without its brackets.
pub(super) fn items(array: &Array<'_>, seen: &mut dyn FnMut(ObjRef), to: &mut Vec<u8>) {
    for value in array.raw_iter() {
        item(&value, seen, to);
        to.push(b' ');
    }
}

fn array(array: &Array<'_>, seen: &mut dyn FnMut(ObjRef), to: &mut Vec<u8>) {
    to.push(b'[');
    items(array, seen, to);
    to.push(b']');
}

/// Writes a value or a reference to one.
pub(super) fn item(value: &MaybeRef<Object<'_>>, seen: &mut dyn FnMut(ObjRef), to: &mut Vec<u8>) {
    match value {
        MaybeRef::NotRef(value) => object(value, seen, to),
        MaybeRef::Ref(reference) => {
            seen(*reference);
            to.extend_from_slice(&self::reference(*reference));
        }
    }
}

/// Writes a reference.
pub(super) fn reference(to: ObjRef) -> Vec<u8> {
    format!("{} {} R", to.obj_number, to.gen_number).into_bytes()
}

/// A number with all its digits.
fn number(value: f64) -> String {
    let mut text = String::new();
    // Display writes no exponent.
    let _ = write!(text, "{value}");
    text
}
