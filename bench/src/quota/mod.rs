//! Measures how well calls are paced and shared, and what outages cost, against accounts with a
//! hidden quota and endpoints that go away.
//!
//! The measured quantity is time, so runs are long: the shares of one run are accurate to a
//! hundredth.

mod account;
mod tenants;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::account::Account;
use self::tenants::Tenants;
use crate::subject::{Rig, Subject};
use crate::terminal::{Failure, println};
use crate::upload;
use crate::upload::Upload;

/// The accounts' quota for a second, which the gateway does not know.
const REQUESTS: u64 = 10;
const TOKENS: u64 = 100_000;

/// Callers of the four tenants. All of them always have another page.
const GREEDY: [u64; 4] = [4, 8, 16, 32];

/// The duration of an outage.
const OUTAGE: Duration = Duration::from_secs(20);
const TOTAL_OUTAGE: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    /// The gateway's release binary
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// How long the quota is used
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
    /// Skip the outages
    #[arg(long)]
    quota_only: bool,
}

/// Runs all scenarios and prints the results.
///
/// # Errors
///
/// A promise is broken or cannot be checked.
pub(crate) fn run(arguments: &QuotaArgs) -> Result<(), Failure> {
    let uploads = [Upload::all().into_iter().next().ok_or("there is an upload")?];
    let rig = Rig::new(&uploads, None, None)?;
    let mut promises = Promises::default();
    quota(&rig, arguments, &uploads[0], &mut promises)?;
    if !arguments.quota_only {
        outages(&rig, arguments, &uploads[0], &mut promises)?;
    }
    promises.kept()
}

/// Four greedy tenants at one account.
fn quota(
    rig: &Rig,
    arguments: &QuotaArgs,
    upload: &Upload,
    promises: &mut Promises,
) -> Result<(), Failure> {
    let account = Account::start(Some((REQUESTS, TOKENS)), Duration::from_millis(300))?;
    // Twice the real quota.
    let endpoint = endpoint("a", account.address, "rpm = 1200\ntpm = 12000000\n");
    let gateway = start(rig, arguments, &endpoint)?;
    let lasts = Duration::try_from_secs_f64(arguments.seconds)?;
    let until = Instant::now() + lasts;
    let tenants = Tenants::start(rig, &gateway, &arguments.gateway, upload, &GREEDY, until)?;
    let served = tenants.join()?;
    let seen = account.seen();
    let goodput = share(seen.passed, REQUESTS * lasts.as_secs());
    let throttled = share(seen.throttled, seen.passed + seen.throttled);
    let pages: Vec<u64> = served.iter().map(|served| served.answered).collect();
    println(&format!(
        "hidden quota of {REQUESTS} requests and {TOKENS} tokens a second, twice that configured, {} s:",
        lasts.as_secs()
    ));
    println(&format!("  pages of the four tenants: {pages:?}"));
    promises.hold("goodput", goodput, goodput >= 0.95);
    promises.hold("throttled share", throttled, throttled < 0.01);
    promises.hold("Jain's index", jain(&pages), jain(&pages) >= 0.98);
    promises.none("requests before a Retry-After ended", seen.early);
    promises.none("other answers than 200, 429 and 503", served.iter().map(|of| of.odd).sum());
    Ok(())
}

/// One of two endpoints goes away, and then both.
fn outages(
    rig: &Rig,
    arguments: &QuotaArgs,
    upload: &Upload,
    promises: &mut Promises,
) -> Result<(), Failure> {
    let latency = Duration::from_millis(100);
    let (a, b) = (Account::start(None, latency)?, Account::start(None, latency)?);
    let lifted = "rpm = 6000000\ntpm = 60000000000\n";
    let endpoints = [endpoint("a", a.address, lifted), endpoint("b", b.address, lifted)].concat();
    let gateway = start(rig, arguments, &endpoints)?;
    let lasts = Duration::from_secs(5) + OUTAGE + Duration::from_secs(5);
    let until = Instant::now() + lasts + TOTAL_OUTAGE + Duration::from_secs(10);
    let tenants = Tenants::start(rig, &gateway, &arguments.gateway, upload, &[16], until)?;
    thread::sleep(Duration::from_secs(5));
    let in_flight = a.go_away();
    thread::sleep(OUTAGE);
    let (attempts, failed) = (a.seen().refused, tenants.failed());
    a.come_back();
    thread::sleep(Duration::from_secs(5));
    println(&format!("one of two endpoints away for {} s, 16 callers:", OUTAGE.as_secs()));
    println(&format!("  in flight there when it went: {in_flight}; asked while away: {attempts}"));
    promises.most("requests that failed", failed, in_flight);

    let before = [a.seen().refused, b.seen().refused];
    a.go_away();
    b.go_away();
    thread::sleep(TOTAL_OUTAGE);
    let attempts = [a.seen().refused - before[0], b.seen().refused - before[1]];
    a.come_back();
    b.come_back();
    let back = Instant::now();
    let recovered = tenants.next_answer(back + Duration::from_secs(10));
    println(&format!("both away for {} s:", TOTAL_OUTAGE.as_secs()));
    // Five failures, the calls in flight, and one probe a second.
    for (name, attempts) in [("a", attempts[0]), ("b", attempts[1])] {
        promises.most(&format!("attempts at {name}"), attempts, 5 + 16 + TOTAL_OUTAGE.as_secs());
    }
    let took = recovered.map_or(f64::INFINITY, |at| at.duration_since(back).as_secs_f64());
    promises.hold("seconds until an answer", took, took <= 2.0);
    tenants.join()?;
    Ok(())
}

/// Starts a gateway with these endpoints as its upstream.
fn start(rig: &Rig, arguments: &QuotaArgs, endpoints: &str) -> Result<Subject, Failure> {
    // Listed endpoints replace the single one that every gateway here gets.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let quick = [
        ("OCR_GATEWAY__UPSTREAM__BACKOFF_BASE_MS", "20"),
        ("OCR_GATEWAY__UPSTREAM__BACKOFF_CAP_MS", "200"),
    ];
    rig.gateway_before(&arguments.gateway, nowhere, endpoints, &quick)
}

/// An endpoint in the form of the configuration.
fn endpoint(name: &str, address: SocketAddr, rates: &str) -> String {
    format!(
        "[[upstream.endpoints]]\nname = \"{name}\"\nregion = \"beijing\"\n\
         base_url = \"http://{address}\"\napi_key = \"bench\"\nmodels = [\"{}\"]\n{rates}",
        upload::MODEL
    )
}

/// Jain's index: 1 where all have the same, 1/n where one has all.
fn jain(shares: &[u64]) -> f64 {
    let sum: u64 = shares.iter().sum();
    let squares: u64 = shares.iter().map(|share| share * share).sum();
    share(sum * sum, squares * shares.len() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / (whole as f64).max(1.0)
}

/// A promise, and whether it was kept.
#[derive(Default)]
struct Promises {
    broken: Vec<String>,
}

impl Promises {
    fn hold(&mut self, what: &str, value: f64, is_kept: bool) {
        self.note(&format!("{what}: {value:.4}"), is_kept);
    }

    fn most(&mut self, what: &str, count: u64, most: u64) {
        self.note(&format!("{what}: {count} (at most {most})"), count <= most);
    }

    fn none(&mut self, what: &str, count: u64) {
        self.note(&format!("{what}: {count}"), count == 0);
    }

    fn note(&mut self, line: &str, is_kept: bool) {
        println(&format!("  {line}{}", if is_kept { "" } else { "  BROKEN" }));
        if !is_kept {
            self.broken.push(line.to_owned());
        }
    }

    fn kept(self) -> Result<(), Failure> {
        if self.broken.is_empty() {
            return Ok(());
        }
        Err(format!("not as promised: {}", self.broken.join("; ")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_s_index_is_one_where_all_have_the_same_and_a_part_where_one_has_all() {
        assert!((jain(&[7, 7, 7, 7]) - 1.0).abs() < 1e-9);
        assert!((jain(&[9, 0, 0, 0]) - 0.25).abs() < 1e-9);
    }
}
