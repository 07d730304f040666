//! Replicas that share answers in Redis, and what is in Redis.

use std::time::Duration;

use dashscope_emulator::Fault;
use futures_util::future::join_all;
use ocr_gateway::redis::settings::{OnFailure, RedisSettings};

use crate::harness::{Answer, SCRIPTED_TEXT, Setup, TestGateway, fixture, until};
use crate::program::Installation;
use crate::redis::{RedisDatabase, RedisServer};

/// Two keys for storage.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "HxwdHh8YGRobFBUWFxAREhMMDQ4PCAkKCwQFBgcAAQI=";

/// Requests of a storm, half of them to each replica.
const STORM: usize = 200;

/// The names of entries and leases begin so.
const NAME: &str = "ocr-gateway:result:";

/// A replica whose tenant has answers kept in this Redis.
async fn replica(redis: RedisSettings, change: impl FnOnce(&mut Setup)) -> TestGateway {
    TestGateway::with(|setup| {
        setup.settings.redis = redis;
        setup.settings.storage.encryption_key = Some(KEY.into());
        setup.tenant.cache_ttl = 3600;
        change(setup);
    })
    .await
}

async fn replicas(database: &RedisDatabase) -> [TestGateway; 2] {
    let start = || replica(database.settings(OnFailure::Local), |_| {});
    [start().await, start().await]
}

fn upload(gateway: &TestGateway) -> impl Future<Output = Answer> {
    Answer::of(gateway.post("/ocr").body(fixture("hello.png")))
}

async fn status_of(gateway: &TestGateway) -> String {
    let answer = upload(gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.header("ocr-cache").to_owned()
}

/// Calls that both upstreams received.
fn received(replicas: &[TestGateway]) -> u64 {
    replicas.iter().map(|replica| replica.upstream().bill().received).sum()
}

fn entries(database: &RedisDatabase) -> Vec<String> {
    database.names().into_iter().filter(|name| name.starts_with(NAME)).collect()
}

/// Sends equal uploads to both replicas at once, and does something meanwhile.
async fn storm(replicas: &[TestGateway; 2], meanwhile: impl Future<Output = ()>) -> Vec<Answer> {
    for replica in replicas {
        replica.upstream().add_fault(Fault::delay(2_000));
    }
    let requests = (0..STORM).map(|number| upload(&replicas[number % 2]));
    let (answers, ()) = tokio::join!(join_all(requests), meanwhile);
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["text"], SCRIPTED_TEXT);
    }
    answers
}

/// Waits until each replica works on its half of a storm.
async fn until_all_wait(replicas: &[TestGateway; 2]) {
    let half = STORM as u64 / 2;
    for replica in replicas {
        let count = async || replica.count("in_flight_requests", &[]).await;
        until("requests", async || count().await >= half).await;
    }
}

#[tokio::test]
async fn a_storm_of_equal_uploads_on_two_replicas_is_billed_once() {
    let Some(database) = RedisDatabase::new() else { return };
    let replicas = replicas(&database).await;
    let answers = storm(&replicas, std::future::ready(())).await;
    assert_eq!(received(&replicas), 1);
    let paid = answers.iter().filter(|answer| answer.json["usage"]["total_tokens"] != 0);
    assert_eq!(paid.count(), 1);
    assert_eq!(entries(&database).len(), 1);
}

#[tokio::test]
async fn a_storm_during_which_redis_dies_is_billed_twice_at_most() {
    let Some(server) = RedisServer::start() else { return };
    let database = server.database();
    let settings = || RedisSettings { timeout_ms: 2_000, ..database.settings(OnFailure::Local) };
    let start = || replica(settings(), |_| {});
    let replicas = [start().await, start().await];
    let kill = async {
        until_all_wait(&replicas).await;
        server.end();
    };
    storm(&replicas, kill).await;
    let calls = received(&replicas);
    assert!((1..=2).contains(&calls), "{calls}");
    for replica in &replicas {
        replica.upstream().clear_faults();
        assert_eq!(status_of(replica).await, "hit", "what was read is kept in memory");
    }
    assert_eq!(received(&replicas), calls);
}

#[tokio::test]
async fn what_one_replica_read_another_one_answers() {
    let Some(database) = RedisDatabase::new() else { return };
    let [one, other] = replicas(&database).await;
    assert_eq!(status_of(&one).await, "miss");
    let hit = upload(&other).await;
    assert_eq!((hit.header("ocr-cache"), &hit.json["text"]), ("hit", &SCRIPTED_TEXT.into()));
    assert_eq!(other.upstream().bill().received, 0);
    // It is in Redis alone.
    assert_eq!(one.count("cache_entries", &[]).await, 0);
}

#[tokio::test]
async fn a_replica_that_waits_for_another_one_works_itself_once_the_lease_is_gone() {
    let Some(database) = RedisDatabase::new() else { return };
    let [one, other] = replicas(&database).await;
    one.upstream().add_fault(Fault::delay(5_000));
    let first = upload(&one);
    let second = async {
        one.until_upstream_has(1).await;
        let waiting = upload(&other);
        let lose = async {
            other.until_metric("in_flight_requests", &[], 1.0).await;
            // As if the first replica had died.
            let [lease] = &entries(&database)[..] else { panic!("there is no lease") };
            database.command(&format!("DEL {lease}"));
        };
        tokio::join!(waiting, lose).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status.as_u16(), first.header("ocr-cache")), (200, "miss"));
    assert_eq!((second.status.as_u16(), second.header("ocr-cache")), (200, "miss"));
}

#[tokio::test]
async fn a_failure_on_one_replica_lets_the_other_one_work() {
    let Some(database) = RedisDatabase::new() else { return };
    let [one, other] = replicas(&database).await;
    one.upstream().add_fault(Fault::code("InvalidParameter").delayed(1_000));
    let second = async {
        one.until_upstream_has(1).await;
        upload(&other).await
    };
    let (first, second) = tokio::join!(upload(&one), second);
    assert_ne!(first.status, 200);
    assert_eq!((second.status.as_u16(), second.header("ocr-cache")), (200, "miss"));
}

#[tokio::test]
async fn redis_shows_nothing_of_what_is_kept_in_it() {
    let Some(database) = RedisDatabase::new() else { return };
    let [one, _] = replicas(&database).await;
    let answer = upload(&one).await;
    let names = database.names();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let digest = hex(&ocr_gateway::ocr::fingerprint::sha256(&fixture("hello.png")));
    assert_eq!(entries(&database).len(), 1);
    for name in names {
        assert!(!name.contains(&digest));
        let value = database.reply(&format!("GET {name}"));
        let is_in = |text: &str| value.windows(text.len()).any(|part| part == text.as_bytes());
        let model = answer.json["model"].as_str().unwrap();
        for text in [SCRIPTED_TEXT, "succeeded", "image/png", "pages", "text", model, &digest] {
            assert!(!is_in(text), "{text} is in {name}");
        }
    }
}

#[tokio::test]
async fn nothing_is_left_in_redis_after_its_time() {
    let Some(database) = RedisDatabase::new() else { return };
    let short = |setup: &mut Setup| setup.tenant.cache_ttl = 1;
    let gateway = replica(database.settings(OnFailure::Local), short).await;
    assert_eq!(status_of(&gateway).await, "miss");
    until("it expires", async || entries(&database).is_empty()).await;
    assert_eq!(status_of(&gateway).await, "miss");
    // A lease of a request that fails is given up, too.
    gateway.upstream().add_fault(Fault::code("InvalidParameter"));
    until("it expires", async || entries(&database).is_empty()).await;
    assert_ne!(upload(&gateway).await.status, 200);
    assert_eq!(entries(&database), Vec::<String>::new());
}

#[tokio::test]
async fn without_the_key_an_entry_of_another_replica_is_not_found() {
    let Some(database) = RedisDatabase::new() else { return };
    let one = replica(database.settings(OnFailure::Local), |_| {}).await;
    assert_eq!(status_of(&one).await, "miss");
    for key in [Some(OTHER_KEY), None] {
        let change = |setup: &mut Setup| {
            setup.settings.storage.encryption_key = key.map(Into::into);
        };
        let other = replica(database.settings(OnFailure::Local), change).await;
        assert_eq!(status_of(&other).await, "miss", "{key:?}");
        assert_eq!(status_of(&other).await, "hit", "{key:?}");
        // Without a key nothing is in Redis.
        assert_eq!(other.count("cache_entries", &[]).await, u64::from(key.is_none()));
    }
}

#[tokio::test]
async fn a_damaged_entry_is_read_anew_and_replaced() {
    let Some(database) = RedisDatabase::new() else { return };
    let [one, other] = replicas(&database).await;
    assert_eq!(status_of(&one).await, "miss");
    let [name] = &entries(&database)[..] else { panic!("there is no entry") };
    database.command(&format!("SETRANGE {name} 60 x"));
    assert_eq!(status_of(&other).await, "miss");
    assert_eq!(status_of(&one).await, "hit");
}

#[tokio::test]
async fn a_frozen_redis_delays_a_request_by_its_timeout_and_fails_none() {
    let Some(server) = RedisServer::start() else { return };
    let settings =
        RedisSettings { timeout_ms: 500, ..server.database().settings(OnFailure::Local) };
    let gateway = replica(settings, |_| {}).await;
    assert_eq!(status_of(&gateway).await, "miss");
    server.freeze();
    let answer = upload(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.header("ocr-cache")), (200, "miss"));
    assert_eq!(status_of(&gateway).await, "hit", "it is in memory now");
    server.thaw();
    let patient = Duration::from_secs(10);
    assert!(tokio::time::timeout(patient, upload(&gateway)).await.is_ok());
}

#[tokio::test]
async fn a_check_tells_where_answers_are_kept() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let said = installation.run("check").await.out;
    assert!(said.contains("cache: kept in") && said.contains("bytes of this process"), "{said}");
    let Some(database) = RedisDatabase::new() else { return };
    installation.set("REDIS__URL", database.url());
    let said = installation.run("check").await.out;
    assert!(said.contains("set storage.encryption_key to keep answers in Redis"), "{said}");
    installation.set("STORAGE__ENCRYPTION_KEY", KEY);
    let said = installation.run("check").await.out;
    assert!(said.contains("cache: kept in Redis, encrypted"), "{said}");
    assert!(!said.contains(KEY));
    installation.set("STORAGE__ENCRYPTION_KEY", "c2VjcmV0");
    let ended = installation.run("check").await;
    assert_ne!(ended.code, 0);
    let told = "storage.encryption_key: has 6 bytes";
    assert!(ended.out.contains(told) || ended.err.contains(told), "{}{}", ended.out, ended.err);
}
