//! Readiness depends on the result of the last commit: a database that answers queries but accepts no commits cannot
//! serve.

use reqwest::StatusCode;
use sqlx::{Connection, SqliteConnection};

use crate::databases::Database;
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, until};
use crate::program::{Installation, Service};

async fn is_ready(service: &Service) -> bool {
    let url = format!("{}/readyz", service.metrics_address);
    service.http.get(url).send().await.unwrap().status() == StatusCode::OK
}

async fn serve_on(database: &Database) -> Service {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("DATABASE__URL", &database.url);
    installation.serve().await
}

#[tokio::test]
async fn while_somebody_else_has_locked_the_file_the_service_is_not_ready() {
    let database = Database::sqlite();
    let service = serve_on(&database).await;
    assert!(is_ready(&service).await);
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    until("not ready", async || !is_ready(&service).await).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    until("ready again", async || is_ready(&service).await).await;
}

#[tokio::test]
async fn while_the_database_refuses_what_is_written_the_service_is_not_ready() {
    let database = Database::sqlite();
    let service = serve_on(&database).await;
    assert!(is_ready(&service).await);
    database
        .execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON ledger_holders
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        )
        .await;
    until("not ready", async || !is_ready(&service).await).await;
    database.execute("DROP TRIGGER refuse").await;
    until("ready again", async || is_ready(&service).await).await;
}

#[tokio::test]
async fn a_service_without_its_database_is_not_ready_and_says_why() {
    let gateway = TestGateway::start().await;
    let url = format!("{}/readyz", gateway.metrics_address);
    assert_eq!(Answer::of(gateway.http.get(&url)).await.status, 200);
    gateway.store.close().await;
    until("not ready", async || Answer::of(gateway.http.get(&url)).await.status == 503).await;
    let refusal = Answer::of(gateway.http.get(&url)).await;
    assert_eq!(refusal.code(), "not_ready");
    assert!(refusal.text.contains("The database takes no commits"), "{}", refusal.text);
}
