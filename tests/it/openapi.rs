//! `openapi.yaml` is the contract: each documented route exists, and each existing route is documented.

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Answer, TestGateway, fixture};
use crate::wire::Wire;

/// Routes of the metrics listener. `openapi.yaml` has a separate server for them.
const ON_METRICS_LISTENER: &str = "/metrics";

/// Routes without a key: health, and the contract itself.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/openapi.yaml", "/docs"];

/// The contract as JSON.
pub(crate) fn contract() -> Value {
    let text = include_str!("../../openapi.yaml");
    serde_yaml_ng::from_str(text).unwrap()
}

/// Each documented path with its methods.
pub(crate) fn operations() -> Vec<(String, Vec<String>)> {
    let methods = |item: &Value| {
        let members = item.as_object().unwrap().keys();
        members.filter(|name| ["get", "post", "delete"].contains(&name.as_str())).cloned().collect()
    };
    let contract = contract();
    let paths = contract["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// The paths in the router's source, because axum cannot list them.
fn routed() -> Vec<String> {
    let source = include_str!("../../src/api/mod.rs");
    let source = source.split("#[cfg(test)]").next().unwrap();
    let paths = source.split(".route(").skip(1).map(|rest| rest.split('"').nth(1).unwrap());
    paths.map(str::to_owned).collect()
}

/// The stable code of an error, in the shape of the path's protocol.
fn code<'a>(path: &str, answer: &'a Answer) -> &'a str {
    let code = match path.split('/').nth(1) {
        _ if path == "/v1/ocr" => &answer.json["gateway_code"],
        Some("compatible-mode" | "v1") => &answer.json["error"]["gateway_code"],
        Some("api") => &answer.json["gateway_code"],
        _ => return answer.code(),
    };
    code.as_str().unwrap()
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let mut documented: Vec<_> = operations().into_iter().map(|(path, _)| path).collect();
    let mut routed = routed();
    documented.sort();
    routed.sort();
    routed.dedup();
    assert_eq!(documented, routed);
}

#[tokio::test]
async fn a_documented_path_refuses_the_methods_that_it_does_not_document() {
    let gateway = TestGateway::start().await;
    for (path, methods) in operations() {
        if path == ON_METRICS_LISTENER {
            continue;
        }
        let url = format!("{}{}", gateway.address, path.replace("{name}", "receipt"));
        let answer = Answer::of(gateway.http.request(reqwest::Method::PATCH, url)).await;
        let refused = (answer.status.as_u16(), code(&path, &answer));
        assert_eq!(refused, (405, "method_not_allowed"), "{path}");
        for method in methods {
            assert!(answer.header("allow").contains(&method.to_uppercase()), "{path}");
        }
    }
}

#[tokio::test]
async fn without_a_key_only_health_and_the_contract_answer() {
    let gateway = TestGateway::start().await;
    for (path, methods) in operations() {
        if path == ON_METRICS_LISTENER {
            continue;
        }
        for method in methods {
            let url = format!("{}{}", gateway.address, path.replace("{name}", "receipt"));
            let method = method.to_uppercase().parse().unwrap();
            let request = gateway.http.request(method, url).body(fixture("hello.png"));
            let status = Answer::of(request).await.status.as_u16();
            let expected = if OPEN.contains(&path.as_str()) { 200 } else { 401 };
            assert_eq!(status, expected, "{path}");
        }
    }
}

/// The value that a client parses from a body, by its media type.
fn parsed(media_type: &str, answer: &Answer) -> Value {
    match media_type {
        "application/json" => answer.json.clone(),
        "application/yaml" => serde_yaml_ng::from_str(&answer.text).unwrap(),
        _ => Value::from(answer.text.as_str()),
    }
}

#[tokio::test]
async fn what_needs_no_key_is_on_the_documented_listener_and_of_the_documented_type() {
    let gateway = TestGateway::start().await;
    let mut schema = contract();
    for path in OPEN.into_iter().chain([ON_METRICS_LISTENER]) {
        let item = &schema["paths"][path];
        let is_elsewhere = item["servers"].is_array();
        let address = if is_elsewhere { &gateway.metrics_address } else { &gateway.address };
        let answer = Answer::of(gateway.http.get(format!("{address}{path}"))).await;
        assert_eq!(answer.status, 200, "{path}");
        let media_type = answer.header("content-type").split(';').next().unwrap().to_owned();
        let [file, kind] = [path, &media_type].map(|name| name.replace('/', "~1"));
        let response = format!("/paths/{file}/get/responses/200");
        let shared = schema.pointer(&response).unwrap()["$ref"].as_str();
        let response = shared.map_or(&*response, |reference| &reference[1..]);
        let place = format!("{response}/content/{kind}/schema");
        assert!(schema.pointer(&place).is_some(), "{path} is of the type {media_type}");
        // The schema stays in the whole document, so that its references work.
        schema["$ref"] = format!("#{place}").into();
        let validator = jsonschema::validator_for(&schema).unwrap();
        validator.validate(&parsed(&media_type, &answer)).expect(path);
    }
}

/// Calls each documented route that needs a key. Each call has a tenant of its own with the limits of `limited`, and
/// runs `first` before it.
async fn each_route_as(
    gateway: &TestGateway,
    limited: impl Fn(&mut Tenant),
    first: impl AsyncFn(&str),
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for (path, methods) in operations() {
        if path == ON_METRICS_LISTENER || OPEN.contains(&path.as_str()) {
            continue;
        }
        for method in methods {
            let mut tenant = Tenant::new(format!("tenant-{}", answers.len()).parse().unwrap());
            limited(&mut tenant);
            let key = gateway.key_of(&tenant).await;
            first(&key).await;
            let path = path.replace("{name}", "receipt").replace("{id}", "qwen-vl-ocr");
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = gateway.http.request(method, format!("{}{path}", gateway.address));
            let answer = Answer::of(request.bearer_auth(&key).body(fixture("hello.png"))).await;
            answers.push((path, answer));
        }
    }
    assert!(answers.len() > 10);
    answers
}

#[tokio::test]
async fn every_route_that_needs_a_key_counts_against_the_requests_a_minute() {
    let gateway = TestGateway::start().await;
    let limited = |tenant: &mut Tenant| tenant.requests_per_minute = 1.try_into().ok();
    let first = async |key: &str| {
        let estimate = gateway.post_as(key, "/estimate").body(fixture("hello.png"));
        assert_eq!(Answer::of(estimate).await.status, 200);
    };
    for (path, answer) in each_route_as(&gateway, limited, first).await {
        assert_eq!((answer.status.as_u16(), code(&path, &answer)), (429, "rate_limited"), "{path}");
        assert!(!answer.header("retry-after").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn every_route_that_needs_a_key_counts_against_the_requests_at_once() {
    let gateway = TestGateway::start().await;
    let limited = |tenant: &mut Tenant| tenant.concurrency = 1.try_into().ok();
    let held = std::cell::RefCell::new(Vec::new());
    let first = async |key: &str| {
        gateway.upstream().add_fault(Fault::hang().times(1));
        let (mut wire, file) = (Wire::of(&gateway, key).await, fixture("hello.png"));
        let headers = format!("Content-Length: {}\nPrefer: wait=60", file.len());
        wire.head("POST /ocr", &headers).await;
        wire.send(&file).await;
        held.borrow_mut().push(wire);
        let calls = held.borrow().len() as u64;
        gateway.until_upstream_has(calls).await;
    };
    for (path, answer) in each_route_as(&gateway, limited, first).await {
        assert_eq!((answer.status.as_u16(), code(&path, &answer)), (429, "rate_limited"), "{path}");
    }
}

#[tokio::test]
async fn the_contract_is_served_and_shown_without_a_script() {
    let gateway = TestGateway::start().await;
    let contract = Answer::of(gateway.get("/openapi.yaml")).await;
    assert!(contract.text.contains("\nopenapi: 3.1"));
    let page = Answer::of(gateway.get("/docs")).await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(!page.text.contains("<script"));
    for path in ["/ocr", "/extract", "/estimate"] {
        assert!(page.text.contains(path), "{path}");
    }
}

#[tokio::test]
async fn every_code_that_the_service_answers_is_documented() {
    let contract = contract();
    let documented =
        contract["components"]["schemas"]["ProblemCode"]["enum"].as_array().unwrap().clone();
    let gateway = TestGateway::start().await;
    for (path, file) in [
        ("/ocr?x=1", "hello.png"),
        ("/ocr", "plain.gif"),
        ("/ocr", "tiny.png"),
        ("/nope", "tiny.png"),
    ] {
        let answer = gateway.upload(path, fixture(file)).await;
        assert!(documented.contains(&Value::from(answer.code())), "{}", answer.text);
    }
}
