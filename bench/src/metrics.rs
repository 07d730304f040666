//! Reads the gateway's metrics listener.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::subject::Subject;
use crate::terminal::Failure;

/// How long after its end a stream may take to be counted.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two reads.
const PAUSE: Duration = Duration::from_millis(50);

/// The billed tokens in the gateway's metrics, once they are `expected`; after a timeout, their
/// actual value.
///
/// # Errors
///
/// The metrics cannot be read, or a stream was counted as unverified.
pub(crate) fn tokens_spent(metrics: SocketAddr, expected: u64) -> Result<u64, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = scrape(metrics)?;
        let unverified = sum(&text, "ocr_gateway_tokens_unverified_total")?;
        if unverified > 0 {
            return Err(format!("{unverified} tokens were counted as unverified").into());
        }
        let spent = sum(&text, "ocr_gateway_tokens_spent_total")?;
        if spent == expected || Instant::now() > until {
            return Ok(spent);
        }
        thread::sleep(PAUSE);
    }
}

/// The sum of a metric's series, named without the gateway's prefix.
///
/// # Errors
///
/// The metrics cannot be read.
pub(crate) fn total(gateway: &Subject, name: &str) -> Result<u64, Failure> {
    let text = scrape(gateway.metrics.ok_or("no metrics listener")?)?;
    sum(&text, &format!("ocr_gateway_{name}"))
}

fn scrape(metrics: SocketAddr) -> Result<String, Failure> {
    let mut connection = Connection::open(metrics)?;
    connection.send(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let head = connection.head()?.ok_or("the metrics listener closed the connection")?;
    Ok(String::from_utf8(connection.body(head.length()?)?)?)
}

/// The sum of a metric's series.
fn sum(text: &str, name: &str) -> Result<u64, Failure> {
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|labels| labels.starts_with(['{', ' ']))
    });
    let mut sum = 0;
    for line in series {
        sum += line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_metric_are_summed_and_no_others() {
        let text = "# HELP spent_total Tokens.\nspent_total{kind=\"image\"} 1442\n\
                    spent_total{kind=\"output\"} 300\nspent_total_of_others 7\n";
        assert_eq!(sum(text, "spent_total").unwrap(), 1742);
        assert_eq!(sum(text, "saved_total").unwrap(), 0);
        assert!(sum("spent_total much", "spent_total").is_err());
    }
}
