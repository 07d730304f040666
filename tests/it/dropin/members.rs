//! Tests for each member in the tables of docs/drop-in.md whether it passes.

use std::collections::BTreeSet;

use ocr_gateway::dashscope::settings::UnknownMembers;
use serde_json::{Value, json};

use super::{CHAT, GENERATION, MODEL, chat, code, data_url, generation, send};
use crate::harness::{Answer, TestGateway};

const PAGE: &str = include_str!("../../../docs/drop-in.md");

/// The verdict of the document on a member.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Read,
    Passes,
    AnyJson,
    Only(Vec<Value>),
}

/// A line of the tables: a place of one protocol, and the members that have a verdict there.
#[derive(Debug)]
struct Row {
    path: &'static str,
    place: String,
    verdict: Verdict,
    members: Vec<String>,
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn verdict(cell: &str) -> Verdict {
    match cell.split('`').next().unwrap().trim() {
        "read" => Verdict::Read,
        "passes" => Verdict::Passes,
        "any JSON" => Verdict::AnyJson,
        "only" => {
            let values = quoted(cell);
            Verdict::Only(values.iter().map(|json| serde_json::from_str(json).unwrap()).collect())
        }
        other => panic!("docs/drop-in.md has no verdict {other:?}"),
    }
}

fn rows() -> Vec<Row> {
    let section = PAGE.split("\n## Members").nth(1).unwrap().split("\n## ").next().unwrap();
    let (compatible, native) = section.split_once("DashScope's own:").unwrap();
    let of = |path, text: &str| -> Vec<Row> {
        let lines = text.lines().filter(|line| line.starts_with("| `/"));
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').collect();
            Row {
                path,
                place: quoted(cells[1]).remove(0),
                verdict: verdict(cells[2].trim()),
                members: quoted(cells[3]),
            }
        };
        lines.map(row).collect()
    };
    of(CHAT, compatible).into_iter().chain(of(GENERATION, native)).collect()
}

/// The members that are refused in each place for which the tables have no verdict.
fn costly() -> Vec<String> {
    let list = PAGE.split("<!-- Costly members. -->").nth(1).unwrap();
    quoted(list.trim_start().split("\n\n").next().unwrap())
}

/// Places in which the operator decides about unknown members.
const OPEN: [(&str, &str); 3] = [(CHAT, "/"), (GENERATION, "/"), (GENERATION, "/parameters")];

/// A request that contains each place of the tables.
fn whole(path: &str) -> Value {
    let options = json!({ "task": "text_recognition", "task_config": {} });
    if path == CHAT {
        let mut body = chat();
        body["stream_options"] = json!({});
        body["ocr_options"] = options;
        return body;
    }
    let mut body = generation();
    body["parameters"]["ocr_options"] = options;
    body
}

/// The request with the member `name` at `place`.
fn with(path: &str, place: &str, name: &str, value: &Value) -> Value {
    let mut body = whole(path);
    let pointer = place.replace('*', "0");
    let object = body.pointer_mut(pointer.trim_end_matches('/')).unwrap();
    object[name] = value.clone();
    body
}

/// Sends a request with one more member, and returns what arrived of it or the refusal.
async fn arrived(
    gateway: &TestGateway,
    path: &str,
    place: &str,
    name: &str,
    value: &Value,
) -> Result<Value, String> {
    gateway.upstream().clear_calls();
    let answer = send(gateway, path, &with(path, place, name, value)).await;
    let Some(call) = gateway.upstream().calls().pop() else {
        assert_eq!(answer.status, 400, "{path} {place} {name}: {}", answer.text);
        code(path, &answer);
        return Err(answer.text);
    };
    let received: Value = serde_json::from_slice(&call.request_body).unwrap();
    let pointer = place.replace('*', "0");
    let object = received.pointer(pointer.trim_end_matches('/')).unwrap();
    Ok(object.get(name).cloned().unwrap_or_else(|| panic!("{place} {name} was taken out")))
}

async fn gateway(unknown: UnknownMembers) -> TestGateway {
    TestGateway::with(|setup| {
        setup.emulator.keep_bodies = true;
        setup.settings.upstream.unknown_members = unknown;
    })
    .await
}

/// Unmet expectations of one member.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    async fn passes(
        &mut self,
        gateway: &TestGateway,
        (path, place): (&str, &str),
        name: &str,
        value: &Value,
    ) {
        match arrived(gateway, path, place, name, value).await {
            Ok(received) if received == *value => {}
            Ok(received) => self.0.push(format!("{path} {place} {name}: {value} -> {received}")),
            Err(refusal) => self.0.push(format!("{path} {place} {name}: {value}: {refusal}")),
        }
    }

    async fn is_refused(
        &mut self,
        gateway: &TestGateway,
        (path, place): (&str, &str),
        name: &str,
        value: &Value,
    ) {
        match arrived(gateway, path, place, name, value).await {
            Ok(_) => self.0.push(format!("{path} {place} {name}: {value} passed")),
            Err(refusal) if refusal.contains(name) => {}
            Err(refusal) => self.0.push(format!("{path} {place} {name}: {refusal}")),
        }
    }

    fn assert_none(&self) {
        assert!(self.0.is_empty(), "{} failures:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// Values that pass only for members of any JSON and for listed values.
fn structured() -> [Value; 4] {
    [json!({}), json!({ "a": 1 }), json!([["a"]]), json!([{ "a": 1 }])]
}

/// A valid value of a member that is read and missing in the request, and invalid ones.
fn samples(path: &str, name: &str) -> (Option<Value>, Vec<Value>) {
    let tokens = vec![json!(0), json!(-1), json!("5"), json!(1.5), json!({})];
    match name {
        "model" => (None, vec![json!(7), json!("")]),
        "messages" => (None, vec![json!("a"), json!([]), json!({})]),
        "stream" | "include_usage" | "enable_rotate" => {
            (Some(json!(true)), vec![json!("true"), json!(1)])
        }
        "max_tokens" | "max_completion_tokens" => (Some(json!(5)), tokens),
        "n" => (Some(json!(1)), vec![json!(2), json!(0), json!("1")]),
        "min_pixels" => (Some(json!(3_072)), vec![json!("3072"), json!(0.5)]),
        "max_pixels" => (Some(json!(65_536)), vec![json!("65536"), json!(-1)]),
        "role" => (None, vec![json!("tool"), json!("User"), json!(1)]),
        "content" => (None, vec![json!({}), json!(7), json!([[]])]),
        "type" if path == CHAT => (None, vec![json!("text"), json!("video_url"), json!(7)]),
        "type" => (Some(json!("image")), vec![json!("text"), json!("video"), json!(7)]),
        "text" => (Some(json!("a")), structured().to_vec()),
        "image_url" => (None, vec![json!(7), json!({}), json!([])]),
        "url" | "image" => (Some(json!(data_url("hello.jpg"))), vec![json!(7), json!({})]),
        "input" | "parameters" | "stream_options" | "ocr_options" | "task_config" => {
            (None, vec![json!(7), json!("a"), json!([1])])
        }
        _ => panic!("a member that is read has no sample: {name}"),
    }
}

#[tokio::test]
async fn every_member_of_the_page_does_what_the_page_says() {
    let gateway = gateway(UnknownMembers::Refuse).await;
    let mut failures = Failures::default();
    for Row { path, place, verdict, members } in rows() {
        let at = (path, place.as_str());
        for name in members {
            let (passing, refused) = match &verdict {
                Verdict::Read => {
                    let (right, wrong) = samples(path, &name);
                    (right.into_iter().collect(), wrong)
                }
                Verdict::Passes => {
                    let plain = [json!(1), json!(0.5), json!("a"), json!(true), json!(null)];
                    let lists = [json!([]), json!(["a", 1])];
                    (plain.into_iter().chain(lists).collect(), structured().to_vec())
                }
                Verdict::AnyJson => (vec![json!({ "名 \u{0}": [{ "max_tokens": {} }] })], vec![]),
                Verdict::Only(values) => {
                    let others =
                        structured().into_iter().chain([json!(true), json!(7), json!("x")]);
                    (values.clone(), others.filter(|other| !values.contains(other)).collect())
                }
            };
            for value in passing {
                failures.passes(&gateway, at, &name, &value).await;
            }
            for value in refused {
                failures.is_refused(&gateway, at, &name, &value).await;
            }
        }
    }
    failures.assert_none();
}

#[tokio::test]
async fn a_costly_member_is_refused_unless_it_is_off_whatever_the_operator_lets_pass() {
    let rows = rows();
    let known = |path: &str, place: &str, name: &String| {
        rows.iter().any(|row| row.path == path && row.place == place && row.members.contains(name))
    };
    let mut failures = Failures::default();
    for unknown in [UnknownMembers::Refuse, UnknownMembers::Pass] {
        let gateway = gateway(unknown).await;
        for (path, place) in OPEN {
            for name in costly().iter().filter(|name| !known(path, place, name)) {
                failures.is_refused(&gateway, (path, place), name, &json!({})).await;
                if unknown == UnknownMembers::Pass {
                    failures.is_refused(&gateway, (path, place), name, &json!(true)).await;
                    failures.passes(&gateway, (path, place), name, &json!(false)).await;
                }
            }
        }
    }
    failures.assert_none();
}

/// Each place of the tables.
fn places() -> Vec<(&'static str, String)> {
    let places = rows().into_iter().map(|row| (row.path, row.place));
    places.collect::<BTreeSet<_>>().into_iter().collect()
}

#[tokio::test]
async fn a_member_that_nobody_knows_passes_where_the_operator_lets_it_or_as_null_and_nowhere_else()
{
    let names = ["x_new", "resized_heights", "x temperature", "$schema"];
    let mut failures = Failures::default();
    for unknown in [UnknownMembers::Refuse, UnknownMembers::Pass] {
        let gateway = gateway(unknown).await;
        for (path, place) in places() {
            let is_open = OPEN.contains(&(path, place.as_str()));
            for name in names {
                for value in [json!({ "x": [{ "y": 1 }] }), json!(1), json!(false), json!(null)] {
                    let at = (path, place.as_str());
                    if is_open && (unknown == UnknownMembers::Pass || value.is_null()) {
                        failures.passes(&gateway, at, name, &value).await;
                    } else {
                        failures.is_refused(&gateway, at, name, &value).await;
                    }
                }
            }
        }
        let told = arrived(&gateway, CHAT, "/", "max_tokenz\u{7f}", &json!(1)).await.unwrap_err();
        assert!(told.contains("printable ASCII"), "{told}");
    }
    failures.assert_none();
    let gateway = gateway(UnknownMembers::Refuse).await;
    let told = arrived(&gateway, CHAT, "/", "x_new", &json!(1)).await.unwrap_err();
    assert!(told.contains("upstream.unknown_members"), "{told}");
    let told = arrived(&gateway, CHAT, "/stream_options", "x_new", &json!(1)).await.unwrap_err();
    assert!(told.contains("include_usage") && !told.contains("unknown_members"), "{told}");
}

/// Names that some readers take for `max_tokens`, and similar ones.
const LOOKALIKES: [&str; 20] = [
    "Max_Tokens",
    "maxTokens",
    "MAX-TOKENS",
    "max tokens",
    " max_tokens",
    "max_tokens ",
    "max.tokens",
    "is_max_tokens",
    "isMaxTokens",
    "ismaxtokens",
    "m_a_x_t_o_k_e_n_s",
    "max_toke\u{17f}s",
    "max_token\u{17f}",
    "max_tokens\u{0}",
    "max_tokens\u{200b}",
    "m\u{430}x_tokens",
    "\u{ff4d}ax_tokens",
    "max_p\u{131}xels",
    "thinking\u{ad}_budget",
    "\u{feff}max_tokens",
];

#[tokio::test]
async fn a_name_that_a_reader_may_take_for_a_costly_one_is_refused_at_every_depth() {
    let mut failures = Failures::default();
    for unknown in [UnknownMembers::Refuse, UnknownMembers::Pass] {
        let gateway = gateway(unknown).await;
        for (path, place) in places() {
            for name in LOOKALIKES {
                for value in [json!(99_999), json!(null)] {
                    let told = arrived(&gateway, path, &place, name, &value).await;
                    if told.is_ok() {
                        failures.0.push(format!("{path} {place} {name:?}: {value}"));
                    }
                }
            }
        }
        for (path, place) in OPEN {
            for name in LOOKALIKES.into_iter().chain(["max_tokens", "resized_height"]) {
                for value in [json!({ name: 1 }), json!([[{ "a": { name: 1 } }]])] {
                    if arrived(&gateway, path, place, "x_new", &value).await.is_ok() {
                        failures.0.push(format!("{path} {place} x_new {value}"));
                    }
                }
            }
        }
    }
    failures.assert_none();
}

#[tokio::test]
async fn other_names_of_size_and_source_are_refused_in_items_messages_and_input() {
    let gateway = gateway(UnknownMembers::Pass).await;
    let names = [
        "resized_height",
        "resized_width",
        "image_embeds",
        "image_pil",
        "source",
        "doc_url",
        "pdf_url",
        "image",
        "images",
        "image_urls",
        "ref_images_url",
        "file_ids",
        "enable_rotate",
        "max_pixel",
        "total_pixels",
        "uuid",
        "cache_control",
        "partial",
        "prompt",
        "history",
        "n",
        "max_tokens",
    ];
    let mut failures = Failures::default();
    for row in places() {
        let (path, place) = (row.0, row.1.as_str());
        if OPEN.contains(&(path, place)) {
            continue;
        }
        let here: Vec<String> = rows()
            .into_iter()
            .filter(|row| row.path == path && row.place == place)
            .flat_map(|row| row.members)
            .collect();
        for name in names.into_iter().filter(|name| !here.iter().any(|own| own == name)) {
            for value in [json!(4_000), json!(true), json!(data_url("hello.png")), json!({})] {
                failures.is_refused(&gateway, (path, place), name, &value).await;
            }
        }
    }
    failures.assert_none();
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused_at_every_depth() {
    let gateway = gateway(UnknownMembers::Pass).await;
    for (path, place) in places() {
        let body = with(path, &place, "twice", &json!(1)).to_string();
        for second in ["\"twice\":1", "\"tw\\u0069ce\":2"] {
            let body = body.replace("\"twice\":1", &format!("\"twice\":1,{second}"));
            let answer = Answer::of(gateway.post(path).body(body)).await;
            assert_eq!(answer.status, 400, "{path} {place}");
            assert!(answer.text.contains("given twice"), "{}", answer.text);
        }
    }
    let schema = r#"{"type":"json_schema","json_schema":{"schema":{"a":1,"\u0061":2}}}"#;
    let body = with(CHAT, "/", "response_format", &json!("?")).to_string();
    let body = body.replace("\"?\"", schema);
    let answer = Answer::of(gateway.post(CHAT).body(body)).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_model_s_own_answer_may_be_sent_back_as_the_sdks_write_it() {
    let gateway = gateway(UnknownMembers::Refuse).await;
    // The form in which OpenAI's SDK for Python and DashScope's SDK write a message that they received.
    let dumped = json!({ "role": "assistant", "content": "a", "refusal": null, "annotations": null,
        "audio": null, "function_call": null, "tool_calls": null, "reasoning_content": "" });
    let told = json!({ "role": "assistant", "content": [{ "text": "a", "processed_text": "a",
        "ocr_result": { "kv_result": { "\u{53d1}\u{7968}": "1" } } }] });
    for (path, answer) in [(CHAT, dumped), (GENERATION, told)] {
        let mut body = if path == CHAT { chat() } else { generation() };
        body["model"] = MODEL.into();
        let place = if path == CHAT { "/messages" } else { "/input/messages" };
        let messages = body.pointer_mut(place).unwrap().as_array_mut().unwrap();
        messages.push(answer);
        messages.push(messages[0].clone());
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}
