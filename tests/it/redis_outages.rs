//! Replicas that share a Redis, and their behaviour while it is down: bounded waits, the answer that the settings
//! choose, and two log lines for an outage, however many requests it affects.

use std::num::NonZeroU64;
use std::sync::Arc;

use dashscope_emulator::Fault;
use futures_util::future::join_all;
use ocr_gateway::clock::SystemClock;
use ocr_gateway::rate_limit::shared::{RedisRateLimiter, TimeSource};
use ocr_gateway::rate_limit::{Quotas, RateLimiter, TakeError};
use ocr_gateway::redis::link::Link;
use ocr_gateway::redis::settings::OnFailure;
use ocr_gateway::supervisor::Supervisor;
use ocr_gateway::units::Tokens;
use prometheus::IntGauge;
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::harness::{Answer, LONGEST_WAIT, SCRIPTED_TEXT, Setup, TestGateway, fixture, until};
use crate::program::{Installation, Service};
use crate::redis::{RedisDatabase, RedisServer};

/// Timeouts in a row after which Redis counts as down.
const LATE_IN_A_ROW: u32 = 3;

/// Long enough for a healthy Redis on a busy machine, and short enough for a test to wait for.
const PATIENCE_MS: u64 = 2_000;

// Sharing.

/// Two replicas with the changes of `change`, on one Redis.
async fn replicas(change: impl Fn(&mut Setup)) -> Option<[TestGateway; 2]> {
    let database = RedisDatabase::new()?;
    let start = || {
        TestGateway::with(|setup| {
            setup.settings.redis = database.settings(OnFailure::Closed);
            change(setup);
        })
    };
    Some([start().await, start().await])
}

#[tokio::test]
async fn two_replicas_hold_one_limit_of_requests() {
    let limit = |setup: &mut Setup| setup.tenant.requests_per_minute = NonZeroU64::new(2);
    let Some([one, other]) = replicas(limit).await else { return };
    assert_eq!(one.upload("/estimate", fixture("hello.png")).await.status, 200);
    assert_eq!(other.upload("/estimate", fixture("hello.png")).await.status, 200);
    for replica in [&one, &other] {
        let answer = replica.upload("/estimate", fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
        assert_eq!(answer.json["limit"], json!({ "name": "rpm", "actual": 3, "allowed": 2 }));
    }
}

#[tokio::test]
async fn two_replicas_hold_one_limit_of_tokens_and_what_is_given_back_is_everybody_s() {
    let limit = |setup: &mut Setup| setup.tenant.tokens_per_minute = NonZeroU64::new(9_000);
    let Some([one, other]) = replicas(limit).await else { return };
    one.upstream().add_fault(Fault::hang().times(1));
    let hanging = one.post("/ocr").header("prefer", "wait=3").body(fixture("hello.png"));
    let meanwhile = async {
        one.until_upstream_has(1).await;
        other.upload("/ocr", fixture("hello.png")).await
    };
    let (first, refused) = tokio::join!(Answer::of(hanging), meanwhile);
    assert_eq!(first.code(), "deadline_exceeded");
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "rate_limited"));
    assert_eq!(refused.json["limit"]["name"], "tpm");
    assert_eq!(other.upstream().bill().received, 0);

    let Some([one, other]) = replicas(limit).await else { return };
    assert_eq!(one.upload("/ocr", fixture("hello.png")).await.status, 200);
    until("what was not billed is given back", async || {
        other.upload("/ocr", fixture("hello.png")).await.status == 200
    })
    .await;
}

// Starting.

#[tokio::test]
async fn a_redis_that_is_not_there_fails_a_check_and_hides_its_password() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("REDIS__URL", "redis://user:hidden-word@127.0.0.1:9/0");
    let checked = installation.run("check").await;
    assert_eq!(checked.code, 1);
    assert!(checked.out.contains("failed  redis: redis.url"), "{}", checked.out);
    assert!(checked.out.contains("127.0.0.1:9"), "{}", checked.out);
    for said in [checked.out, checked.err] {
        assert!(!said.contains("hidden-word"), "{said}");
    }
}

#[tokio::test]
async fn a_check_tells_of_redis_whether_it_is_used_or_not() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let ended = installation.run("check").await;
    assert!(ended.out.contains("ok      redis: not configured"), "{}", ended.out);
    let Some(database) = RedisDatabase::new() else { return };
    installation.set("REDIS__URL", database.url());
    let ended = installation.run("check").await;
    assert!(ended.out.contains("redis.sock answers"), "{}", ended.out);
}

#[tokio::test]
async fn a_redis_that_may_not_be_written_is_as_good_as_none() {
    let Some(server) = RedisServer::start() else { return };
    server.database().command("CONFIG SET min-replicas-to-write 1");
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("REDIS__URL", server.database().url());
    let ended = installation.run("check").await;
    assert!(ended.out.contains("failed  redis: redis.url"), "{}", ended.out);
    assert!(ended.out.contains("NOREPLICAS"), "{}", ended.out);
}

// Outages, seen by a caller.

/// A program with a separate Redis, and a key with a limit of two requests a minute.
async fn service_on(server: &RedisServer, on_failure: &str) -> (Installation, Service, String) {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("REDIS__URL", server.database().url());
    installation.set("REDIS__TIMEOUT_MS", PATIENCE_MS.to_string());
    installation.set("REDIS__ON_FAILURE", on_failure);
    let key = installation.key("acme").await;
    let limited = installation.run("tenant set acme --rpm 2").await;
    assert_eq!(limited.code, 0, "{}", limited.err);
    let service = installation.serve().await;
    (installation, service, key)
}

async fn estimate(service: &Service, key: &str) -> Answer {
    let request = service.post(key, "/estimate").body(fixture("hello.png"));
    let answer = tokio::time::timeout(LONGEST_WAIT, Answer::of(request)).await;
    answer.expect("nobody waits for Redis without end")
}

/// The log lines about Redis.
fn told(service: &Service) -> Vec<String> {
    let log = service.log();
    log.lines().filter(|line| line.contains("Redis")).map(str::to_owned).collect()
}

/// Checks that there are this number of log lines about Redis, as soon as they have arrived through the pipe.
async fn assert_told(service: &Service, times: usize) {
    until("it is told of", async || told(service).len() >= times).await;
    assert_eq!(told(service).len(), times, "{:?}", told(service));
}

async fn redis_up(service: &Service) -> String {
    let url = format!("{}/metrics", service.metrics_address);
    let metrics = service.http.get(url).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("ocr_gateway_redis_up "));
    line.expect("the gauge is there").to_owned()
}

#[tokio::test]
async fn a_frozen_redis_refuses_by_default_in_bounded_time_and_is_told_of_once() {
    let Some(server) = RedisServer::start() else { return };
    let (_installation, service, key) = service_on(&server, "closed").await;
    assert_eq!(estimate(&service, &key).await.status, 200);
    assert_eq!(redis_up(&service).await, "ocr_gateway_redis_up 1");

    server.freeze();
    let at_once = join_all((0..20).map(|_| estimate(&service, &key))).await;
    let mut answers = at_once;
    for _ in 0..20 {
        answers.push(estimate(&service, &key).await);
    }
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "store_unavailable"));
        assert_eq!((&answer.json["retryable"], answer.header("retry-after")), (&json!(true), "5"));
    }
    assert_told(&service, 1).await;
    assert_eq!(redis_up(&service).await, "ocr_gateway_redis_up 0");

    server.thaw();
    until("Redis is back", async || redis_up(&service).await == "ocr_gateway_redis_up 1").await;
    assert_ne!(estimate(&service, &key).await.status, 503);
    assert_told(&service, 2).await;
}

#[tokio::test]
async fn a_frozen_redis_may_leave_each_replica_to_count_by_itself() {
    let Some(server) = RedisServer::start() else { return };
    let (_installation, service, key) = service_on(&server, "local").await;
    for _ in 0..2 {
        assert_eq!(estimate(&service, &key).await.status, 200);
    }
    assert_eq!(estimate(&service, &key).await.status, 429);

    server.freeze();
    for _ in 0..2 {
        assert_eq!(estimate(&service, &key).await.status, 200);
    }
    assert_eq!(estimate(&service, &key).await.status, 429);
    assert_told(&service, 1).await;
}

#[tokio::test]
async fn a_tenant_without_limits_does_not_need_redis() {
    let Some(server) = RedisServer::start() else { return };
    let (installation, service, _) = service_on(&server, "closed").await;
    let key = installation.key("free").await;
    server.freeze();
    assert_eq!(estimate(&service, &key).await.status, 200);
    assert_told(&service, 0).await;
}

// Outages, seen by the limiter.

/// A limiter, the gauge of whether its Redis answers, and its pending settlements.
async fn limiter_on(
    database: &RedisDatabase,
    on_failure: OnFailure,
) -> (RedisRateLimiter, IntGauge, TaskTracker) {
    let (up, tasks) = (IntGauge::new("up", "Of a test.").unwrap(), TaskTracker::new());
    let (clock, gauge, tracker) = (Arc::new(SystemClock), up.clone(), tasks.clone());
    let mut settings = database.settings(on_failure);
    settings.timeout_ms = PATIENCE_MS;
    let probe = RedisRateLimiter::probe;
    let link = Link::connect(&settings, probe, gauge, &Supervisor::default()).await.unwrap();
    let limiter = RedisRateLimiter::new(Arc::new(link), TimeSource::Server, clock, tracker);
    (limiter, up, tasks)
}

/// So few that none returns during a test.
fn quotas() -> Quotas {
    Quotas {
        requests_per_minute: NonZeroU64::new(2),
        tokens_per_minute: NonZeroU64::new(2),
        concurrency: None,
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_costs_no_request() {
    let Some(server) = RedisServer::start() else { return };
    let database = server.database();
    let (limiter, up, _) = limiter_on(&database, OnFailure::Closed).await;
    assert_eq!(limiter.take_request("a", &quotas()).await, Ok(()));
    assert_eq!(database.command("CLIENT KILL TYPE normal"), ":1");
    assert_eq!(limiter.take_request("a", &quotas()).await, Ok(()));
    let refused = limiter.take_request("a", &quotas()).await;
    assert!(matches!(refused, Err(TakeError::Exceeded(_))), "{refused:?}");
    assert_eq!(up.get(), 1);
}

#[tokio::test]
async fn one_slow_answer_costs_those_that_waited_for_it_and_nobody_else() {
    let Some(server) = RedisServer::start() else { return };
    let (limiter, up, _) = limiter_on(&server.database(), OnFailure::Closed).await;
    server.freeze();
    let quotas = quotas();
    let waiting = (0..20).map(|_| limiter.take_request("a", &quotas));
    for late in join_all(waiting).await {
        assert_eq!(late, Err(TakeError::Unavailable));
    }
    server.thaw();
    assert_eq!(limiter.take_request("b", &quotas).await, Ok(()));
    assert_eq!(up.get(), 1);
}

#[tokio::test]
async fn an_answer_in_time_makes_up_for_late_ones_before_it() {
    let Some(server) = RedisServer::start() else { return };
    let (limiter, up, _) = limiter_on(&server.database(), OnFailure::Closed).await;
    for tenant in ["a", "b", "c", "d"] {
        server.freeze();
        assert_eq!(limiter.take_request("z", &quotas()).await, Err(TakeError::Unavailable));
        server.thaw();
        assert_eq!(limiter.take_request(tenant, &quotas()).await, Ok(()), "{tenant}");
    }
    assert_eq!(up.get(), 1);
}

#[tokio::test]
async fn a_redis_that_is_late_again_and_again_is_away_until_it_answers() {
    let Some(server) = RedisServer::start() else { return };
    let (limiter, up, _) = limiter_on(&server.database(), OnFailure::Closed).await;
    server.freeze();
    let mut late = 0;
    while up.get() == 1 {
        assert_eq!(limiter.take_request("a", &quotas()).await, Err(TakeError::Unavailable));
        late += 1;
    }
    assert_eq!(late, LATE_IN_A_ROW);
    server.thaw();
    until("Redis is back", async || up.get() == 1).await;
    assert_eq!(limiter.take_request("b", &quotas()).await, Ok(()));
}

#[tokio::test]
async fn a_redis_whose_connections_are_refused_is_away_at_once() {
    let Some(server) = RedisServer::start() else { return };
    let (limiter, up, _) = limiter_on(&server.database(), OnFailure::Closed).await;
    server.end();
    assert_eq!(limiter.take_request("a", &quotas()).await, Err(TakeError::Unavailable));
    assert_eq!(up.get(), 0);
}

#[tokio::test]
async fn tokens_are_given_back_where_they_were_taken_and_nowhere_else() {
    let Some(server) = RedisServer::start() else { return };
    let (limiter, up, tasks) = limiter_on(&server.database(), OnFailure::Local).await;
    let all = Tokens::new(2);
    let shared = limiter.take_tokens("a", &quotas(), all).await.unwrap();
    server.freeze();
    let local = limiter.take_tokens("a", &quotas(), all).await.unwrap();
    while up.get() == 1 {
        assert!(limiter.take_tokens("a", &quotas(), all).await.is_err());
    }
    // Redis is down, and this settlement does not concern the process's own tokens.
    limiter.settle_tokens("a", &quotas(), shared, Tokens::ZERO);
    assert!(limiter.take_tokens("a", &quotas(), all).await.is_err());
    server.thaw();
    until("Redis is back", async || up.get() == 1).await;
    // The tokens of this process do not help the others.
    limiter.settle_tokens("a", &quotas(), local, Tokens::ZERO);
    tasks.close();
    tasks.wait().await;
    assert!(limiter.take_tokens("a", &quotas(), all).await.is_err());
}
