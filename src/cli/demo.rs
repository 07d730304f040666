//! `ocr-gateway demo`: the main use of the gateway on this machine, without any setup.
//!
//! Starts the emulator and the gateway on loopback with a temporary database, and creates a tenant with a cap. Then it
//! sends a receipt and a document over HTTP, as a caller would, and prints the answers.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dashscope_emulator::{EngineChoice, Options as EmulatorOptions};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::database::open_migrated;
use super::output::{Failure, say};
use super::serve::told_to_stop;
use crate::auth::key::{ApiKey, KeyRecord};
use crate::auth::store::TenantStore;
use crate::auth::tenant::Tenant;
use crate::clock::SystemClock;
use crate::gateway::Gateway;
use crate::random::SystemRandom;
use crate::server::{self, Listeners};
use crate::settings::Settings;
use crate::units::Pixels;

/// A file that the demo sends. `scripts/draw-documents` draws them; their content is invented.
struct DemoFile {
    /// Its path in the curl lines.
    path: &'static str,
    bytes: &'static [u8],
}

/// A receipt.
const RECEIPT: DemoFile =
    DemoFile { path: "demo/receipt.png", bytes: include_bytes!("../../demo/receipt.png") };

/// A letter, whose text is in the file, and the scan of a delivery note.
const ORDER: DemoFile =
    DemoFile { path: "demo/order.pdf", bytes: include_bytes!("../../demo/order.pdf") };

/// The pause between events of a stream, so that a person sees the text arrive in pieces.
const STREAM_INTERVAL: Duration = Duration::from_millis(15);

/// The cap of the demo's tenant: half of the receipt's pixels, at which it is still readable.
const MAX_PIXELS: Pixels = Pixels::new(1_048_576);

/// The gateway's key for the emulator.
const UPSTREAM_KEY: &str = "sk-demo";

/// The port that is tried first, as in a real installation.
const PORT: u16 = 8080;

/// How the demo runs.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Exit after the requests instead of serving on.
    #[arg(long)]
    once: bool,
    /// Port of the public API; by default 8080, or any free one if that is taken.
    #[arg(long)]
    port: Option<u16>,
}

/// Runs the demo.
///
/// # Errors
///
/// The emulator's OCR engine is missing, a port is taken, or a request fails.
pub(super) async fn run(arguments: DemoArgs) -> Result<ExitCode, Failure> {
    let emulator = dashscope_emulator::Emulator::start(EmulatorOptions {
        api_keys: vec![UPSTREAM_KEY.to_owned()],
        engine: EngineChoice::Tesseract { languages: None },
        stream_interval: STREAM_INTERVAL,
        ..EmulatorOptions::default()
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let database = format!("sqlite://{}/demo.db", folder.path().display());
    let settings = settings(emulator.base_url(), database)?;
    let store = open_migrated(&settings.database).await?;
    let key = create_tenant(&*store.tenants()).await?;
    let clock = Arc::new(SystemClock);
    let gateway = Gateway::build(&settings, store.clone(), clock, Arc::new(SystemRandom)).await?;

    let listeners = bind(arguments.port).await?;
    let address = format!("http://{}", listeners.public.local_addr()?);
    let metrics = format!("http://{}", listeners.metrics.local_addr()?);
    let stop = CancellationToken::new();
    let serving = server::run(gateway, listeners, &settings.server, stop.cancelled());
    let visiting = async {
        let visited = visit(&address, &metrics, key.expose(), arguments.once).await;
        stop.cancel();
        visited
    };
    let (served, visited) = tokio::join!(serving, visiting);
    visited?;
    served?;
    store.close().await;
    emulator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The default settings, with the emulator as upstream. The machine's own configuration is ignored, so that the demo
/// can neither spend money nor fail because of it.
fn settings(upstream: String, database: String) -> Result<Settings, Failure> {
    let environment = HashMap::from([
        ("OCR_GATEWAY__UPSTREAM__BASE_URL".to_owned(), upstream),
        ("OCR_GATEWAY__UPSTREAM__API_KEY".to_owned(), UPSTREAM_KEY.to_owned()),
        ("OCR_GATEWAY__DATABASE__URL".to_owned(), database),
        ("OCR_GATEWAY__SERVER__DRAIN_GRACE_MS".to_owned(), "0".to_owned()),
    ]);
    Ok(Settings::load_with(None, environment)?)
}

async fn create_tenant(store: &dyn TenantStore) -> Result<ApiKey, Failure> {
    let tenant = Tenant { max_pixels: Some(MAX_PIXELS), ..Tenant::new("demo".parse()?) };
    store.create_tenant(&tenant).await?;
    let (key, hash) = ApiKey::create(&SystemRandom);
    let record = KeyRecord::new(&key, hash, tenant.name, Timestamp::UNIX_EPOCH);
    store.create_key(&record).await?;
    Ok(key)
}

async fn bind(port: Option<u16>) -> Result<Listeners, Failure> {
    let public = match port {
        Some(port) => TcpListener::bind(("127.0.0.1", port)).await?,
        None => match TcpListener::bind(("127.0.0.1", PORT)).await {
            Ok(listener) => listener,
            Err(_taken) => TcpListener::bind(("127.0.0.1", 0)).await?,
        },
    };
    Ok(Listeners { public, metrics: TcpListener::bind(("127.0.0.1", 0)).await? })
}

/// Sends requests as a caller would. Without `once` it then waits for the signal to stop.
async fn visit(address: &str, metrics: &str, key: &str, once: bool) -> Result<(), Failure> {
    let visitor = Visitor { http: reqwest::Client::builder().no_proxy().build()?, address, key };
    let mut out = std::io::stdout();
    say("reading demo/receipt.png: gateway -> emulator -> Tesseract, all on this machine");
    let estimate = visitor.post("/estimate", &RECEIPT).await?;
    let answer = visitor.post("/ocr", &RECEIPT).await?;
    let fields = visitor.post("/extract?template=receipt", &RECEIPT).await?;
    print_text(&mut out, &answer)?;
    print_fields(&mut out, &fields)?;
    print_cost(&mut out, &estimate, &answer)?;
    say("reading demo/order.pdf: a letter with its own text, and a scan");
    let document = visitor.post("/ocr?pdf_text=prefer", &ORDER).await?;
    print_pages(&mut out, &document)?;
    if once {
        return Ok(());
    }
    print_next_steps(&mut out, address, metrics, key)?;
    told_to_stop().await;
    Ok(())
}

/// A caller with a key.
struct Visitor<'a> {
    http: reqwest::Client,
    address: &'a str,
    key: &'a str,
}

impl Visitor<'_> {
    async fn post(&self, path: &str, file: &DemoFile) -> Result<Value, Failure> {
        let request = self.http.post(format!("{}{path}", self.address)).bearer_auth(self.key);
        let response = request.body(file.bytes).send().await?;
        let (status, body) = (response.status(), response.bytes().await?);
        if !status.is_success() {
            return Err(
                format!("{path} answered {status}: {}", String::from_utf8_lossy(&body)).into()
            );
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

fn print_text(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    writeln!(out, "\n── text (POST /ocr) ──")?;
    writeln!(out, "{}", answer["text"].as_str().unwrap_or_default())
}

fn print_fields(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    writeln!(out, "\n── fields (POST /extract?template=receipt) ──")?;
    writeln!(out, "{}", serde_json::to_string_pretty(&answer["data"]).unwrap_or_default())
}

fn print_cost(out: &mut dyn Write, estimate: &Value, answer: &Value) -> std::io::Result<()> {
    let (page, usage) = (&answer["pages"][0], &answer["usage"]);
    let (sent, cost) = (&page["sent"], &usage["cost"]);
    writeln!(out, "\n── cost of the text ──")?;
    writeln!(
        out,
        "image          {} x {} pixels, {} bytes",
        page["width"], page["height"], answer["document"]["bytes"]
    )?;
    writeln!(
        out,
        "sent as        {} x {}: the tenant's cap is {} pixels",
        sent["width"], sent["height"], sent["max_pixels"]
    )?;
    writeln!(
        out,
        "image tokens   {} estimated before sending, {} billed",
        estimate["pages"][0]["image_tokens"], page["image_tokens"]["billed"]
    )?;
    writeln!(out, "all tokens     {} in, {} out", usage["input_tokens"], usage["output_tokens"])?;
    writeln!(
        out,
        "cost           {} {}",
        cost["amount"].as_str().unwrap_or_default(),
        cost["currency"].as_str().unwrap_or_default()
    )?;
    writeln!(out, "saved by cap   {} tokens", usage["tokens_saved"])
}

/// Prints each page of a document, with where its text is from and what it cost.
fn print_pages(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let (usage, cost) = (&answer["usage"], &answer["usage"]["cost"]);
    writeln!(out, "\n── a document (POST /ocr?pdf_text=prefer) ──")?;
    for page in answer["pages"].as_array().into_iter().flatten() {
        let source = match page["source"].as_str().unwrap_or_default() {
            "text_layer" => "from the file's own text",
            _ => "read by the model",
        };
        let tokens = &page["image_tokens"]["billed"];
        writeln!(out, "page {}, {source}, {tokens} image tokens:", page["page"])?;
        for line in page["text"].as_str().unwrap_or_default().lines() {
            writeln!(out, "    {line}")?;
        }
    }
    writeln!(
        out,
        "all pages      {} tokens, {} {}; saved {} tokens",
        usage["total_tokens"],
        cost["amount"].as_str().unwrap_or_default(),
        cost["currency"].as_str().unwrap_or_default(),
        usage["tokens_saved"],
    )
}

fn print_next_steps(
    out: &mut dyn Write,
    address: &str,
    metrics: &str,
    key: &str,
) -> std::io::Result<()> {
    let (receipt, order) = (RECEIPT.path, ORDER.path);
    writeln!(out, "\n── it is still running; try ──")?;
    writeln!(out, "export KEY={key}")?;
    writeln!(out, "curl -H \"Authorization: Bearer $KEY\" -F file=@{receipt} {address}/ocr")?;
    writeln!(
        out,
        "curl -H \"Authorization: Bearer $KEY\" -F file=@{order} -F pdf_text=prefer {address}/ocr"
    )?;
    writeln!(out, "curl -H \"Authorization: Bearer $KEY\" -T {receipt} {address}/estimate")?;
    writeln!(
        out,
        "curl -H \"Authorization: Bearer $KEY\" -F file=@{receipt} -F template=receipt {address}/extract"
    )?;
    writeln!(
        out,
        "curl -N -H \"Authorization: Bearer $KEY\" -H 'Accept: text/event-stream' -T {receipt} {address}/ocr"
    )?;
    writeln!(out, "curl -s {metrics}/metrics | grep ocr_gateway_tokens")?;
    writeln!(out, "SDK of OpenAI      base_url                {address}/compatible-mode/v1")?;
    writeln!(out, "SDK of DashScope   base_http_api_url       {address}/api/v1")?;
    writeln!(out, "documentation  {address}/docs")?;
    writeln!(out, "Ctrl-C stops it.")
}
