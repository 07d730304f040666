//! Errors for a rejected schema.

use crate::code::ErrorCode;

/// Why a schema cannot be used, where the problem is and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is not JSON.
    #[error("must be JSON")]
    NotJson,
    /// The caller sent an example of the answer instead of its schema, and it suggests none.
    #[error(
        "this looks like an example of an answer in which a field has no clear type: an empty object or list, \
         a list of different things, or a keyword of a schema beside values. Send a JSON Schema, which would \
         begin {sketch}"
    )]
    Example {
        /// The beginning of the schema that the example suggests.
        sketch: String,
    },
    /// A JSON Schema keyword with an invalid value.
    #[error("{detail}")]
    Malformed {
        /// The place in the schema.
        pointer: String,
        /// What is wrong and what to write instead.
        detail: String,
    },
    /// Valid JSON Schema outside the supported subset.
    #[error("{detail}")]
    Unsupported {
        /// The place in the schema.
        pointer: String,
        /// What is not supported and what to write instead.
        detail: String,
    },
    /// A keyword outside the subset, usually a typing error.
    #[error("{keyword:?} is not supported here; the keywords that are: {known}")]
    UnknownKeyword {
        /// The place in the schema.
        pointer: String,
        /// The keyword.
        keyword: String,
        /// The supported keywords at this place.
        known: String,
    },
    /// An object is nested deeper than the model supports.
    #[error("fields nest more than {allowed} levels deep; take the inner object apart")]
    TooDeep {
        /// The innermost object.
        pointer: String,
        /// The largest number of levels.
        allowed: usize,
    },
    /// More fields than one call can request.
    #[error("the schema has more than {allowed} properties; ask for them in several requests")]
    TooManyProperties {
        /// The first property above the limit.
        pointer: String,
        /// The largest number of properties.
        allowed: usize,
    },
    /// A property name is too long.
    #[error(
        "the name of a field has {actual} bytes; the limit is {allowed}. Say the rest in its \"description\""
    )]
    NameTooLong {
        /// The object that has the field.
        pointer: String,
        /// Length of the name in bytes.
        actual: usize,
        /// The limit in bytes.
        allowed: usize,
    },
    /// The schema has too many values.
    #[error(
        "the schema has at least {actual} JSON values, members and elements of lists at all levels and each use \
         of a definition counted; the limit is {allowed}. Shorten its lists, or take a field with a long \
         \"enum\" as text and look it up"
    )]
    TooManyValues {
        /// Number of values at which counting stopped.
        actual: u64,
        /// The largest number of values.
        allowed: u64,
    },
    /// The patterns of the schema exceed their common limit.
    #[error(
        "with this pattern, those of the schema would take {actual} bytes to match; the limit for all is \
         {allowed}. Shorten them, lower their counts, or use one pattern for several fields: the same one \
         counts once"
    )]
    PatternsTooHeavy {
        /// The first pattern above the limit.
        pointer: String,
        /// Bytes including this pattern.
        actual: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// The schema is too long.
    #[error(
        "the schema is at least {actual} bytes long with each use of a definition counted; the \
         limit is {allowed}"
    )]
    TooLong {
        /// Bytes of compact JSON at which counting stopped.
        actual: u64,
        /// The limit in bytes.
        allowed: u64,
    },
}

impl SchemaError {
    pub(super) fn malformed(pointer: &str, detail: String) -> Self {
        Self::Malformed { pointer: pointer.to_owned(), detail }
    }

    pub(super) fn unsupported(pointer: &str, detail: String) -> Self {
        Self::Unsupported { pointer: pointer.to_owned(), detail }
    }

    /// The stable error code.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotJson => ErrorCode::InvalidOption,
            Self::Example { .. } | Self::Malformed { .. } => ErrorCode::SchemaInvalid,
            Self::TooDeep { .. } => ErrorCode::SchemaTooDeep,
            Self::Unsupported { .. }
            | Self::UnknownKeyword { .. }
            | Self::TooManyProperties { .. }
            | Self::NameTooLong { .. }
            | Self::TooManyValues { .. }
            | Self::PatternsTooHeavy { .. }
            | Self::TooLong { .. } => ErrorCode::SchemaUnsupported,
        }
    }

    /// The place in the schema as a JSON Pointer; empty for the whole schema.
    pub fn pointer(&self) -> &str {
        match self {
            Self::NotJson
            | Self::Example { .. }
            | Self::TooLong { .. }
            | Self::TooManyValues { .. } => "",
            Self::Malformed { pointer, .. }
            | Self::Unsupported { pointer, .. }
            | Self::UnknownKeyword { pointer, .. }
            | Self::TooDeep { pointer, .. }
            | Self::TooManyProperties { pointer, .. }
            | Self::NameTooLong { pointer, .. }
            | Self::PatternsTooHeavy { pointer, .. } => pointer,
        }
    }
}
