//! The tree of a parsed schema.

use serde_json::{Map, Value};

use super::choices::{Choice, Index, Key};

/// One place of the schema, with references resolved.
#[derive(Debug)]
pub(super) struct Node {
    /// Whether the caller's schema allows null. A required null is then not an error.
    pub(super) nullable: bool,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) kind: NodeKind,
    /// Rules that are only checked, such as `pattern` and `maximum`.
    pub(super) constraints: Map<String, Value>,
}

/// What a place holds.
#[derive(Debug)]
pub(super) enum NodeKind {
    Object(Vec<Property>),
    Array(Box<Node>),
    /// Boxed, because recursive reading puts many nodes on the stack.
    Leaf(Box<Leaf>),
}

/// A named property of an object.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) node: Node,
}

/// A place for a single value.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) scalar: Scalar,
    /// The values of `enum` without null and without duplicates; empty if there is no `enum`.
    pub(super) choices: Vec<Choice>,
    index: Index,
}

impl Leaf {
    pub(super) fn of(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self { scalar, choices, index: Index::default() }
    }

    /// The listed values with the key. Hash collisions may add others.
    pub(super) fn find<'v>(&'v self, key: &Key<'_>) -> impl Iterator<Item = &'v Choice> {
        self.index.find(&self.choices, key)
    }
}

/// The type of one value. String formats are separate types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Date,
    DateTime,
    Time,
    /// A UUID, of one version if the caller requires one.
    Uuid(Option<usize>),
    /// The digits of a number, as text.
    Digits,
    Number,
    Integer,
    Boolean,
    /// A number if a double holds it exactly, and its digits as text otherwise.
    Decimal,
    /// A number if the text is a number, and the text otherwise.
    NumberOrText,
    /// An integer if the text is exactly an integer, and the text otherwise.
    IntegerOrText,
}

/// Whether null is allowed at a place of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Accepted,
    Refused,
}

/// The keyword for a regular expression.
const PATTERN: &str = "pattern";

impl Node {
    /// The schema for the check of `data`. Every property is nullable; array elements are nullable only if the caller
    /// allows it. Patterns are left out because they are matched one at a time. Lists of values are left out because
    /// [`coerce`](super::coerce) takes the value from the list.
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
            NodeKind::Object(properties) => {
                let properties: Map<String, Value> = properties
                    .iter()
                    .map(|property| {
                        (property.name.clone(), property.node.validated(Null::Accepted))
                    })
                    .collect();
                schema.insert("properties".into(), properties.into());
                schema.insert("additionalProperties".into(), false.into());
            }
            NodeKind::Array(item) => {
                schema.insert("items".into(), item.validated(Null::Refused));
            }
            NodeKind::Leaf(_) => {}
        }
        schema.into()
    }

    /// The pattern for text at this place.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.constraints.get(PATTERN)?.as_str()
    }
}

impl NodeKind {
    pub(super) fn leaf(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self::Leaf(Box::new(Leaf::of(scalar, choices)))
    }

    /// The JSON Schema types of the scalar.
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

    /// The union of two scalar types; `None` if it would be ambiguous.
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
