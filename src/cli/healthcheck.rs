//! `ocr-gateway healthcheck`: the probe of a container without a shell.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::output::{Failure, say};
use crate::settings::Settings;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Requests `/readyz` from the metrics listener.
///
/// # Errors
///
/// The service does not answer.
pub(super) async fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    let url = format!("http://{}/readyz", reachable(settings.server.metrics_listen));
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let status = client.get(&url).send().await?.status();
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{url} answered {status}"));
    Ok(ExitCode::FAILURE)
}

/// The address to call. A listener on all addresses can be reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
