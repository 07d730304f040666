//! The sections `[cache]` and `[storage]`.

use std::fmt;
use std::path::PathBuf;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;

/// The bytes of the key that encrypts what is stored.
const ENCRYPTION_KEY_BYTES: usize = 32;

/// The section `[cache]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Bytes of memory for entries; 0: none.
    pub memory_bytes: u64,
}

/// The section `[storage]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// The key that encrypts what is stored outside this process, as Base64; none: nothing is stored there.
    pub encryption_key: Option<SecretString>,
    /// A file with the key, in place of `encryption_key`.
    pub encryption_key_file: Option<PathBuf>,
}

/// A key that encrypts what is stored outside this process.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; ENCRYPTION_KEY_BYTES]>);

/// A text that is no such key. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEncryptionKey {
    /// It is not Base64.
    #[error(
        "is not Base64; write {ENCRYPTION_KEY_BYTES} random bytes as Base64, as `openssl rand -base64 \
         {ENCRYPTION_KEY_BYTES}` makes them"
    )]
    NotBase64,
    /// It has another length.
    #[error(
        "has {0} bytes instead of {ENCRYPTION_KEY_BYTES}; `openssl rand -base64 \
         {ENCRYPTION_KEY_BYTES}` makes a key"
    )]
    Length(usize),
}

impl StorageSettings {
    /// The key, if one is configured.
    ///
    /// # Errors
    ///
    /// [`InvalidEncryptionKey`], without the key.
    pub fn key(&self) -> Result<Option<EncryptionKey>, InvalidEncryptionKey> {
        let text = self.encryption_key.as_ref().map(|key| key.expose_secret().trim());
        text.filter(|text| !text.is_empty()).map(EncryptionKey::parse).transpose()
    }
}

impl EncryptionKey {
    /// A key of these bytes.
    pub fn of(bytes: [u8; ENCRYPTION_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn parse(text: &str) -> Result<Self, InvalidEncryptionKey> {
        let decoded = BASE64.decode(text.as_bytes());
        let decoded = Zeroizing::new(decoded.map_err(|_| InvalidEncryptionKey::NotBase64)?);
        let bytes = <[u8; ENCRYPTION_KEY_BYTES]>::try_from(&decoded[..]);
        bytes.map(Self::of).map_err(|_| InvalidEncryptionKey::Length(decoded.len()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[..]
    }
}

/// Leaves the key out.
impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Option<EncryptionKey>, InvalidEncryptionKey> {
        let encryption_key = Some(SecretString::from(text));
        StorageSettings { encryption_key, encryption_key_file: None }.key()
    }

    #[test]
    fn a_key_is_thirty_two_bytes_of_base64() {
        let text = BASE64.encode(&[7; 32]);
        assert_eq!(key(&text).unwrap().unwrap().bytes(), [7; 32]);
        assert_eq!(key(&format!(" {text}\n")).unwrap().unwrap().bytes(), [7; 32]);
        assert!(key("").unwrap().is_none());
    }

    #[test]
    fn a_key_of_another_length_or_alphabet_is_refused_without_showing_it() {
        for (text, told) in [
            (BASE64.encode(&[7; 31]), "has 31 bytes"),
            (BASE64.encode(&[7; 33]), "has 33 bytes"),
            ("secret-key-that-is-not-base64".to_owned(), "is not Base64"),
        ] {
            let error = key(&text).unwrap_err().to_string();
            assert!(error.starts_with(told) && !error.contains(&text), "{error}");
        }
    }
}
