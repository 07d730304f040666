use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn loose(text: &str) -> Result<Tree, Damage> {
    prefix(text, Spelling::Loose).map(|(tree, _)| tree)
}

#[test]
fn what_is_no_character_is_told_as_such_and_the_rest_is_kept() {
    for (written, expected) in [
        (&br#""a \ud83d""#[..], "a \u{fffd}"),
        (br#""\ude00\ud83d!""#, "\u{fffd}\u{fffd}!"),
        (br#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (br#""\ud83d\n""#, "\u{fffd}\n"),
        (b"\"a\xff\xe4\xb8\"", "a\u{fffd}\u{fffd}"),
        (b"\"\xed\xa0\xbd\"", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\"\x01\n\"", "\u{1}\n"),
        (br#""\u12 \q""#, "\u{fffd}u12 \u{fffd}q"),
        (br#""\u+123""#, "\u{fffd}u+123"),
        ("\"\\u12é4\"".as_bytes(), "\u{fffd}u12é4"),
        (br#""\"\\\/\b\f\n\r\tA""#, "\"\\/\u{8}\u{c}\n\r\tA"),
    ] {
        assert_eq!(read(written), Ok(Tree::String(expected.to_owned())));
    }
}

#[test]
fn numbers_keep_their_digits() {
    for number in ["24952000000010910141", "12.50", "1e5", "-0", "0.10", "1E+400"] {
        assert_eq!(read(number.as_bytes()), Ok(Tree::Number(number.to_owned())));
        assert_eq!(Tree::Number(number.to_owned()).to_string(), number);
    }
    for number in ["007", "+5", ".5", "5.", "-.5"] {
        assert!(read(number.as_bytes()).is_err(), "{number}");
        assert_eq!(loose(number), Ok(Tree::Number(number.to_owned())));
    }
    for none in ["-", "1e", "1e+", ".", "+", "2024-01-05", "1.2.3", "0x1", "--1", "e5"] {
        assert!(loose(&format!("[{none}]")).is_err(), "{none}");
    }
}

#[test]
fn tokens_are_whole_numbers_however_they_are_written() {
    let tokens = |text: &str| Tree::Number(text.to_owned()).as_u64();
    assert_eq!(["752", "752.0", "0"].map(tokens), [Some(752), Some(752), Some(0)]);
    assert_eq!(["-1", "0.5", "1e3", "18446744073709551616"].map(tokens), [None; 4]);
}

#[test]
fn of_two_members_of_one_name_the_last_is_found_and_both_are_kept() {
    let tree = read(br#"{"a":1,"b":{"c":[null,"x"]},"a":2}"#).unwrap();
    assert_eq!((tree["a"].as_u64(), tree["z"].as_u64()), (Some(2), None));
    assert_eq!(tree.pointer("/b/c/1").and_then(Tree::as_str), Some("x"));
    assert_eq!(tree.to_string(), r#"{"a":1,"b":{"c":[null,"x"]},"a":2}"#);
}

#[test]
fn bytes_around_an_answer_mean_nothing_unless_they_begin_another() {
    for around in ["\u{feff}{} \r\n", "{}\0", "{}]", " {};"] {
        assert_eq!(read(around.as_bytes()), Ok(Tree::Object(Vec::new())), "{around:?}");
    }
    assert_eq!(read(b"{}{}"), Err(Damage::NotJson { at: 2 }));
    assert_eq!(read(b"{\"a\":"), Err(Damage::CutOff));
    assert_eq!(read(b"{'a':1}"), Err(Damage::NotJson { at: 1 }));
    assert_eq!(read(b"[1,]"), Err(Damage::NotJson { at: 3 }));
}

#[test]
fn what_python_prints_is_read_where_it_is_asked_for() {
    let written = r"{'a': None, 'b': [True, False,], 'c': 'it\'s \xe9 \U0001f600', } // done";
    let expected = json!({ "a": null, "b": [true, false], "c": "it's é \u{1f600}" });
    assert_eq!(loose(written), Ok(Tree::from(&expected)));
    assert_eq!(loose("{/* x */\"a\": // y\n1}"), Ok(Tree::from(&json!({ "a": 1 }))));
    for (tuple, list) in [
        ("()", json!([])),
        ("('a',)", json!(["a"])),
        ("(1, (2, None))", json!([1, [2, null]])),
        ("(1)", json!(1)),
    ] {
        assert_eq!(loose(tuple), Ok(Tree::from(&list)), "{tuple}");
        assert!(read(tuple.as_bytes()).is_err(), "{tuple}");
    }
    for none in [
        "(,)",
        "(1",
        "(1]",
        "('a' 'b')",
        "[,]",
        "[1,,2]",
        "{,}",
        r#""\q""#,
        "['a' 'b']",
        "[1 2]",
        "{'a' 1}",
        "[Nothing]",
    ] {
        assert!(loose(none).is_err(), "{none}");
    }
}

#[test]
fn a_member_is_found_in_what_is_cut_or_broken_elsewhere() {
    let usage = |text: &str| outermost_member(text.as_bytes(), "usage").map(|u| u.to_string());
    for text in [
        r#"{"choices":[{"message":"a" "b"}],"usage":{"n":1}}"#,
        r#"{"usage":{"n":1},"choices":[{"message":"cut"#,
        r#"{"usage":{"n":2},"x":{"usage":{"n":3}},"usage":{"n":1},"y":["#,
        "\u{feff}{\"a\":\"\\\"usage\\\":{}\", \"usage\" : {\"n\":1}} {",
    ] {
        assert_eq!(usage(text).as_deref(), Some("{\"n\":1}"), "{text}");
    }
    for text in [
        r#"{"content":"usage","x":{"usage":{"n":1}}}"#,
        r#"{"content":"\"usage\":{\"n\":1}"}"#,
        r#"{"usage":{"n":1"#,
        "\"usage\":{\"n\":1}",
        "",
    ] {
        assert_eq!(usage(text), None, "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_before_the_stack_is_spent() {
    assert!(matches!(loose(&"(".repeat(1_000_000)), Err(Damage::NotJson { .. })));
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(1_000_000);
        assert!(matches!(read(deep.as_bytes()), Err(Damage::NotJson { .. })));
        assert_eq!(outermost_member(deep.as_bytes(), "a").map(|tree| tree.to_string()), None);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_reads_as_what_it_says_in_both_spellings(value in any_json()) {
        let expected = Tree::from(&value);
        for text in [value.to_string(), format!("{value:#}")] {
            prop_assert_eq!(read(text.as_bytes()), Ok(expected.clone()));
            prop_assert_eq!(prefix(&text, Spelling::Loose), Ok((expected.clone(), text.len())));
        }
        prop_assert_eq!(expected.to_string(), value.to_string());
        prop_assert_eq!(format!("{expected:#}"), format!("{value:#}"));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&bytes);
        let _ = outermost_member(&bytes, "a");
    }

    #[test]
    fn any_text_out_of_the_signs_of_json_is_answered(text in r#"[\[\](){}:,"'\\ueE0-9.+\-aNT/* é]{0,24}"#) {
        let known = serde_json::from_str::<Value>(&text);
        if let Ok(value) = known {
            prop_assert_eq!(read(text.as_bytes()).map(|tree| tree.is_object()), Ok(value.is_object()));
        }
        let _ = loose(&text);
        let _ = outermost_member(text.as_bytes(), "a");
    }
}

#[test]
fn values_are_counted_without_a_tree() {
    for (text, values) in [
        ("1", 1),
        ("[]", 1),
        (" [ ] ", 1),
        ("[[]]", 2),
        ("[1, 2]", 3),
        (r#"{"a": {"b": [1, {"c": []}]}, "d": ""}"#, 7),
        (r#"["[,\\", "\"],[", {}]"#, 4),
    ] {
        assert_eq!(count_values(text), values, "{text}");
    }
}

#[test]
fn a_tree_counts_the_bytes_of_its_text_without_writing_it() {
    for (text, bytes) in [
        ("null", 4),
        ("false", 5),
        ("12.50", 5),
        (r#""abc""#, 5),
        ("[]", 2),
        (r#"{"a":[1,true,"b"]}"#, 18),
    ] {
        let tree = read(text.as_bytes()).unwrap();
        let counted = tree.unescaped_bytes();
        assert!((bytes..=bytes + 4).contains(&counted), "{text}: {counted}");
    }
    let long = Tree::Array(vec![Tree::String("x".repeat(1000)); 20]);
    assert!(long.unescaped_bytes() >= long.to_string().len());
}
