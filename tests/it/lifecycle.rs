//! The program from outside: how it starts, refuses to start, stops, and restarts.

use dashscope_emulator::Fault;
use serde_json::{Value, json};

use crate::harness::{Answer, SCRIPTED_TEXT, fixture, has_tesseract, spawn, until};
use crate::program::{Installation, Service};

async fn installation() -> Installation {
    Installation::reading(SCRIPTED_TEXT).await
}

/// Writes a picture to the installation's folder.
fn put(installation: &Installation, name: &str) {
    std::fs::write(installation.folder.path().join(name), fixture(name)).unwrap();
}

async fn ocr(service: &Service, key: &str) -> Answer {
    Answer::of(service.post(key, "/ocr").body(fixture("hello.png"))).await
}

// Starting.

#[tokio::test]
async fn a_service_without_an_upstream_key_does_not_start_and_names_it() {
    let mut installation = installation().await;
    installation.unset("UPSTREAM__API_KEY");
    let ended = installation.run("serve").await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("upstream") && ended.err.contains("api_key"), "{}", ended.err);
    assert!(ended.err.contains("DASHSCOPE_API_KEY"), "{}", ended.err);
}

#[tokio::test]
async fn an_unknown_key_in_the_environment_keeps_the_service_from_starting() {
    let mut installation = installation().await;
    installation.set("SERVER__LISTN", "127.0.0.1:1");
    let ended = installation.run("serve").await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("listn"), "{}", ended.err);
}

#[tokio::test]
async fn an_unknown_key_in_the_file_keeps_the_service_from_starting() {
    let installation = installation().await;
    for (content, named) in [
        ("[server]\nmax_body_byte = 1", "max_body_byte"),
        ("[sever]\nlisten = \"\"", "sever"),
        ("[tenants.acme]\nmax_pixel = 5", "max_pixel"),
        ("[server]\nmax_body_bytes = \"many\"", "max_body_bytes"),
        ("[server]\nmax_body_bytes = 0", "max_body_bytes"),
    ] {
        std::fs::write(installation.folder.path().join("gateway.toml"), content).unwrap();
        let ended = installation.run("serve --config gateway.toml").await;
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(named), "{named}: {}", ended.err);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_key() {
    let mut installation = installation().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    installation.set("SERVER__LISTEN", taken.local_addr().unwrap().to_string());
    let ended = installation.run("serve").await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("server.listen"), "{}", ended.err);
}

#[tokio::test]
async fn wrong_usage_is_2_and_says_nothing_to_scripts() {
    let installation = installation().await;
    for arguments in [
        "",
        "frobnicate",
        "serve --nope",
        "tenant create",
        "tenant create Not/A/Name",
        "tenant set test",
        "tenant set test --max-pixels many",
        "key create test --expires-in soon",
        "estimate",
        "estimate --max-pixels 0 a.png",
    ] {
        let ended = installation.run(arguments).await;
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{arguments}: {}", ended.err);
        assert!(!ended.err.is_empty(), "{arguments}");
    }
}

#[tokio::test]
async fn migrations_may_be_applied_again_and_again() {
    let installation = installation().await;
    for _ in 0..2 {
        let ended = installation.run("migrate").await;
        assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_check_tells_what_is_well_and_what_is_to_be_mended() {
    let mut installation = installation().await;
    let ended = installation.run("check").await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert_eq!(ended.out.lines().filter(|line| line.starts_with("ok")).count(), 9, "{}", ended.out);
    installation.set("UPSTREAM__BASE_URL", "http://127.0.0.1:9");
    let ended = installation.run("check").await;
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("failed  upstream"), "{}", ended.out);
    assert_eq!(installation.upstream().bill().received, 0, "a check spends nothing");
}

#[tokio::test]
async fn a_health_check_is_0_where_the_service_is_ready_and_1_where_nobody_answers() {
    let mut installation = installation().await;
    installation.set("SERVER__METRICS_LISTEN", "127.0.0.1:9");
    assert_eq!(installation.run("healthcheck").await.code, 1);
    installation.set("SERVER__METRICS_LISTEN", "127.0.0.1:0");
    let service = installation.serve().await;
    let address = service.metrics_address.trim_start_matches("http://");
    installation.set("SERVER__METRICS_LISTEN", address);
    let ended = installation.run("healthcheck").await;
    assert_eq!(ended.code, 0, "{}", ended.err);
}

// Tenants and keys.

#[tokio::test]
async fn a_key_alone_on_stdout_opens_the_running_service_until_it_is_revoked() {
    let installation = installation().await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    assert_eq!(key.split_whitespace().count(), 1, "{key:?}");
    let answer = ocr(&service, &key).await;
    assert_eq!(answer.json["text"], SCRIPTED_TEXT, "{}", answer.text);
    let id = key.split('_').nth(1).unwrap();
    let listed = installation.run("key list").await;
    assert!(listed.out.contains(id) && !listed.out.contains(&key), "{}", listed.out);
    assert_eq!(installation.run(&format!("key revoke {id}")).await.code, 0);
    until("revoked", async || ocr(&service, &key).await.status == 401).await;
}

#[tokio::test]
async fn a_tenant_s_settings_bind_in_the_running_service() {
    let installation = installation().await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    let set = installation.run("tenant set acme --max-pixels 32768 --rpm 100000").await;
    assert_eq!(set.code, 0, "{}", set.err);
    until("capped", async || {
        ocr(&service, &key).await.json["pages"][0]["sent"]["max_pixels"] == 32_768
    })
    .await;
    let shown = installation.run("tenant show acme --json").await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["max_pixels"], &shown["rpm"]), (&json!(32_768), &json!(100_000)));
    assert_eq!(installation.run("tenant disable acme").await.code, 0);
    until("disabled", async || ocr(&service, &key).await.status == 403).await;
}

#[tokio::test]
async fn what_cannot_be_done_to_tenants_and_keys_is_1_and_says_why() {
    let installation = installation().await;
    let key = installation.key("acme").await;
    let unknown = if key.contains("aaaaaaaa") { "bbbbbbbb" } else { "aaaaaaaa" };
    for (arguments, named) in [
        ("tenant create acme".to_owned(), "acme"),
        ("tenant set nobody --rpm 1".to_owned(), "nobody"),
        ("tenant show nobody".to_owned(), "nobody"),
        ("tenant disable nobody".to_owned(), "nobody"),
        ("key create nobody".to_owned(), "nobody"),
        ("key create acme --expires-at 2001-01-01T00:00:00Z".to_owned(), "2001"),
        (format!("key revoke {}", unknown.repeat(2)), ""),
    ] {
        let ended = installation.run(&arguments).await;
        assert_ne!(ended.code, 0, "{arguments}");
        assert!(ended.out.is_empty() && ended.err.contains(named), "{arguments}: {}", ended.err);
    }
}

// Estimates.

#[tokio::test]
async fn the_command_s_estimate_is_the_service_s() {
    let installation = installation().await;
    put(&installation, "hello.png");
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    for (flags, query) in [
        ("", ""),
        ("--max-pixels 32768", "?max_pixels=32768"),
        ("--model qwen-vl-ocr-2025-08-28", "?model=qwen-vl-ocr-2025-08-28"),
    ] {
        let told = installation.run(&format!("estimate hello.png --json {flags}")).await;
        let told: Value = serde_json::from_str(&told.out).unwrap();
        let path = format!("/estimate{query}");
        let answer = Answer::of(service.post(&key, &path).body(fixture("hello.png"))).await;
        for member in ["pages", "bound", "model"] {
            assert_eq!(told[member], answer.json[member], "{flags}");
        }
    }
}

#[tokio::test]
async fn an_estimate_needs_no_key_and_one_bad_file_does_not_keep_it_from_the_rest() {
    let mut installation = installation().await;
    installation.unset("UPSTREAM__API_KEY");
    for name in ["hello.png", "tiny.png", "hello.jpg"] {
        put(&installation, name);
    }
    let ended = installation.run("estimate hello.png tiny.png missing.png hello.jpg --json").await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.out.lines().count(), 2, "{}", ended.out);
    assert!(ended.err.contains("tiny.png") && ended.err.contains("missing.png"), "{}", ended.err);
}

// Stopping and restarting.

#[tokio::test]
async fn a_stop_turns_readiness_off_and_finishes_what_is_in_flight() {
    let installation = installation().await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    installation.upstream().add_fault(Fault::delay(1500));
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    let in_flight = spawn(async move { Answer::of(request).await });
    until("sent", async || installation.upstream().bill().received == 1).await;
    service.signal("TERM").await;
    let readiness = format!("{}/readyz", service.metrics_address);
    until("not ready", async || {
        service.http.get(&readiness).send().await.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    let answer = in_flight.await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json["text"]), (200, &json!(SCRIPTED_TEXT)));
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut installation = installation().await;
    installation.set("SERVER__DRAIN_TIMEOUT_MS", "200");
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    installation.upstream().add_fault(Fault::hang());
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    spawn(async move { request.send().await });
    until("sent", async || installation.upstream().bill().received == 1).await;
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn an_idle_service_stops_at_once_on_either_signal() {
    let installation = installation().await;
    for signal in ["TERM", "INT"] {
        let mut service = installation.serve().await;
        // A kept-alive connection must not delay it.
        let ready = service.http.get(format!("{}/readyz", service.address)).send().await.unwrap();
        assert_eq!(ready.status(), 200);
        service.signal(signal).await;
        assert_eq!(service.ended().await, Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_service_that_was_killed_comes_back_with_its_tenants_and_keys() {
    let installation = installation().await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    assert_eq!(ocr(&service, &key).await.status, 200);
    service.signal("KILL").await;
    assert_eq!(service.ended().await, None);
    let service = installation.serve().await;
    assert_eq!(ocr(&service, &key).await.status, 200);
}

// The demonstration.

#[tokio::test]
async fn the_demonstration_reads_its_document_and_bills_what_it_estimated() {
    if !has_tesseract() {
        return;
    }
    let ended = installation().await.run("demo --once").await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let line = |name: &str| ended.out.lines().find(|line| line.starts_with(name)).unwrap_or("");
    let figures = line("image tokens").split_whitespace();
    let figures: Vec<u64> = figures.filter_map(|word| word.parse().ok()).collect();
    assert!(figures.len() == 2 && figures[0] == figures[1], "{}", ended.out);
    assert!(line("cost").contains("CNY"), "{}", ended.out);
    assert!(ended.out.contains("── text") && ended.out.contains("── fields"), "{}", ended.out);
}

#[tokio::test]
async fn a_second_signal_ends_a_service_that_is_stopping_at_once() {
    let installation = installation().await;
    for signals in [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]] {
        let mut service = installation.serve().await;
        let name = format!("acme-{}-{}", signals[0], signals[1]).to_lowercase();
        let key = installation.key(&name).await;
        installation.upstream().add_fault(Fault::hang());
        let sent = installation.upstream().bill().received;
        let request = service.post(&key, "/ocr").body(fixture("hello.png"));
        spawn(async move { request.send().await });
        until("sent", async || installation.upstream().bill().received > sent).await;
        service.signal(signals[0]).await;
        until("stopping", async || service.log().contains("stopping")).await;
        service.signal(signals[1]).await;
        assert_eq!(service.ended().await, Some(1), "{signals:?}");
        until("told", async || service.log().contains("a second signal")).await;
    }
}
