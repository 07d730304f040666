//! Identifiers in the vendor's form: version 4 UUIDs.
//!
//! They must be unique, not secret, so the standard library's seeded hasher is random enough and saves a dependency.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes identifiers.
#[derive(Debug, Default)]
pub(crate) struct Identifiers {
    seeds: [RandomState; 2],
    count: AtomicU64,
}

impl Identifiers {
    /// A new identifier.
    pub(crate) fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = [&self.seeds[0], &self.seeds[1]].map(|seed| seed.hash_one(count));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            ((low >> 48) & 0x3fff) | 0x8000,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ_and_have_the_form_of_a_uuid() {
        let identifiers = Identifiers::default();
        let one = identifiers.next();
        assert_ne!(one, identifiers.next());
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
