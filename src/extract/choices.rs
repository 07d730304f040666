//! Finds a value among the values that a schema lists.
//!
//! A list may have thousands of values, and an answer may have thousands of rows. Values are therefore indexed by exact
//! text, by case-folded text and by number.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

use serde_json::{Number, Value};

use super::fold::letters;
use super::number::Decimal;

/// A listed value. It takes a third of the memory of a [`Value`]; a schema may keep thousands of them while its request
/// waits for the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    Text(Box<str>),
    Number(Number),
    Boolean(bool),
}

impl Choice {
    /// Converts a value to a choice; `None` for null, a list or an object.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => Some(Self::Number(number.clone())),
            Value::Bool(boolean) => Some(Self::Boolean(*boolean)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The choice as it is written to `data`.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(&**text),
            Self::Number(number) => number.clone().into(),
            Self::Boolean(boolean) => (*boolean).into(),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Number(number) => number.fmt(formatter),
            Self::Boolean(boolean) => boolean.fmt(formatter),
        }
    }
}

/// The key by which a listed value is looked up.
#[derive(Debug, Hash)]
pub(super) enum Key<'t> {
    /// The exact text.
    Text(&'t str),
    /// The text without differences of case and width.
    Letters(String),
    /// A number without redundant zeros.
    Number(String),
}

/// Maps keys to the positions of the values in one list. Built on the first lookup.
#[derive(Debug, Default)]
pub(super) struct Index(OnceLock<Table>);

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    /// Pairs of key hash and value position, sorted.
    places: Vec<(u64, u32)>,
}

impl Index {
    /// Returns the values with the key, in list order. Hash collisions may add others, so the caller compares the
    /// values.
    pub(super) fn find<'v>(
        &'v self,
        values: &'v [Choice],
        key: &Key<'_>,
    ) -> impl Iterator<Item = &'v Choice> {
        let table = self.0.get_or_init(|| Table::of(values));
        let hash = table.hasher.hash_one(key);
        let start = table.places.partition_point(|(known, _)| *known < hash);
        let found = table.places[start..].iter().take_while(move |(known, _)| *known == hash);
        found.filter_map(|(_, place)| values.get(usize::try_from(*place).ok()?))
    }
}

impl Table {
    fn of(values: &[Choice]) -> Self {
        let hasher = RandomState::new();
        let mut places = Vec::with_capacity(2 * values.len());
        for (value, place) in values.iter().zip(0..) {
            match value {
                Choice::Text(text) => {
                    places.push((hasher.hash_one(Key::Text(text)), place));
                    places.push((hasher.hash_one(Key::Letters(letters(text))), place));
                }
                Choice::Number(number) => {
                    if let Some(number) = Decimal::of_json(&number.to_string()) {
                        places.push((hasher.hash_one(Key::Number(number.plain())), place));
                    }
                }
                Choice::Boolean(_) => {}
            }
        }
        places.sort_unstable();
        Self { hasher, places }
    }
}

/// Removes duplicates from a list.
pub(super) fn deduplicate<T: Eq + Hash>(values: &mut Vec<T>) {
    let mut known = HashSet::with_capacity(values.len());
    let is_first: Vec<bool> = values.iter().map(|value| known.insert(value)).collect();
    let mut is_first = is_first.into_iter();
    values.retain(|_| is_first.next().unwrap_or(true));
}
