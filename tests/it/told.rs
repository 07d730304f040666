//! The cost in an answer equals the amount that the ledger counts: for each route that spends, whole and streamed, and
//! for all failures.

use dashscope_emulator::Fault;
use http_body_util::BodyExt as _;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Money;
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, Setup, TestGateway, fixture};

/// The cost of a request, from the ledger or from its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spent {
    verified: u64,
    unverified: u64,
    /// The money of both together, if the answer has a member for money.
    nanos: Option<u64>,
}

/// A way to call a route that spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ocr,
    OcrText,
    OcrStream,
    Extract,
    Chat,
    ChatStream,
    Generation,
    GenerationStream,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::Ocr,
        Self::OcrText,
        Self::OcrStream,
        Self::Extract,
        Self::Chat,
        Self::ChatStream,
        Self::Generation,
        Self::GenerationStream,
    ];

    fn request(self, gateway: &TestGateway) -> RequestBuilder {
        let upload = |path| gateway.post(path).body(fixture("hello.png"));
        match self {
            Self::Ocr => upload("/ocr"),
            Self::OcrText => upload("/ocr?format=text"),
            Self::OcrStream => upload("/ocr").header("accept", "text/event-stream"),
            Self::Extract => upload("/extract?template=receipt"),
            Self::Chat => gateway.post(CHAT).body(chat().to_string()),
            Self::ChatStream => streamed(gateway, CHAT, chat()),
            Self::Generation => gateway.post(GENERATION).body(generation().to_string()),
            Self::GenerationStream => streamed(gateway, GENERATION, generation()),
        }
    }
}

/// The part of an answer that arrived. A stream may break off.
struct Read {
    status: u16,
    headers: HeaderMap,
    trailers: HeaderMap,
    text: String,
}

async fn read(request: RequestBuilder) -> Read {
    let response = request.header("te", "trailers").send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = axum::http::Response::from(response).into_body();
    let (mut all, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    Read { status, headers, trailers, text: String::from_utf8(all).unwrap() }
}

impl Read {
    /// The cost in an event of the gateway: in its problem, or in the answer.
    fn by_event(&self) -> Spent {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data:"));
        let mut events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        by_usage(&events.next_back().unwrap()["usage"])
    }

    /// The cost in the answer, in any of its places.
    fn told(&self) -> Spent {
        let media_type = self.headers["content-type"].to_str().unwrap();
        if media_type.starts_with("text/event-stream") {
            // An error of the upstream may arrive as a stream of one event, with headers of the gateway.
            let told = by_headers(&self.headers).or_else(|| by_headers(&self.trailers));
            return told.unwrap_or_else(|| self.by_event());
        }
        let json: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let headers = by_headers(&self.headers);
        if json["usage"]["unverified_tokens"].is_null() {
            return headers.unwrap_or_default();
        }
        let told = by_usage(&json["usage"]);
        let headers = headers.expect("what has a usage has the headers");
        assert_eq!((headers.verified, headers.unverified), (told.verified, told.unverified));
        told
    }
}

/// The cost in headers or trailers, or `None` if there are none.
fn by_headers(headers: &HeaderMap) -> Option<Spent> {
    let tokens = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let verified = tokens("ocr-tokens-input")? + tokens("ocr-tokens-output")?;
    Some(Spent { verified, unverified: tokens("ocr-tokens-unverified")?, nanos: None })
}

fn by_usage(usage: &Value) -> Spent {
    let tokens = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(tokens("input_tokens") + tokens("output_tokens"), tokens("total_tokens"));
    let costs = ["cost", "unverified_cost"].map(|name| nanos(&usage[name]));
    Spent {
        verified: tokens("total_tokens"),
        unverified: tokens("unverified_tokens"),
        nanos: Some(costs.iter().sum()),
    }
}

fn nanos(cost: &Value) -> u64 {
    cost["amount"].as_str().unwrap().parse::<Money>().unwrap().nanos()
}

/// The amount that the ledger has counted for the tenant so far.
async fn counted(gateway: &TestGateway) -> Spent {
    // A scrape first posts the calls that have ended.
    gateway.metrics().await;
    let report = Answer::of(gateway.get("/usage")).await.json;
    let budgets = &report["budgets"];
    assert_eq!(budgets["day"]["tokens"]["reserved"], 0, "{budgets}");
    let total = &report["total"];
    let unverified = total["unverified_tokens"].as_u64().unwrap();
    let verified = total["total_tokens"].as_u64().unwrap() - unverified;
    let costs = total["cost"].as_array().unwrap().iter().map(nanos);
    Spent { verified, unverified, nanos: Some(costs.sum()) }
}

/// Checks for each kind of request that its answer has the cost that the ledger counted. Returns these costs.
async fn told_is_counted(
    change: impl Fn(&mut Setup),
    faults: impl Fn() -> Vec<Fault>,
) -> Vec<(Way, u16, Spent)> {
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.breaker_failures = 1_000;
        change(setup);
    })
    .await;
    let mut all = Vec::new();
    for way in Way::ALL {
        gateway.upstream().clear_faults();
        for fault in faults() {
            gateway.upstream().add_fault(fault);
        }
        let before = counted(&gateway).await;
        let answer = read(way.request(&gateway)).await;
        let after = counted(&gateway).await;
        let spent = Spent {
            verified: after.verified - before.verified,
            unverified: after.unverified - before.unverified,
            nanos: after.nanos.zip(before.nanos).map(|(after, before)| after - before),
        };
        let told = answer.told();
        let what = format!("{way:?} {:?} {} {}", faults(), answer.status, answer.text);
        assert_eq!(told.unverified, spent.unverified, "unverified: {what}");
        assert_eq!(told.verified, spent.verified, "verified: {what}");
        if told.nanos.is_some() {
            assert_eq!(told.nanos, spent.nanos, "cost: {what}");
        }
        all.push((way, answer.status, spent));
    }
    all
}

#[tokio::test]
async fn an_answer_tells_its_bill() {
    for (way, status, spent) in told_is_counted(|_| {}, Vec::new).await {
        assert!(status == 200 && spent.verified > 0 && spent.unverified == 0, "{way:?} {spent:?}");
    }
}

#[tokio::test]
async fn an_answer_after_one_that_was_lost_tells_both() {
    let lost = || vec![Fault::cut_body_at(9).times(1)];
    for (way, status, spent) in told_is_counted(|_| {}, lost).await {
        assert!(status == 200 && spent.verified > 0 && spent.unverified > 0, "{way:?} {spent:?}");
    }
}

#[tokio::test]
async fn an_answer_whose_bill_is_unknown_tells_its_bound_as_unverified() {
    let silent = || vec![Fault::no_usage()];
    for (way, status, spent) in told_is_counted(|_| {}, silent).await {
        assert!(status == 200 && spent.verified == 0 && spent.unverified > 0, "{way:?} {spent:?}");
    }
}

#[tokio::test]
async fn an_error_that_lost_a_bound_tells_it() {
    let impatient = |setup: &mut Setup| {
        setup.settings.upstream.first_byte_timeout_ms = 50;
        setup.settings.upstream.idle_timeout_ms = 50;
    };
    for fault in [
        Fault::cut_body_at(9),
        Fault::hang().after_inference(),
        Fault::empty_body().after_inference(),
        Fault::status(504).after_inference(),
        Fault::code("DataInspectionFailed").with_message("Output data may be inappropriate."),
    ] {
        for (way, _, spent) in told_is_counted(impatient, || vec![fault.clone()]).await {
            assert!(spent.verified == 0 && spent.unverified > 0, "{way:?} {fault:?} {spent:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_tells_what_it_lost() {
    let impatient = |setup: &mut Setup| setup.settings.upstream.idle_timeout_ms = 50;
    for fault in [
        Fault::cut_stream_after(3),
        Fault::end_stream_after(3),
        Fault::stall_stream_after(3),
        Fault::error_event_after(2, "InternalError"),
        Fault::error_event_after(2, "DataInspectionFailed"),
    ] {
        let lost = told_is_counted(impatient, || vec![fault.clone()]).await;
        for (way, _, spent) in lost.into_iter().filter(|(_, status, _)| *status == 200) {
            assert!(spent.unverified > 0, "{way:?} {fault:?} {spent:?}");
        }
    }
}

#[tokio::test]
async fn an_error_whose_bill_is_known_tells_it() {
    let wordless = r#"{"id":"chatcmpl-1","choices":[],"output":{"choices":[]},"usage":{
        "prompt_tokens":700,"completion_tokens":50,"input_tokens":700,"output_tokens":50,
        "total_tokens":750}}"#;
    let fault = || vec![Fault::replay(200, "application/json", wordless.as_bytes())];
    for (way, _, spent) in told_is_counted(|_| {}, fault).await {
        let spent = spent.verified + spent.unverified;
        assert!(spent > 0, "{way:?}");
    }
}

#[tokio::test]
async fn fields_that_cannot_be_understood_tell_both_calls() {
    for times in [1, 2] {
        let prose = || vec![Fault::prose_for_result().times(times)];
        let told = told_is_counted(|_| {}, prose).await;
        let &(_, status, spent) = told.iter().find(|(way, ..)| *way == Way::Extract).unwrap();
        let one = told.iter().find(|(way, ..)| *way == Way::Ocr).unwrap().2;
        assert_eq!(status == 502, times == 2);
        assert!(spent.verified > one.verified, "{spent:?}");
    }
}

#[tokio::test]
async fn a_caller_s_deadline_tells_the_bound_that_it_lost() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::hang().after_inference());
    for way in [Way::Ocr, Way::Extract, Way::OcrStream, Way::Chat, Way::Generation] {
        let before = counted(&gateway).await;
        let answer = read(way.request(&gateway).header("prefer", "wait=2")).await;
        assert_eq!(answer.status, 504, "{}", answer.text);
        let (told, after) = (answer.told(), counted(&gateway).await);
        assert!(told.unverified > 0 && told.verified == 0, "{way:?} {told:?}");
        assert_eq!(told.unverified, after.unverified - before.unverified, "{way:?}");
    }
}

#[tokio::test]
async fn a_repeat_that_a_budget_refuses_tells_what_the_first_attempt_lost() {
    let bound = {
        let gateway = TestGateway::start().await;
        let estimate = gateway.upload("/estimate", fixture("hello.png")).await;
        estimate.json["bound"]["total_tokens"].as_u64().unwrap()
    };
    for way in Way::ALL {
        let gateway = TestGateway::with(|setup| {
            let daily_tokens = std::num::NonZeroU64::new(bound + bound / 2);
            setup.tenant = Tenant { daily_tokens, ..setup.tenant.clone() };
        })
        .await;
        gateway.upstream().add_fault(Fault::cut_body_at(9).times(1));
        let answer = read(way.request(&gateway)).await;
        let (told, counted) = (answer.told(), counted(&gateway).await);
        assert_eq!(answer.status, 429, "{way:?} {}", answer.text);
        assert!(answer.text.contains("budget_exhausted"), "{}", answer.text);
        assert!(told.unverified > 0, "{way:?} {}", answer.text);
        assert_eq!((told.verified, told.unverified), (0, counted.unverified), "{way:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cost_nothing_tells_no_usage() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Arrearage"));
    for way in Way::ALL {
        let answer = read(way.request(&gateway)).await;
        assert_eq!((answer.status, answer.told()), (503, Spent::default()), "{way:?}");
        assert!(!answer.text.contains("unverified"), "{}", answer.text);
    }
    assert_eq!(counted(&gateway).await, Spent { nanos: Some(0), ..Spent::default() });
}

#[tokio::test]
async fn the_head_of_a_stream_tells_what_was_lost_before_it_and_its_body_stays_the_upstream_s() {
    for (way, protocol) in [(Way::ChatStream, CHAT), (Way::GenerationStream, GENERATION)] {
        let gateway = TestGateway::with(|setup| setup.emulator.keep_bodies = true).await;
        gateway.upstream().add_fault(Fault::cut_body_at(9).times(1));
        gateway.upstream().add_fault(Fault::no_usage());
        let response = way.request(&gateway).send().await.unwrap();
        let lost = response.headers()["ocr-tokens-unverified"].to_str().unwrap().to_owned();
        let body = response.text().await.unwrap();
        let sent = gateway.upstream().calls().pop().unwrap().response_body;
        assert_eq!(body.as_bytes(), sent, "{protocol}");
        let counted = counted(&gateway).await;
        assert_eq!(lost.parse::<u64>().unwrap() * 2, counted.unverified, "{protocol}");
    }
}

#[tokio::test]
async fn a_bill_beyond_what_a_call_can_cost_is_told_as_it_is_counted() {
    let content =
        r#"[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"1"}}]"#;
    let body = format!(
        r#"{{"id":"chatcmpl-1","choices":{content},"output":{{"choices":{content}}},"usage":{{
        "prompt_tokens":101,"input_tokens":101,"completion_tokens":999999999999,
        "output_tokens":999999999999,"total_tokens":1000000000100}}}}"#
    );
    let beyond = || vec![Fault::replay(200, "application/json", body.clone())];
    for (way, _, spent) in told_is_counted(|_| {}, beyond).await {
        assert!(spent.verified == 0 && spent.unverified > 0, "{way:?} {spent:?}");
        assert!(spent.unverified < 1_000_000, "{way:?} {spent:?}");
    }
}
