//! Reads single members of a request, and describes the fault of a member that cannot be read.

use std::borrow::Cow;

use super::outline::{Outline, OutlineNode};

/// Longest part of a caller's own name that an error repeats, in characters.
const LONGEST_ECHO: usize = 64;

/// A member that cannot be read, or is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer} {why}")]
pub struct MemberFault {
    /// The member, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// The fault and the remedy, as the predicate of a sentence.
    pub why: Cow<'static, str>,
}

/// A fault of the member at `pointer`.
pub(super) fn fault(pointer: impl Into<String>, why: impl Into<Cow<'static, str>>) -> MemberFault {
    MemberFault { pointer: pointer.into(), why: why.into() }
}

/// An object with its JSON Pointer, for the text of faults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'o, 'a> {
    outline: &'o Outline<'a>,
    node: OutlineNode,
    pointer: &'o str,
}

impl<'o, 'a> Object<'o, 'a> {
    /// The object at `node`.
    ///
    /// # Errors
    ///
    /// [`MemberFault`] if the value is not an object.
    pub(super) fn at(
        outline: &'o Outline<'a>,
        node: OutlineNode,
        pointer: &'o str,
    ) -> Result<Self, MemberFault> {
        if !outline.is_object(node) {
            return Err(fault(pointer, "must be an object"));
        }
        Ok(Self { outline, node, pointer })
    }

    /// The names and values of its members.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'o str, OutlineNode)> {
        let outline = self.outline;
        let named = move |member| outline.name(member).map(|name| (name, member));
        outline.elements(self.node).filter_map(named)
    }

    /// The text of a member's value.
    pub(super) fn json(&self, name: &str) -> Option<&'a str> {
        let member = self.outline.member(self.node, name)?;
        Some(self.outline.json(member))
    }

    /// The document that contains the object.
    pub(super) const fn outline(&self) -> &'o Outline<'a> {
        self.outline
    }

    /// Its node.
    pub(super) const fn node(&self) -> OutlineNode {
        self.node
    }

    /// The value of a member; none if it is missing or `null`.
    pub(super) fn member(&self, name: &str) -> Option<OutlineNode> {
        let member = self.outline.member(self.node, name);
        member.filter(|&member| !self.outline.is_null(member))
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, MemberFault> {
        let Some(member) = self.member(name) else { return Ok(None) };
        let json = self.outline.json(member);
        let digits = json.bytes().all(|byte| byte.is_ascii_digit());
        let number = json.parse().ok().filter(|_| digits);
        number
            .map(Some)
            .ok_or_else(|| self.wrong(name, "must be a whole number that is not negative"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, MemberFault> {
        match self.member(name).map(|member| self.outline.json(member)) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Cow<'a, str>, MemberFault> {
        let text = self.member(name).and_then(|member| self.outline.string(member));
        let text = text.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.wrong(name, "must be a text that is not empty"))
    }

    /// A fault of the member `name`.
    pub(super) fn wrong(&self, name: &str, why: impl Into<Cow<'static, str>>) -> MemberFault {
        fault(self.pointer_to(name), why)
    }

    /// The JSON Pointer of the member `name`, which is cut at a length that a person reads. Characters that are
    /// invisible, or look like others, are escaped.
    pub(super) fn pointer_to(&self, name: &str) -> String {
        let mut pointer = format!("{}/", self.pointer);
        for character in name.chars().take(LONGEST_ECHO) {
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                ' '..='~' => pointer.push(character),
                _ => pointer.extend(character.escape_default()),
            }
        }
        pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_pointer_is_escaped_and_cut() {
        let outline = Outline::of(b"{}").unwrap();
        let object = Object::at(&outline, OutlineNode::ROOT, "/x").unwrap();
        assert_eq!(object.pointer_to("a/b~c d"), "/x/a~1b~0c d");
        assert_eq!(object.pointer_to("to\u{17f}\u{202e}\0"), r"/x/to\u{17f}\u{202e}\u{0}");
        assert_eq!(object.pointer_to(&"a".repeat(100)).len(), "/x/".len() + LONGEST_ECHO);
    }

    #[test]
    fn a_member_of_the_wrong_kind_is_named() {
        let text =
            br#"{"a":"1","b":-1,"c":1.0,"d":1,"e":18446744073709551616,"f":"x","g":null,"h":true}"#;
        let outline = Outline::of(text).unwrap();
        let object = Object::at(&outline, OutlineNode::ROOT, "/x").unwrap();
        for name in ["a", "b", "c", "e", "f"] {
            assert_eq!(object.number(name).unwrap_err().pointer, format!("/x/{name}"));
        }
        assert_eq!((object.number("d"), object.number("g")), (Ok(Some(1)), Ok(None)));
        assert_eq!((object.flag("h"), object.flag("z")), (Ok(true), Ok(false)));
        assert!(object.flag("f").is_err() && object.text("d").is_err());
        assert_eq!(object.text("f").unwrap(), "x");
        assert!(Object::at(&outline, object.member("f").unwrap(), "").is_err());
    }
}
