//! Reads the JSON of a schema into the tree that the rest of the module uses.
//!
//! References are resolved here, and the three spellings of a nullable type become one flag, so other modules need not
//! handle them. Every keyword is classified as a rule, an annotation or an error with a pointer.
//!
//! References can make a short schema deep and large. The reader counts both during the descent and rejects an excess
//! before it reads further. Later code may recurse over the tree, which has at most [`MAX_LEVELS`] objects in depth,
//! each with a list around it.

use std::collections::HashSet;

use serde_json::Value;

use super::child_pointer;
use super::choices::{Choice, deduplicate};
use super::error::SchemaError;
use super::keywords::{
    CHECKED_FORMATS, Members, TYPES, constraints, keywords_of, known_keywords, pattern_of_decimals,
};
use super::limits::{
    MAX_LEVELS, MAX_NAME_BYTES, MAX_PROPERTIES, byte_length, count_values, refuse_longer,
    refuse_more,
};
use super::node::{Node, NodeKind, Property, Scalar};
use super::pattern::Patterns;
use super::union::{overlap, union};

/// The largest nesting of schemas, with references followed. Three levels of fields take 21 schemas if a reference and
/// a choice precede the root, each list and each of its elements; the rest is a margin. Each schema takes a few stack
/// frames.
const MAX_DEPTH: usize = 32;

/// The keywords of definitions. A definition belongs to the schema only where it is used.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Reads a whole schema.
pub(super) fn read(value: &Value) -> Result<Node, SchemaError> {
    let patterns = Patterns::default();
    let mut reader = SchemaReader {
        document: value,
        open: Vec::new(),
        properties: 0,
        bytes: 0,
        values: 0,
        patterns,
    };
    reader.measure(value)?;
    let root = reader.node(value, "", SchemaPlace::default())?;
    match root.kind {
        NodeKind::Object(_) => Ok(root),
        _ => Err(SchemaError::malformed(
            "",
            format!(
                "a schema begins with \"type\": \"object\" and names its fields under \
                 \"properties\"; this one is of type {:?}",
                root.kind.type_names().join(" or ")
            ),
        )),
    }
}

struct SchemaReader<'s> {
    document: &'s Value,
    /// The references that are being resolved, for the detection of cycles.
    open: Vec<&'s str>,
    properties: usize,
    /// Bytes of the schema so far, with each use of a definition counted.
    bytes: u64,
    /// Number of values so far, counted the same way.
    values: u64,
    patterns: Patterns,
}

/// The position of a schema within other schemas.
#[derive(Debug, Clone, Copy, Default)]
struct SchemaPlace<'p> {
    /// Number of enclosing objects.
    level: usize,
    /// Number of enclosing schemas, including references and choices.
    depth: usize,
    /// The pointer to the enclosing element schema of a list, if only references and choices lie between.
    element: Option<&'p str>,
}

impl<'s> SchemaReader<'s> {
    /// Adds a schema to the totals before it is read.
    fn measure(&mut self, schema: &Value) -> Result<(), SchemaError> {
        let members = schema.as_object().into_iter().flatten();
        for (keyword, value) in members.filter(|(word, _)| !DEFINITIONS.contains(&word.as_str())) {
            let bytes = byte_length(value).saturating_add(keyword.len() as u64);
            self.bytes = self.bytes.saturating_add(bytes);
            self.values += count_values(value);
        }
        refuse_longer(self.bytes)?;
        refuse_more(self.values)
    }

    fn node(
        &mut self,
        schema: &'s Value,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<Node, SchemaError> {
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
        let inside = SchemaPlace { depth: place.depth + 1, ..place };
        let mut node = if let Some(target) = members.get("$ref") {
            known_keywords(members, at, &["$ref"])?;
            self.reference(target, &child_pointer(at, "$ref"), inside)?
        } else if let Some((keyword, list)) =
            ["anyOf", "oneOf"].iter().find_map(|&keyword| members.get_key_value(keyword))
        {
            known_keywords(members, at, &[keyword, "discriminator"])?;
            self.alternative(list, keyword == "oneOf", &child_pointer(at, keyword), inside)?
        } else if let Some(list) = members.get("allOf") {
            known_keywords(members, at, &["allOf"])?;
            self.conjunction(list, &child_pointer(at, "allOf"), inside)?
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
        place: SchemaPlace<'_>,
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

    /// Reads a choice between a schema and null, or between leaves that have an unambiguous union. If it is
    /// `exclusive`, the alternatives must not allow the same value.
    fn alternative(
        &mut self,
        list: &'s Value,
        exclusive: bool,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<Node, SchemaError> {
        let list = list.as_array().map_or(&[][..], Vec::as_slice);
        let is_null = |member: &Value| member.get("type").is_some_and(|name| name == "null");
        let mut nodes = Vec::new();
        for (index, member) in list.iter().enumerate().filter(|(_, member)| !is_null(member)) {
            nodes.push(self.node(member, &format!("{at}/{index}"), place)?);
        }
        let is_nullable = nodes.len() < list.len();
        let contradicts = exclusive && overlap(&nodes);
        let Some(mut node) = union(nodes).filter(|_| !contradicts) else {
            return Err(SchemaError::unsupported(
                at,
                "a choice is between one schema and {\"type\": \"null\"}, a number and text, or listed \
                 values; ask for several objects or types in fields of their own"
                    .into(),
            ));
        };
        node.nullable |= is_nullable;
        Ok(node)
    }

    /// Reads `allOf`, which may contain only one schema.
    fn conjunction(
        &mut self,
        list: &'s Value,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<Node, SchemaError> {
        match list.as_array().map(Vec::as_slice) {
            Some([member]) => self.node(member, &format!("{at}/0"), place),
            _ => Err(SchemaError::unsupported(
                at,
                "\"allOf\" has one schema here; write the fields of several into one object".into(),
            )),
        }
    }

    fn typed(
        &mut self,
        members: &'s Members,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<Node, SchemaError> {
        let Types { names, null } = declared_types(members, at)?;
        let keywords = names.iter().flat_map(|name| {
            let (structure, rules) = keywords_of(name);
            structure.iter().chain(rules).copied()
        });
        known_keywords(members, at, &keywords.collect::<Vec<_>>())?;
        let mut nodes = Vec::new();
        for &name in &names {
            let constraints = constraints(members, at, keywords_of(name).1, &mut self.patterns)?;
            let (kind, nullable) = match name {
                "object" => (self.object(members, at, place)?, false),
                "array" => (self.array(members, at, place)?, false),
                _ => leaf(name, names.len() > 1, members, at)?,
            };
            let mut node = Node { nullable, title: None, description: None, kind, constraints };
            keep_format(&mut node, members);
            // With several types, a type may have none of the listed values.
            let is_empty = matches!(&node.kind, NodeKind::Leaf(leaf) if leaf.choices.is_empty());
            if !(is_empty && names.len() > 1 && has_choices(members)) {
                nodes.push(node);
            }
        }
        let Some(mut node) = union(nodes) else {
            return Err(SchemaError::unsupported(
                &child_pointer(at, "type"),
                "a field has one type, or is a number or text, with or without \"null\" beside it"
                    .into(),
            ));
        };
        node.nullable |= null;
        Ok(node)
    }

    fn object(
        &mut self,
        members: &'s Members,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<NodeKind, SchemaError> {
        if place.level >= MAX_LEVELS {
            return Err(SchemaError::TooDeep { pointer: at.to_owned(), allowed: MAX_LEVELS });
        }
        let inside = child_pointer(at, "properties");
        let has_free_names = members.get("additionalProperties").is_some_and(Value::is_object);
        if has_free_names && !members.contains_key("properties") {
            return Err(SchemaError::unsupported(
                &child_pointer(at, "additionalProperties"),
                "an object of any names cannot be asked for; ask for an array of objects with a name and a \
                 value"
                    .into(),
            ));
        }
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
        let inner = SchemaPlace { level: place.level + 1, element: None, ..place };
        let mut properties = Vec::with_capacity(fields.len());
        for (name, schema) in fields {
            if name.len() > MAX_NAME_BYTES {
                return Err(SchemaError::NameTooLong {
                    pointer: inside,
                    actual: name.len(),
                    allowed: MAX_NAME_BYTES,
                });
            }
            let pointer = child_pointer(&inside, name);
            self.properties += 1;
            if self.properties > MAX_PROPERTIES {
                return Err(SchemaError::TooManyProperties { pointer, allowed: MAX_PROPERTIES });
            }
            let node = self.node(schema, &pointer, inner)?;
            let required = required.contains(name.as_str());
            properties.push(Property { name: name.clone(), required, node });
        }
        Ok(NodeKind::Object(properties))
    }

    fn array(
        &mut self,
        members: &'s Members,
        at: &str,
        place: SchemaPlace<'_>,
    ) -> Result<NodeKind, SchemaError> {
        if let Some(element) = place.element {
            return Err(SchemaError::unsupported(
                element,
                "an array of arrays cannot be asked for; make the inner one a field of an object"
                    .into(),
            ));
        }
        let listed = members.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice);
        let (pointer, schema) = match (members.get("items"), listed) {
            (Some(items), None) if items.is_object() => (child_pointer(at, "items"), items),
            (None, Some([first, others @ ..])) if others.iter().all(|other| other == first) => {
                (child_pointer(&child_pointer(at, "prefixItems"), "0"), first)
            }
            (_, Some(_)) => {
                return Err(SchemaError::unsupported(
                    &child_pointer(at, "prefixItems"),
                    "the elements of an array are of one kind; make an object with a field for each"
                        .into(),
                ));
            }
            _ => {
                return Err(SchemaError::malformed(
                    at,
                    "an array says what its elements are, such as \"items\": {\"type\": \"string\"}"
                        .into(),
                ));
            }
        };
        let item = self.node(schema, &pointer, SchemaPlace { element: Some(&pointer), ..place })?;
        Ok(NodeKind::Array(Box::new(item)))
    }
}

/// The types of a place.
struct Types<'s> {
    names: Vec<&'s str>,
    /// Whether null is one of the types.
    null: bool,
}

fn declared_types<'s>(members: &'s Members, at: &str) -> Result<Types<'s>, SchemaError> {
    let Some(declared) = members.get("type") else {
        return Ok(Types { names: implied_types(members, at)?, null: false });
    };
    let pointer = child_pointer(at, "type");
    let listed = match declared {
        Value::Array(names) => names.as_slice(),
        single => std::slice::from_ref(single),
    };
    let kept = || listed.iter().filter(|name| *name != "null");
    let known = |name: &'s Value| name.as_str().filter(|name| TYPES.contains(name));
    match kept().map(known).collect::<Option<Vec<_>>>() {
        Some(names) if names.is_empty() => Err(SchemaError::unsupported(
            &pointer,
            "a field has a type, with or without \"null\" beside it".into(),
        )),
        Some(names) => Ok(Types { null: names.len() < listed.len(), names }),
        None => Err(SchemaError::malformed(
            &pointer,
            format!(
                "the types are {}; a date is a string with \"format\": \"date\"",
                TYPES.join(", ")
            ),
        )),
    }
}

/// The types that follow from the other keywords.
fn implied_types(members: &Members, at: &str) -> Result<Vec<&'static str>, SchemaError> {
    if members.contains_key("properties") {
        return Ok(vec!["object"]);
    }
    if members.contains_key("items") || members.contains_key("prefixItems") {
        return Ok(vec!["array"]);
    }
    let choices = choices(members, at)?.unwrap_or_default();
    let is_whole = choices.iter().filter(|choice| choice.is_number()).all(is_whole);
    let number = if is_whole { "integer" } else { "number" };
    let has = |is_of: fn(&Value) -> bool| choices.iter().any(is_of);
    let types = [
        ("string", has(Value::is_string)),
        (number, has(Value::is_number)),
        ("boolean", has(Value::is_boolean)),
    ];
    let names: Vec<_> = types.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
    if names.is_empty() {
        let detail = format!("this needs a \"type\": one of {}", TYPES.join(", "));
        return Err(SchemaError::malformed(at, detail));
    }
    Ok(names)
}

fn is_whole(number: &Value) -> bool {
    number.is_i64() || number.is_u64()
}

fn has_choices(members: &Members) -> bool {
    members.contains_key("enum") || members.contains_key("const")
}

/// The listed values of a place; `None` if all values are allowed.
fn choices<'s>(members: &'s Members, at: &str) -> Result<Option<&'s [Value]>, SchemaError> {
    let listed = members.get("enum").map(|listed| listed.as_array().map_or(&[][..], Vec::as_slice));
    let Some(only) = members.get("const") else { return Ok(listed) };
    if listed.is_some_and(|listed| !listed.contains(only)) {
        return Err(SchemaError::malformed(
            &child_pointer(at, "const"),
            "\"const\" is one of the values of \"enum\"".into(),
        ));
    }
    Ok(Some(std::slice::from_ref(only)))
}

/// Lets the validator check the format of text that is not coerced.
fn keep_format(node: &mut Node, members: &Members) {
    let is_text = matches!(&node.kind, NodeKind::Leaf(leaf) if leaf.scalar == Scalar::Text);
    if let Some(format) = members.get("format").filter(|_| is_text) {
        node.constraints.insert("format".into(), format.clone());
    }
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
) -> Result<HashSet<&'s str>, SchemaError> {
    let pointer = child_pointer(at, "required");
    let list = match members.get("required") {
        None => return Ok(HashSet::new()),
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

/// Reads a place for a single value; also returns whether null is one of its choices. If it is `one_of` several types,
/// values of the other types are skipped.
fn leaf(
    type_name: &str,
    one_of: bool,
    members: &Members,
    at: &str,
) -> Result<(NodeKind, bool), SchemaError> {
    let scalar = match type_name {
        "number" => Scalar::Number,
        "integer" => Scalar::Integer,
        "boolean" => Scalar::Boolean,
        _ => text_scalar(members, at)?,
    };
    let Some(listed) = choices(members, at)? else {
        return Ok((NodeKind::leaf(scalar, Vec::new()), false));
    };
    let fits = |choice: &Value| match scalar {
        Scalar::Number => choice.is_number(),
        Scalar::Integer => is_whole(choice),
        Scalar::Boolean => choice.is_boolean(),
        _ => choice.is_string(),
    };
    let mut fitting: Vec<&Value> = listed.iter().filter(|value| fits(value)).collect();
    let nulls = listed.iter().filter(|value| value.is_null()).count();
    if !one_of && (fitting.is_empty() || fitting.len() + nulls < listed.len()) {
        let keyword = if members.contains_key("enum") { "enum" } else { "const" };
        return Err(SchemaError::malformed(
            &child_pointer(at, keyword),
            format!("{keyword:?} lists at least one value, all of type {type_name:?}"),
        ));
    }
    deduplicate(&mut fitting);
    let mut choices = Vec::with_capacity(fitting.len());
    choices.extend(fitting.into_iter().filter_map(Choice::of));
    Ok((NodeKind::leaf(scalar, choices), nulls > 0))
}

/// The scalar type of a text place.
fn text_scalar(members: &Members, at: &str) -> Result<Scalar, SchemaError> {
    let pattern = members.get("pattern").and_then(Value::as_str);
    let Some(format) = members.get("format") else {
        let is_decimal = pattern.and_then(pattern_of_decimals).is_some();
        return Ok(if is_decimal { Scalar::Digits } else { Scalar::Text });
    };
    let format = format.as_str().unwrap_or_default();
    let version = format.strip_prefix("uuid").and_then(|version| version.parse().ok());
    match format {
        "date" => Ok(Scalar::Date),
        "date-time" => Ok(Scalar::DateTime),
        "time" => Ok(Scalar::Time),
        "uuid" => Ok(Scalar::Uuid(None)),
        _ if version.is_some_and(|version| (1..=8).contains(&version)) => Ok(Scalar::Uuid(version)),
        _ if CHECKED_FORMATS.contains(&format) => Ok(Scalar::Text),
        _ => Err(SchemaError::unsupported(
            &child_pointer(at, "format"),
            format!(
                "the formats are date, date-time, time, uuid, {}; describe others with \"description\" or \
                 \"pattern\"",
                CHECKED_FORMATS.join(", ")
            ),
        )),
    }
}
