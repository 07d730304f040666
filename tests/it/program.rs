//! The compiled program, as an operator runs it: a folder, an environment, a process.
//!
//! The log of the process is kept, because tests check what it must not contain.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashscope_emulator::{Emulator, EngineChoice, Options as EmulatorOptions, World};
use reqwest::RequestBuilder;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::harness::{LONGEST_WAIT, calendar, install_tls, spawn, until};

/// The API key for the upstream.
pub(crate) const UPSTREAM_KEY: &str = "sk-upstream-4c1f7e";

/// A folder with a database and an environment that points at an emulator.
pub(crate) struct Installation {
    /// The folder that commands run in.
    pub(crate) folder: TempDir,
    environment: BTreeMap<String, String>,
    program: PathBuf,
    emulator: Emulator,
}

/// A command that ended.
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: i32,
    /// The output for a script.
    pub(crate) out: String,
    /// The output for a person.
    pub(crate) err: String,
}

/// A running `serve`.
pub(crate) struct Service {
    /// Address of the public API.
    pub(crate) address: String,
    /// Address of metrics and health.
    pub(crate) metrics_address: String,
    /// A client without limits of its own.
    pub(crate) http: reqwest::Client,
    child: Child,
    log: Arc<Mutex<String>>,
    /// Reads the log of the process.
    reading: JoinHandle<()>,
}

impl Installation {
    /// An installation whose upstream reads `text` from each image.
    pub(crate) async fn reading(text: &str) -> Self {
        Self::reading_after(text, Duration::ZERO).await
    }

    /// An installation whose upstream takes `latency` to read `text` from an image.
    pub(crate) async fn reading_after(text: &str, latency: Duration) -> Self {
        install_tls();
        let engine = EngineChoice::Scripted(text.to_owned());
        let options = EmulatorOptions { engine, latency, ..EmulatorOptions::default() };
        let emulator = Emulator::start(options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/gateway.db", folder.path().display());
        let environment = [
            ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("SERVER__METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            // No load balancer has to notice a stop of a test's service.
            ("SERVER__DRAIN_GRACE_MS", "0".to_owned()),
            ("LEDGER__TIME_ZONE", calendar().name().to_owned()),
            ("DATABASE__URL", database),
            ("UPSTREAM__BASE_URL", emulator.base_url()),
            ("UPSTREAM__API_KEY", UPSTREAM_KEY.to_owned()),
        ];
        let environment =
            environment.map(|(name, value)| (format!("OCR_GATEWAY__{name}"), value)).into();
        let program = env!("CARGO_BIN_EXE_ocr-gateway").into();
        Self { folder, environment, program, emulator }
    }

    /// Runs this program from now on, in place of the tested one, and returns the one before.
    pub(crate) fn switch_to(&mut self, program: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.program, program)
    }

    /// Sets a setting: `SECTION__KEY`.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(format!("OCR_GATEWAY__{name}"), value.into());
    }

    /// Sets another variable.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Address of the emulator.
    pub(crate) fn upstream_address(&self) -> String {
        self.emulator.base_url()
    }

    /// Removes a setting.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.remove(&format!("OCR_GATEWAY__{name}"));
    }

    /// The emulator's script, and the calls that it received.
    pub(crate) fn upstream(&self) -> Arc<World> {
        self.emulator.world()
    }

    /// Runs a command to its end. The arguments are separated by spaces.
    pub(crate) async fn run(&self, arguments: &str) -> Ended {
        let running = self.command(arguments).stdin(Stdio::null()).output();
        let ended = tokio::time::timeout(LONGEST_WAIT, running).await.expect("the command ends");
        let ended = ended.unwrap();
        Ended {
            code: ended.status.code().unwrap(),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    /// Creates a tenant and returns a key of it. Creates the database if it is missing.
    pub(crate) async fn key(&self, tenant: &str) -> String {
        let migrated = self.run("migrate").await;
        assert_eq!(migrated.code, 0, "{}", migrated.err);
        let created = self.run(&format!("tenant create {tenant}")).await;
        assert_eq!(created.code, 0, "{}", created.err);
        let key = self.run(&format!("key create {tenant}")).await;
        assert_eq!(key.code, 0, "{}", key.err);
        key.out.trim_end().to_owned()
    }

    /// Starts the service and waits until it serves.
    pub(crate) async fn serve(&self) -> Service {
        self.serve_by("serve").await
    }

    /// The same with another command.
    pub(crate) async fn serve_by(&self, command: &str) -> Service {
        let mut service = self.begin(command);
        service.until_serving().await;
        service
    }

    /// Starts the service, which may have to wait before it serves. Its addresses are not known yet.
    pub(crate) fn begin(&self, command: &str) -> Service {
        let mut child =
            self.command(command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let reading = spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Service {
            address: String::new(),
            metrics_address: String::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            child,
            log,
            reading,
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        // The machine's configuration must not apply, except the path of programs.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(&self.environment).kill_on_drop(true);
        command
    }
}

/// A field of the log line `serving`.
fn logged(log: &str, member: &str) -> String {
    let line = log.lines().find(|line| line.contains("\"serving\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    line[member].as_str().unwrap().to_owned()
}

impl Service {
    /// A POST with a key.
    pub(crate) fn post(&self, key: &str, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.address)).bearer_auth(key)
    }

    /// Waits until it serves.
    pub(crate) async fn until_serving(&mut self) {
        until("serving", async || self.log().contains("\"serving\"")).await;
        let address = |member| format!("http://{}", logged(&self.log(), member));
        (self.address, self.metrics_address) = (address("listen"), address("metrics.listen"));
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Closes the log pipe of the process, as a closed terminal does.
    pub(crate) async fn close_log(&mut self) {
        self.reading.abort();
        // The pipe closes when the task ends.
        let _ = (&mut self.reading).await;
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for the exit code of the process. `None` if a signal ended it.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let ending = tokio::time::timeout(LONGEST_WAIT, self.child.wait()).await;
        ending.expect("the process ends").unwrap().code()
    }
}
