//! Encrypts entries for a store that others can read.
//!
//! Each entry is encrypted with ChaCha20-Poly1305 (RFC 8439) under a key of its own, which HKDF (RFC 5869) derives from
//! the configured key and a random salt. So no nonce is ever used twice with a key, however many replicas write. The
//! name of the entry is authenticated too: an entry that was moved to another name, and so to another tenant, cannot be
//! opened.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::key::{EntryKey, KEY_BYTES, KeyMaker};
use super::settings::EncryptionKey;
use crate::random::Random;

/// The first byte of a sealed entry.
const VERSION: u8 = 1;

/// The bytes of a salt.
const SALT_BYTES: usize = 32;

/// Keeps the keys of the result cache apart from others that are derived from the same secret.
const DOMAIN: &[u8] = b"ocr-gateway result cache 1";

/// Seals and opens entries.
pub(super) struct Sealer(Prk);

/// The length of the secret for names.
struct NameSecret;

impl KeyType for NameSecret {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Sealer {
    /// Seals with keys that are derived from `key`.
    pub(super) fn under(key: &EncryptionKey) -> Self {
        Self(Salt::new(HKDF_SHA256, DOMAIN).extract(key.bytes()))
    }

    /// Makes the names of entries. They are the same on each replica with the same key.
    pub(super) fn key_maker(&self) -> KeyMaker {
        let mut secret = [0; KEY_BYTES];
        let derived = self.0.expand(&[b"name"], NameSecret);
        // Fails only for another length than the one that was asked for.
        let filled = derived.and_then(|derived| derived.fill(&mut secret));
        debug_assert!(filled.is_ok());
        KeyMaker::under(&secret)
    }

    /// Encrypts the entry `key`; `None` if its length is beyond what the cipher takes, which is 256 GiB.
    pub(super) fn seal(
        &self,
        key: &EntryKey,
        entry: &[u8],
        random: &dyn Random,
    ) -> Option<Vec<u8>> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt);
        let mut sealed = entry.to_vec();
        let own = self.key_of(&salt)?;
        own.seal_in_place_append_tag(nonce(), associated(key), &mut sealed).ok()?;
        Some([&[VERSION], &salt[..], &sealed].concat())
    }

    /// Decrypts the entry `key`; `None` if it was sealed under another name or key, or was changed.
    pub(super) fn open(&self, key: &EntryKey, sealed: &[u8]) -> Option<Vec<u8>> {
        let (&VERSION, rest) = sealed.split_first()? else { return None };
        let (salt, text) = rest.split_at_checked(SALT_BYTES)?;
        let mut text = text.to_vec();
        let length =
            self.key_of(salt)?.open_in_place(nonce(), associated(key), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    /// The key of one entry.
    fn key_of(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let purpose = [b"entry".as_slice(), salt];
        let derived = self.0.expand(&purpose, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

/// The only nonce. Each key seals one entry.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn associated(key: &EntryKey) -> Aad<&[u8; KEY_BYTES]> {
    Aad::from(key.bytes())
}

/// Leaves the key out.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::SeededRandom;

    fn sealer(byte: u8) -> Sealer {
        Sealer::under(&EncryptionKey::of([byte; 32]))
    }

    fn name(part: &str) -> EntryKey {
        sealer(1).key_maker().begin().part("tenant", part).finish()
    }

    proptest! {
        #[test]
        fn a_sealed_entry_opens_only_under_its_own_name_and_key(
            entry in proptest::collection::vec(any::<u8>(), 0..2000),
            seed: u64,
        ) {
            let random = SeededRandom::new(seed);
            let sealed = sealer(1).seal(&name("acme"), &entry, &random).unwrap();
            prop_assert_eq!(sealer(1).open(&name("acme"), &sealed), Some(entry));
            prop_assert_eq!(sealer(1).open(&name("other"), &sealed), None);
            prop_assert_eq!(sealer(2).open(&name("acme"), &sealed), None);
        }

        #[test]
        fn a_sealed_entry_that_was_changed_or_cut_does_not_open(place: prop::sample::Index, bit in 0_u8..8) {
            let sealed = sealer(1).seal(&name("acme"), b"a text", &SeededRandom::new(1)).unwrap();
            let mut changed = sealed.clone();
            let place = place.index(sealed.len());
            changed[place] ^= 1_u8 << bit;
            prop_assert_eq!(sealer(1).open(&name("acme"), &changed), None);
            prop_assert_eq!(sealer(1).open(&name("acme"), &sealed[..place]), None);
        }
    }

    #[test]
    fn a_sealed_entry_shows_nothing_of_its_text_and_is_another_each_time() {
        let text = b"the text of the page, which nobody may read";
        let random = SeededRandom::new(1);
        let sealed = [(); 2].map(|()| sealer(1).seal(&name("acme"), text, &random).unwrap());
        for sealed in &sealed {
            assert!(!text.windows(4).any(|part| sealed.windows(4).any(|other| part == other)));
        }
        assert_ne!(sealed[0], sealed[1]);
    }

    #[test]
    fn replicas_with_the_same_key_make_the_same_names() {
        let of = |byte| sealer(byte).key_maker().begin().part("file", "x").finish();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
