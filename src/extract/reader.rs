//! From the JSON of a schema to the tree that the rest of the module works on.
//!
//! References are resolved and the three spellings of nullable are folded into one flag here, so
//! that nobody else has to know them. Every keyword is looked at: it is a rule, an annotation, or an
//! error with a pointer.
//!
//! References make a short text deep and large. Both are counted on the way down and not on the tree
//! that comes of it: what is too much is refused before it is read. Everything behind the reader may
//! recurse over the tree, which is at most [`MAX_LEVELS`] objects deep with a list around each.

use serde_json::{Map, Value};

use super::child_pointer;
use super::example::{is_example, sketch};
use super::keywords::{constraints, keywords_of, known_keywords};
use super::schema::{
    Kind, Leaf, MAX_LEVELS, MAX_PROPERTIES, Node, Property, Scalar, SchemaError, byte_length,
    refuse_longer,
};

/// The keywords of one place of a schema.
pub(super) type Members = Map<String, Value>;

/// The types of the subset.
pub(super) const TYPES: [&str; 6] = ["object", "array", "string", "number", "integer", "boolean"];

/// The most schemas inside one another, references followed. Three levels of fields take 21 where a
/// reference and a choice stand before the whole, each list and each element of one; the rest is
/// room. Each is a few frames of the stack.
const MAX_DEPTH: usize = 32;

/// The keywords of definitions, which are no part of a schema until they are used.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Reads a whole schema.
pub(super) fn read(value: &Value) -> Result<Node, SchemaError> {
    if let Some(example) = value.as_object().filter(|members| is_example(members)) {
        return Err(SchemaError::Example { sketch: sketch(example) });
    }
    let mut reader = Reader { document: value, open: Vec::new(), properties: 0, bytes: 0 };
    reader.measure(value)?;
    let root = reader.node(value, "", Place::default())?;
    match root.kind {
        Kind::Object(_) => Ok(root),
        _ => Err(SchemaError::malformed(
            "",
            format!(
                "a schema begins with \"type\": \"object\" and names its fields under \
                 \"properties\"; this one is of type {:?}",
                root.kind.type_name()
            ),
        )),
    }
}

struct Reader<'s> {
    document: &'s Value,
    /// The references that are being resolved, to see a circle.
    open: Vec<&'s str>,
    properties: usize,
    /// What the schema weighs with each use of a definition so far.
    bytes: u64,
}

/// What a schema stands in.
#[derive(Debug, Clone, Copy, Default)]
struct Place<'p> {
    /// Objects around it.
    level: usize,
    /// Schemas around it, those that only refer or choose included.
    depth: usize,
    /// Where the nearest schema of a list's elements stands, while nothing but references and choices
    /// lies between.
    element: Option<&'p str>,
}

impl<'s> Reader<'s> {
    /// Adds a schema that is about to be read to what the whole one weighs.
    fn measure(&mut self, schema: &Value) -> Result<(), SchemaError> {
        let members = schema.as_object().into_iter().flatten();
        let read = members.filter(|(keyword, _)| !DEFINITIONS.contains(&keyword.as_str()));
        self.bytes = read.fold(self.bytes, |sum, (keyword, value)| {
            sum.saturating_add(keyword.len() as u64).saturating_add(byte_length(value))
        });
        refuse_longer(self.bytes)
    }

    fn node(&mut self, schema: &'s Value, at: &str, place: Place<'_>) -> Result<Node, SchemaError> {
        if place.depth >= MAX_DEPTH {
            return Err(SchemaError::unsupported(
                at,
                format!(
                    "this lies inside {MAX_DEPTH} schemas, references followed; shorten the way to it"
                ),
            ));
        }
        let Some(members) = schema.as_object() else {
            return Err(SchemaError::malformed(
                at,
                "a schema is an object such as {\"type\": \"string\"}".into(),
            ));
        };
        let inside = Place { depth: place.depth + 1, ..place };
        let mut node = if let Some(target) = members.get("$ref") {
            known_keywords(members, at, &["$ref"])?;
            self.reference(target, &child_pointer(at, "$ref"), inside)?
        } else if let Some((keyword, list)) =
            ["anyOf", "oneOf"].iter().find_map(|&keyword| members.get_key_value(keyword))
        {
            known_keywords(members, at, &[keyword])?;
            self.alternative(list, &child_pointer(at, keyword), inside)?
        } else {
            self.typed(members, at, inside)?
        };
        annotate(&mut node, members, at)?;
        Ok(node)
    }

    fn reference(
        &mut self,
        target: &'s Value,
        at: &str,
        place: Place<'_>,
    ) -> Result<Node, SchemaError> {
        let local = target.as_str().and_then(|target| target.strip_prefix('#')).filter(|pointer| {
            pointer.starts_with("/$defs/") || pointer.starts_with("/definitions/")
        });
        let Some(pointer) = local else {
            return Err(SchemaError::unsupported(
                at,
                "a reference points into the same schema, such as \"#/$defs/address\"".into(),
            ));
        };
        if self.open.contains(&pointer) {
            return Err(SchemaError::unsupported(at, "this reference leads to itself".into()));
        }
        let Some(schema) = self.document.pointer(pointer) else {
            return Err(SchemaError::malformed(at, "there is nothing at this reference".into()));
        };
        self.measure(schema)?;
        self.open.push(pointer);
        let node = self.node(schema, pointer, place)?;
        self.open.pop();
        Ok(node)
    }

    /// The only choice that can be coerced to is the one between something and nothing.
    fn alternative(
        &mut self,
        list: &'s Value,
        at: &str,
        place: Place<'_>,
    ) -> Result<Node, SchemaError> {
        let list = list.as_array().map_or(&[][..], Vec::as_slice);
        let is_null = |member: &Value| member.get("type").is_some_and(|name| name == "null");
        let mut kept = list.iter().enumerate().filter(|(_, member)| !is_null(member));
        let (Some((index, member)), None) = (kept.next(), kept.next()) else {
            return Err(SchemaError::unsupported(
                at,
                "a choice has one schema and {\"type\": \"null\"}; a field cannot be of two types"
                    .into(),
            ));
        };
        let mut node = self.node(member, &format!("{at}/{index}"), place)?;
        node.nullable |= list.len() > 1;
        Ok(node)
    }

    fn typed(
        &mut self,
        members: &'s Members,
        at: &str,
        place: Place<'_>,
    ) -> Result<Node, SchemaError> {
        let (name, null_type) = declared_type(members, at)?;
        let (structure, rules) = keywords_of(name);
        known_keywords(members, at, &[structure, rules].concat())?;
        let constraints = constraints(members, at, rules)?;
        let (kind, null_choice) = match name {
            "object" => (self.object(members, at, place)?, false),
            "array" => (self.array(members, at, place)?, false),
            _ => leaf(name, members, at)?,
        };
        let nullable = null_type || null_choice;
        Ok(Node { nullable, title: None, description: None, kind, constraints })
    }

    fn object(
        &mut self,
        members: &'s Members,
        at: &str,
        place: Place<'_>,
    ) -> Result<Kind, SchemaError> {
        if place.level >= MAX_LEVELS {
            return Err(SchemaError::TooDeep { pointer: at.to_owned(), allowed: MAX_LEVELS });
        }
        let inside = child_pointer(at, "properties");
        let fields = match members.get("properties") {
            Some(Value::Object(fields)) if !fields.is_empty() => fields,
            _ => {
                return Err(SchemaError::malformed(
                    at,
                    "an object names its fields, such as \"properties\": {\"total\": {\"type\": \
                     \"number\"}}"
                        .into(),
                ));
            }
        };
        let required = required_names(members, fields, at)?;
        let inner = Place { level: place.level + 1, element: None, ..place };
        let mut properties = Vec::with_capacity(fields.len());
        for (name, schema) in fields {
            let pointer = child_pointer(&inside, name);
            self.properties += 1;
            if self.properties > MAX_PROPERTIES {
                return Err(SchemaError::TooManyProperties { pointer, allowed: MAX_PROPERTIES });
            }
            let node = self.node(schema, &pointer, inner)?;
            let required = required.contains(&name.as_str());
            properties.push(Property { name: name.clone(), required, node });
        }
        Ok(Kind::Object(properties))
    }

    fn array(
        &mut self,
        members: &'s Members,
        at: &str,
        place: Place<'_>,
    ) -> Result<Kind, SchemaError> {
        if let Some(element) = place.element {
            return Err(SchemaError::unsupported(
                element,
                "an array of arrays cannot be asked for; make the inner one a field of an object"
                    .into(),
            ));
        }
        let Some(schema) = members.get("items").filter(|items| items.is_object()) else {
            return Err(SchemaError::malformed(
                at,
                "an array says what its elements are, such as \"items\": {\"type\": \"string\"}"
                    .into(),
            ));
        };
        let pointer = child_pointer(at, "items");
        let item = self.node(schema, &pointer, Place { element: Some(&pointer), ..place })?;
        Ok(Kind::Array(Box::new(item)))
    }
}

/// The name of the type, and whether null stands beside it.
fn declared_type<'s>(members: &'s Members, at: &str) -> Result<(&'s str, bool), SchemaError> {
    let Some(declared) = members.get("type") else {
        return Ok((implied_type(members, at)?, false));
    };
    let pointer = child_pointer(at, "type");
    let names = match declared {
        Value::Array(names) => names.as_slice(),
        single => std::slice::from_ref(single),
    };
    let mut kept = names.iter().filter(|name| *name != "null");
    let (name, second) = (kept.next(), kept.next());
    if name.is_none() || second.is_some() {
        return Err(SchemaError::unsupported(
            &pointer,
            "a field has one type, with or without \"null\" beside it".into(),
        ));
    }
    match name.and_then(Value::as_str).filter(|name| TYPES.contains(name)) {
        Some(name) => Ok((name, names.iter().any(|name| name == "null"))),
        None => Err(SchemaError::malformed(
            &pointer,
            format!(
                "the types are {}; a date is a string with \"format\": \"date\"",
                TYPES.join(", ")
            ),
        )),
    }
}

/// The type that the other keywords leave no doubt about.
fn implied_type(members: &Members, at: &str) -> Result<&'static str, SchemaError> {
    if members.contains_key("properties") {
        return Ok("object");
    }
    if members.contains_key("items") {
        return Ok("array");
    }
    let choices = members.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut choices = choices.iter().filter(|choice| !choice.is_null()).peekable();
    if choices.peek().is_some() && choices.all(Value::is_string) {
        return Ok("string");
    }
    Err(SchemaError::malformed(at, format!("this needs a \"type\": one of {}", TYPES.join(", "))))
}

fn annotate(node: &mut Node, members: &Members, at: &str) -> Result<(), SchemaError> {
    let text = |keyword| match members.get(keyword) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(SchemaError::malformed(
            &child_pointer(at, keyword),
            format!("{keyword:?} is a text"),
        )),
    };
    if let Some(title) = text("title")? {
        node.title = Some(title);
    }
    if let Some(description) = text("description")? {
        node.description = Some(description);
    }
    match members.get("nullable") {
        None => Ok(()),
        Some(Value::Bool(nullable)) => {
            node.nullable |= nullable;
            Ok(())
        }
        Some(_) => Err(SchemaError::malformed(
            &child_pointer(at, "nullable"),
            "\"nullable\" is true or false".into(),
        )),
    }
}

fn required_names<'s>(
    members: &'s Members,
    fields: &Members,
    at: &str,
) -> Result<Vec<&'s str>, SchemaError> {
    let pointer = child_pointer(at, "required");
    let list = match members.get("required") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(SchemaError::malformed(
                &pointer,
                "\"required\" is a list of field names and stands beside \"properties\"".into(),
            ));
        }
    };
    let name = |(index, name): (usize, &'s Value)| {
        name.as_str().filter(|name| fields.contains_key(*name)).ok_or_else(|| {
            SchemaError::malformed(
                &format!("{pointer}/{index}"),
                "this names no field of \"properties\"".into(),
            )
        })
    };
    list.iter().enumerate().map(name).collect()
}

/// A place of one value, and whether null is among its choices.
fn leaf(type_name: &str, members: &Members, at: &str) -> Result<(Kind, bool), SchemaError> {
    let scalar = match (type_name, members.get("format")) {
        ("number", _) => Scalar::Number,
        ("integer", _) => Scalar::Integer,
        ("boolean", _) => Scalar::Boolean,
        (_, None) => Scalar::Text,
        (_, Some(format)) => match format.as_str() {
            Some("date") => Scalar::Date,
            Some("date-time") => Scalar::DateTime,
            _ => {
                return Err(SchemaError::unsupported(
                    &child_pointer(at, "format"),
                    "the formats are date and date-time; describe others with \"description\" or \
                     \"pattern\""
                        .into(),
                ));
            }
        },
    };
    let Some(listed) = members.get("enum") else {
        return Ok((Kind::Leaf(Leaf { scalar, choices: Vec::new() }), false));
    };
    let fits = |choice: &Value| match scalar {
        Scalar::Text | Scalar::Date | Scalar::DateTime => choice.is_string(),
        Scalar::Number => choice.is_number(),
        Scalar::Integer => choice.is_i64() || choice.is_u64(),
        Scalar::Boolean => choice.is_boolean(),
    };
    let listed = listed.as_array().map_or(&[][..], Vec::as_slice);
    let choices: Vec<Value> = listed.iter().filter(|choice| !choice.is_null()).cloned().collect();
    if choices.is_empty() || !choices.iter().all(fits) {
        return Err(SchemaError::malformed(
            &child_pointer(at, "enum"),
            format!("\"enum\" lists at least one value, all of type {type_name:?}"),
        ));
    }
    let with_null = choices.len() < listed.len();
    Ok((Kind::Leaf(Leaf { scalar, choices }), with_null))
}
