//! Finding a value among those that a schema lists.
//!
//! A list may have thousands of values, and an answer thousands of rows. So values are indexed by their characters, by
//! their letters without regard to case, and by their number.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

use serde_json::{Number, Value};

use super::fold::letters;
use super::number::Decimal;

/// A listed value. It is a third of the size of a [`Value`], and a schema may hold thousands of them while its
/// request waits for the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    Text(Box<str>),
    Number(Number),
    Boolean(bool),
}

impl Choice {
    /// The choice that a value is; none for null, a list and an object.
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

    /// The choice as it stands in `data`.
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

/// What a listed value is found by.
#[derive(Debug, Hash)]
pub(super) enum Key<'t> {
    /// The characters of a text.
    Text(&'t str),
    /// Its letters, whatever their case and width.
    Letters(String),
    /// A number without zeros that say nothing.
    Number(String),
}

/// The places of the values of one list, by their keys. It is made when it is first asked.
#[derive(Debug, Default)]
pub(super) struct Index(OnceLock<Table>);

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    /// The hash of a key and the place of its value, in their order.
    places: Vec<(u64, u32)>,
}

impl Index {
    /// The values that have the key, in their order, and perhaps others: the caller compares.
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

/// Leaves each value once in a list.
pub(super) fn deduplicate<T: Eq + Hash>(values: &mut Vec<T>) {
    let mut known = HashSet::with_capacity(values.len());
    let is_first: Vec<bool> = values.iter().map(|value| known.insert(value)).collect();
    let mut is_first = is_first.into_iter();
    values.retain(|_| is_first.next().unwrap_or(true));
}
