//! Changes to a document that keep the rest of it byte for byte.
//!
//! A change replaces a span or adds a member at the end of an object. The changed document is a list of pieces:
//! slices of the received body, which are not copied, and the new text between them.

use std::ops::Range;

use bytes::Bytes;

use super::outline::{Outline, OutlineNode};

/// Changes to one document.
#[derive(Debug, Default)]
pub(super) struct Edits {
    changes: Vec<(Range<usize>, String)>,
    /// Empty objects that a member was added to: `parameters` and `stream_options` at most.
    filled: Vec<OutlineNode>,
}

impl Edits {
    /// Replaces a value by `json`.
    pub(super) fn replace(&mut self, outline: &Outline<'_>, node: OutlineNode, json: String) {
        self.changes.push((outline.span(node), json));
    }

    /// Sets the member `name` of an object to `json`, and adds it at the end if it is missing.
    pub(super) fn set(
        &mut self,
        outline: &Outline<'_>,
        object: OutlineNode,
        name: &str,
        json: &str,
    ) {
        if let Some(member) = outline.member(object, name) {
            if outline.json(member) != json {
                self.replace(outline, member, json.to_owned());
            }
            return;
        }
        let is_empty = outline.elements(object).next().is_none();
        let is_first = is_empty && !self.filled.contains(&object);
        let comma = if is_first { "" } else { "," };
        let end = outline.span(object).end - 1;
        self.changes.push((end..end, format!("{comma}\"{name}\":{json}")));
        if is_first {
            self.filled.push(object);
        }
    }

    /// The changed document, in pieces.
    pub(super) fn apply(mut self, document: &Bytes) -> Vec<Bytes> {
        // The sort is stable, so members that are added to one object stay in order.
        self.changes.sort_by_key(|(span, _)| span.start);
        let mut pieces = Vec::with_capacity(2 * self.changes.len() + 1);
        let mut at = 0;
        for (span, json) in self.changes {
            pieces.push(document.slice(at..span.start));
            pieces.push(json.into());
            at = span.end;
        }
        pieces.push(document.slice(at..));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, change: impl FnOnce(&Outline<'_>, &mut Edits)) -> String {
        let document = Bytes::copy_from_slice(text.as_bytes());
        let outline = Outline::of(&document).unwrap();
        let mut edits = Edits::default();
        change(&outline, &mut edits);
        String::from_utf8(edits.apply(&document).concat()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_to_the_letter() {
        let text = "{ \"b\" : 1e300,\t\"a\":[ ],\n \"max\":  7 }";
        assert_eq!(edited(text, |_, _| {}), text);
        let changed = edited(text, |outline, edits| {
            edits.set(outline, OutlineNode::ROOT, "max", "5");
            edits.set(outline, OutlineNode::ROOT, "b", "1e300");
        });
        assert_eq!(changed, text.replace('7', "5"));
    }

    #[test]
    fn members_are_added_at_the_end_and_in_order() {
        let add = |outline: &Outline<'_>, edits: &mut Edits| {
            edits.set(outline, OutlineNode::ROOT, "x", "1");
            edits.set(outline, OutlineNode::ROOT, "y", "{}");
        };
        assert_eq!(edited("{}", add), r#"{"x":1,"y":{}}"#);
        assert_eq!(edited(r#"{"a":0}"#, add), r#"{"a":0,"x":1,"y":{}}"#);
    }

    #[test]
    fn changes_inside_and_around_an_object_go_together() {
        let changed = edited(r#"[{"u":{"v":1}}]"#, |outline, edits| {
            let outer = outline.elements(OutlineNode::ROOT).next().unwrap();
            let inner = outline.member(outer, "u").unwrap();
            edits.set(outline, outer, "w", "3");
            edits.set(outline, inner, "v", "2");
            edits.set(outline, inner, "w", "3");
        });
        assert_eq!(changed, r#"[{"u":{"v":2,"w":3},"w":3}]"#);
    }
}
