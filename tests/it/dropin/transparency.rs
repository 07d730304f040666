//! The upstream receives what the client sent, except for the documented changes. The client receives what the upstream
//! sent.
//!
//! Requests are generated as text, so that their spelling is kept: numbers of forty digits, escapes, half surrogates,
//! spaces and order. They are compared as trees whose leaves are the original text. The documented changes are
//! implemented here a second time, in another way.

use ocr_gateway::dashscope::settings::UnknownMembers;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{CHAT, GENERATION, MODEL, data_url};
use crate::harness::{Answer, TestGateway};

/// Number of requests.
const REQUESTS: u32 = 300;

/// A document whose leaves are the original text.
#[derive(Debug, Clone, PartialEq)]
enum Written {
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    Leaf(String),
}

impl Written {
    fn parse(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.as_bytes()[0] {
            b'{' => {
                let Members(members) = serde_json::from_str(text).unwrap();
                let parsed =
                    |(name, value): (String, Box<RawValue>)| (name, Self::parse(value.get()));
                Self::Object(members.into_iter().map(parsed).collect())
            }
            b'[' => {
                let elements: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
                Self::Array(elements.iter().map(|value| Self::parse(value.get())).collect())
            }
            _ => Self::Leaf(text.to_owned()),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that it can be mapped over numbers")]
    fn leaf(text: impl ToString) -> Self {
        Self::Leaf(text.to_string())
    }

    fn text(text: &str) -> Self {
        Self::Leaf(serde_json::to_string(text).unwrap())
    }

    fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn members(&mut self) -> &mut Vec<(String, Self)> {
        let Self::Object(members) = self else { panic!("{self:?} is no object") };
        members
    }

    fn elements(&mut self) -> &mut Vec<Self> {
        let Self::Array(elements) = self else { panic!("{self:?} is no array") };
        elements
    }

    fn get(&mut self, name: &str) -> Option<&mut Self> {
        self.members().iter_mut().find_map(|(own, value)| (own == name).then_some(value))
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        let Self::Leaf(text) = self.get(name)? else { return None };
        text.parse().ok()
    }

    fn set(&mut self, name: &str, value: Self) {
        match self.get(name) {
            Some(own) => *own = value,
            None => self.members().push((name.to_owned(), value)),
        }
    }

    /// The text, with `space` in each place that allows it. Names are written with an escape if they can be.
    fn print(&self, space: &str) -> String {
        let joined = |parts: Vec<String>| parts.join(&format!("{space},{space}"));
        match self {
            Self::Leaf(text) => text.clone(),
            Self::Array(elements) => {
                let elements = elements.iter().map(|element| element.print(space)).collect();
                format!("[{space}{}{space}]", joined(elements))
            }
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| {
                    let name = serde_json::to_string(name).unwrap().replace('m', "\\u006d");
                    format!("{name}{space}:{space}{}", value.print(space))
                };
                format!("{{{space}{}{space}}}", joined(members.iter().map(member).collect()))
            }
        }
    }
}

/// An object's members in order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A request and the way it is sent.
#[derive(Debug, Clone)]
struct Sent {
    path: &'static str,
    streams: bool,
    body: Written,
    space: &'static str,
}

fn leaf() -> impl Strategy<Value = Written> {
    prop_oneof![
        any::<String>().prop_map(|text| Written::text(&text)),
        any::<i64>().prop_map(Written::leaf),
        prop::sample::select(vec![
            "null",
            "true",
            "-0.0",
            "1e300",
            "1.50",
            "0.10e-7",
            "123456789012345678901234567890123456789",
            r#""\ud83d\ude00 \u4e00 \/ \u0000""#,
            r#""\ud800""#,
            "\"\u{202e}\u{feff}\u{10ffff}\"",
            "\"\"",
        ])
        .prop_map(Written::leaf),
    ]
}

/// Any JSON with such names of members.
fn any_value(names: &'static str) -> impl Strategy<Value = Written> {
    leaf().prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Written::Array),
            prop::collection::btree_map(names, inner, 0..4)
                .prop_map(|members| Written::Object(members.into_iter().collect())),
        ]
    })
}

/// Any JSON with names that the caller chooses.
fn free_value() -> impl Strategy<Value = Written> {
    any_value("[a-z]{1,6}|\u{e9}\u{4e00}?")
}

/// Members of the body or of `parameters`: known ones, and unknown ones if the operator lets them pass.
fn extra_members(unknown: UnknownMembers) -> impl Strategy<Value = Vec<(String, Written)>> {
    let most = if unknown == UnknownMembers::Pass { 4 } else { 1 };
    let strange = prop::collection::btree_map("x_[a-z]{0,4}", any_value("x_[a-z]{0,4}"), 0..most);
    let plain = prop::sample::select(vec!["temperature", "top_k", "user", "seed", "stop"]);
    let plain = prop::collection::btree_map(plain.prop_map(str::to_owned), leaf(), 0..3);
    let free = prop::sample::select(vec!["metadata", "logit_bias", "response_format"]);
    let free = prop::collection::btree_map(free.prop_map(str::to_owned), free_value(), 0..3);
    (strange, plain, free)
        .prop_map(|(strange, plain, free)| strange.into_iter().chain(plain).chain(free).collect())
}

/// Members of an item that the gateway passes on.
fn item_members(path: &'static str) -> BoxedStrategy<Vec<(String, Written)>> {
    if path == GENERATION {
        let free = prop::collection::btree_map(Just("ocr_result".to_owned()), free_value(), 0..2);
        return free.prop_map(|members| members.into_iter().collect()).boxed();
    }
    let plain = prop::sample::select(vec!["id", "index"]).prop_map(str::to_owned);
    prop::collection::btree_map(plain, leaf(), 0..3)
        .prop_map(|members| members.into_iter().collect())
        .boxed()
}

fn bounds() -> impl Strategy<Value = Vec<(String, Written)>> {
    let bound = |name: &'static str, range: std::ops::Range<u64>| {
        prop::option::of(range.prop_map(move |pixels| (name.to_owned(), Written::leaf(pixels))))
    };
    (bound("min_pixels", 3_072..4_096), bound("max_pixels", 65_536..8_388_608))
        .prop_map(|(min, max)| min.into_iter().chain(max).collect())
}

fn image(path: &'static str) -> impl Strategy<Value = Written> {
    let url = prop::sample::select(vec![
        data_url("hello.png"),
        data_url("hello.jpg").replace('/', "\u{0}"),
        "https://pictures.example/\u{4e00}.png".to_owned(),
    ]);
    // A slash can be written with an escape, as PHP does.
    let url = url.prop_map(|url| {
        Written::leaf(serde_json::to_string(&url).unwrap().replace("\\u0000", "\\/"))
    });
    (url, bounds(), item_members(path), any::<[bool; 2]>()).prop_map(
        move |(url, bounds, mut strange, [inside, bare])| {
            if path == GENERATION {
                strange.push(("image".to_owned(), url));
                strange.extend(bounds);
                return Written::Object(strange);
            }
            strange.push(("type".to_owned(), Written::text("image_url")));
            let mut image = Written::object([("url", url.clone())]);
            if inside {
                image.members().splice(0..0, bounds);
            } else {
                strange.extend(bounds);
            }
            let image = if bare && !inside { url } else { image };
            strange.insert(0, ("image_url".to_owned(), image));
            Written::Object(strange)
        },
    )
}

fn item(path: &'static str) -> impl Strategy<Value = Written> {
    let text = (leaf(), item_members(path)).prop_map(|(text, mut strange)| {
        strange.push(("type".to_owned(), Written::text("text")));
        strange.push(("text".to_owned(), text));
        Written::Object(strange)
    });
    prop_oneof![image(path), text]
}

fn sent(unknown: UnknownMembers) -> impl Strategy<Value = Sent> {
    prop::sample::select(vec![CHAT, GENERATION]).prop_flat_map(move |path| {
        let items = prop::collection::vec(item(path), 1..4);
        let limit = prop::option::of(1..9_000_u64);
        let spaces = prop::sample::select(vec!["", " ", "\n\t", "\r\n  "]);
        let told = any::<Option<bool>>();
        let earlier = prop::option::of(any::<String>().prop_map(|text| Written::text(&text)));
        (items, earlier, extra_members(unknown), limit, any::<bool>(), told, spaces).prop_map(
            move |(items, earlier, extra, limit, streams, told, space)| {
                let message = |role: &str, content: Written| {
                    Written::object([("role", Written::text(role)), ("content", content)])
                };
                let mut messages = earlier.map_or(Vec::new(), |said| {
                    vec![message("user", said.clone()), message("assistant", said)]
                });
                messages.push(message("user", Written::Array(items)));
                let messages = Written::Array(messages);
                let limit = limit.map(|limit| ("max_tokens".to_owned(), Written::leaf(limit)));
                let mut body = Written::object([("model", Written::text(MODEL))]);
                if path == GENERATION {
                    body.set("input", Written::object([("messages", messages)]));
                    if told.is_some() || limit.is_some() {
                        let parameters = extra.into_iter().chain(limit).collect();
                        body.set("parameters", Written::Object(parameters));
                    }
                } else {
                    body.members().splice(0..0, extra);
                    body.set("messages", messages);
                    body.members().extend(limit);
                    body.set("stream", Written::leaf(streams));
                    if let Some(told) = told {
                        let options = Written::object([("include_usage", Written::leaf(told))]);
                        body.set("stream_options", options);
                    }
                }
                Sent { path, streams, body, space }
            },
        )
    })
}

/// The changes that docs/drop-in.md lists, and whether the stream's bill is hidden.
fn documented(sent: &Sent) -> (Written, bool) {
    let mut body = sent.body.clone();
    let input = if sent.path == GENERATION { body.get("input").unwrap() } else { &mut body };
    for message in input.get("messages").unwrap().elements() {
        if let Some(Written::Array(items)) = message.get("content") {
            for item in items {
                bound(sent.path, item);
            }
        }
    }
    let parameters = if sent.path == GENERATION {
        if body.get("parameters").is_none() {
            body.set("parameters", Written::Object(Vec::new()));
        }
        body.get("parameters").unwrap()
    } else {
        &mut body
    };
    let limit = parameters.number("max_tokens").unwrap_or(8_192).min(8_192);
    parameters.set("max_tokens", Written::leaf(limit));
    let told = body.get("stream_options").and_then(|options| options.get("include_usage").cloned());
    let hides = sent.path == CHAT && sent.streams && told != Some(Written::leaf(true));
    if hides {
        let options = Written::object([("include_usage", Written::leaf(true))]);
        body.set("stream_options", options);
    }
    (body, hides)
}

fn bound(path: &str, item: &mut Written) {
    let name = if path == CHAT { "image_url" } else { "image" };
    let Some(image) = item.get(name) else { return };
    if path == CHAT && matches!(image, Written::Leaf(_)) {
        *image = Written::object([("url", image.clone())]);
    }
    let mut inside = if path == CHAT { image.clone() } else { Written::Object(Vec::new()) };
    for (name, default) in [("min_pixels", 3_072), ("max_pixels", 8_388_608)] {
        let wish = inside.number(name).or_else(|| item.number(name)).unwrap_or(default);
        inside.set(name, Written::leaf(wish));
        item.set(name, Written::leaf(wish));
    }
    if path == CHAT {
        item.set(name, inside);
    }
}

async fn passes_unchanged(gateway: &TestGateway, sent: &Sent) {
    let mut request = gateway.post(sent.path).body(sent.body.print(sent.space));
    if sent.streams && sent.path == GENERATION {
        request = request.header("X-DashScope-SSE", "enable");
    }
    let answer = Answer::of(request).await;
    let call = gateway.upstream().calls().pop().expect("the request was passed on");
    let (expected, hides) = documented(sent);
    let received = Written::parse(std::str::from_utf8(&call.request_body).unwrap());
    assert_eq!(received, expected, "{}", answer.text);
    let said = String::from_utf8(call.response_body).unwrap();
    let events = said.split_inclusive("\n\n");
    let shown: String =
        events.filter(|event| !(hides && event.contains("\"choices\":[],"))).collect();
    assert_eq!(answer.text, shown);
    gateway.upstream().clear_calls();
}

/// Sends generated requests to a gateway with this setting for unknown members.
fn hundreds_pass_unchanged(unknown: UnknownMembers) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap();
    let gateway = runtime.block_on(TestGateway::with(|setup| {
        setup.emulator.keep_bodies = true;
        setup.settings.upstream.unknown_members = unknown;
    }));
    let config = Config { cases: REQUESTS / 2, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&sent(unknown), |sent| {
        runtime.block_on(passes_unchanged(&gateway, &sent));
        Ok(())
    });
    run.unwrap();
}

#[test]
fn hundreds_of_known_members_and_answers_pass_unchanged_but_for_what_is_documented() {
    hundreds_pass_unchanged(UnknownMembers::Refuse);
}

#[test]
fn hundreds_of_unknown_members_pass_unchanged_where_the_operator_lets_them() {
    hundreds_pass_unchanged(UnknownMembers::Pass);
}
