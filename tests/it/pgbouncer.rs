//! The service behind PgBouncer in transaction mode, where session state does not last.

use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::databases::Database;
use crate::harness::{SCRIPTED_TEXT, fixture};
use crate::program::{Installation, Service};

/// The message in the log at start.
const NOTICE: &str = "the database is behind a pooler";

async fn installation(database: &Database) -> Installation {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("DATABASE__URL", &database.url);
    installation
}

/// Sends this number of requests at once, to the services in turn, and counts the successful ones.
async fn served(services: &[&Service], key: &str, requests: usize) -> usize {
    let mut callers = JoinSet::new();
    for service in services.iter().cycle().take(requests) {
        callers.spawn(service.post(key, "/ocr").body(fixture("hello.png")).send());
    }
    let answers = callers.join_all().await;
    answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == StatusCode::OK).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_in_transaction_mode_all_works_and_the_ledger_is_balanced() {
    let Some(database) = Database::behind_pgbouncer().await else { return };
    let installation = installation(&database).await;
    let key = installation.key("acme").await;
    let (one, other) = (installation.serve().await, installation.serve().await);
    assert!(one.log().contains(NOTICE), "{}", one.log());
    assert_eq!(served(&[&one, &other], &key, 60).await, 60);

    let report = one.http.get(format!("{}/usage", one.address)).bearer_auth(&key).send().await;
    let report: Value = serde_json::from_str(&report.unwrap().text().await.unwrap()).unwrap();
    let billed = installation.upstream().bill().total();
    assert_eq!(
        (&report["total"]["calls"], &report["total"]["total_tokens"]),
        (&60.into(), &billed.into())
    );
    let ready = one.http.get(format!("{}/readyz", one.metrics_address)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    let audit = installation.run("audit").await;
    assert!(audit.code == 0 && audit.out.starts_with("balanced"), "{} {}", audit.out, audit.err);
    for command in ["tenant list", "key list", "usage", "migrate"] {
        let ended = installation.run(command).await;
        assert_eq!(ended.code, 0, "{command}: {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_behind_pgbouncer_migrate_once() {
    let Some(database) = Database::behind_pgbouncer().await else { return };
    let installation = installation(&database).await;
    let started = tokio::join!(
        installation.run("migrate"),
        installation.run("migrate"),
        installation.run("migrate"),
        installation.run("migrate")
    );
    for ended in [started.0, started.1, started.2, started.3] {
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_spoken_to_directly_is_not_taken_for_a_pooler() {
    let Some(database) = Database::postgres().await else { return };
    let service = installation(&database).await.serve().await;
    assert!(!service.log().contains(NOTICE), "{}", service.log());
}
