//! Names that operators choose are shown as they are: in tables, in JSON, in CSV and in log lines.

use jiff::Timestamp;
use ocr_gateway::auth::key::{ApiKey, KeyLabel, KeyRecord};
use ocr_gateway::label::is_hidden;
use ocr_gateway::random::SystemRandom;
use ocr_gateway::store;
use serde_json::Value;

use crate::harness::SCRIPTED_TEXT;
use crate::program::Installation;

/// Formulas, reversed text and hidden text. None has a space, because spaces separate the arguments of a command.
const MISLEADING: [&str; 11] = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "＝1",
    "a\u{202e}b",
    "a\u{2066}b",
    "a\u{200b}b",
    "a\u{9b}b",
    "a\u{e000}b",
    "a\u{378}b",
];

#[tokio::test]
async fn a_key_with_a_misleading_label_is_not_made() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.key("acme").await;
    for label in MISLEADING {
        let ended = installation.run(&format!("key create acme --label={label}")).await;
        assert_eq!((ended.code, &*ended.out), (2, ""), "{label:?}");
        assert!(ended.err.contains("the label "), "{}", ended.err);
        assert!(ended.err.lines().all(|line| !line.contains(is_hidden)), "{:?}", ended.err);
    }
    let listed = installation.run("key list --json").await.out;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&listed).unwrap().len(), 1);
    let honest = installation.run("key create acme --label=批量（夜间）").await;
    assert_eq!(honest.code, 0, "{}", honest.err);
}

#[tokio::test]
async fn a_key_whose_label_an_older_version_took_works_and_is_shown_escaped() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.key("acme").await;
    let (key, hash) = ApiKey::create(&SystemRandom);
    let label = "=1\u{202e}\u{1b}[31m\u{2028}\nx";
    let tenant = "acme".parse().unwrap();
    let record = KeyRecord {
        label: Some(KeyLabel::stored(label.to_owned())),
        ..KeyRecord::new(&key, hash, tenant, Timestamp::UNIX_EPOCH)
    };
    let address = format!("sqlite://{}/gateway.db", installation.folder.path().display());
    let store = store::connect(&address, store::StoreOptions::default()).await.unwrap();
    store.tenants().create_key(&record).await.unwrap();
    store.close().await;

    let table = installation.run("key list").await.out;
    assert!(table.contains(r"=1\u{202e}\u{1b}[31m\u{2028}\u{a}x"), "{table:?}");
    let json = installation.run("key list --json").await.out;
    for out in [&table, &json] {
        assert!(out.lines().all(|line| !line.contains(is_hidden)), "{out:?}");
    }
    let keys: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(keys.iter().any(|key| key["label"] == label), "{json}");

    let service = installation.serve().await;
    let answer = service.http.get(format!("{}/usage", service.address)).bearer_auth(key.expose());
    assert_eq!(answer.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_misleading_name_of_an_endpoint_or_a_model_keeps_the_service_from_starting() {
    for name in ["a\u{202e}b", "=1+1", "two\nlines", "a\u{2028}b"] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("UPSTREAM__NAME", name);
        assert_refused(&installation, "serve", "upstream.name: ").await;
        let installation = Installation::reading(SCRIPTED_TEXT).await;
        // A JSON string is a valid TOML string too.
        let quoted = serde_json::to_string(name).unwrap();
        let defaults = include_str!("../../config/default.toml");
        let (_, figures) = defaults.split_once("[models.qwen-vl-ocr]\n").unwrap();
        let model = format!("[models.{quoted}]\n{}", figures.split("\n[").next().unwrap());
        std::fs::write(installation.folder.path().join("models.toml"), model).unwrap();
        assert_refused(&installation, "serve --config models.toml", "models.").await;
    }
}

/// Runs a command that fails because of `key`. Its message must contain no hidden characters.
async fn assert_refused(installation: &Installation, command: &str, key: &str) {
    let ended = installation.run(command).await;
    assert_eq!(ended.code, 1, "{}", ended.out);
    assert!(ended.err.contains(key), "{key}: {}", ended.err);
    assert!(ended.err.lines().all(|line| !line.contains(is_hidden)), "{:?}", ended.err);
}
