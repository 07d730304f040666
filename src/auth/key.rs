//! API keys: their format, their check, and the part that is stored.
//!
//! The format is `ocrgw_` id `_` secret checksum, for example `ocrgw_4t0w9x2k7c1m_` and 58 more characters. The prefix
//! allows a secret scanner to find a key that was committed by mistake. The id is public: it identifies the key in
//! lists, in logs and in the database. The checksum detects a typo or a false hit of a scanner without a query. All
//! characters are lower-case letters, digits and underscores, so a double click selects the whole key. The alphabet is
//! Crockford's base 32, which omits `u` and the letters that are mistaken for digits (`i`, `l`, `o`).
//!
//! Only the SHA-256 of the whole text is stored. A slow password hash protects secrets that people choose. This secret
//! has 260 random bits, which cannot be guessed however fast the hash is, and it is checked on every request. The hash
//! covers the whole text and not just the secret, so an operator can make it with `printf %s "$KEY" | sha256sum` for a
//! tenant in the configuration file.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::tenant::TenantName;
use crate::label::{self, LabelFault};
use crate::random::Random;

/// The prefix of every key.
const PREFIX: &str = "ocrgw_";

/// Crockford's base 32 in lower case (crockford.com/base32.html): 5 bits a character.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a key id: 60 bits. Among a million keys, the probability of a collision is less than one in two
/// million. The store refuses an id that exists.
const ID_LENGTH: usize = 12;

/// Characters of the secret: 260 bits. A secret of 51 characters would have fewer than 256.
const SECRET_LENGTH: usize = 52;

/// Characters of the checksum: 30 bits. One typo in a billion passes.
const CHECKSUM_LENGTH: usize = 6;

/// Characters of a whole key.
const KEY_LENGTH: usize = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;

/// A key in plain text, which is shown once.
#[derive(Debug)]
pub struct ApiKey {
    id: KeyId,
    text: SecretString,
}

impl ApiKey {
    /// Generates a new key, and the hash to store.
    pub fn create(random: &dyn Random) -> (Self, KeyHash) {
        let id = KeyId(draw::<ID_LENGTH>(random));
        let mut text = format!("{PREFIX}{id}_{}", draw::<SECRET_LENGTH>(random));
        let checksum = checksum(&text);
        text.push_str(&checksum);
        let hash = KeyHash::of(&text);
        (Self { id, text: text.into() }, hash)
    }

    /// Parses a presented key into its id and hash.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] for a text that is not a key. The error does not contain the text.
    pub fn parse(text: &str) -> Result<ParsedKey, InvalidKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidKey::Prefix)?;
        if text.len() != KEY_LENGTH {
            return Err(InvalidKey::Length { actual: text.len() });
        }
        let (id, secret) = rest.split_once('_').ok_or(InvalidKey::Shape)?;
        if id.len() != ID_LENGTH || !is_base32(id) || !is_base32(secret) {
            return Err(InvalidKey::Shape);
        }
        // The text is ASCII here, so the split is on a character boundary.
        let (body, found) = text.split_at(KEY_LENGTH - CHECKSUM_LENGTH);
        if checksum(body) != found {
            return Err(InvalidKey::Checksum);
        }
        Ok(ParsedKey { id: KeyId(id.to_owned()), hash: KeyHash::of(text) })
    }

    /// Whether a text has the prefix of a key. It need not be a valid key.
    pub fn looks_like(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The public name of the key.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key in plain text, to show it once.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

/// The parts of a presented, well-formed key that its check needs.
#[derive(Debug)]
pub struct ParsedKey {
    /// The public id in the key, not yet verified.
    pub id: KeyId,
    /// The hash of its whole text.
    pub hash: KeyHash,
}

/// Why a text cannot be a key. Does not contain the text, which may be almost a valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It does not have the prefix.
    #[error("an API key starts with \"{PREFIX}\"")]
    Prefix,
    /// It is too short or too long.
    #[error("an API key has {KEY_LENGTH} characters, not {actual}")]
    Length {
        /// The bytes that were presented.
        actual: usize,
    },
    /// A character is not in the alphabet, or a part is not at its position.
    #[error(
        "an API key is \"{PREFIX}\", {ID_LENGTH} characters, \"_\" and the rest, in lower-case letters and digits"
    )]
    Shape,
    /// The checksum is wrong, most likely because of a typo.
    #[error("the checksum of the API key does not fit; a character was changed")]
    Checksum,
}

/// The public name of a key: 12 characters of Crockford's base 32 in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not the id of a key. Does not contain the text: it may be a whole key, pasted by mistake, which must
/// not appear in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key id is the {ID_LENGTH} characters between the underscores of the key, not {actual} others"
)]
pub struct InvalidKeyId {
    actual: usize,
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() == ID_LENGTH && is_base32(&text) {
            return Ok(Self(text));
        }
        Err(InvalidKeyId { actual: text.chars().count() })
    }
}

impl std::str::FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The SHA-256 of a whole key. Compared in constant time, and only by [`matches`](Self::matches).
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// A hash that no known key has, for a comparison that must fail but take the same time.
    pub(crate) const OF_NOBODY: Self = Self([0; 32]);

    /// A hash as it was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash as it is stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are hashes of the same key, in a time that does not reveal where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The hash in lower-case hexadecimal, as `sha256sum` writes it and the configuration reads it.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

/// Hides the value. A hash is not secret, but it is useless in a log.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A text that is not a SHA-256 in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sha256 of a key is 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them")]
pub struct InvalidKeyHash;

impl TryFrom<String> for KeyHash {
    type Error = InvalidKeyHash;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| InvalidKeyHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKeyHash)
    }
}

/// An operator's description of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyLabel(String);

impl KeyLabel {
    /// A label from the store. It may break today's rules, because an older version may have accepted it and a key must
    /// not stop working because of its label. Show it by [`label::shown`].
    pub const fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A label that could be misread in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the label {0}")]
pub struct InvalidKeyLabel(#[from] LabelFault);

impl TryFrom<String> for KeyLabel {
    type Error = InvalidKeyLabel;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        label::check(&text)?;
        Ok(Self(text))
    }
}

impl std::str::FromStr for KeyLabel {
    type Err = InvalidKeyLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<KeyLabel> for String {
    fn from(label: KeyLabel) -> Self {
        label.0
    }
}

/// The stored record of a key. Times are whole milliseconds, as in the stores.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// The public name of the key.
    pub id: KeyId,
    /// The tenant of the key. A tenant may have several keys. Spend is booked on the tenant, so a key rotation does not
    /// change it.
    pub tenant: TenantName,
    /// The hash that a presented key must have.
    pub hash: KeyHash,
    /// When the key was made.
    pub created_at: Timestamp,
    /// When it expires; never, if `None`.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The operator's description.
    pub label: Option<KeyLabel>,
}

impl KeyRecord {
    /// The record of a new key, without an expiry, a revocation or a label.
    pub fn new(key: &ApiKey, hash: KeyHash, tenant: TenantName, created_at: Timestamp) -> Self {
        Self {
            id: key.id().clone(),
            tenant,
            hash,
            created_at,
            expires_at: None,
            revoked_at: None,
            label: None,
        }
    }

    /// Whether the key may be used at `now`.
    pub fn state(&self, now: Timestamp) -> KeyState {
        KeyState::of(self.expires_at, self.revoked_at, now)
    }
}

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It may be used.
    Active,
    /// It has expired.
    Expired,
    /// It was revoked, whether or not it has expired since.
    Revoked,
}

impl KeyState {
    /// The state at `now` of a key with these dates.
    ///
    /// A key with a revocation is refused even if the revocation's time is in the future. Otherwise a key would remain
    /// valid for a moment on a machine whose clock is late.
    pub(crate) fn of(
        expires_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        if revoked_at.is_some() {
            return Self::Revoked;
        }
        match expires_at {
            Some(end) if end <= now => Self::Expired,
            _ => Self::Active,
        }
    }

    /// The state as a word in tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Random characters, uniformly distributed: 32 divides 256, so the low five bits of a random byte are uniform.
fn draw<const LENGTH: usize>(random: &dyn Random) -> String {
    let mut bytes = [0; LENGTH];
    random.fill(&mut bytes);
    bytes.into_iter().map(base32).collect()
}

fn checksum(body: &str) -> String {
    Sha256::digest(body).into_iter().take(CHECKSUM_LENGTH).map(base32).collect()
}

fn base32(byte: u8) -> char {
    char::from(ALPHABET[usize::from(byte & 31)])
}

fn is_base32(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::random::SeededRandom;

    fn key() -> (ApiKey, KeyHash) {
        ApiKey::create(&SeededRandom::new(7))
    }

    #[test]
    fn a_created_key_is_read_back_with_its_id_and_hash() {
        let (key, hash) = key();
        let parsed = ApiKey::parse(key.expose()).unwrap();
        assert_eq!(&parsed.id, key.id());
        assert!(parsed.hash.matches(&hash));
    }

    #[test]
    fn a_double_click_selects_a_whole_key() {
        let (key, _) = key();
        assert_eq!(key.expose().len(), KEY_LENGTH);
        let word = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(key.expose().bytes().all(word));
    }

    #[test]
    fn any_single_changed_character_is_noticed_without_a_database() {
        let (key, _) = key();
        for place in 0..KEY_LENGTH {
            let mut typo = key.expose().to_owned().into_bytes();
            typo[place] = if typo[place] == b'7' { b'8' } else { b'7' };
            let typo = String::from_utf8(typo).unwrap();
            assert!(ApiKey::parse(&typo).is_err(), "a typo at {place} was accepted");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_rule_that_it_breaks() {
        let long = format!("ocrgw_{}", "0".repeat(KEY_LENGTH));
        let foreign = format!("ocrgw_{}", "é".repeat((KEY_LENGTH - PREFIX.len()) / 2) + "0");
        assert_eq!(ApiKey::parse("sk-123").unwrap_err(), InvalidKey::Prefix);
        assert_eq!(ApiKey::parse("ocrgw_").unwrap_err(), InvalidKey::Length { actual: 6 });
        assert_eq!(ApiKey::parse(&long).unwrap_err(), InvalidKey::Length { actual: 83 });
        assert_eq!(ApiKey::parse(&foreign).unwrap_err(), InvalidKey::Shape);
    }

    #[test]
    fn no_debug_output_shows_a_secret_or_a_hash() {
        let (key, hash) = key();
        let shown = format!("{key:?} {hash:?} {:?}", ApiKey::parse(key.expose()));
        let secret = key.expose().rsplit('_').next().unwrap();
        assert!(!shown.contains(secret), "{shown}");
        assert!(!shown.contains(&hash.to_hex()), "{shown}");
    }

    #[test]
    fn the_stored_hash_is_what_sha256sum_prints_of_the_key() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").to_hex(), of_abc);
        let read = KeyHash::try_from(of_abc.to_uppercase()).unwrap();
        assert!(read.matches(&KeyHash::of("abc")));
    }

    #[test]
    fn a_hash_that_is_not_64_hexadecimal_digits_is_refused() {
        for wrong in ["", "ba78", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(KeyHash::try_from(wrong.to_owned()).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn only_the_part_between_the_underscores_is_an_id() {
        let (key, _) = key();
        assert_eq!(key.id().as_str().parse::<KeyId>().as_ref(), Ok(key.id()));
        for wrong in ["", "4T0W9X2K7C1M", "4t0w9x2k7c1", key.expose()] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_label_that_would_mislead_in_a_table_is_refused() {
        for wrong in ["", "two\nlines", "\u{1b}[31m", "a\u{202e}b", "=1+1", &"x".repeat(101)] {
            let refusal = wrong.parse::<KeyLabel>().unwrap_err().to_string();
            assert!(refusal.starts_with("the label "), "{refusal}");
        }
        assert_eq!("nightly batch".parse::<KeyLabel>().unwrap().as_str(), "nightly batch");
    }

    #[test]
    fn a_key_expires_at_its_date_and_a_revoked_one_stays_revoked() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(KeyState::of(Some(at(10)), None, at(9)), KeyState::Active);
        assert_eq!(KeyState::of(Some(at(10)), None, at(10)), KeyState::Expired);
        assert_eq!(KeyState::of(Some(at(10)), Some(at(99)), at(1)), KeyState::Revoked);
        assert_eq!(KeyState::of(None, None, at(i64::from(i32::MAX))), KeyState::Active);
    }
}
