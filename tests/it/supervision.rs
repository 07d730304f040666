//! A process whose background tasks have ended logs that and exits, so that it is started again.

use std::time::Duration;

use ocr_gateway::clock::SystemClock;
use ocr_gateway::ledger::LedgerStore;
use ocr_gateway::ledger::books::{Charge, Operation};
use ocr_gateway::ledger::budget::Budgets;
use ocr_gateway::random::{SystemRandom, new_id};
use ocr_gateway::units::{Currency, Money, Tokens, Usage};
use uuid::Uuid;

use crate::databases::Database;
use crate::harness::{Answer, TestGateway, fixture, today, until};
use crate::program::Installation;

#[tokio::test]
async fn a_background_task_that_panics_ends_the_service_after_the_requests_in_flight() {
    let mut gateway = TestGateway::with(|setup| {
        setup.settings.server.drain_grace_ms = 1_000;
        setup.emulator.latency = Duration::from_secs(2);
    })
    .await;
    let in_flight = gateway.post("/ocr").body(fixture("hello.png"));
    let in_flight = crate::harness::spawn(Answer::of(in_flight));
    gateway.until_upstream_has(1).await;
    gateway.gateway.supervisor.spawn("a task of a test", async { panic!("as the test wants") });
    let ready = format!("{}/readyz", gateway.metrics_address);
    let mut last = None;
    until("it says that it is not ready", async || {
        let answer = Answer::of(gateway.http.get(&ready)).await;
        let is_ready = answer.status == 200;
        last = Some(answer);
        !is_ready
    })
    .await;
    let told = last.unwrap();
    assert_eq!((told.status.as_u16(), told.code()), (503, "not_ready"));
    assert!(told.text.contains("a task of a test"), "{}", told.text);
    let ended = tokio::time::timeout(crate::harness::LONGEST_WAIT, &mut gateway.served).await;
    let ended = ended.expect("the service ends").unwrap().unwrap_err();
    assert!(ended.to_string().contains("a task of a test"), "{ended}");
    assert_eq!(in_flight.await.unwrap().status, 200, "it was finished");
}

/// An orphaned call of this tenant.
async fn orphan(store: &dyn LedgerStore, tenant: &str) {
    let charge = Charge {
        tenant: tenant.into(),
        key: None,
        model: "m".into(),
        bound: Usage { image: Tokens::new(10), ..Usage::default() },
        cost: Money::ZERO,
        currency: Currency::Cny,
    };
    let id = new_id(&SystemClock, &SystemRandom);
    let (instance, budgets) = (Uuid::nil(), Budgets::default());
    store.post(&[Operation::Reserve { id, instance, charge, budgets }], today()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_keeps_no_other_from_being_written_off() {
    for database in Database::of_each_engine().await {
        println!("on {}", database.engine);
        let store = database.open().await.ledger();
        orphan(&*store, "stuck").await;
        database.execute("UPDATE ledger_entries SET day = 'someday'").await;
        orphan(&*store, "swept").await;
        let mut installation = Installation::reading("text").await;
        installation.set("DATABASE__URL", &*database.url);
        installation.set("LEDGER__LEASE_MS", "1000");
        let service = installation.serve().await;
        until("the other is written off", async || {
            let accounts = store.accounts(&["swept"], today()).await.unwrap();
            accounts.iter().any(|(_, account)| account.settled == 10)
        })
        .await;
        let url = format!("{}/metrics", service.metrics_address);
        until("the alarm", async || {
            let metrics = service.http.get(&url).send().await.unwrap().text().await.unwrap();
            metrics.contains("ocr_gateway_ledger_stuck_orphans 1")
        })
        .await;
    }
}
