//! Names of entries.
//!
//! A name is an HMAC over everything that an answer depends on. It is the name of the entry in Redis, where others may
//! read it, so it must not reveal anything: without the secret nobody can test whether a file was read.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;

use crate::random::Random;

/// The bytes of a name.
pub(super) const KEY_BYTES: usize = 32;

/// The name of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKey([u8; KEY_BYTES]);

/// Makes the names.
pub struct KeyMaker(hmac::Key);

/// The parts of one name.
pub struct KeyParts(hmac::Context);

impl KeyMaker {
    /// Names under `secret`, which all replicas share.
    pub(super) fn under(secret: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Names that only this process can make.
    pub fn of_process(random: &dyn Random) -> Self {
        let mut secret = [0; KEY_BYTES];
        random.fill(&mut secret);
        Self::under(&secret)
    }

    /// A name without parts.
    pub fn begin(&self) -> KeyParts {
        KeyParts(hmac::Context::with_key(&self.0))
    }
}

impl KeyParts {
    /// Adds a part. Two names are equal only if their parts have the same names and values in the same order.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), value.as_ref()] {
            // The length in front keeps two parts from being read as two others.
            self.0.update(&(bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// The name.
    pub fn finish(self) -> EntryKey {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.0.sign().as_ref());
        EntryKey(key)
    }
}

impl EntryKey {
    pub(super) const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryKey({self})")
    }
}

/// Leaves the secret out.
impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaker").finish_non_exhaustive()
    }
}

/// Leaves the parts out.
impl fmt::Debug for KeyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyParts").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(parts: &[(&str, &str)]) -> EntryKey {
        let maker = KeyMaker::under(&[7; KEY_BYTES]);
        parts.iter().fold(maker.begin(), |key, (name, value)| key.part(name, value)).finish()
    }

    #[test]
    fn parts_that_are_cut_otherwise_make_another_name() {
        let keys = [
            key(&[]),
            key(&[("a", "")]),
            key(&[("", "a")]),
            key(&[("a", "bc")]),
            key(&[("ab", "c")]),
            key(&[("a", "b"), ("c", "")]),
            key(&[("a", "b"), ("", "c")]),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        assert_eq!(key(&[("a", "bc")]), key(&[("a", "bc")]));
    }

    #[test]
    fn another_secret_makes_another_name() {
        let of = |secret| KeyMaker::under(&[secret; KEY_BYTES]).begin().part("a", "b").finish();
        assert_ne!(of(1), of(2));
    }
}
