//! nginx in front of replicas, configured as in the runbook.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::until;

/// The addresses of the runbook's replicas.
const REPLICAS: [&str; 2] = ["10.0.0.1:8080", "10.0.0.2:8080"];

/// A running nginx. Stopped when dropped.
pub(crate) struct Nginx {
    /// Its address: `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    folder: TempDir,
    process: Child,
}

impl Nginx {
    /// nginx in front of two replicas at these addresses, or `None` if it is not installed.
    pub(crate) async fn before(replicas: &[String; 2]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, configuration(&folder, &address, replicas)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&path).kill_on_drop(true);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut nginx = Self { address: format!("http://{address}"), folder, process };
        until("nginx listens", async || {
            assert!(nginx.process.try_wait().unwrap().is_none(), "{}", nginx.log());
            TcpStream::connect(&address).await.is_ok()
        })
        .await;
        Some(nginx)
    }

    /// Its error log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

/// A free address.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Whether nginx is installed. A run that must not skip tests fails without it.
fn is_installed() -> bool {
    let found = std::process::Command::new("nginx").arg("-v").output().is_ok();
    let required = std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(found || !required, "nginx is missing and OCR_GATEWAY_REQUIRE_PROGRAMS is 1");
    if !found {
        println!("skipped: nginx is not installed");
    }
    found
}

/// The runbook's configuration with the addresses of a test.
fn configuration(folder: &TempDir, address: &str, replicas: &[String; 2]) -> String {
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    let runbook = std::fs::read_to_string(runbook).unwrap();
    let snippet = runbook.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let mut snippet = snippet.replace("listen 80;", &format!("listen {address};"));
    for (theirs, ours) in REPLICAS.iter().zip(replicas) {
        assert!(snippet.contains(theirs), "{snippet}");
        snippet = snippet.replace(theirs, ours);
    }
    let folder = folder.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .join(" ");
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {temporary}\n{snippet}\n}}\n"
    )
}
