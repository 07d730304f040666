//! The tree of a schema that was read: its places, and what each may hold.

use serde_json::{Map, Value};

use super::choices::{Choice, Index, Key};

/// One place of the schema, references resolved.
#[derive(Debug)]
pub(super) struct Node {
    /// Whether the caller wrote that null is a value here, so that a required null is no error.
    pub(super) nullable: bool,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) kind: Kind,
    /// Rules that are only checked: `pattern`, `maximum` and their like.
    pub(super) constraints: Map<String, Value>,
}

/// What a place holds.
#[derive(Debug)]
pub(super) enum Kind {
    Object(Vec<Property>),
    Array(Box<Node>),
    /// Boxed, since a place stands on the stack of its reader many times.
    Leaf(Box<Leaf>),
}

/// A named place of an object.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) node: Node,
}

/// A place of one value.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) scalar: Scalar,
    /// The values of `enum` without null, each once; empty where there is none.
    pub(super) choices: Vec<Choice>,
    index: Index,
}

impl Leaf {
    pub(super) fn of(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self { scalar, choices, index: Index::default() }
    }

    /// The listed values that have the key, and maybe others.
    pub(super) fn find<'v>(&'v self, key: &Key<'_>) -> impl Iterator<Item = &'v Choice> {
        self.index.find(&self.choices, key)
    }
}

/// The type of one value; the formats of a string are types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Date,
    DateTime,
    Time,
    /// Of one version, where the caller asks for one.
    Uuid(Option<usize>),
    /// The digits of a number, as text.
    Digits,
    Number,
    Integer,
    Boolean,
    /// A number where a double holds it, else its digits.
    Decimal,
    /// A number where the text is one, else the text.
    NumberOrText,
    /// A whole number where the text is one and nothing else, else the text.
    IntegerOrText,
}

/// Whether null may stand at a place of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Accepted,
    Refused,
}

/// The keyword of a regular expression.
const PATTERN: &str = "pattern";

impl Node {
    /// The schema that `data` is checked against: every property nullable, the elements of arrays
    /// only where the caller said so. Patterns are left out, since they are matched one by one, and lists of
    /// values, since a value is taken from them ([`coerce`](super::coerce)).
    pub(super) fn validated(&self, null: Null) -> Value {
        let rules = self.constraints.iter().filter(|(rule, _)| *rule != PATTERN);
        let mut schema: Map<String, Value> =
            rules.map(|(rule, operand)| (rule.clone(), operand.clone())).collect();
        let null_allowed = null == Null::Accepted || self.nullable;
        let mut names = self.kind.type_names().to_vec();
        names.extend(null_allowed.then_some("null"));
        schema
            .insert("type".into(), if let [name] = names[..] { name.into() } else { names.into() });
        match &self.kind {
            Kind::Object(properties) => {
                let properties: Map<String, Value> = properties
                    .iter()
                    .map(|property| {
                        (property.name.clone(), property.node.validated(Null::Accepted))
                    })
                    .collect();
                schema.insert("properties".into(), properties.into());
                schema.insert("additionalProperties".into(), false.into());
            }
            Kind::Array(item) => {
                schema.insert("items".into(), item.validated(Null::Refused));
            }
            Kind::Leaf(_) => {}
        }
        schema.into()
    }

    /// The pattern of text that may stand here.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.constraints.get(PATTERN)?.as_str()
    }
}

impl Kind {
    pub(super) fn leaf(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self::Leaf(Box::new(Leaf::of(scalar, choices)))
    }

    /// The types that JSON Schema has for it.
    pub(super) fn type_names(&self) -> &'static [&'static str] {
        match self {
            Self::Object(_) => &["object"],
            Self::Array(_) => &["array"],
            Self::Leaf(leaf) => leaf.scalar.type_names(),
        }
    }
}

impl Scalar {
    pub(super) const fn type_names(self) -> &'static [&'static str] {
        match self {
            Self::Text
            | Self::Date
            | Self::DateTime
            | Self::Time
            | Self::Uuid(_)
            | Self::Digits => &["string"],
            Self::Number => &["number"],
            Self::Integer => &["integer"],
            Self::Boolean => &["boolean"],
            Self::Decimal | Self::NumberOrText => &["number", "string"],
            Self::IntegerOrText => &["integer", "string"],
        }
    }

    /// What a place holds that may hold either; none where that has no single meaning.
    pub(super) fn or(self, other: Self) -> Option<Self> {
        match (self, other) {
            _ if self == other => Some(self),
            (Self::Integer, Self::Number) => Some(Self::Number),
            (Self::Digits | Self::Decimal, Self::Number | Self::Integer)
            | (Self::Digits, Self::Decimal) => Some(Self::Decimal),
            (Self::Text | Self::IntegerOrText, Self::Integer)
            | (Self::Text, Self::IntegerOrText) => Some(Self::IntegerOrText),
            (Self::Text | Self::IntegerOrText | Self::NumberOrText, Self::Number)
            | (Self::NumberOrText, Self::Integer | Self::Text | Self::IntegerOrText) => {
                Some(Self::NumberOrText)
            }
            _ => None,
        }
    }
}
