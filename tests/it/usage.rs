//! What was spent is shown: to the caller by `GET /usage`, to the operator on the command line, to
//! dashboards as gauges, and always the same.

use std::num::NonZeroU64;

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use crate::databases::Database;
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture};
use crate::program::Installation;

async fn ocr(gateway: &TestGateway, key: &str) -> Answer {
    Answer::of(gateway.post_as(key, "/ocr").body(fixture("hello.png"))).await
}

async fn usage(gateway: &TestGateway, key: &str) -> Value {
    let url = format!("{}/usage", gateway.address);
    let answer = Answer::of(gateway.http.get(url).bearer_auth(key)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

fn acme() -> Tenant {
    Tenant { daily_tokens: NonZeroU64::new(100_000), ..Tenant::new("acme".parse().unwrap()) }
}

#[tokio::test]
async fn a_request_shows_as_it_was_billed_and_takes_from_what_is_left() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    let answer = ocr(&gateway, &key).await;
    let (bill, report) = (gateway.upstream().bill(), usage(&gateway, &key).await);
    let day = &report["days"][0];
    assert_eq!(report["tenant"], "acme");
    assert_eq!((&day["calls"], &day["unverified_calls"]), (&json!(1), &json!(0)));
    assert_eq!(day["image_tokens"], bill.image);
    assert_eq!(day["input_tokens"], bill.image + bill.text);
    assert_eq!(day["output_tokens"], bill.output);
    assert_eq!(day["cost"], answer.json["usage"]["cost"]);
    assert_eq!(report["total"]["cost"][0], answer.json["usage"]["cost"]);
    let tokens = &report["budgets"]["day"]["tokens"];
    assert_eq!(tokens["limit"], 100_000);
    assert_eq!((&tokens["settled"], &tokens["reserved"]), (&json!(bill.total()), &json!(0)));
    assert_eq!(tokens["remaining"], 100_000 - bill.total());
    assert_eq!(report["budgets"]["month"]["tokens"]["remaining"], Value::Null);
}

#[tokio::test]
async fn a_call_whose_bill_is_unknown_shows_as_unverified() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::reset().after_inference());
    let key = gateway.key_of(&acme()).await;
    assert_eq!(ocr(&gateway, &key).await.status, 502);
    let total = usage(&gateway, &key).await["total"].clone();
    assert_eq!(total["calls"], 2, "the call and its one careful repeat");
    assert_eq!(total["unverified_calls"], 2);
    assert_eq!(total["unverified_tokens"], total["total_tokens"]);
}

#[tokio::test]
async fn nobody_sees_what_another_spends() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    ocr(&gateway, &key).await;
    let report = usage(&gateway, &gateway.key).await;
    assert_eq!((&report["days"], &report["total"]["calls"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn a_query_that_cannot_be_understood_is_a_400_and_no_key_a_401() {
    let gateway = TestGateway::start().await;
    let answer = Answer::of(gateway.get("/usage?from=soon")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"));
    assert_eq!(answer.json["errors"][0]["pointer"], "/from");
    let answer = Answer::of(gateway.get("/usage?form=2026-01-01")).await;
    assert_eq!(answer.code(), "unknown_option");
    let answer = Answer::of(gateway.http.get(format!("{}/usage", gateway.address))).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn gauges_agree_with_the_report() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    ocr(&gateway, &key).await;
    let report = usage(&gateway, &key).await;
    for (state, member) in [("limit", "limit"), ("settled", "settled"), ("reserved", "reserved")] {
        let labels = [("tenant", "acme"), ("period", "day"), ("state", state)];
        let gauge = gateway.count("budget_tokens", &labels).await;
        assert_eq!(report["budgets"]["day"]["tokens"][member], gauge, "{state}");
    }
}

#[tokio::test]
async fn the_command_line_tells_the_same_in_each_format_while_the_service_runs() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    for _ in 0..3 {
        let request = service.post(&key, "/ocr").body(fixture("hello.png"));
        assert_eq!(Answer::of(request).await.status, 200);
    }
    let billed = installation.upstream().bill().total().to_string();
    let json = installation.run("usage --format json").await.out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rows"][0]["tenant"], "acme");
    assert_eq!(json["total"]["total_tokens"].to_string(), billed);
    let csv = installation.run("usage --format csv --tenant acme").await.out;
    let lines: Vec<Vec<_>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let total = lines[0].iter().position(|name| *name == "total_tokens").unwrap();
    assert_eq!((lines.len(), lines[1][total]), (2, billed.as_str()));
    let table = installation.run("usage").await.out;
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("total") && last.contains(&billed), "{table}");
    assert_eq!(installation.run("usage --tenant nobody --format csv").await.out.lines().count(), 1);
    assert_eq!(installation.run("usage --from soon").await.code, 2);
    assert_eq!(installation.run("usage --from 2026-02-01 --to 2026-01-01").await.code, 1);
    let audit = installation.run("audit").await;
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
}

#[tokio::test]
async fn an_audit_finds_an_account_that_was_changed_behind_the_ledgers_back() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let database = Database::sqlite();
    installation.set("DATABASE__URL", &database.url);
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    assert_eq!(Answer::of(request).await.status, 200);
    database
        .execute("UPDATE ledger_accounts SET granted = granted + 1, released = released + 1")
        .await;
    let audit = installation.run("audit").await;
    assert_eq!(audit.code, 1);
    assert_eq!(audit.out.lines().count(), 4, "{}", audit.out);
}
