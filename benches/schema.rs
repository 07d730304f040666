//! What the worst schemas of `/extract` cost: peak of memory and CPU time, held to what is promised.
//!
//! ```text
//! cargo bench --bench schema
//! ```
//!
//! Every schema is made to cost as much as it can, whether it is refused or not. The CPU time is that of the
//! thread (Linux), so that a busy machine does not change it. The exit code is 1 where a promise is broken.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::process::ExitCode;
use std::time::Duration;

use ocr_gateway::extract::answer::parse_answer;
use ocr_gateway::extract::schema::Schema;
use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most that one schema may take at once, in bytes, beside its text and its answer.
const MOST_BYTES: usize = 4 << 20;
/// The most CPU time that one schema may take, from its text to the checked answer.
const MOST_CPU: Duration = Duration::from_millis(50);

/// A schema, and an answer that makes it work.
struct Case {
    name: &'static str,
    schema: Value,
    answer: String,
}

fn main() -> ExitCode {
    let mut kept = true;
    println!(
        "| schema | bytes | verdict | peak KiB of reading | ms | held KiB | peak KiB of filling | ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for case in cases() {
        kept &= measure(&case);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what a case costs and tells whether that is what is promised.
fn measure(case: &Case) -> bool {
    let text = case.schema.to_string();
    let (read, reading) = cost(|| {
        let value: Value = serde_json::from_str(&text).unwrap();
        Schema::parse(&value)
    });
    let (verdict, filling) = match &read {
        Err(error) => (error.to_string().chars().take(60).collect(), Cost::default()),
        Ok(schema) => {
            let answer = parse_answer(None, &case.answer).unwrap();
            let (extraction, cost) = cost(|| schema.fill(&answer, 1));
            (format!("{} errors", extraction.validation.errors.len()), cost)
        }
    };
    println!(
        "| {} | {} | {verdict} | {} | {:.1} | {} | {} | {:.1} |",
        case.name,
        text.len(),
        reading.peak >> 10,
        reading.cpu.as_secs_f64() * 1e3,
        reading.held >> 10,
        filling.peak >> 10,
        filling.cpu.as_secs_f64() * 1e3,
    );
    let peak = reading.peak.max(reading.held + filling.peak);
    peak <= MOST_BYTES && reading.cpu + filling.cpu <= MOST_CPU
}

/// What a piece of work took.
#[derive(Default)]
struct Cost {
    /// The most bytes at once.
    peak: usize,
    /// Bytes that its result holds.
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

/// Fields with a pattern each, and an answer that has this text in each.
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

#[expect(clippy::too_many_lines, reason = "a list")]
fn cases() -> Vec<Case> {
    let long_name = "名".repeat(20);
    let unicode = |index| format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7){{1}}x{{{index}}}$");
    let letters = "a".repeat(30_000);
    let words: Vec<String> = (0..9_000).map(|index| format!("{index}")).collect();
    let consts: Vec<Value> =
        (0..3_500).map(|index| json!({ "const": format!("{index}") })).collect();
    let long = "x".repeat(25_000);
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
                "enum": words } }),
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
