//! The vendor's snippets, and frameworks based on the SDKs, run with only the base address and the key changed: the
//! programs of `tests/sdk` with the SDKs from `PyPI` and npm, which `scripts/test` installs.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dashscope_emulator::EngineChoice;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use tokio::process::Command;

use crate::harness::{SCRIPTED_TEXT, TestGateway, fixture, until};
use crate::pages::numbered;

/// Much longer than any of the programs takes. The SDKs themselves would wait ten minutes.
const PATIENCE: Duration = Duration::from_mins(2);

/// An address for which the upstream has an image.
const IMAGE_URL: &str = "http://pictures.example/hello.png";

/// The text that the upstream reads for the frameworks, which also ask for a structure: an invoice as JSON.
const INVOICE: &str = r#"{"number": "42 of May", "total": 7.5}"#;

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// The path in an environment variable. A run that must not skip tests fails without it.
fn installed(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    let required = std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !required, "{variable} is missing; scripts/test sets it");
    if found.is_none() {
        println!("skipped: the SDKs are not installed (scripts/test installs them)");
    }
    found
}

/// A cap at which the pages of a document are small, so that an unoptimised build draws them fast.
const SMALL_PAGES: Pixels = Pixels::new(131_072);

/// A gateway whose upstream accepts only its key and has the image of the address.
async fn gateway() -> TestGateway {
    gateway_reading(SCRIPTED_TEXT).await
}

/// The same, with `text` in each image.
async fn gateway_reading(text: &str) -> TestGateway {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.api_keys = vec!["sk-test".to_owned()];
        setup.emulator.engine = EngineChoice::Scripted(text.to_owned());
    })
    .await;
    gateway.upstream().host(IMAGE_URL, fixture("hello.png"));
    gateway
}

async fn run(gateway: &TestGateway, interpreter: &Path, program: &str) {
    run_expecting(gateway, interpreter, program, SCRIPTED_TEXT).await;
}

async fn run_expecting(gateway: &TestGateway, interpreter: &Path, program: &str, text: &str) {
    run_given(gateway, interpreter, program, text, &[]).await;
}

/// Runs a program that needs some variables of its own.
async fn run_given(
    gateway: &TestGateway,
    interpreter: &Path,
    program: &str,
    text: &str,
    variables: &[(&str, &str)],
) {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hello.png");
    let mut command = Command::new(interpreter);
    command
        .arg(programs().join(program))
        .env("GATEWAY_ADDRESS", &gateway.address)
        .env("GATEWAY_KEY", &gateway.key)
        .env("GATEWAY_ONLY", "1")
        .env("IMAGE", image)
        .env("IMAGE_URL", IMAGE_URL)
        .env("EXPECTED_TEXT", text)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{program} hangs")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}:\n{said}\n{complained}");
    assert!(said.contains("shown: "), "{program} showed nothing");
}

/// All tokens shown were also paid for, exactly, and none are unverified.
async fn assert_paid(gateway: &TestGateway) {
    // A stream that a program left is read to its end.
    until("the bill", async || {
        let spent = gateway.count("tokens_spent_total", &[("tenant", "test")]).await;
        spent == gateway.upstream().bill().total()
    })
    .await;
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    assert_eq!(gateway.count("tokens_above_bound_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openais_python_sdk_needs_only_the_address_and_the_key() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    let gateway = gateway().await;
    for program in ["openai_sync", "openai_async", "openai_stream", "openai_errors"] {
        run(&gateway, &python, &format!("python/{program}.py")).await;
    }
    assert_paid(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashscopes_python_sdk_needs_only_the_address_and_the_key() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    let gateway = gateway().await;
    let programs = [
        "dashscope_sync",
        "dashscope_async",
        "dashscope_stream",
        "dashscope_tasks",
        "dashscope_client",
        "dashscope_errors",
        "gateway_only",
    ];
    for program in programs {
        run(&gateway, &python, &format!("python/{program}.py")).await;
    }
    assert_paid(&gateway).await;
}

/// A gateway that sends comments between the slow events of its streams.
async fn talkative() -> TestGateway {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.api_keys = vec!["sk-test".to_owned()];
        setup.emulator.stream_interval = Duration::from_millis(60);
        setup.settings.server.stream_keep_alive_ms = 15;
    })
    .await;
    gateway.upstream().host(IMAGE_URL, fixture("hello.png"));
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdks_skip_comments_in_a_stream() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    let gateway = talkative().await;
    for program in ["openai_stream", "dashscope_stream"] {
        run(&gateway, &python, &format!("python/{program}.py")).await;
    }
    assert_paid(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_sdk_skips_comments_in_a_stream() {
    let Some(node) = installed("OCR_GATEWAY_SDK_NODE") else { return };
    let gateway = talkative().await;
    run(&gateway, &node, "javascript/openai.mjs").await;
    assert_paid(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openais_javascript_sdk_needs_only_the_address_and_the_key() {
    let Some(node) = installed("OCR_GATEWAY_SDK_NODE") else { return };
    let gateway = gateway().await;
    run(&gateway, &node, "javascript/openai.mjs").await;
    assert_paid(&gateway).await;
}

/// Runs a framework's program against an upstream that reads an invoice, and checks the ledger.
async fn assert_framework_runs(interpreter: &Path, program: &str) {
    let gateway = gateway_reading(INVOICE).await;
    run_expecting(&gateway, interpreter, program, INVOICE).await;
    assert_paid(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn langchain_needs_only_the_address_and_the_key() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    assert_framework_runs(&python, "python/langchain_chat.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn litellm_needs_only_the_address_and_the_key() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    assert_framework_runs(&python, "python/litellm_completion.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vercel_ai_sdk_needs_only_the_address_and_the_key() {
    let Some(node) = installed("OCR_GATEWAY_SDK_NODE") else { return };
    assert_framework_runs(&node, "javascript/ai_sdk.mjs").await;
}

/// Runs the programs of Mistral's OCR API, with a document of three pages and a key whose budget is used up.
async fn assert_reads_documents(interpreter: &Path, programs: &[&str]) {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.api_keys = vec!["sk-test".to_owned()];
        setup.tenant.max_pixels = Some(SMALL_PAGES);
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("three.pdf");
    std::fs::write(&document, numbered(3)).unwrap();
    let poor = Tenant { daily_tokens: NonZeroU64::new(1), ..Tenant::new("poor".parse().unwrap()) };
    let spent = gateway.key_of(&poor).await;
    let document = document.to_str().unwrap();
    for program in programs {
        let variables = [("DOCUMENT", document), ("SPENT_KEY", spent.as_str())];
        run_given(&gateway, interpreter, program, SCRIPTED_TEXT, &variables).await;
    }
    assert_paid(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistrals_python_sdk_and_litellm_read_documents_by_the_address_and_the_key_alone() {
    let Some(python) = installed("OCR_GATEWAY_SDK_PYTHON") else { return };
    assert_reads_documents(&python, &["python/mistral_ocr.py", "python/litellm_ocr.py"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistrals_javascript_sdk_reads_documents_by_the_address_and_the_key_alone() {
    let Some(node) = installed("OCR_GATEWAY_SDK_NODE") else { return };
    assert_reads_documents(&node, &["javascript/mistral_ocr.mjs"]).await;
}
