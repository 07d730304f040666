//! A JSON value in its original spelling.

use std::fmt::{self, Write as _};
use std::ops::Index;

/// The value of a missing member.
static NOTHING: Tree = Tree::Null;

/// A JSON value in its original spelling.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tree {
    /// `null`, and literals such as `NaN` that are not JSON numbers.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// The characters of a number.
    Number(String),
    /// A string; U+FFFD replaces each invalid character.
    String(String),
    /// A list.
    Array(Vec<Self>),
    /// The members in order; a name may occur more than once.
    Object(Vec<(String, Self)>),
}

impl Tree {
    /// Returns the member with this name. The last duplicate wins, as in all common parsers.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Returns the value at a JSON Pointer (RFC 6901). Names that contain `~` or `/` are not supported.
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |place, name| match place {
            Self::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => place.get(name),
        })
    }

    /// Removes the value at a JSON Pointer from the tree and returns it.
    pub fn take(&mut self, pointer: &str) -> Option<Self> {
        let place = pointer.split('/').skip(1).try_fold(self, |place, name| match place {
            Self::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
            Self::Object(members) => {
                members.iter_mut().rev().find(|(other, _)| other == name).map(|(_, value)| value)
            }
            _ => None,
        });
        place.map(std::mem::take)
    }

    /// Returns the value as a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value as a list.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the value as a non-negative integer; a fraction of zeros is ignored.
    pub fn as_u64(&self) -> Option<u64> {
        let Self::Number(digits) = self else { return None };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_whole = fraction.bytes().all(|digit| digit == b'0');
        is_whole.then(|| whole.parse().ok()).flatten()
    }

    /// Returns the nearest double to the number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The bytes of all names, strings, numbers and punctuation. Escapes are not counted, so the JSON text may be
    /// longer.
    pub fn unescaped_bytes(&self) -> usize {
        let quoted = |text: &str| text.len() + 2;
        match self {
            Self::Null => 4,
            Self::Bool(boolean) => {
                if *boolean {
                    4
                } else {
                    5
                }
            }
            Self::Number(digits) => digits.len(),
            Self::String(text) => quoted(text),
            Self::Array(items) => {
                2 + items.iter().map(|item| item.unescaped_bytes() + 1).sum::<usize>()
            }
            Self::Object(members) => {
                let member =
                    |(name, value): &(String, Self)| quoted(name) + value.unescaped_bytes() + 2;
                2 + members.iter().map(member).sum::<usize>()
            }
        }
    }

    /// Whether this is an object.
    pub const fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Whether this is `null`.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Index<&str> for Tree {
    type Output = Self;

    fn index(&self, name: &str) -> &Self {
        self.get(name).unwrap_or(&NOTHING)
    }
}

/// Writes JSON: compact, or indented with `{:#}`. Numbers keep their original digits.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Tree {
    fn write(&self, f: &mut fmt::Formatter<'_>, level: usize) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(digits) => f.write_str(digits),
            Self::String(text) => write_string(f, text),
            Self::Array(items) => {
                write_list(f, level, ['[', ']'], items, |f, item| item.write(f, level + 1))
            }
            Self::Object(members) => {
                write_list(f, level, ['{', '}'], members, |f, (name, value)| {
                    write_string(f, name)?;
                    f.write_str(if f.alternate() { ": " } else { ":" })?;
                    value.write(f, level + 1)
                })
            }
        }
    }
}

fn write_list<T>(
    f: &mut fmt::Formatter<'_>,
    level: usize,
    [open, close]: [char; 2],
    items: &[T],
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let new_line = |f: &mut fmt::Formatter<'_>, level| {
        let indent = if f.alternate() { "  " } else { "" };
        if f.alternate() {
            f.write_char('\n')?;
        }
        (0..level).try_for_each(|_| f.write_str(indent))
    };
    f.write_char(open)?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        new_line(f, level + 1)?;
        write(f, item)?;
    }
    if !items.is_empty() {
        new_line(f, level)?;
    }
    f.write_char(close)
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

/// Converts the JSON literals of tests.
#[cfg(test)]
impl From<&serde_json::Value> for Tree {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| (name.clone(), Self::from(value));
                Self::Object(members.iter().map(member).collect())
            }
        }
    }
}

#[cfg(test)]
impl From<serde_json::Value> for Tree {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}
