//! `ocr-gateway tune` against a running gateway.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dashscope_emulator::EngineChoice;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{LONGEST_WAIT, TestGateway, fixture, has_tesseract};
use crate::program::Ended;

/// The picture with text that is small compared to its size.
fn receipt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/receipt.png")
}

/// Runs the command in a folder without a configuration.
async fn tune(gateway: &TestGateway, key: &str, folder: &TempDir, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocr-gateway"));
    command.arg("tune").args(["--server", &gateway.address]).args(arguments);
    command.env_clear().env("OCR_GATEWAY_KEY", key).current_dir(folder.path());
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(LONGEST_WAIT * 4, running).await.expect("it ends").unwrap();
    Ended {
        code: ended.status.code().unwrap(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

#[tokio::test]
async fn each_size_has_its_tokens_and_what_it_loses_of_full_size_and_of_the_truth() {
    if !has_tesseract() {
        return;
    }
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Tesseract { languages: None };
        setup.tenant.max_pixels = Some(Pixels::new(1 << 20));
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = receipt();
    let truth = gateway.upload("/ocr", std::fs::read(&file).unwrap()).await;
    std::fs::write(folder.path().join("receipt.txt"), truth.json["text"].as_str().unwrap())
        .unwrap();
    let before = gateway.upstream().bill().received;

    let arguments = [file.to_str().unwrap(), "--truth", ".", "--json"];
    let ended = tune(&gateway, &gateway.key, &folder, &arguments).await;

    assert_eq!(ended.code, 0, "{}", ended.err);
    let tuning: Value = serde_json::from_str(&ended.out).unwrap();
    let rungs = tuning["rungs"].as_array().unwrap();
    let sizes: Vec<_> = rungs.iter().map(|rung| rung["max_pixels"].clone()).collect();
    assert_eq!(
        sizes,
        [1_u64 << 20, 1 << 19, 1 << 18, 1 << 17, 1 << 16]
            .map(Value::from)
            .into_iter()
            .chain([Value::from("auto")])
            .collect::<Vec<_>>()
    );
    let (full, least) = (&rungs[0], &rungs[4]);
    assert_eq!((&full["agreement"], &full["recall"]), (&Value::from(1.0), &Value::from(1.0)));
    assert!(least["agreement"].as_f64().unwrap() < 0.9, "{least}");
    assert!(least["recall"].as_f64().unwrap() < 0.9, "{least}");
    for pair in rungs[..5].windows(2) {
        let tokens = |rung: &Value| rung["image_tokens"].as_u64().unwrap();
        assert!(tokens(&pair[0]) > tokens(&pair[1]), "{pair:?}");
    }
    let calls = gateway.upstream().bill().received - before;
    assert!(
        ended.err.starts_with(&format!("reading 1 samples by {calls} calls: at most ")),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_and_does_not_stop_the_others() {
    let gateway = TestGateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.png"), b"no picture").unwrap();
    std::fs::write(folder.path().join("good.png"), fixture("hello.png")).unwrap();
    let files = ["missing.png", "broken.png", "good.png"];

    let ended = tune(&gateway, &gateway.key, &folder, &files).await;

    assert_eq!(ended.code, 1);
    for (file, why) in [("missing.png", "No such file"), ("broken.png", "415")] {
        assert!(ended.err.contains(&format!("error: {file}: {why}")), "{}", ended.err);
    }
    assert!(ended.out.contains("Means of 1 samples."), "{}", ended.out);
    assert!(gateway.upstream().bill().received > 0);
}

#[tokio::test]
async fn sizes_that_send_the_same_are_read_and_paid_once() {
    let gateway = TestGateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.png"), fixture("hello.png")).unwrap();
    let ended = tune(&gateway, &gateway.key, &folder, &["good.png"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.lines().count() > 5, "{}", ended.out);
    // Every size sends the small picture as it is.
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn nothing_is_read_without_a_key_or_with_a_wrong_one() {
    let gateway = TestGateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.png"), fixture("hello.png")).unwrap();

    let without = tune(&gateway, "", &folder, &["good.png"]).await;
    assert_eq!(without.code, 2);
    assert!(without.err.contains("OCR_GATEWAY_KEY"), "{}", without.err);

    let wrong = tune(&gateway, "ocrgw_wrong", &folder, &["good.png"]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (1, ""));
    assert!(wrong.err.starts_with("error: 401"), "{}", wrong.err);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_used_up_budget_is_told_for_its_file_and_never_exceeded() {
    let gateway = TestGateway::start().await;
    let poor = Tenant {
        daily_tokens: Some(9.try_into().unwrap()),
        ..Tenant::new("poor".parse().unwrap())
    };
    let key = gateway.key_of(&poor).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.png"), fixture("hello.png")).unwrap();
    std::fs::write(folder.path().join("key"), format!("{key}\n")).unwrap();

    let ended = tune(&gateway, "", &folder, &["good.png", "--key-file", "key"]).await;

    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("error: good.png: 429"), "{}", ended.err);
    assert_eq!(gateway.upstream().bill().received, 0);
}
