//! Finding a value among those that a schema lists.
//!
//! A list may have thousands of values and an answer thousands of rows. So the values are looked up by what
//! they are compared by: their characters, their letters without regard to case, or their number.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use serde_json::Value;

use super::coerce::letters;
use super::number::Decimal;

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
    /// The values that have the key, in their order, and maybe others: whoever asks compares.
    pub(super) fn find<'v>(
        &'v self,
        values: &'v [Value],
        key: &Key<'_>,
    ) -> impl Iterator<Item = &'v Value> {
        let table = self.0.get_or_init(|| Table::of(values));
        let hash = table.hasher.hash_one(key);
        let start = table.places.partition_point(|(known, _)| *known < hash);
        let found = table.places[start..].iter().take_while(move |(known, _)| *known == hash);
        found.filter_map(|(_, place)| values.get(usize::try_from(*place).ok()?))
    }
}

impl Table {
    fn of(values: &[Value]) -> Self {
        let hasher = RandomState::new();
        let mut places = Vec::with_capacity(2 * values.len());
        for (value, place) in values.iter().zip(0..) {
            if let Some(text) = value.as_str() {
                places.push((hasher.hash_one(Key::Text(text)), place));
                places.push((hasher.hash_one(Key::Letters(letters(text))), place));
            } else if let Some(number) = Decimal::of_json(&value.to_string()) {
                places.push((hasher.hash_one(Key::Number(number.plain())), place));
            }
        }
        places.sort_unstable();
        Self { hasher, places }
    }
}

/// Leaves each value once in a list.
pub(super) fn deduplicate(values: &mut Vec<Value>) {
    let mut known = HashSet::with_capacity(values.len());
    let is_first: Vec<bool> = values.iter().map(|value| known.insert(value)).collect();
    let mut is_first = is_first.into_iter();
    values.retain(|_| is_first.next().unwrap_or(true));
}
