//! Parses the caller's schema.
//!
//! The subset of JSON Schema 2020-12 contains what the gateway can guarantee in an answer. Types, nesting, lists of
//! values and formats are enforced by coercion. Rules such as `pattern` are checked at the end. Keywords that cannot be
//! guaranteed (`if`, `patternProperties`, a choice between two objects) are rejected with a pointer to them. A choice
//! between a number and text is supported, because libraries write decimals in this form (pydantic's `Decimal`).
//! Unknown keywords are rejected, although a JSON Schema validator must ignore them: otherwise a mistyped `requierd`
//! would silently have no effect.
//!
//! A parsed schema is small: it keeps its tree and the text of its patterns. A request mostly waits for the upstream,
//! so the validator and the patterns are compiled only when the answer has arrived. Each rule is therefore validated
//! here, so that the later compilation succeeds.

use jsonschema::Validator;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::SchemaError;
use super::example::{is_example, schema_of, sketch};
use super::limits::{byte_length, count_values, refuse_longer, refuse_more};
use super::node::{Node, Null};
use super::page_answer::PageAnswer;
use super::reader;
use super::result_schema::prompt_bytes_bound;
use crate::json;

/// The most memory in bytes that is in use while a schema is read, or while an answer of moderate length is checked
/// against it. `benches/schema.rs` tests this with the most expensive schemas.
pub const WORKING_BYTES: u64 = 4 * 1024 * 1024;

/// The longest answer of moderate length in bytes, and the memory for each byte beyond it.
const MODERATE_ANSWER: u64 = 16 * 1024;
const BYTES_FOR_EACH: u64 = 96;

/// The most memory in bytes that is in use while an answer of `answer` bytes is read and checked against a schema.
pub const fn filling_bytes(answer: u64) -> u64 {
    WORKING_BYTES + BYTES_FOR_EACH * answer.saturating_sub(MODERATE_ANSWER)
}

/// Memory for merging the answers for several pages: for lists that grow, and for the places of one more page. And the
/// memory for each byte of their texts: in a value, in `raw`, and in a copy that is validated.
const GROWING_BYTES: u64 = 1024 * 1024;
const COPIED_BYTES_FOR_EACH: u64 = 4;

/// The most memory in bytes that is in use while answers are merged and checked against a schema. Trees are made of one
/// answer after the other.
pub fn merging_bytes(answers: &[PageAnswer]) -> u64 {
    let bytes = || answers.iter().map(PageAnswer::bytes);
    let longest = bytes().max().unwrap_or_default();
    let others = bytes().sum::<u64>() - longest;
    let growing = if others > 0 { GROWING_BYTES } else { 0 };
    filling_bytes(longest) + growing + COPIED_BYTES_FOR_EACH * others
}

/// A schema that was parsed and is supported.
#[derive(Debug)]
pub struct Schema {
    pub(super) root: Node,
    /// Whether the caller sent an example of the answer in place of a schema.
    pub(super) is_from_example: bool,
    /// The SHA-256 of the schema as the caller wrote it, without its spaces.
    digest: [u8; 32],
}

impl Schema {
    /// Reads the text of a JSON Schema. A text with too many values is rejected before a tree is built.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`SchemaError::NotJson`].
    pub fn from_json(text: &str) -> Result<Self, SchemaError> {
        refuse_more(json::count_values(text))?;
        let value = serde_json::from_str(text).map_err(|_| SchemaError::NotJson)?;
        Self::parse(&value)
    }

    /// Reads a JSON Schema, or an example of the answer, which becomes the schema that it suggests.
    ///
    /// Takes a tenth of a millisecond for an invoice and some tens of milliseconds for the heaviest patterns, so a
    /// server must not call it on the reactor thread. Uses up to [`WORKING_BYTES`] of memory while it runs.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], with the place in the schema and what to write instead.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        refuse_longer(byte_length(value))?;
        refuse_more(count_values(value))?;
        let example = value.as_object().filter(|members| is_example(members));
        let suggested = example.map(|example| {
            schema_of(example).ok_or_else(|| SchemaError::Example { sketch: sketch(example) })
        });
        let suggested = suggested.transpose()?;
        let root = reader::read(suggested.as_ref().unwrap_or(value))?;
        // The hints are rarely longer than the schema, but a list of digits can be.
        refuse_longer(byte_length(&root.result_schema()))?;
        let digest = Sha256::digest(value.to_string()).into();
        Ok(Self { root, is_from_example: suggested.is_some(), digest })
    }

    /// Equal for schemas that are written alike, apart from spaces. Different for all others.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The `result_schema` to send, in schema order.
    pub fn result_schema(&self) -> Value {
        self.root.result_schema()
    }

    /// [`prompt_bytes_bound`] of [`result_schema`](Self::result_schema).
    pub fn prompt_bytes_bound(&self) -> u64 {
        prompt_bytes_bound(&self.result_schema())
    }

    /// The validator for `data`, without patterns. Each rule was validated when the schema was read, so the validator
    /// can always be built.
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
