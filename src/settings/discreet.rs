//! What is told of settings that cannot be read: never a value, since any may be a secret that stands in the wrong
//! place, as the address of a database does where its section is expected. The texts go to the log.

use std::error::Error;

use config::ConfigError;

/// What ends the texts of serde that quote a value, before what is expected.
const EXPECTED: &str = ", expected ";

/// What is told in place of a text that quotes what looks like a secret.
const NOT_SHOWN: &str = "this value cannot be used here; it is not shown, since it may be a secret";

/// What is wrong, by the key, the kind of what was found, and what is expected.
pub(super) fn told(error: &ConfigError) -> String {
    match error {
        ConfigError::Type { origin, unexpected, expected, key } => {
            let kind = kind(&unexpected.to_string());
            format!(
                "invalid type: {kind}{EXPECTED}{expected}{}",
                place(key.as_deref(), origin.as_deref())
            )
        }
        ConfigError::At { error, origin, key } => {
            format!("{}{}", told(error), place(key.as_deref(), origin.as_deref()))
        }
        ConfigError::FileParse { uri, cause } => {
            format!("{}{}", parse(&**cause), place(None, uri.as_deref()))
        }
        ConfigError::Message(text) => message(text),
        other => other.to_string(),
    }
}

/// Whether a text looks like an address, which may hold a password, or like an API key.
pub(super) fn may_be_secret(text: &str) -> bool {
    is_address(text) || text.contains("sk-")
}

/// Whether a text looks like an address.
pub(super) fn is_address(text: &str) -> bool {
    text.contains("://")
}

fn place(key: Option<&str>, origin: Option<&str>) -> String {
    let key = key.map(|key| format!(" for key `{key}`"));
    let origin = origin.map(|origin| format!(" in {origin}"));
    [key, origin].into_iter().flatten().collect()
}

/// The kind of a value: what stands before its quotation.
fn kind(found: &str) -> String {
    found.split(['"', '`']).next().unwrap_or_default().trim_end().to_owned()
}

/// A message of serde without the value that it quotes, or of a type of ours, which quotes what may be a mistyped
/// name.
fn message(text: &str) -> String {
    for quoting in ["invalid type: ", "invalid value: ", "unknown variant "] {
        let Some(found) = text.strip_prefix(quoting) else { continue };
        // The value may hold the same words, so the last ones count.
        let expected = found.rsplit_once(EXPECTED).map_or("", |(_, expected)| expected);
        let told = format!("{quoting}{}", kind(found));
        return format!("{}{EXPECTED}{expected}", told.trim_end());
    }
    if may_be_secret(text) { NOT_SHOWN.to_owned() } else { text.to_owned() }
}

/// What the parser of TOML says, without the line of the file that it quotes. Its type has no name here, so its text
/// is taken apart: the place, three lines that show it, the message.
fn parse(cause: &(dyn Error + 'static)) -> String {
    let text = cause.to_string();
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("TOML parse error at ") {
        // Of no place, as of a number that is too large: one line, which quotes nothing.
        return first.to_owned();
    }
    let message = lines.nth(3).unwrap_or_default();
    format!("{first}: {message}")
}
