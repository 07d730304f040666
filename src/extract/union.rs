//! Merges alternative schemas for one place.
//!
//! A choice is unambiguous if each value of a document belongs to one of its schemas: a number or text, an integer or
//! any number, one list of values or another. A choice between two objects, between a date and a date-time, or between
//! a boolean and text is ambiguous, because the model would have to guess.

use std::collections::HashMap;
use std::mem;

use super::choices::deduplicate;
use super::keywords::{Members, binds_numbers};
use super::node::{Leaf, Node, NodeKind, Scalar};

/// Whether two of `nodes` allow the same value.
pub(super) fn overlap(nodes: &[Node]) -> bool {
    let leaves: Vec<&Leaf> = nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Leaf(leaf) => Some(&**leaf),
            _ => None,
        })
        .collect();
    let mut listed_by = HashMap::new();
    leaves.iter().enumerate().any(|(index, one)| {
        if one.choices.is_empty() {
            return leaves[index + 1..].iter().any(|other| share_a_type(one, other));
        }
        one.choices.iter().any(|choice| *listed_by.entry(choice).or_insert(index) != index)
    })
}

fn share_a_type(one: &Leaf, other: &Leaf) -> bool {
    // An integer is also a number.
    let wide = |name: &'static str| if name == "integer" { "number" } else { name };
    let types = |leaf: &Leaf| leaf.scalar.type_names().iter().map(|name| wide(name));
    types(one).any(|name| types(other).any(|other| other == name))
}

/// Merges the alternatives `nodes`; `None` if the result would be ambiguous.
pub(super) fn union(mut nodes: Vec<Node>) -> Option<Node> {
    if nodes.len() <= 1 {
        return nodes.pop();
    }
    // The lists are joined once instead of being copied for each node.
    let mut lists = Vec::with_capacity(nodes.len());
    for node in &mut nodes {
        let NodeKind::Leaf(leaf) = &mut node.kind else { return None };
        lists.push(mem::take(&mut leaf.choices));
    }
    if lists.iter().any(Vec::is_empty) && !lists.iter().all(Vec::is_empty) {
        return None;
    }
    let mut nodes = nodes.into_iter();
    let first = nodes.next()?;
    let mut united = nodes.try_fold(first, |one, other| either(&one, &other))?;
    if let NodeKind::Leaf(leaf) = &mut united.kind {
        leaf.choices = lists.into_iter().flatten().collect();
        deduplicate(&mut leaf.choices);
    }
    Some(united)
}

/// Merges two alternatives without their lists of values.
fn either(one: &Node, other: &Node) -> Option<Node> {
    let (NodeKind::Leaf(leaf), NodeKind::Leaf(another)) = (&one.kind, &other.kind) else {
        return None;
    };
    let scalar = leaf.scalar.or(another.scalar).or_else(|| another.scalar.or(leaf.scalar))?;
    let constraints = either_rules(leaf.scalar, another.scalar, one, other)?;
    let nullable = one.nullable || other.nullable;
    let kind = NodeKind::leaf(scalar, Vec::new());
    Some(Node { nullable, title: None, description: None, kind, constraints })
}

/// Merges the rules of a choice. Rules for numbers apply only to numbers, and rules for text only to text.
fn either_rules(scalar: Scalar, another: Scalar, one: &Node, other: &Node) -> Option<Members> {
    if scalar == another {
        return (one.constraints == other.constraints).then(|| one.constraints.clone());
    }
    // An integer is also a number, so only the rules for numbers apply to a choice of the two.
    let is_wider =
        |scalar| matches!(scalar, Scalar::Number | Scalar::NumberOrText | Scalar::Decimal);
    let has_whole = |scalar| matches!(scalar, Scalar::Integer | Scalar::IntegerOrText);
    let mut rules = Members::new();
    for (node, drops_numbers) in [
        (one, has_whole(scalar) && is_wider(another)),
        (other, has_whole(another) && is_wider(scalar)),
    ] {
        for (rule, value) in &node.constraints {
            if drops_numbers && binds_numbers(rule) {
                continue;
            }
            if rules.get(rule).is_some_and(|known| known != value) {
                return None;
            }
            rules.insert(rule.clone(), value.clone());
        }
    }
    Some(rules)
}
