//! There is a gauge for each budget of each tenant, whether or not the tenant sends requests.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::ledger::window::Calendar;
use sqlx::{Connection as _, PgConnection};

use crate::databases::Database;
use crate::harness::{Answer, MovedClock, TestGateway, fixture, until};
use crate::program::{Installation, Service};

/// A tenant with a cost budget only.
fn frugal(name: &str) -> Tenant {
    Tenant { daily_cost: Some("0.5".parse().unwrap()), ..Tenant::new(name.parse().unwrap()) }
}

fn rationed(name: &str, daily_tokens: u64) -> Tenant {
    Tenant { daily_tokens: NonZeroU64::new(daily_tokens), ..Tenant::new(name.parse().unwrap()) }
}

/// The lines of the budget gauges.
async fn gauges(gateway: &TestGateway) -> Vec<String> {
    let metrics = gateway.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with("ocr_gateway_budget_"));
    lines.filter(|line| line.contains('{')).map(str::to_owned).collect()
}

async fn nanos(gateway: &TestGateway, name: &str, labels: &[(&str, &str)]) -> u64 {
    let amount = gateway.metric(name, labels).await;
    format!("{:.0}", amount * 1e9).parse().unwrap()
}

#[tokio::test]
async fn a_budget_of_money_is_a_gauge_before_the_first_call_and_falls_with_each() {
    let gateway = TestGateway::start().await;
    let key = gateway.key_of(&frugal("acme")).await;
    let day = [("tenant", "acme"), ("period", "day"), ("currency", "CNY")];
    assert_eq!(nanos(&gateway, "budget_cost_limit", &day).await, 500_000_000);
    assert!(gauges(&gateway).await.iter().any(|line| line.contains("budget_cost_settled")));
    let answer = Answer::of(gateway.post_as(&key, "/ocr").body(fixture("hello.png"))).await;
    let cost = answer.json["usage"]["cost"]["amount"].as_str().unwrap();
    let cost: f64 = cost.parse().unwrap();
    for period in ["day", "month"] {
        let labels = [("tenant", "acme"), ("period", period), ("currency", "CNY")];
        until("it is settled", async || {
            let settled = gateway.metric("budget_cost_settled", &labels).await;
            (settled - cost).abs() < 1e-12
        })
        .await;
    }
    assert_eq!(nanos(&gateway, "budget_cost_reserved", &day).await, 0);
    // The month has no budget.
    assert_eq!(gauges(&gateway).await.iter().filter(|line| line.contains("cost_limit")).count(), 1);
}

#[tokio::test]
async fn no_gauge_of_a_budget_mixes_tenants() {
    let gateway = TestGateway::with(|setup| setup.settings.metrics.max_tenants = 2).await;
    let mut keys = Vec::new();
    for (name, limit) in [("a", 1_000_000), ("b", 2_000_000), ("c", 1_000_000), ("d", 500_000)] {
        keys.push(gateway.key_of(&rationed(name, limit)).await);
    }
    let daily_cost = Some("0.02".parse().unwrap());
    keys.push(gateway.key_of(&Tenant { daily_cost, ..frugal("e") }).await);
    for key in &keys[2..] {
        let answer = Answer::of(gateway.post_as(key, "/ocr").body(fixture("hello.png"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    // The tenants shown have used most of their budgets, so an alert at 90 % misses none.
    until("the fullest are shown", async || {
        let lines = gauges(&gateway).await;
        assert!(lines.iter().all(|line| !line.contains("other")), "{lines:?}");
        let of = |name: &str| lines.iter().any(|line| line.contains(&format!("tenant=\"{name}\"")));
        !lines.is_empty() && ["d", "e"].into_iter().all(of) && !["a", "b", "c"].into_iter().any(of)
    })
    .await;
    assert_eq!(gateway.count("budget_tenants_left_out", &[]).await, 3);
}

#[tokio::test]
async fn the_month_is_still_shown_after_midnight_and_the_day_begins_anew() {
    let clock = Arc::new(MovedClock::at("2026-05-29T21:00:00Z"));
    let own = Arc::clone(&clock);
    let gateway = TestGateway::with(|setup| {
        setup.settings.ledger.time_zone = Calendar::UTC;
        setup.clock = own;
    })
    .await;
    let key = gateway.key_of(&rationed("acme", 1_000_000)).await;
    Answer::of(gateway.post_as(&key, "/ocr").body(fixture("hello.png"))).await;
    let spent = gateway.upstream().bill().total();
    let settled = async |period: &str| {
        let labels = [("tenant", "acme"), ("period", period), ("state", "settled")];
        gateway.count("budget_tokens", &labels).await
    };
    until("it is settled", async || settled("day").await == spent).await;
    clock.set("2026-05-30T00:00:00Z");
    until("a new day", async || settled("day").await == 0).await;
    assert_eq!(settled("month").await, spent);
    let limit = [("tenant", "acme"), ("period", "day")];
    assert_eq!(gateway.count("budget_tokens_limit", &limit).await, 1_000_000);
}

async fn scrape(service: &Service) -> String {
    let request = service.http.get(format!("{}/metrics", service.metrics_address));
    Answer::of(request).await.text
}

#[tokio::test]
async fn budgets_are_shown_after_a_restart_although_nobody_calls() {
    let installation = Installation::reading("a page").await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    let set = installation.run("tenant set acme --daily-tokens 1000000 --daily-cost 5").await;
    assert_eq!(set.code, 0, "{}", set.err);
    Answer::of(service.post(&key, "/ocr").body(fixture("hello.png"))).await;
    let spent = installation.upstream().bill().total();
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));
    let service = installation.serve().await;
    let metrics = scrape(&service).await;
    let tokens = format!(r#"budget_tokens{{period="day",state="settled",tenant="acme"}} {spent}"#);
    assert!(metrics.contains(&tokens), "{metrics}");
    let limit = r#"budget_cost_limit{currency="CNY",period="day",tenant="acme"} 5"#;
    assert!(metrics.contains(limit), "{metrics}");
}

#[tokio::test]
async fn a_scrape_succeeds_without_the_database() {
    let gateway = TestGateway::start().await;
    gateway.key_of(&rationed("acme", 1_000_000)).await;
    until("it is shown", async || gauges(&gateway).await.iter().any(|line| line.contains("acme")))
        .await;
    gateway.store.close().await;
    for _ in 0..5 {
        let metrics = gateway.metrics().await;
        assert!(metrics.contains("ocr_gateway_in_flight_requests_limit "), "{metrics}");
    }
}

#[tokio::test]
async fn a_scrape_is_answered_while_the_database_hangs_and_shows_what_was_read_before() {
    let Some(database) = Database::postgres().await else { return };
    let mut installation = Installation::reading("a page").await;
    installation.set("DATABASE__URL", &database.url);
    installation.key("acme").await;
    assert_eq!(installation.run("tenant set acme --daily-tokens 1000000").await.code, 0);
    let service = installation.serve().await;
    let shows = async |limit: u64| {
        let request = service.http.get(format!("{}/metrics", service.metrics_address));
        // Much longer than a scrape waits, and much shorter than the database hangs.
        let metrics = Answer::of(request.timeout(Duration::from_secs(8))).await.text;
        metrics.contains(&format!(r#"tokens_limit{{period="day",tenant="acme"}} {limit}"#))
    };
    until("it is read", async || shows(1_000_000).await).await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE tenants, ledger_accounts IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    for _ in 0..5 {
        assert!(shows(1_000_000).await);
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(installation.run("tenant set acme --daily-tokens 2000000").await.code, 0);
    until("it is read again", async || shows(2_000_000).await).await;
}
