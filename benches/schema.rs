//! The cost of the worst schemas of `/extract`: peak memory and CPU time, checked against the promised limits.
//!
//! ```text
//! cargo bench --bench schema
//! ```
//!
//! Every schema is built to cost as much as possible, including schemas that are refused. The CPU time is that of the
//! thread (Linux), so that a busy machine does not change it. The exit code is 1 if a limit is exceeded.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ocr_gateway::capacity::account::ByteAccount;
use ocr_gateway::capacity::scratch::{Scratch, WORKS_AT_ONCE};
use ocr_gateway::extract::answer::parse_answer;
use ocr_gateway::extract::limits::MAX_VALUES;
use ocr_gateway::extract::page_answer::PageAnswer;
use ocr_gateway::extract::schema::{Schema, WORKING_BYTES, filling_bytes, merging_bytes};
use ocr_gateway::json;
use peak_alloc::PeakAlloc;
use prometheus::IntGauge;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most CPU time that one schema may take, from its text to the checked answer.
const MOST_CPU: Duration = Duration::from_millis(50);

/// Callers that send the same schema concurrently.
const CALLERS: usize = 40;
/// The most that each of them may hold while waiting for the upstream, text and schema. This is the fixed memory of a
/// request beside its upload.
const BYTES_EACH: usize = 256 << 10;

/// Listed values of the longest accepted list, with room for the schema around it.
#[expect(clippy::cast_possible_truncation, reason = "it is some thousand")]
const MOST_CHOICES: usize = MAX_VALUES as usize - 20;

/// A schema, and an answer that exercises it.
struct Case {
    name: &'static str,
    schema: Value,
    answer: String,
}

fn main() -> ExitCode {
    let mut kept = true;
    println!(
        "| schema | bytes of schema + answer | verdict | peak KiB of reading | held KiB | peak KiB of filling \
         | peak KiB in all | ms of CPU |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for case in cases() {
        kept &= measure(&case);
    }
    println!(
        "\n| {CALLERS} callers at once | peak KiB | held KiB | counted at most KiB |\n|---|---|---|---|"
    );
    for case in cases() {
        kept &= measure_crowd(&case);
    }
    println!(
        "\n| document | places | peak KiB of merging | peak KiB of looking for values | ms of CPU |\n\
         |---|---|---|---|---|"
    );
    for document in documents() {
        kept &= measure_document(&document);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A document each page of which has the same answer, and the text of its first page.
struct Document {
    name: &'static str,
    pages: u32,
    answer: Value,
    text: String,
}

/// So many pieces of text.
fn joined(count: usize, piece: &dyn Fn(usize) -> String) -> String {
    (0..count).map(piece).collect::<Vec<_>>().concat()
}

/// Documents with as many and as long values as possible, and texts that are costly to search.
fn documents() -> Vec<Document> {
    let rows = |row: Value, count: usize| json!({ "a": vec![row; count] });
    let row = |text: &str| json!({ "b": text, "c": "12.50", "d": "2018-01-02" });
    let each = |value: &dyn Fn(usize) -> String, count: usize| {
        let rows: Vec<Value> = (0..count).map(|index| json!({ "b": value(index) })).collect();
        json!({ "a": rows })
    };
    vec![
        Document {
            name: "100 pages of 12 rows",
            pages: 100,
            answer: rows(row("some words of a row"), 12),
            text: "some words of a row 12.50 02/01/2018\n".repeat(3_000),
        },
        Document {
            name: "100 pages of long texts",
            pages: 100,
            answer: rows(row(&"word ".repeat(1_000)), 3),
            text: "word ".repeat(30_000),
        },
        Document {
            name: "values that are parts of each other",
            pages: 1,
            answer: each(&|index| "a ".repeat(index), 300),
            text: "a ".repeat(60_000),
        },
        Document {
            name: "different words",
            pages: 1,
            answer: each(&|index| format!("w{index} v{index} {index}.5"), 1_600),
            text: joined(20_000, &|index| format!("w{index} v{index} {index}.5 ")),
        },
        Document {
            name: "long values of short words",
            pages: 1,
            // No two values begin alike, and each byte is a token.
            answer: each(
                &|index| {
                    joined(80, &|at| format!("{:x} ", (index * 7_919 + at * at * 31) % 65_536))
                },
                1_600,
            ),
            text: "a b c d ".repeat(15_000),
        },
        Document {
            name: "Chinese",
            pages: 1,
            answer: each(&|index| format!("总额{index}元，上海某某有限公司"), 1_600),
            text: joined(5_000, &|index| format!("总额{index}元，上海某某有限公司\n")),
        },
        Document {
            name: "groups that may be dates",
            pages: 1,
            answer: rows(row("x"), 1_200),
            text: "2018 1 3 ".repeat(20_000),
        },
    ]
}

/// Prints the cost of merging the pages of a document and of looking for their values, and returns whether its memory is
/// within the counted amount.
fn measure_document(document: &Document) -> bool {
    let text = json!({ "type": "string" });
    let fields = json!({ "b": text, "c": { "type": "number" }, "d": { "type": "string", "format": "date" } });
    let rows = json!({ "type": "array", "items": { "type": "object", "properties": fields } });
    let schema = object([("a".to_owned(), rows)].into_iter().collect());
    let schema = Schema::from_json(&schema.to_string()).unwrap();
    let answer = json::read(document.answer.to_string().as_bytes()).unwrap();
    let answers: Vec<_> = (1..=document.pages).map(|page| PageAnswer::of(page, &answer)).collect();
    let may_merge = usize::try_from(merging_bytes(&answers)).unwrap();
    let (mut extraction, merging) = cost(|| schema.fill_pages(answers));
    let may_look = usize::try_from(extraction.grounding_bytes(1, &document.text)).unwrap();
    let (_, looking) = cost(|| extraction.ground(1, &document.text, &[]));
    let is_kept = merging.peak <= may_merge && looking.peak <= may_look;
    println!(
        "| {} | {} | {} of {} | {} of {} | {:.1} + {:.1} |{}",
        document.name,
        extraction.fields.len(),
        merging.peak >> 10,
        may_merge >> 10,
        looking.peak >> 10,
        may_look >> 10,
        merging.cpu.as_secs_f64() * 1e3,
        looking.cpu.as_secs_f64() * 1e3,
        if is_kept { "" } else { " TOO MUCH |" }
    );
    is_kept
}

/// Prints the cost of a case and returns whether it is within the promised limits.
fn measure(case: &Case) -> bool {
    let text = case.schema.to_string();
    let (read, reading) = cost(|| Schema::from_json(&text));
    let (verdict, filling) = match &read {
        Err(error) => (error.to_string().chars().take(60).collect(), Cost::default()),
        Ok(schema) => {
            // As from DashScope: parsed, and the text that was parsed.
            let parsed = json::read(case.answer.as_bytes()).ok();
            let (extraction, cost) = cost(|| {
                let answer = parse_answer(parsed.as_ref(), &case.answer);
                // One after the other, as in the service.
                let answer = answer.map(|answer| PageAnswer::of(1, &answer));
                answer.map(|answer| schema.fill_pages(vec![answer]))
            });
            let errors = extraction.map(|extraction| extraction.validation.errors.len());
            (errors.map_or_else(|error| error.to_string(), |n| format!("{n} errors")), cost)
        }
    };
    let (peak, cpu) = (reading.peak.max(reading.held + filling.peak), reading.cpu + filling.cpu);
    let counted = usize::try_from(filling_bytes(case.answer.len() as u64)).unwrap();
    let is_kept = peak <= counted && cpu <= MOST_CPU;
    println!(
        "| {} | {} + {} | {verdict} | {} | {} | {} | {} of {} | {:.1} + {:.1} of {} |{}",
        case.name,
        text.len(),
        case.answer.len(),
        reading.peak >> 10,
        reading.held >> 10,
        filling.peak >> 10,
        peak >> 10,
        counted >> 10,
        reading.cpu.as_secs_f64() * 1e3,
        filling.cpu.as_secs_f64() * 1e3,
        MOST_CPU.as_millis(),
        if is_kept { "" } else { " TOO MUCH |" }
    );
    is_kept
}

/// Prints the cost of many callers that send a schema concurrently and then wait, and returns whether it is within the
/// counted amount.
fn measure_crowd(case: &Case) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let account = Arc::new(ByteAccount::new(u64::MAX, IntGauge::new("held", "held").unwrap()));
    let scratch = Scratch::new(account);
    let text = case.schema.to_string();
    let (read, taken) = cost(|| {
        let call = async || {
            let memory = scratch.take(WORKING_BYTES).await;
            let text = text.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let schema = Schema::from_json(&text).ok();
                drop((text, memory));
                schema
            });
            reading.await.unwrap()
        };
        runtime.block_on(join_all((0..CALLERS).map(|_| call())))
    });
    drop(read);
    let working = usize::try_from(WORKING_BYTES).unwrap();
    let counted = WORKS_AT_ONCE * working + CALLERS * BYTES_EACH;
    println!("| {} | {} | {} | {} |", case.name, taken.peak >> 10, taken.held >> 10, counted >> 10);
    taken.peak <= counted
}

/// The cost of a piece of work.
#[derive(Default)]
struct Cost {
    /// The peak of allocated bytes.
    peak: usize,
    /// Bytes that the result holds.
    held: usize,
    cpu: Duration,
}

fn cost<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let started = cpu_time();
    let done = work();
    let cpu = cpu_time().checked_sub(started).unwrap();
    let peak = MEMORY.peak_usage().saturating_sub(before);
    let held = MEMORY.current_usage().saturating_sub(before);
    (done, Cost { peak, held, cpu })
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn object(properties: Map<String, Value>) -> Value {
    let properties = Value::from(properties);
    json!({ "type": "object", "properties": properties })
}

/// Fields with a pattern each, and an answer with this text in each.
fn patterns(
    name: &'static str,
    count: usize,
    pattern: impl Fn(usize) -> String,
    text: &str,
) -> Case {
    let field = |index: usize| {
        (format!("f{index}"), json!({ "type": "string", "pattern": pattern(index) }))
    };
    let answer = (0..count).map(|index| (format!("f{index}"), json!(text)));
    let answer = Value::Object(answer.collect()).to_string();
    Case { name, schema: object((0..count).map(field).collect()), answer }
}

/// One field, and an answer without it.
fn field(name: &'static str, field: Value) -> Case {
    let schema = object([("a".to_owned(), field)].into_iter().collect());
    Case { name, schema, answer: json!({ "a": null }).to_string() }
}

/// Lists in lists with so many values in all.
fn nested(values: usize) -> Value {
    let deep = (0..100).fold(json!([]), |inner, _| json!([inner]));
    vec![deep; values / 101].into()
}

/// Three levels of objects with a list around each.
fn deep() -> Case {
    let inner = |fields: Vec<(String, Value)>| json!({ "type": "array", "items": object(fields.into_iter().collect()) });
    let leaves = (0..97).map(|index| (format!("f{index}"), json!({ "type": "string" }))).collect();
    let two = inner(vec![("c".to_owned(), inner(leaves))]);
    let schema = object([("b".to_owned(), two)].into_iter().collect());
    let row = json!({ "c": vec![json!({ "f0": "a" }); 8] });
    Case { name: "deep nesting", schema, answer: json!({ "b": vec![row; 100] }).to_string() }
}

/// A list of objects of 99 fields, and an answer of so many of these rows.
fn rows(name: &'static str, field: &Value, prefix: &str, row: &Value, count: usize) -> Case {
    let names: Vec<String> = (0..99).map(|index| format!("{prefix}{index}")).collect();
    let fields = names.iter().map(|name| (name.clone(), field.clone())).collect();
    let mut items = object(fields);
    items["required"] = json!(names);
    let list = json!({ "type": "array", "items": items });
    let schema = object([("a".to_owned(), list)].into_iter().collect());
    Case { name, schema, answer: json!({ "a": vec![row; count] }).to_string() }
}

/// A list of one kind of value, and an answer of these.
fn list(name: &'static str, items: &Value, values: &[Value]) -> Case {
    let list = json!({ "type": "array", "items": items });
    let schema = object([("a".to_owned(), list)].into_iter().collect());
    Case { name, schema, answer: json!({ "a": values }).to_string() }
}

/// Values below a pointer of the maximum length.
fn long_names_over_a_list() -> Case {
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let names = ["x", "y", "z"].map(|letter| letter.repeat(256));
    let wrap = |inner, name: &String| object([(name.clone(), inner)].into_iter().collect());
    let schema = names.iter().fold(list, wrap);
    let wrap = |inner: Value, name: &String| json!({ name.clone(): inner });
    let answer = names.iter().fold(json!(vec!["1"; 4_096]), wrap).to_string();
    Case { name: "long names over a list", schema, answer }
}

/// Places that keep a number or text, or either of two lists.
fn unions() -> Case {
    let field = |index: usize| {
        let lists = [0, 10].map(|from| json!({ "enum": (from..from + 10).collect::<Vec<_>>() }));
        let choice =
            json!({ "anyOf": [{ "type": "number" }, { "type": "string" }, { "type": "null" }] });
        let field = if index.is_multiple_of(2) { choice } else { json!({ "oneOf": lists }) };
        (format!("f{index}"), field)
    };
    let schema = object((0..100).map(field).collect());
    let answer: Map<String, Value> =
        (0..100).map(|index| (format!("f{index}"), json!("7"))).collect();
    Case { name: "unions", schema, answer: Value::from(answer).to_string() }
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn cases() -> Vec<Case> {
    let long_name = "名".repeat(20);
    let unicode = |index| format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7){{1}}x{{{index}}}$");
    let letters = "a".repeat(30_000);
    let words: Vec<String> = (0..9_000).map(|index| format!("{index}")).collect();
    let consts: Vec<Value> =
        (0..3_500).map(|index| json!({ "const": format!("{index}") })).collect();
    let long = "x".repeat(25_000);
    let text = json!({ "type": "string" });
    let short = json!({ "type": "string", "maxLength": 1 });
    let nullable = json!({ "type": ["string", "null"] });
    let twenty_thousand: Vec<Value> = (0..20_000).map(|index| index.to_string().into()).collect();
    let whole_row: Map<String, Value> =
        (0..99).map(|index| (index.to_string(), "ab".into())).collect();
    let whole_row = Value::from(whole_row);
    vec![
        patterns("100 Unicode classes, counted", 100, |index| unicode(index + 1), &long_name),
        patterns(
            "the same in a wider count",
            100,
            |index| format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7)$|x{index}"),
            &long_name,
        ),
        patterns("100 Unicode classes", 100, |index| format!("^[\\p{{L}}]+x{index}$"), &long_name),
        patterns("case folded", 100, |index| format!("(?i)^[\\p{{L}}]+x{index}$"), &long_name),
        patterns(
            "nested counts",
            100,
            |index| format!("^((a{{1,9}}){{1,9}}b){{1,9}}{index}$"),
            "aaaab",
        ),
        patterns(
            "many states, long text",
            3,
            |index| format!("(a?){{400}}a{{400}}{index}"),
            &letters,
        ),
        patterns(
            "exponential DFA",
            10,
            |index| format!("(a|b)*a(a|b){{12}}{index}c$"),
            &"abbabaabab".repeat(300),
        ),
        patterns("one long literal", 1, |_| "ab".repeat(30_000), &letters),
        patterns(
            "long alternation",
            1,
            |_| (0..8_000).map(|index| format!("{index:x}")).collect::<Vec<_>>().join("|"),
            &letters,
        ),
        patterns("classes in a row", 1, |_| "\\pL".repeat(15_000), &long_name),
        patterns(
            "distinct classes",
            1,
            |_| {
                (0..2_500)
                    .map(|index| format!("[\\pL{}]", char::from_u32(index + 0x100).unwrap()))
                    .collect::<Vec<_>>()
                    .concat()
            },
            &long_name,
        ),
        patterns("control escapes", 1, |_| "\\ca".repeat(4_000), &long_name),
        patterns("digits", 1, |_| "\\d".repeat(25_000), &long_name),
        patterns("spaces", 1, |_| "\\s".repeat(25_000), &long_name),
        patterns("dots", 1, |_| ".".repeat(50_000), &long_name),
        patterns(
            "nested groups",
            1,
            |_| format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)),
            "a",
        ),
        patterns("case folded letters", 1, |_| format!("(?i){}", "k".repeat(50_000)), "a"),
        patterns(
            "100 alternations of empties",
            100,
            |index| format!("^(a(?:|||||||||){{50}}|b)*{index}$"),
            &"ab".repeat(200),
        ),
        patterns(
            "the heaviest 15 that are taken",
            15,
            |index| format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7)$|x{index}"),
            &long_name,
        ),
        patterns(
            "48 KB of plain patterns",
            80,
            |index| format!("^{index}{}$", "[A-Z0-9]x".repeat(60)),
            &long_name,
        ),
        patterns(
            "small folded patterns",
            100,
            |index| format!("(?i)^invoice number {index}[a-z]+$"),
            "INVOICE NUMBER 7K",
        ),
        patterns("folded classes", 15, |index| format!("(?i)^[\\w-]+x{index}$"), &long_name),
        deep(),
        field("nested notes", json!({ "type": "string", "examples": nested(MOST_CHOICES) })),
        field(
            "nested notes beyond the limit",
            json!({ "type": "string", "examples": nested(20_000) }),
        ),
        rows("rows of 99 fields with one value", &text, "", &json!({ "0": "a" }), 1_600),
        rows("rows of 99 fields with none", &text, "", &json!({}), 8_192),
        rows("rows of long names", &text, &"n".repeat(250), &json!({}), 1_600),
        rows("rows that are whole", &text, "", &whole_row, 50),
        rows("rows that break a rule", &short, "", &whole_row, 50),
        list("elements that break a rule", &short, &vec!["ab".into(); 5_000]),
        list("elements of another type", &json!({ "type": "number" }), &vec!["ab".into(); 5_000]),
        list("20,000 elements", &text, &twenty_thousand),
        list("5,000 long elements", &text, &vec!["a".repeat(100).into(); 5_000]),
        list("elements that may be null", &nullable, &vec![Value::Null; 20_000]),
        Case {
            answer: json!({ "b": vec![0; 65_536] }).to_string(),
            ..field("an answer of something else", text.clone())
        },
        Case {
            answer: json!({ "b": nested(65_000) }).to_string(),
            ..field("a deep answer of something else", text.clone())
        },
        Case {
            answer: json!({ "a": "a".repeat(1 << 20) }).to_string(),
            ..field("a long text", text.clone())
        },
        long_names_over_a_list(),
        field("as many choices as are taken", json!({ "enum": words[..MOST_CHOICES] })),
        unions(),
        field("9,000 choices", json!({ "enum": words })),
        field("30,000 empty choices", json!({ "enum": vec![""; 20_000] })),
        field("numbers", json!({ "enum": (0..9_000).collect::<Vec<_>>() })),
        field("a choice of constants", json!({ "anyOf": consts })),
        field("an exclusive choice", json!({ "oneOf": consts })),
        field(
            "repeated requirements",
            json!({
            "type": "object", "properties": { "b": { "type": "string" } }, "required": vec!["b"; 14_000] }),
        ),
        Case {
            name: "long name over a choice",
            schema: object(
                [(long.clone(), json!({ "anyOf": consts[..2_000] }))].into_iter().collect(),
            ),
            answer: "{}".to_owned(),
        },
        Case {
            name: "rows against a long pattern",
            schema: object(
                [(
                    "a".to_owned(),
                    json!({ "type": "array", "items": {
                "type": "string", "pattern": format!("^({})$", "ab|".repeat(8_000)) } }),
                )]
                .into_iter()
                .collect(),
            ),
            answer: json!({ "a": vec!["1"; 4_000] }).to_string(),
        },
        Case {
            name: "rows against a choice",
            schema: object(
                [(
                    "a".to_owned(),
                    json!({ "type": "array", "items": {
                "enum": words[..MOST_CHOICES] } }),
                )]
                .into_iter()
                .collect(),
            ),
            answer: json!({ "a": vec!["x"; 4_000] }).to_string(),
        },
        Case {
            name: "unique rows",
            schema: object(
                [(
                    "a".to_owned(),
                    json!({ "type": "array", "uniqueItems": true, "items": {
                "type": "string" } }),
                )]
                .into_iter()
                .collect(),
            ),
            answer: json!({ "a": (0..20_000).map(|index| index.to_string()).collect::<Vec<_>>() })
                .to_string(),
        },
        Case {
            name: "an unknown keyword",
            schema: object(
                [("a".to_owned(), json!({ "type": "string", "\u{1}".repeat(10_000): 1 }))]
                    .into_iter()
                    .collect(),
            ),
            answer: "{}".to_owned(),
        },
    ]
}
