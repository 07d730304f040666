//! A budget is never exceeded, can be used completely, and is checked on each route that spends.

use std::num::NonZeroU64;
use std::sync::Arc;

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::ledger::books::{Charge, Operation};
use ocr_gateway::ledger::budget::Budgets;
use ocr_gateway::ledger::window::{Calendar, Period, Window};
use ocr_gateway::units::{Currency, Money, Tokens, Usage};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::dropin;
use crate::harness::{Answer, MovedClock, TestGateway, calendar, fixture, spawn, today, until};
use crate::mistral;
use crate::openapi::operations;

/// The output limit of these tenants.
const MAX_TOKENS: u64 = 300;

/// A tenant with this daily token budget.
fn budgeted(name: &str, daily_tokens: u64) -> Tenant {
    Tenant {
        daily_tokens: NonZeroU64::new(daily_tokens),
        max_tokens: NonZeroU64::new(MAX_TOKENS),
        ..Tenant::new(name.parse().unwrap())
    }
}

/// The bound of an image, from `/estimate`.
async fn bound(gateway: &TestGateway, key: &str, file: &str) -> u64 {
    let request = gateway.post_as(key, "/estimate").body(fixture(file));
    Answer::of(request).await.json["bound"]["total_tokens"].as_u64().unwrap()
}

async fn ocr(gateway: &TestGateway, key: &str) -> Answer {
    Answer::of(gateway.post_as(key, "/ocr").body(fixture("hello.png"))).await
}

async fn usage(gateway: &TestGateway, key: &str) -> Value {
    let url = format!("{}/usage", gateway.address);
    Answer::of(gateway.http.get(url).bearer_auth(key)).await.json
}

/// Tokens that the ledger counts as settled and as reserved today.
pub(crate) async fn accounts(gateway: &TestGateway, tenant: &str) -> (u64, u64) {
    // A scrape first posts the calls that have ended. The database alone has them a little later.
    gateway.metrics().await;
    let accounts = gateway.store.ledger().accounts(&[tenant], today()).await.unwrap();
    let day = accounts
        .iter()
        .find(|(key, _)| key.unit.as_str() == "tokens" && key.window.period.as_str() == "day");
    day.map_or((0, 0), |(_, account)| (account.settled, account.reserved))
}

#[tokio::test]
async fn every_route_that_reaches_the_upstream_debits_exactly_its_bill() {
    let gateway = TestGateway::start().await;
    let mut spending = Vec::new();
    for (path, methods) in operations() {
        for method in methods {
            let before = (gateway.upstream().bill().total(), accounts(&gateway, "test").await.0);
            let query = if path == "/extract" { "?template=receipt" } else { "" };
            let url = format!("{}{}{query}", gateway.address, path.replace("{name}", "receipt"));
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = gateway.http.request(method, url).bearer_auth(&gateway.key);
            let body = match path.as_str() {
                dropin::GENERATION => dropin::generation().to_string().into(),
                path if path.ends_with("/chat/completions") => dropin::chat().to_string().into(),
                mistral::OCR => mistral::request(&fixture("hello.png")).to_string().into(),
                _ => fixture("hello.png"),
            };
            Answer::of(request.body(body)).await;
            let billed = gateway.upstream().bill().total() - before.0;
            let debited = accounts(&gateway, "test").await.0 - before.1;
            assert_eq!(debited, billed, "{path}");
            if billed > 0 {
                spending.push(path.clone());
            }
        }
    }
    spending.sort();
    let short = "/v1/chat/completions";
    let expected = [dropin::GENERATION, dropin::CHAT, "/extract", "/ocr", short, mistral::OCR];
    assert_eq!(spending, expected, "the routes that the contract says spend");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_fifty_pages_at_once_spend_no_token_over_a_budget_for_twelve() {
    let gateway = Arc::new(
        TestGateway::with(|setup| {
            setup.emulator.latency = std::time::Duration::from_millis(50);
        })
        .await,
    );
    let probe = gateway.key_of(&budgeted("probe", u64::MAX >> 1)).await;
    let budget = 12 * bound(&gateway, &probe, "hello.png").await;
    let key = gateway.key_of(&budgeted("acme", budget)).await;
    let mut pages = JoinSet::new();
    for _ in 0..150 {
        let (gateway, key) = (Arc::clone(&gateway), key.clone());
        pages.spawn(async move { ocr(&gateway, &key).await });
    }
    let mut spent = 0;
    for answer in pages.join_all().await {
        match answer.status.as_u16() {
            200 => spent += answer.json["usage"]["total_tokens"].as_u64().unwrap(),
            _ => assert_eq!(answer.code(), "budget_exhausted"),
        }
    }
    assert_eq!(gateway.upstream().bill().total(), spent);
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
    assert!(spent <= budget, "{spent} of {budget}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_used_to_the_last_bound_before_anything_is_refused() {
    let gateway = Arc::new(TestGateway::start().await);
    let probe = gateway.key_of(&budgeted("probe", u64::MAX >> 1)).await;
    let bound = bound(&gateway, &probe, "hello.png").await;
    let cost = ocr(&gateway, &probe).await.json["usage"]["total_tokens"].as_u64().unwrap();
    let budget = 1_000 * cost;
    let key = gateway.key_of(&budgeted("acme", budget)).await;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let (gateway, key) = (Arc::clone(&gateway), key.clone());
        workers.spawn(async move {
            loop {
                let answer = ocr(&gateway, &key).await;
                if answer.status != 200 {
                    return answer;
                }
            }
        });
    }
    // Each worker stops at its first refusal, so the first refusal of all is among these.
    for refusal in workers.join_all().await {
        assert_eq!(refusal.code(), "budget_exhausted");
        let actual = refusal.json["limit"]["actual"].as_u64().unwrap();
        let headroom = budget - (actual - bound).min(budget);
        assert!(headroom < bound, "refused with {headroom} tokens left for a bound of {bound}");
    }
    let (settled, reserved) = accounts(&gateway, "acme").await;
    assert!(settled <= budget && reserved == 0);
    assert!(settled * 100 >= budget * 95, "{settled} of {budget} were used");
}

#[tokio::test]
async fn a_used_up_budget_is_a_429_that_says_when_to_come_back_and_both_numbers() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&budgeted("acme", 1_000)).await;
    while ocr(&gateway, &key).await.status == 200 {}
    let refusal = ocr(&gateway, &key).await;
    assert_eq!((refusal.status.as_u16(), refusal.code()), (429, "budget_exhausted"));
    assert_eq!(refusal.json["retryable"], true);
    assert_eq!(refusal.json["limit"]["name"], "daily_tokens");
    assert_eq!(refusal.json["limit"]["allowed"], 1_000);
    let wait: i64 = refusal.header("retry-after").parse().unwrap();
    let midnight = calendar().ends_at(&Window::of(Period::Day, today())).as_second();
    let end = jiff::Timestamp::now().as_second() + wait;
    assert!((midnight - 30..=midnight + 30).contains(&end), "the wait ends at midnight");
    assert_eq!(gateway.count("refused_total", &[("reason", "budget")]).await, 2);
}

#[tokio::test]
async fn a_request_that_no_unused_budget_covers_is_not_worth_repeating() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&budgeted("acme", 100)).await;
    let refusal = ocr(&gateway, &key).await;
    assert_eq!(refusal.code(), "budget_exhausted");
    assert_eq!(refusal.json["retryable"], false);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_budget_of_money_binds_and_tells_decimals() {
    let gateway = TestGateway::start().await;
    let tenant = Tenant {
        daily_cost: Some("0.0005".parse().unwrap()),
        max_tokens: NonZeroU64::new(MAX_TOKENS),
        ..Tenant::new("acme".parse().unwrap())
    };
    let key = gateway.key_of(&tenant).await;
    let mut last = ocr(&gateway, &key).await;
    assert_eq!(last.status, 200);
    while last.status == 200 {
        last = ocr(&gateway, &key).await;
    }
    assert_eq!(last.code(), "budget_exhausted");
    assert_eq!(last.json["limit"]["name"], "daily_cost");
    assert_eq!(last.json["limit"]["allowed"], "0.0005");
    assert!(last.json["detail"].as_str().unwrap().contains("0.0005 CNY"), "{}", last.text);
}

#[tokio::test]
async fn what_is_left_is_told_with_every_answer() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&budgeted("acme", 50_000)).await;
    let answer = ocr(&gateway, &key).await;
    let spent = answer.json["usage"]["total_tokens"].as_u64().unwrap();
    let left = &answer.json["limits"]["tokens_remaining"];
    assert_eq!((left["day"].as_u64(), &left["month"]), (Some(50_000 - spent), &Value::Null));
    let estimate = gateway.post_as(&key, "/estimate").body(fixture("hello.png"));
    let left = &Answer::of(estimate).await.json["limits"]["tokens_remaining"];
    assert_eq!(left["day"].as_u64(), Some(50_000 - spent));
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_counts_at_its_bound_and_its_repeat_beside_it() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::reset().after_inference().times(1));
    let key = gateway.key_of(&budgeted("acme", 100_000)).await;
    let bound = bound(&gateway, &key, "hello.png").await;
    let answer = ocr(&gateway, &key).await;
    let spent = answer.json["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(accounts(&gateway, "acme").await, (bound + spent, 0));
    assert!(gateway.upstream().bill().total() <= bound + spent);
}

#[tokio::test]
async fn a_repeat_that_does_not_fit_beside_a_lost_bill_is_not_made() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::reset().after_inference().times(1));
    let probe = gateway.key_of(&budgeted("probe", u64::MAX >> 1)).await;
    let bound = bound(&gateway, &probe, "hello.png").await;
    let key = gateway.key_of(&budgeted("acme", bound + bound / 2)).await;
    let answer = ocr(&gateway, &key).await;
    assert_eq!(answer.code(), "budget_exhausted");
    assert_eq!(gateway.upstream().bill().received, 1);
    assert_eq!(accounts(&gateway, "acme").await, (bound, 0));
}

#[tokio::test]
async fn a_refusal_by_the_upstream_that_costs_nothing_is_given_back() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("InvalidApiKey").times(1));
    let key = gateway.key_of(&budgeted("acme", 50_000)).await;
    assert_eq!(ocr(&gateway, &key).await.code(), "upstream_account");
    until("released", async || accounts(&gateway, "acme").await == (0, 0)).await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_is_charged_what_its_call_was_billed() {
    let gateway = Arc::new(
        TestGateway::with(|setup| {
            setup.emulator.latency = std::time::Duration::from_millis(300);
        })
        .await,
    );
    let key = gateway.key_of(&budgeted("acme", 50_000)).await;
    let (impatient, its_key) = (Arc::clone(&gateway), key.clone());
    let request = spawn(async move { ocr(&impatient, &its_key).await });
    gateway.until_upstream_has(1).await;
    request.abort();
    until("settled", async || {
        let (settled, reserved) = accounts(&gateway, "acme").await;
        settled > 0 && reserved == 0
    })
    .await;
    assert_eq!(accounts(&gateway, "acme").await.0, gateway.upstream().bill().total());
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_and_not_free() {
    let gateway = TestGateway::with(|setup| {
        // Virginia has a price only for some models.
        setup.settings.upstream.region = "virginia".to_owned();
    })
    .await;
    let request = gateway.post("/ocr?model=qwen3.5-ocr").body(fixture("hello.png"));
    assert_eq!(Answer::of(request).await.code(), "invalid_option");
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_new_key_spends_from_its_tenants_account() {
    let gateway = TestGateway::start().await;
    let tenant = budgeted("acme", 1_000);
    let old = gateway.key_of(&tenant).await;
    while ocr(&gateway, &old).await.status == 200 {}
    let new = gateway.another_key(|record| record.tenant = tenant.name.clone()).await;
    assert_eq!(ocr(&gateway, &new).await.code(), "budget_exhausted");
}

// Time zones.

#[tokio::test]
async fn a_budget_begins_anew_at_the_midnight_of_its_time_zone() {
    // One hour before the end of a day on which Berlin's clocks were set forward.
    let clock = Arc::new(MovedClock::at("2026-03-29T21:00:00Z"));
    let berlin = Arc::clone(&clock);
    let gateway = TestGateway::with(|setup| {
        setup.settings.ledger.time_zone = Calendar::named("Europe/Berlin").unwrap();
        // Reads the gauges often.
        setup.settings.ledger.lease_ms = 300;
        setup.clock = berlin;
    })
    .await;
    let key = gateway.key_of(&budgeted("acme", 1_000)).await;
    while ocr(&gateway, &key).await.status == 200 {}
    let refusal = ocr(&gateway, &key).await;
    let wait: u64 = refusal.header("retry-after").parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    let day = ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    let before = usage(&gateway, &key).await;
    assert_eq!((&before["from"], &before["to"]), (&json!("2026-03-01"), &json!("2026-03-29")));
    assert_eq!(before["days"][0]["date"], "2026-03-29");
    assert_eq!(before["budgets"]["day"]["starts_at"], day.0);
    assert_eq!(before["budgets"]["day"]["ends_at"], day.1);
    assert_eq!(before["budgets"]["month"]["ends_at"], "2026-03-31T22:00:00Z");
    let gauge = [("tenant", "acme"), ("period", "day"), ("state", "settled")];
    assert!(gateway.count("budget_tokens", &gauge).await > 0);

    clock.set(day.1);
    until("a new day", async || gateway.count("budget_tokens", &gauge).await == 0).await;
    assert_eq!(ocr(&gateway, &key).await.status, 200);
    let after = usage(&gateway, &key).await;
    assert_eq!(
        (&after["to"], &after["days"][1]["date"]),
        (&json!("2026-03-30"), &json!("2026-03-30"))
    );
    assert_eq!(after["budgets"]["day"]["starts_at"], day.1);
    let spent = gateway.upstream().bill().total();
    assert_eq!(after["budgets"]["month"]["tokens"]["settled"], spent);
}

/// The amount that another replica holds of the tenant's budget, which leaves no room.
const HELD: u64 = 1_000_000;

/// The answer to a call that waits for the amount of another replica while its tenant is changed, and the number of
/// calls that the upstream has received.
async fn answer_after_a_change(
    request: impl Fn(&TestGateway, &str) -> reqwest::RequestBuilder,
    change: impl FnOnce(&mut Tenant),
) -> (Answer, u64) {
    let gateway = TestGateway::start().await;
    let mut tenant = budgeted("acme", HELD);
    let key = gateway.key_of(&tenant).await;
    let (ledger, id) = (gateway.store.ledger(), uuid::Uuid::from_u128(1));
    gateway.store.leases().register(id).await.unwrap();
    let page = Charge {
        tenant: "acme".into(),
        key: None,
        model: "m".into(),
        bound: Usage { image: Tokens::new(HELD), ..Usage::default() },
        cost: Money::ZERO,
        currency: Currency::Cny,
    };
    let held = Operation::Reserve { id, instance: id, charge: page, budgets: Budgets::default() };
    ledger.post(&[held], today()).await.unwrap();
    let call = spawn(Answer::of(request(&gateway, &key)));
    until("it was let in", async || gateway.count("in_flight_bytes", &[]).await > 0).await;
    change(&mut tenant);
    assert!(gateway.store.tenants().update_tenant(&tenant).await.unwrap());
    (call.await.unwrap(), gateway.upstream().bill().received)
}

#[tokio::test]
async fn a_call_that_waits_is_refused_once_its_tenant_is_disabled() {
    for path in ["/ocr", "/extract", dropin::CHAT, dropin::GENERATION] {
        let request = |gateway: &TestGateway, key: &str| match path {
            dropin::CHAT => gateway.post_as(key, path).body(dropin::chat().to_string()),
            dropin::GENERATION => gateway.post_as(key, path).body(dropin::generation().to_string()),
            "/extract" => {
                gateway.post_as(key, "/extract?template=receipt").body(fixture("hello.png"))
            }
            _ => gateway.post_as(key, path).body(fixture("hello.png")),
        };
        let disable = |tenant: &mut Tenant| {
            tenant.disabled = true;
            // From now on there is room.
            tenant.daily_tokens = None;
        };
        let (answer, received) = answer_after_a_change(request, disable).await;
        assert_eq!((answer.status.as_u16(), received), (403, 0), "{path}: {}", answer.text);
        assert!(answer.text.contains("is disabled"), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn what_is_left_is_told_by_the_budget_that_bound_the_call() {
    let request =
        |gateway: &TestGateway, key: &str| gateway.post_as(key, "/ocr").body(fixture("hello.png"));
    let raise = |tenant: &mut Tenant| tenant.daily_tokens = NonZeroU64::new(HELD + 50_000);
    let (answer, _) = answer_after_a_change(request, raise).await;
    let spent = answer.json["usage"]["total_tokens"].as_u64().unwrap();
    let left = answer.json["limits"]["tokens_remaining"]["day"].as_u64();
    assert_eq!(left, Some(50_000 - spent), "{}", answer.text);
}
