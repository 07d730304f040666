//! The spend is the same everywhere: for callers in `GET /usage`, for operators on the command line, and for dashboards
//! in gauges.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use dashscope_emulator::Fault;
use ocr_gateway::auth::key::ApiKey;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::random::SystemRandom;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::databases::Database;
use crate::dropin::{self, CHAT, GENERATION};
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture, spawn, until};
use crate::openapi::contract;
use crate::program::{Installation, Service};

async fn ocr(gateway: &TestGateway, key: &str) -> Answer {
    Answer::of(gateway.post_as(key, "/ocr").body(fixture("hello.png"))).await
}

async fn ocr_of(service: &Service, key: &str) -> Answer {
    Answer::of(service.post(key, "/ocr").body(fixture("hello.png"))).await
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

// For callers.

#[tokio::test]
async fn a_request_shows_as_it_was_billed_and_takes_from_what_is_left() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    let answer = ocr(&gateway, &key).await;
    let (bill, report) = (gateway.upstream().bill(), usage(&gateway, &key).await);
    let day = &report["days"][0];
    assert_eq!(report["tenant"], "acme");
    assert_eq!(day["model"], answer.json["model"]);
    assert_eq!((&day["calls"], &day["unverified_calls"]), (&json!(1), &json!(0)));
    assert_eq!(day["image_tokens"], bill.image);
    assert_eq!(day["input_tokens"], bill.image + bill.text);
    assert_eq!(day["output_tokens"], bill.output);
    assert_eq!(
        (&day["total_tokens"], &day["unverified_tokens"]),
        (&json!(bill.total()), &json!(0))
    );
    assert_eq!(day["cost"], answer.json["usage"]["cost"]);
    assert_eq!(report["total"]["cost"][0], answer.json["usage"]["cost"]);
    let tokens = &report["budgets"]["day"]["tokens"];
    assert_eq!(tokens["limit"], 100_000);
    assert_eq!((&tokens["settled"], &tokens["reserved"]), (&json!(bill.total()), &json!(0)));
    assert_eq!(tokens["remaining"], 100_000 - bill.total());
    let month = &report["budgets"]["month"]["tokens"];
    assert_eq!((&month["settled"], &month["remaining"]), (&json!(bill.total()), &Value::Null));
}

#[tokio::test]
async fn what_is_left_is_the_same_in_every_answer() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    let told = ocr(&gateway, &key).await.json["limits"]["tokens_remaining"].clone();
    let estimate = gateway.post_as(&key, "/estimate").body(fixture("hello.png"));
    assert_eq!(Answer::of(estimate).await.json["limits"]["tokens_remaining"], told);
    let budgets = &usage(&gateway, &key).await["budgets"];
    for period in ["day", "month"] {
        assert_eq!(budgets[period]["tokens"]["remaining"], told[period], "{period}");
    }
}

#[tokio::test]
async fn a_budget_of_money_is_shown_before_anything_is_spent_and_falls_by_what_is() {
    let gateway = TestGateway::start().await;
    let daily_cost = Some("0.5".parse().unwrap());
    let key = gateway.key_of(&Tenant { daily_cost, ..acme() }).await;
    let before = usage(&gateway, &key).await["budgets"]["day"]["cost"].clone();
    let unspent = json!([{ "currency": "CNY", "limit": "0.5", "settled": "0", "reserved": "0",
        "remaining": "0.5" }]);
    assert_eq!(before, unspent);
    let cost = ocr(&gateway, &key).await.json["usage"]["cost"]["amount"].clone();
    let after = usage(&gateway, &key).await["budgets"].clone();
    let cents = |amount: &Value| nanos(amount.as_str().unwrap());
    let day = &after["day"]["cost"][0];
    assert_eq!(day["settled"], cost);
    assert_eq!(cents(&day["remaining"]), 500_000_000 - cents(&cost));
    let month = &after["month"]["cost"][0];
    assert_eq!((&month["settled"], &month["limit"]), (&cost, &Value::Null));
}

/// A decimal amount in billionths.
fn nanos(amount: &str) -> u64 {
    let (units, decimals) = amount.split_once('.').unwrap_or((amount, ""));
    format!("{units}{decimals:0<9}").parse().unwrap()
}

#[tokio::test]
async fn a_call_in_flight_holds_its_bound() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    let estimate = gateway.post_as(&key, "/estimate").body(fixture("hello.png"));
    let bound = Answer::of(estimate).await.json["bound"]["total_tokens"].as_u64().unwrap();
    gateway.upstream().add_fault(Fault::hang().times(1));
    let request = gateway.post_as(&key, "/ocr").body(fixture("hello.png"));
    spawn(async move { request.send().await });
    gateway.until_upstream_has(1).await;
    let tokens = usage(&gateway, &key).await["budgets"]["day"]["tokens"].clone();
    let held = json!({ "limit": 100_000, "settled": 0, "reserved": bound,
        "remaining": 100_000 - bound });
    assert_eq!(tokens, held);
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
    assert_eq!(report["budgets"]["month"]["tokens"]["settled"], 0);
    let asked = Answer::of(gateway.get("/usage?tenant=acme")).await;
    assert_eq!((asked.status.as_u16(), asked.code()), (400, "unknown_option"));
}

#[tokio::test]
async fn other_days_show_what_was_spent_on_them_beside_the_budgets_of_now() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    ocr(&gateway, &key).await;
    let url = format!("{}/usage?from=2024-01-01&to=2024-12-31", gateway.address);
    let report = Answer::of(gateway.http.get(url).bearer_auth(&key)).await.json;
    assert_eq!((&report["from"], &report["to"]), (&json!("2024-01-01"), &json!("2024-12-31")));
    assert_eq!((&report["days"], &report["total"]["cost"]), (&json!([]), &json!([])));
    assert_ne!(report["budgets"]["day"]["tokens"]["settled"], 0);
}

#[tokio::test]
async fn a_query_that_cannot_be_understood_is_a_400_that_names_the_option() {
    let gateway = TestGateway::start().await;
    for (query, code, pointer) in [
        ("from=soon", "invalid_option", "/from"),
        ("to=2026-02-30", "invalid_option", "/to"),
        ("from=2026-01-01T23:00:00Z", "invalid_option", "/from"),
        ("from=2026-02-02&to=2026-02-01", "invalid_option", "/from"),
        ("from=2024-01-01&to=2025-01-01", "invalid_option", "/from"),
        ("from=2026-01-01&from=2026-01-02", "invalid_option", "/from"),
        ("form=2026-01-01", "unknown_option", "/form"),
    ] {
        let answer = Answer::of(gateway.get(&format!("/usage?{query}"))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{query}");
        assert_eq!(answer.json["errors"][0]["pointer"], pointer, "{query}");
    }
    let answer = Answer::of(gateway.http.get(format!("{}/usage", gateway.address))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"));
}

#[tokio::test]
async fn the_answer_has_the_documented_shape_whatever_was_spent() {
    let schema = json!({
        "$ref": "#/components/schemas/UsageReport",
        "components": contract()["components"],
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let gateway = TestGateway::start().await;
    let monthly_cost = Some("12.50".parse().unwrap());
    let key = gateway.key_of(&Tenant { monthly_cost, ..acme() }).await;
    for calls in 0..2 {
        let report = usage(&gateway, &key).await;
        let faults: Vec<_> =
            validator.iter_errors(&report).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "after {calls} calls: {faults:?} in {report}");
        ocr(&gateway, &key).await;
    }
    assert!(!validator.is_valid(&json!({})), "the schema says something");
}

#[tokio::test]
async fn a_question_counts_for_the_tenant_that_asked() {
    let gateway = TestGateway::start().await;
    usage(&gateway, &gateway.key).await;
    Answer::of(gateway.get("/usage?from=soon")).await;
    for (status, count) in [("200", 1), ("400", 1)] {
        let labels = [("route", "/usage"), ("tenant", "test"), ("status", status)];
        assert_eq!(gateway.count("requests_total", &labels).await, count, "{status}");
    }
    assert_eq!(gateway.upstream().bill().received, 0, "nothing is spent by asking");
}

#[tokio::test]
async fn without_its_database_the_service_cannot_tell_and_says_so() {
    // A tenant in the configuration, whose key needs no database.
    let (key, hash) = ApiKey::create(&SystemRandom);
    let section = json!({ "keys": [{ "id": key.id(), "sha256": hash.to_hex() }] });
    let gateway = TestGateway::with(|setup| {
        let section = serde_json::from_value(section).unwrap();
        setup.settings.tenants.insert("filed".parse().unwrap(), section);
    })
    .await;
    assert_eq!(usage(&gateway, key.expose()).await["tenant"], "filed");
    gateway.store.close().await;
    let url = format!("{}/usage", gateway.address);
    let answer = Answer::of(gateway.http.get(url).bearer_auth(key.expose())).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "store_unavailable"));
    assert_eq!(answer.json["retryable"], true);
    assert!(!answer.header("retry-after").is_empty());
}

// For dashboards.

#[tokio::test]
async fn gauges_agree_with_the_report() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&acme()).await;
    ocr(&gateway, &key).await;
    gateway.upstream().add_fault(Fault::reset().after_inference().times(1));
    ocr(&gateway, &key).await;
    let budgets = usage(&gateway, &key).await["budgets"].clone();
    for period in ["day", "month"] {
        for state in ["limit", "settled", "reserved"] {
            let labels = [("tenant", "acme"), ("period", period), ("state", state)];
            let gauge = gateway.count("budget_tokens", &labels).await;
            // A missing gauge counts as zero.
            let told = budgets[period]["tokens"][state].as_u64().unwrap_or(0);
            assert_eq!(told, gauge, "{period} {state}");
        }
    }
}

// For operators.

/// Three tenants, two days, two models and two currencies. One name has a comma.
const SPENT: &str = "
    INSERT INTO ledger_usage (day, tenant, model, currency, calls, unverified_calls, image_tokens,
        text_tokens, output_tokens, unverified_tokens, cost_nanos)
    VALUES ('2026-05-03', 'acme', 'm', 'CNY', 2, 1, 700, 20, 30, 400, 1500000000),
           ('2026-05-04', 'acme', 'm', 'USD', 1, 0, 70, 2, 3, 0, 1),
           ('2026-05-04', 'acme', 'large, slow', 'CNY', 1, 0, 5, 0, 0, 0, 500000000),
           ('2026-05-04', 'only-in-a-file', 'm', 'CNY', 1, 0, 1, 1, 1, 0, 3)";

/// The rows of a CSV text whose fields have no line breaks.
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for line in text.split_terminator("\r\n") {
        let (mut fields, mut is_quoted) = (vec![String::new()], false);
        for letter in line.chars() {
            match letter {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => fields.push(String::new()),
                other => fields.last_mut().unwrap().push(other),
            }
        }
        rows.push(fields);
    }
    rows
}

/// A row of the JSON output, in the form of the CSV output.
fn as_csv(row: &Value, columns: &[String]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cells = columns.iter().map(|column| match column.as_str() {
        "cost" => text(&row["cost"]["amount"]),
        "currency" => text(&row["cost"]["currency"]),
        other => text(&row[other]),
    });
    cells.collect()
}

#[tokio::test]
async fn the_command_line_tells_all_tenants_and_the_same_in_each_format() {
    for database in Database::of_each_engine().await {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", &database.url);
        assert_eq!(installation.run("migrate").await.code, 0);
        database.execute(SPENT).await;
        let days = "--from 2026-05-03 --to 2026-05-04";
        let json = installation.run(&format!("usage {days} --format json")).await.out;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["from"], &json["to"]), (&json!("2026-05-03"), &json!("2026-05-04")));
        assert_eq!(json["total"]["total_tokens"], 833);
        let costs = json["total"]["cost"].as_array().unwrap();
        let costs: Vec<_> = costs.iter().map(|cost| cost["amount"].as_str().unwrap()).collect();
        assert_eq!(costs, ["2.000000003", "0.000000001"]);

        let csv = csv_rows(&installation.run(&format!("usage {days} --format csv")).await.out);
        let rows = json["rows"].as_array().unwrap();
        assert_eq!((rows.len(), csv.len()), (4, 5));
        for (row, line) in rows.iter().zip(&csv[1..]) {
            assert_eq!(&as_csv(row, &csv[0]), line);
        }
        let table = installation.run(&format!("usage {days}")).await.out;
        for (fields, line) in csv[1..].iter().zip(table.lines().skip(1)) {
            let cells: Vec<_> = line.split_whitespace().collect();
            let fields: Vec<_> = fields.iter().flat_map(|field| field.split_whitespace()).collect();
            assert_eq!(cells, fields, "{table}");
        }
        let one = installation.run("usage --from 2026-05-04 --to 2026-05-04 --tenant acme").await;
        assert_eq!(one.out.lines().count(), 1 + 2 + 2, "{}", one.out);
        assert!(!one.out.contains("only-in-a-file") && !one.out.contains("2026-05-03"));
    }
}

#[tokio::test]
async fn the_command_line_tells_what_was_billed_while_the_service_runs() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    for _ in 0..3 {
        assert_eq!(ocr_of(&service, &key).await.status, 200);
    }
    let request = service.http.get(format!("{}/usage", service.address)).bearer_auth(&key);
    let (told, bill) = (Answer::of(request).await.json, installation.upstream().bill());
    let json = installation.run("usage --format json").await.out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["total"]["total_tokens"], bill.total());
    for member in ["from", "to", "total"] {
        assert_eq!(json[member], told[member], "{member}");
    }
    let mut row = json["rows"][0].clone();
    assert_eq!(row.as_object_mut().unwrap().shift_remove("tenant"), Some(json!("acme")));
    assert_eq!(row, told["days"][0]);
    let table = installation.run("usage").await.out;
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("total") && last.contains(&bill.total().to_string()), "{table}");
    assert_eq!(installation.run("usage --tenant nobody --format csv").await.out.lines().count(), 1);
}

/// The JSON output of `usage` with these arguments.
async fn told(installation: &Installation, arguments: &str) -> Value {
    let ended = installation.run(&format!("usage {arguments} --format json")).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}

/// Requests for all routes that spend.
fn spending(service: &Service, key: &str) -> Vec<RequestBuilder> {
    let picture = fixture("hello.png");
    let mut stream = dropin::chat();
    stream["stream"] = true.into();
    vec![
        service.post(key, "/ocr").body(picture.clone()),
        service.post(key, "/ocr").header("accept", "text/event-stream").body(picture.clone()),
        service.post(key, "/extract?template=receipt").body(picture),
        service.post(key, CHAT).body(dropin::chat().to_string()),
        service.post(key, CHAT).body(stream.to_string()),
        service.post(key, GENERATION).body(dropin::generation().to_string()),
    ]
}

#[tokio::test]
async fn the_spend_of_three_keys_sums_to_that_of_their_tenant_to_the_last_digit() {
    for database in Database::of_each_engine().await {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", &database.url);
        installation.set("UPSTREAM__BACKOFF_CAP_MS", "1");
        installation.set("UPSTREAM__BACKOFF_BASE_MS", "1");
        let mut keys = vec![installation.key("acme").await];
        for _ in 0..2 {
            keys.push(installation.run("key create acme").await.out.trim().to_owned());
        }
        let mut service = installation.serve().await;
        let mut billed = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            let before = installation.upstream().bill().total();
            for request in (0..=number).flat_map(|_| spending(&service, key)) {
                assert_eq!(Answer::of(request).await.status, 200);
            }
            let id = key.split('_').nth(1).unwrap().to_owned();
            billed.insert(id, installation.upstream().bill().total() - before);
        }
        let by_key = told(&installation, "--by key").await;
        let rows = by_key["rows"].as_array().unwrap().iter();
        let told_of_keys = rows.map(|row| {
            (row["key"].as_str().unwrap().to_owned(), row["total_tokens"].as_u64().unwrap())
        });
        assert_eq!(told_of_keys.collect::<BTreeMap<_, _>>(), billed);
        // Calls with an unknown bill count for their key too.
        installation.upstream().add_fault(Fault::reset().after_inference().every(3));
        for request in keys.iter().flat_map(|key| spending(&service, key)) {
            // A stream that breaks off has no whole answer.
            let _ = request.send().await.unwrap().bytes().await;
        }
        service.signal("TERM").await;
        assert_eq!(service.ended().await, Some(0));
        let whole = told(&installation, "--tenant acme").await["total"].clone();
        assert_ne!(whole["unverified_calls"], 0);
        for by in ["key", "endpoint", "hour"] {
            let parts = told(&installation, &format!("--tenant acme --by {by}")).await;
            assert_eq!(parts["total"], whole, "by {by}");
            let rows = parts["rows"].as_array().unwrap();
            let sum: u64 =
                rows.iter().map(|row| nanos(row["cost"]["amount"].as_str().unwrap())).sum();
            assert_eq!(sum, nanos(whole["cost"][0]["amount"].as_str().unwrap()), "by {by}");
            assert!(
                rows.iter().all(|row| row[by].is_string() && row["tenant"] == "acme"),
                "{parts}"
            );
        }
        let endpoints = told(&installation, "--by endpoint").await;
        assert_eq!(endpoints["rows"][0]["endpoint"], "beijing");
        assert_eq!(installation.run("audit").await.code, 0);
    }
}

#[tokio::test]
async fn wrong_days_are_wrong_usage() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    assert_eq!(installation.run("migrate").await.code, 0);
    for arguments in [
        "usage --from soon",
        "usage --to 2026-02-30",
        "usage --from 2026-02-02 --to 2026-02-01",
        "usage --format xml",
        "usage --by day",
        "usage --tenant Not/A/Name",
        "audit --from soon",
    ] {
        let ended = installation.run(arguments).await;
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{arguments}: {}", ended.err);
        assert!(!ended.err.is_empty(), "{arguments}");
    }
}

/// Faults that end calls in each of the ledger's ways.
fn faults() -> [Fault; 5] {
    [
        Fault::status(500).every(5),
        Fault::reset().after_inference().every(7),
        Fault::empty_body().after_inference().every(11),
        Fault::code("Throttling.RateQuota").every(13),
        Fault::code("DataInspectionFailed").every(17),
    ]
}

#[tokio::test]
async fn the_ledger_is_balanced_after_faults_and_while_a_call_is_in_flight() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    for fault in faults() {
        installation.upstream().add_fault(fault);
    }
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(ocr_of(&service, &key).await.status.as_u16());
    }
    assert!(statuses.contains(&200) && statuses.iter().any(|status| *status != 200));
    installation.upstream().clear_faults();
    installation.upstream().add_fault(Fault::hang().times(1));
    let received = installation.upstream().bill().received;
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    spawn(async move { request.send().await });
    until("sent", async || installation.upstream().bill().received > received).await;
    let audit = installation.run("audit").await;
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
    assert!(audit.out.starts_with("balanced: every account since "), "{}", audit.out);
    let json = installation.run("usage --format json").await.out;
    let total = serde_json::from_str::<Value>(&json).unwrap()["total"].clone();
    assert_ne!(total["unverified_calls"], 0);
    assert_ne!(total["unverified_calls"], total["calls"]);
}

#[tokio::test]
async fn an_audit_finds_an_account_that_was_changed_behind_the_ledgers_back() {
    for database in Database::of_each_engine().await {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", &database.url);
        let key = installation.key("acme").await;
        let service = installation.serve().await;
        assert_eq!(ocr_of(&service, &key).await.status, 200);
        assert_eq!(installation.run("audit").await.code, 0);
        database
            .execute(
                "UPDATE ledger_accounts SET granted = granted + 1, released = released + 1
                 WHERE period = 'day' AND unit = 'tokens'",
            )
            .await;
        let audit = installation.run("audit").await;
        assert_eq!((audit.code, audit.out.lines().count()), (1, 1), "{}", audit.out);
        let named =
            audit.out.starts_with("acme, day of ") && audit.out.contains(", tokens: granted");
        assert!(named && !audit.out.contains("settled"), "{}", audit.out);
    }
}

#[tokio::test]
async fn an_audit_does_not_look_where_entries_are_deleted() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("LEDGER__RETENTION_DAYS", "3");
    assert_eq!(installation.run("migrate").await.code, 0);
    let audit = installation.run("audit").await;
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
    let audit = installation.run("audit --from 2026-01-01").await;
    assert_eq!((audit.code, audit.out.as_str()), (1, ""));
    assert!(audit.err.contains("ledger.retention_days"), "{}", audit.err);
}

#[tokio::test]
async fn a_report_of_too_many_rows_is_a_400_with_both_numbers_and_the_command_line_tells_them_all()
{
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let key = installation.key("acme").await;
    let url = format!("sqlite://{}/gateway.db", installation.folder.path().display());
    let rows = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10001)
        INSERT INTO ledger_usage (day, tenant, model, currency, calls, unverified_calls, image_tokens,
            text_tokens, output_tokens, unverified_tokens, cost_nanos)
        SELECT '2026-01-31', 'acme', 'model-' || n, 'CNY', 1, 0, 1, 1, 1, 0, 1 FROM numbers";
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    let service = installation.serve().await;
    let asked = format!("{}/usage?from=2026-01-01&to=2026-01-31", service.address);
    let refusal = Answer::of(service.http.get(asked).bearer_auth(&key)).await;
    assert_eq!((refusal.status.as_u16(), refusal.code()), (400, "invalid_option"));
    let limit = json!({ "name": "rows", "actual": 10_001, "allowed": 10_000 });
    assert_eq!(refusal.json["limit"], limit, "{}", refusal.text);
    let told = installation.run("usage --from 2026-01-01 --to 2026-01-31 --format csv").await;
    assert_eq!((told.code, told.out.lines().count()), (0, 10_002));
}
