//! The schema of a caller: what it may say, and what is made of it.
//!
//! The subset of JSON Schema 2020-12 is chosen by one question: can the gateway promise that the answer validates?
//! Values are coerced to types, nesting, lists of values and formats; rules such as `pattern` are checked at the end.
//! Keywords whose promise cannot be kept (`if`, `patternProperties`, a choice between two objects) are refused with
//! the pointer to them. A choice between a number and text is supported, because libraries write decimals so
//! (pydantic's `Decimal`). Unknown keywords are refused, although JSON Schema says to ignore them: a mistyped
//! `requierd` would be a rule that silently never binds.
//!
//! A schema that was read is small: its tree and the text of its patterns. The validator and the patterns are compiled
//! when the answer is there, since a request mostly waits for the upstream. So each rule is checked here for being
//! usable then.

use jsonschema::Validator;
use serde_json::Value;

use super::error::SchemaError;
use super::limits::{byte_length, count_values, refuse_longer, refuse_more};
use super::node::{Node, Null};
use super::reader;
use super::result_schema::prompt_bytes_bound;
use crate::json;

/// What reading a schema, or holding an answer of moderate length to it, takes at most while it lasts, in bytes.
/// `benches/schema.rs` holds the worst schemas to it.
pub const WORKING_BYTES: u64 = 4 * 1024 * 1024;

/// The longest answer of moderate length, in bytes, and what each byte beyond it takes.
const MODERATE_ANSWER: u64 = 16 * 1024;
const BYTES_FOR_EACH: u64 = 96;

/// What reading an answer of so many bytes and holding it to a schema takes at most while it lasts, in bytes.
pub const fn filling_bytes(answer: u64) -> u64 {
    WORKING_BYTES + BYTES_FOR_EACH * answer.saturating_sub(MODERATE_ANSWER)
}

/// A schema that was read and found to be one whose promise can be kept.
#[derive(Debug)]
pub struct Schema {
    pub(super) root: Node,
}

impl Schema {
    /// Reads the text of a JSON Schema. What has too many values never becomes a tree.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`SchemaError::NotJson`].
    pub fn from_json(text: &str) -> Result<Self, SchemaError> {
        refuse_more(json::count_values(text))?;
        let value = serde_json::from_str(text).map_err(|_| SchemaError::NotJson)?;
        Self::parse(&value)
    }

    /// Reads a JSON Schema.
    ///
    /// Takes a tenth of a millisecond for an invoice and some tens of them for the heaviest patterns: on a
    /// server, off the reactor. While it lasts it takes up to [`WORKING_BYTES`].
    ///
    /// # Errors
    ///
    /// [`SchemaError`], with the place in the schema and what to write instead.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        refuse_longer(byte_length(value))?;
        refuse_more(count_values(value))?;
        let root = reader::read(value)?;
        // The hints are seldom longer than the schema, but a list of digits is.
        refuse_longer(byte_length(&root.result_schema()))?;
        Ok(Self { root })
    }

    /// The `result_schema` to send, in the order of the schema.
    pub fn result_schema(&self) -> Value {
        self.root.result_schema()
    }

    /// [`prompt_bytes_bound`] of [`result_schema`](Self::result_schema).
    pub fn prompt_bytes_bound(&self) -> u64 {
        prompt_bytes_bound(&self.result_schema())
    }

    /// What `data` is checked by, patterns excepted. Each rule was checked when it was read, so that there is
    /// always one.
    pub(super) fn validator(&self) -> Option<Validator> {
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            .build(&self.root.validated(Null::Refused))
            .ok()
    }
}

#[cfg(test)]
pub(super) mod tests;
