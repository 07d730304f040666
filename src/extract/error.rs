//! Why a schema is refused.

use crate::code::ErrorCode;

/// Why a schema cannot be used, with the place in it and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is not JSON.
    #[error("must be JSON")]
    NotJson,
    /// An example of the wanted answer stands where its schema should.
    #[error("this is an example of an answer, not a JSON Schema; its schema would begin {sketch}")]
    Example {
        /// The beginning of the schema that the example suggests.
        sketch: String,
    },
    /// A keyword of JSON Schema with a value that it cannot have.
    #[error("{detail}")]
    Malformed {
        /// The place in the schema.
        pointer: String,
        /// What is wrong and what to write instead.
        detail: String,
    },
    /// Correct JSON Schema, outside the subset.
    #[error("{detail}")]
    Unsupported {
        /// The place in the schema.
        pointer: String,
        /// What is not supported and what to write instead.
        detail: String,
    },
    /// A keyword outside the subset, most often a typing error.
    #[error("{keyword:?} is not supported here; the keywords that are: {known}")]
    UnknownKeyword {
        /// The place in the schema.
        pointer: String,
        /// The keyword.
        keyword: String,
        /// The keywords that bind something at this place.
        known: String,
    },
    /// An object nested deeper than the model takes.
    #[error("fields nest more than {allowed} levels deep; take the inner object apart")]
    TooDeep {
        /// The innermost object.
        pointer: String,
        /// The most levels.
        allowed: usize,
    },
    /// More fields than one call can ask for.
    #[error("the schema has more than {allowed} properties; ask for them in several requests")]
    TooManyProperties {
        /// The first one too many.
        pointer: String,
        /// The most properties.
        allowed: usize,
    },
    /// A property with a longer name than is read.
    #[error(
        "the name of a field has {actual} bytes; the limit is {allowed}. Say the rest in its \"description\""
    )]
    NameTooLong {
        /// The object that has the field.
        pointer: String,
        /// Bytes of the name.
        actual: usize,
        /// The most bytes.
        allowed: usize,
    },
    /// More values than are read.
    #[error(
        "the schema has at least {actual} JSON values, members and elements of lists at all levels and each use \
         of a definition counted; the limit is {allowed}. Shorten its lists, or take a field with a long \
         \"enum\" as text and look it up"
    )]
    TooManyValues {
        /// Values up to where counting stopped.
        actual: u64,
        /// The most values.
        allowed: u64,
    },
    /// Patterns that are heavier together than one schema may have them.
    #[error(
        "with this pattern, those of the schema would take {actual} bytes to match; the limit for all is \
         {allowed}. Shorten them, lower their counts, or use one pattern for several fields: the same one \
         counts once"
    )]
    PatternsTooHeavy {
        /// The first pattern too many.
        pointer: String,
        /// Bytes with it.
        actual: u64,
        /// The most bytes.
        allowed: u64,
    },
    /// A longer schema than is read.
    #[error(
        "the schema is at least {actual} bytes long with each use of a definition counted; the \
         limit is {allowed}"
    )]
    TooLong {
        /// Bytes of compact JSON up to where counting stopped.
        actual: u64,
        /// The most bytes.
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

    /// The stable code of the situation.
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

    /// The place in the schema, as a JSON Pointer; empty for the whole.
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
