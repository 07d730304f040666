//! Messages about invalid settings. They go to the log and never quote a value, since any value may be a secret in the
//! wrong place. For example, a user may write the address of a database in place of its section.

use std::error::Error;

use config::ConfigError;

/// The words with which serde's messages continue after a quoted value.
const EXPECTED: &str = ", expected ";

/// The message in place of a text that may quote a secret.
const NOT_SHOWN: &str = "this value cannot be used here; it is not shown, since it may be a secret";

/// The message for an error: the key, the kind of value that was found, and the expected one.
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

/// The kind of a value: the text before its quotation.
fn kind(found: &str) -> String {
    found.split(['"', '`']).next().unwrap_or_default().trim_end().to_owned()
}

/// A message of serde without the value that it quotes. A message of one of our types may quote a mistyped name.
fn message(text: &str) -> String {
    for quoting in ["invalid type: ", "invalid value: ", "unknown variant "] {
        let Some(found) = text.strip_prefix(quoting) else { continue };
        // The value may contain the same words, so the last occurrence counts.
        let expected = found.rsplit_once(EXPECTED).map_or("", |(_, expected)| expected);
        let told = format!("{quoting}{}", kind(found));
        return format!("{}{EXPECTED}{expected}", told.trim_end());
    }
    if may_be_secret(text) { NOT_SHOWN.to_owned() } else { text.to_owned() }
}

/// The message of the TOML parser without the line of the file that it quotes. The type of the error is private, so its
/// text is split: the position, three lines that show it, the message.
fn parse(cause: &(dyn Error + 'static)) -> String {
    let text = cause.to_string();
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("TOML parse error at ") {
        // An error without a position, such as a number out of range, is one line and quotes nothing.
        return first.to_owned();
    }
    let message = lines.nth(3).unwrap_or_default();
    format!("{first}: {message}")
}
