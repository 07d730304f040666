//! Names of fields, and the forms of their values.
//!
//! A field of a schema is looked up by the words of its key (`invoiceNo`, `invoice_number` and `发票号码` are equal). The
//! names of its concept are then the labels to look for on the page.

use crate::reader::concepts::{CONCEPTS, Concept, Kind};

/// The concept of a key, given as its words in lower case with spaces between them.
pub(crate) fn concept(key: &str) -> Option<&'static Concept> {
    CONCEPTS.iter().find(|concept| concept.names.contains(&key))
}

/// Whether a concept has this name.
pub(crate) fn is_label(words: &str) -> bool {
    concept(words).is_some()
}

/// The form of an unknown field's value, derived from its key and its schema.
pub(crate) fn guessed_kind(key: &str, hint: &str) -> Kind {
    let says = |words: &[&str]| {
        let hint = hint.to_lowercase();
        words.iter().any(|word| key.contains(word) || hint.contains(word))
    };
    if says(&["date", "日期"]) {
        Kind::Date
    } else if says(&[
        "amount",
        "price",
        "cost",
        "fee",
        "金额",
        "价格",
        "单价",
        "money",
        "currency amount",
    ]) {
        Kind::Amount
    } else if says(&["phone", "mobile", "fax", "电话"]) {
        Kind::Phone
    } else if says(&["email", "e mail", "邮箱"]) {
        Kind::Email
    } else if key.split(' ').any(|word| matches!(word, "no" | "number" | "id" | "code"))
        || says(&["号码", "编号", "代码"])
    {
        Kind::Identifier
    } else if says(&["quantity", "qty", "count", "数量"]) {
        Kind::Number
    } else if key.split(' ').any(|word| word == "time") || says(&["时间"]) {
        Kind::Time
    } else {
        Kind::Text
    }
}

/// The words of a key: split at underscores, hyphens and capitals, in lower case.
pub(crate) fn words_of_key(key: &str) -> String {
    let mut words = String::new();
    let mut previous = ' ';
    for character in key.chars() {
        let starts_word = character.is_uppercase() && previous.is_lowercase();
        if matches!(character, '_' | '-' | ' ' | '.') {
            if !words.ends_with(' ') {
                words.push(' ');
            }
        } else {
            if starts_word {
                words.push(' ');
            }
            words.extend(character.to_lowercase());
        }
        previous = character;
    }
    words.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_key_are_one_concept() {
        for key in ["invoiceNo", "invoice_no", "Invoice-No", "invoice no"] {
            assert_eq!(words_of_key(key), "invoice no");
        }
        let kind = |key: &str| concept(&words_of_key(key)).map(|concept| concept.kind);
        assert_eq!(kind("totalAmount"), Some(Kind::Amount));
        assert_eq!(kind("发票号码"), Some(Kind::Identifier));
        assert_eq!(kind("membership_tier"), None);
    }

    #[test]
    fn no_name_belongs_to_two_concepts() {
        let names: Vec<&str> = CONCEPTS.iter().flat_map(|concept| concept.names).copied().collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name} is there twice");
        }
    }

    #[test]
    fn the_kind_of_an_unknown_field_is_guessed_from_its_key_and_hint() {
        assert_eq!(guessed_kind("warranty date", ""), Kind::Date);
        assert_eq!(guessed_kind("policy no", ""), Kind::Identifier);
        assert_eq!(guessed_kind("deposit", "amount in dollars"), Kind::Amount);
        assert_eq!(guessed_kind("colour", ""), Kind::Text);
    }
}
