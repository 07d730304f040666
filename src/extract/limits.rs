//! Limits on the size of a schema, in bytes, values, properties and levels.

use std::io;

use serde_json::Value;

use super::error::SchemaError;

/// The largest schema in bytes of compact JSON, with each use of a definition counted. The same limit applies to the
/// `result_schema` made from it.
pub const MAX_BYTES: u64 = 64 * 1024;
/// The largest number of JSON values in a schema. Members and elements at all levels count, and so does each use of a
/// definition. A value takes up to 400 bytes while it is read, so a limit on the length is not enough: `[[[[1]]]]`
/// takes fifty times its length. The longest lists in use (countries, currencies, the products of a shop) have some 250
/// to 2,000 values.
pub const MAX_VALUES: u64 = 8_000;
/// The longest property name in bytes. The answer repeats a name in each row and in the pointer to each value.
pub const MAX_NAME_BYTES: usize = 256;
/// The largest number of properties, including nested properties and each use of a `$ref`.
pub const MAX_PROPERTIES: usize = 100;
/// The largest number of levels of field names. This is the limit of DashScope's `result_schema` (API reference of
/// Qwen-OCR, "`task_config`"). A list adds no level, because its elements are named by their fields.
pub const MAX_LEVELS: usize = 3;

pub(super) fn refuse_longer(actual: u64) -> Result<(), SchemaError> {
    if actual > MAX_BYTES {
        return Err(SchemaError::TooLong { actual, allowed: MAX_BYTES });
    }
    Ok(())
}

pub(super) fn refuse_more(actual: u64) -> Result<(), SchemaError> {
    if actual > MAX_VALUES {
        return Err(SchemaError::TooManyValues { actual, allowed: MAX_VALUES });
    }
    Ok(())
}

/// Counts the values of a tree at all levels, including the root.
pub(super) fn count_values(value: &Value) -> u64 {
    let inside: u64 = match value {
        Value::Array(items) => items.iter().map(count_values).sum(),
        Value::Object(members) => members.values().map(count_values).sum(),
        _ => 0,
    };
    1 + inside
}

/// Counts the bytes of `value` as compact JSON without writing it.
pub(super) fn byte_length(value: &Value) -> u64 {
    struct Count(u64);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len() as u64);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => u64::MAX,
    }
}
