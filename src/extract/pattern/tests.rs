use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::extract::pattern::weight::MAX_PATTERN_BYTES;

/// Common patterns for documents, each with a text that it matches.
pub(in crate::extract) const OF_DOCUMENTS: [(&str, &str); 44] = [
    (r"^\d{4}-\d{2}-\d{2}$", "2024-01-31"),
    (r"^(0[1-9]|[12]\d|3[01])\.(0[1-9]|1[0-2])\.(19|20)\d{2}$", "31.01.2024"),
    (r"^(?:19|20)\d\d[- /.](?:0[1-9]|1[012])[- /.](?:0[1-9]|[12][0-9]|3[01])$", "2024/01/31"),
    (
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})$",
        "2024-01-31T10:00:00Z",
    ),
    (r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", "23:59"),
    (r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$", "DE89370400440532013000"),
    (
        r"^[A-Z]{2}[0-9]{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?$",
        "DE89 3704 0044 0532 0130 00",
    ),
    (r"^[A-Z]{6}[A-Z0-9]{2}([A-Z0-9]{3})?$", "DEUTDEFF500"),
    (r"^DE\d{9}$", "DE136695976"),
    (
        r"^((AT)?U[0-9]{8}|(BE)?0[0-9]{9}|(BG)?[0-9]{9,10}|(DE)?[0-9]{9}|(FR)?[0-9A-Z]{2}[0-9]{9}|(IE)?[0-9]{7}[A-Z]{1,2}|(NL)?[0-9]{9}B[0-9]{2}|(PL)?[0-9]{10})$",
        "NL123456789B01",
    ),
    (r"^[A-Z]{1,2}[A-Z0-9]{2,12}$", "GB123456789"),
    (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "jane@example.org"),
    (
        r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        "j.d@example.org",
    ),
    (r"^https?://[^\s/$.?#].[^\s]*$", "https://example.org/a"),
    (r"^\+?[1-9]\d{1,14}$", "+4930123456"),
    (r"^[+]?[(]?[0-9]{3}[)]?[-\s.]?[0-9]{3}[-\s.]?[0-9]{4,6}$", "(030) 123-4567"),
    (r"^\d{5}(-\d{4})?$", "10115"),
    (r"^[A-Za-z]{1,2}\d[A-Za-z\d]?\s*\d[A-Za-z]{2}$", "SW1A 1AA"),
    (r"^[0-9]{4}\s?[A-Z]{2}$", "1012 AB"),
    (r"^-?\d{1,3}(,\d{3})*(\.\d{2})?$", "-1,234.50"),
    (r"^[€$£¥]\s?\d+(?:[.,]\d{2})?$", "€ 12,50"),
    (r"^[A-Z]{3}$", "EUR"),
    (r"^(EUR|USD|GBP|CHF|CNY|JPY|SEK|NOK|DKK|PLN|CZK|HUF)$", "CHF"),
    (r"^(100|[1-9]?\d)(\.\d{1,2})?\s?%$", "19 %"),
    (r"^INV-\d{4}-\d{6}$", "INV-2024-000001"),
    (r"^(?i)(invoice|rechnung|facture)\s*(no|nr|n°)?\.?\s*[\w/-]+$", "Rechnung Nr. 2024/17"),
    (r"(?i)^[a-zäöüß .'-]{1,80}$", "Jürgen Müller"),
    (r"^[\p{L}\p{M}' .-]{1,100}$", "José Ñuñez-O'Brien"),
    (r"^\p{Lu}\p{L}*(?:[ '-]\p{Lu}\p{L}*)*$", "Anna-Maria Müller"),
    (r"^[\u4e00-\u9fa5]{2,20}$", "王小明"),
    (r"^[一-龥]{2,4}(?:·[一-龥]{2,6})?$", "王小明"),
    (
        r"^[1-9]\d{5}(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d{3}[\dXx]$",
        "11010519491231002X",
    ),
    (r"^[0-9A-HJ-NPQRTUWXY]{2}\d{6}[0-9A-HJ-NPQRTUWXY]{10}$", "91350100M000100Y43"),
    (r"^[CG]\d{1,4}$", "G123"),
    (r"^\d{1,2}车\d{1,2}[A-F]号$", "05车12F号"),
    (r"^[A-Z0-9<]{44}$", "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<"),
    (r"^(?:4\d{12}(?:\d{3})?|5[1-5]\d{14}|3[47]\d{13})$", "4111111111111111"),
    (
        r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-5][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$",
        "67e55044-10b1-426f-9247-bb680e5fe0c8",
    ),
    (r"^(?P<year>\d{4})/(?P<number>\d+)$", "2024/17"),
    (r"^\S+$", "abc"),
    (r"^.{1,200}$", "anything"),
    (r"^\S.{0,198}\S$", "any thing"),
    (r"\bTotal\b", "Grand Total: 5"),
    (r"^[\s\S]*$", "a\nb"),
];

fn weighed(pattern: &str) -> Result<u64, PatternError> {
    ParsedPattern::of(pattern).map(|reading| reading.bytes())
}

/// Whether the pattern matches according to [`Matcher`].
fn matches(pattern: &str, text: &str) -> Option<bool> {
    Matcher::of(pattern).expect("a pattern").is_match(text, &mut Effort::default())
}

#[test]
fn the_patterns_of_documents_are_taken_together_and_match() {
    let mut patterns = Patterns::default();
    for (pattern, text) in OF_DOCUMENTS {
        assert_eq!(patterns.admit(pattern), Ok(()), "{pattern}");
        assert_eq!(matches(pattern, text), Some(true), "{pattern}");
        assert_eq!(matches(pattern, "\u{1f600}\n?"), Some(pattern == r"^[\s\S]*$"), "{pattern}");
    }
    assert!(patterns.bytes < MAX_PATTERNS_BYTES / 2, "{} bytes", patterns.bytes);
}

#[test]
fn a_hundred_fields_may_have_patterns_of_their_own() {
    let mut patterns = Patterns::default();
    for index in 0..100 {
        let pattern = format!(r"^\s*[A-Z]{{2}}[\w./-]{{1,30}}\s*/{index}$");
        assert_eq!(patterns.admit(&pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn a_pattern_that_is_used_again_weighs_nothing_more() {
    let mut patterns = Patterns::default();
    let heavy = r"^([\p{L}\p{N}\p{M}]{1,5}7)$";
    assert_eq!(patterns.admit(heavy), Ok(()));
    let bytes = patterns.bytes;
    (0..100).for_each(|_| assert_eq!(patterns.admit(heavy), Ok(())));
    assert_eq!(patterns.bytes, bytes);
}

#[test]
fn patterns_that_are_too_heavy_together_are_refused_with_both_numbers() {
    let mut patterns = Patterns::default();
    let heavy = |index: usize| format!(r"^([\p{{L}}\p{{N}}\p{{M}}]{{1,5}}7)$|x{index}");
    let refusal = (0..100).find_map(|index| patterns.admit(&heavy(index)).err());
    let Some(PatternError::TooHeavyTogether(bytes)) = refusal else { panic!("{refusal:?}") };
    assert!(bytes > MAX_PATTERNS_BYTES && bytes < MAX_PATTERNS_BYTES + MAX_PATTERN_BYTES);
}

#[test]
fn a_pattern_that_is_too_heavy_is_refused_before_it_becomes_what_it_would_weigh() {
    for pattern in [
        "((a{99}){99}){99}".to_owned(),
        "(?:a{1000}){1000}x".to_owned(),
        r"x\p{L}{1,1000}y".to_owned(),
        r"(?i)x\p{L}{1,1000}".to_owned(),
        r"\pL".repeat(5_000),
        (0..700)
            .map(|index| format!("[\\pL\\x{{{:x}}}]", 0x2500 + index))
            .collect::<Vec<_>>()
            .concat(),
        r"(?i)[\x{41}-\x{10ffff}]".repeat(100),
        r"(?i)\P{Lu}".repeat(100),
        "ab".repeat(20_000),
        (0..8_000).map(|index| format!("{index:x}|")).collect::<Vec<_>>().concat(),
        r"\s".repeat(500),
        r"\d".repeat(4_000),
        ".".repeat(2_000),
        r"\ca".repeat(4_000),
        format!("(?i){}", "k".repeat(5_000)),
    ] {
        let shown: String = pattern.chars().take(30).collect();
        assert!(matches!(weighed(&pattern), Err(PatternError::TooHeavy(_))), "{shown}");
    }
}

#[test]
fn what_is_no_regular_expression_is_refused() {
    for pattern in
        ["(", "[z-a]", "a{2,1}", "(?=x)", "(?<!x)", r"(a)\1", r"\p{Nonsense}", "*", r"\a"]
    {
        assert_eq!(weighed(pattern), Err(PatternError::NotRegular), "{pattern}");
    }
    let nested = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
    assert_eq!(weighed(&nested), Err(PatternError::NotRegular));
}

#[test]
fn control_letters_are_read_as_ecmascript_does() {
    assert_eq!(control_letters(r"a\cM\\cA\c1[\cz]"), r"a\x0d\\cA\c1[\x1a]");
    assert_eq!(matches(r"^\cJ$", "\n"), Some(true));
    assert_eq!(matches(r"^\\cJ$", r"\cJ"), Some(true));
    assert_eq!(weighed(r"\c1"), Err(PatternError::NotRegular));
}

#[test]
fn a_boundary_of_words_is_found_beside_letters_that_are_not_ascii() {
    assert_eq!(matches(r"\bMüller\b", "Frau Müller, Köln"), Some(true));
    assert_eq!(matches(r"\bller\b", "Müller"), Some(false));
}

#[test]
fn a_text_that_takes_too_much_work_is_not_decided() {
    let pattern = "(a?){400}a{400}z";
    assert_eq!(matches(pattern, &"a".repeat(100)), Some(false));
    let mut matcher = Matcher::of(pattern).expect("a pattern");
    let mut effort = Effort { steps: 100_000 };
    assert_eq!(matcher.is_match(&"a".repeat(30_000), &mut effort), None);
}

#[test]
fn rows_that_repeat_themselves_take_little_work() {
    let pattern = r"^\S.{0,198}\S$";
    let mut matcher = Matcher::of(pattern).expect("a pattern");
    let mut effort = Effort::default();
    for row in 0..2_000 {
        let text = format!("Position {row} of the invoice, delivered to Köln");
        assert_eq!(matcher.is_match(&text, &mut effort), Some(true), "row {row}: {effort:?}");
    }
    assert!(effort.steps > MAX_STEPS / 2, "{effort:?}");
}

/// The size in bytes of the compiled program; `None` if the pattern needs no program.
fn compiled(reading: &ParsedPattern) -> Option<u64> {
    let PatternForm::Expression(hir) = &reading.form else { return None };
    let config = Config::new().which_captures(WhichCaptures::None);
    let program = Compiler::new().configure(config).build_from_hir(hir).expect("a program");
    Some(program.memory_usage() as u64)
}

fn assert_weight_covers_program(pattern: &str) {
    // The tables that every program has.
    const FRAME: u64 = 1024;
    let Ok(reading) = ParsedPattern::of(pattern) else { return };
    if let Some(actual) = compiled(&reading) {
        let weight = reading.program;
        assert!(actual <= weight + FRAME, "{pattern}: {actual} bytes, weighed as {weight}");
    }
}

#[test]
fn no_program_is_larger_than_its_weight() {
    for (pattern, _) in OF_DOCUMENTS {
        assert_weight_covers_program(pattern);
    }
    let classes = [
        r"\p{L}",
        r"\P{L}",
        r"\p{Lu}",
        r"\p{Han}",
        r"\p{Greek}",
        r"[^a]",
        r"[^\p{N}]",
        ".",
        r"\s",
        "é",
        r"[\x{80}-\x{10ffff}]",
        r"[aé王😀]",
        "(?i)k",
        r"(?i)[a-z]",
        "(|)",
        "(a|b|)",
        "(?:abc|abd)",
        "a*",
        r"\b",
        "^",
    ];
    for class in classes {
        for pattern in [
            class.to_owned(),
            format!("(?:{class}){{3}}x"),
            format!("x(?:{class}){{2,7}}y"),
            format!("x(?:{class}){{2,}}y"),
            format!("(?:{class}|{class}1|2{class})*?"),
        ] {
            assert_weight_covers_program(&pattern);
        }
    }
}

fn expression_of(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        "[a-z]{1,4}",
        Just(r"\p{L}".to_owned()),
        Just(r"[^\p{N}-]".to_owned()),
        Just(".".to_owned()),
        Just(r"\w".to_owned()),
        Just("(?i:k)".to_owned()),
        Just("王".to_owned()),
        Just(String::new()),
        Just("$".to_owned()),
        Just("[à-ÿ]".to_owned()),
    ];
    leaf.prop_recursive(depth, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join("|"))),
            (inner.clone(), 0..9_u32, 0..9_u32)
                .prop_map(|(part, least, more)| format!("(?:{part}){{{least},{}}}", least + more)),
            (inner, prop::sample::select(vec!["*", "+", "?", "*?"]))
                .prop_map(|(part, count)| format!("(?:{part}){count}")),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_program_of_any_pattern_is_larger_than_its_weight(pattern in expression_of(4)) {
        assert_weight_covers_program(&pattern);
    }

    #[test]
    fn the_matcher_agrees_with_a_validator_of_json_schema(
        pattern in expression_of(3),
        text in "[a-zK王é \n1]{0,12}",
    ) {
        if let Some(mut matcher) = Matcher::of(&pattern) {
            let schema = json!({ "pattern": pattern });
            let options = jsonschema::PatternOptions::regex().size_limit(64 << 20);
            let validator = jsonschema::options().with_pattern_options(options).build(&schema);
            let expected = validator.expect("a schema").is_valid(&json!(text));
            prop_assert_eq!(matcher.is_match(&text, &mut Effort::default()), Some(expected), "{:?}", text);
        }
    }
}
