//! The model's answer for one page of a document, kept until all pages are read.
//!
//! Between the two, up to a hundred answers wait for the last page. A tree takes many times the memory of its text, so
//! an answer waits as compact JSON, and its length is what it takes.

use crate::json::{self, Spelling, Tree};

/// The answer for one page, as compact JSON in the digits that the model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAnswer {
    pub(super) page: u32,
    json: String,
}

impl PageAnswer {
    /// The answer for page `page`, counted from 1.
    pub fn of(page: u32, answer: &Tree) -> Self {
        Self { page, json: answer.to_string() }
    }

    /// The memory of the answer, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.json.len() as u64
    }

    /// The values of its fields, each on a line.
    pub fn values(&self) -> String {
        let mut values = String::new();
        append_values(&self.tree(), &mut values);
        values
    }

    /// The answer as a tree.
    pub(super) fn tree(&self) -> Tree {
        // The text was made from a tree. Numbers that are no JSON, such as 007, are in it as the model wrote them.
        json::prefix(&self.json, Spelling::Loose).map_or(Tree::Null, |(tree, _)| tree)
    }
}

fn append_values(tree: &Tree, values: &mut String) {
    match tree {
        Tree::Null => {}
        Tree::Bool(value) => values.push_str(if *value { "true\n" } else { "false\n" }),
        Tree::Number(value) | Tree::String(value) => {
            values.push_str(value);
            values.push('\n');
        }
        Tree::Array(items) => {
            for item in items {
                append_values(item, values);
            }
        }
        Tree::Object(members) => {
            for (_, member) in members {
                append_values(member, values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was_written() {
        let written = "{'a': [007, 12.50, 24952000000010910141, -0, 1e5, .5, 'x\"\\u0000', None, true], \"a\": {}}";
        let (tree, _) = json::prefix(written, Spelling::Loose).unwrap();
        let answer = PageAnswer::of(1, &tree);
        assert_eq!(answer.tree(), tree);
        assert_eq!(answer.bytes(), answer.json.len() as u64);
    }

    #[test]
    fn its_values_are_told_without_the_names_of_fields() {
        let (tree, _) =
            json::prefix("{'a': [007, null, {'b': 'x y'}], 'c': true}", Spelling::Loose).unwrap();
        assert_eq!(PageAnswer::of(1, &tree).values(), "007\nx y\ntrue\n");
    }
}
