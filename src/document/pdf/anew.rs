//! Writes a damaged file anew, with all objects that hayro found by way of its catalog.
//!
//! Numbers and streams stay as they are, so pictures keep their bytes. What nothing refers to is left out.

use std::collections::{HashSet, VecDeque};

use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::metadata::Metadata;
use hayro::hayro_syntax::object::{ObjRef, Object, ObjectIdentifier};

use super::copied;
use crate::document::searchable::album::HEADER;
use crate::document::searchable::object::{IndexKind, ObjectId, Objects, string};

/// The file with an index of its objects. `None` if it would have more than `most` bytes, or has no catalog.
pub(super) fn written_anew(pdf: &Pdf, most: u64) -> Option<Vec<u8>> {
    let root = pdf.xref().root_id();
    let mut objects = Objects::of_new_file(0);
    objects.raw(HEADER);
    let mut queue = VecDeque::from([ObjRef::from(root)]);
    let (mut seen, mut last) = (HashSet::from([root]), 0);
    while let Some(next) = queue.pop_front() {
        let Some(id) = copied::id(next.into()) else { continue };
        let Some(object) = pdf.xref().get::<Object<'_>>(next.into()) else { continue };
        last = last.max(id.number);
        let mut referred = |reference: ObjRef| {
            if seen.insert(ObjectIdentifier::from(reference)) {
                queue.push_back(reference);
            }
        };
        add(&mut objects, id, &object, &mut referred);
        if objects.len() as u64 > most {
            return None;
        }
    }
    let root = copied::id(root).filter(|root| objects.has(*root))?;
    let information = ObjectId::new(last.checked_add(1)?);
    objects.add(information, &metadata(pdf.metadata()));
    let trailer = format!("/Root {root}/Info {information}");
    let file = objects.finish(IndexKind::Table, trailer.as_bytes(), information.number + 1);
    (file.len() as u64 <= most).then_some(file)
}

fn add(objects: &mut Objects, id: ObjectId, object: &Object<'_>, referred: &mut dyn FnMut(ObjRef)) {
    let mut content = Vec::new();
    match object {
        Object::Stream(stream) => {
            copied::entries(stream.dict(), &[b"Length"], referred, &mut content);
            objects.add_stream(id, &content, &stream.raw_data());
        }
        object => {
            copied::object(object, referred, &mut content);
            objects.add(id, &content);
        }
    }
}

/// The dictionary of what the file says about itself.
fn metadata(metadata: &Metadata) -> Vec<u8> {
    let mut dict = b"<<".to_vec();
    for (key, value) in [
        ("Title", &metadata.title),
        ("Author", &metadata.author),
        ("Subject", &metadata.subject),
        ("Keywords", &metadata.keywords),
        ("Creator", &metadata.creator),
        ("Producer", &metadata.producer),
    ] {
        if let Some(value) = value {
            dict.extend_from_slice(format!("/{key}").as_bytes());
            dict.extend_from_slice(&string(value));
        }
    }
    dict.extend_from_slice(b">>");
    dict
}
