//! The result as Markdown: medians, ratios, and the conditions.

use std::io::{self, Write as _};
use std::time::Duration;

use crate::circumstances::{Circumstances, Pace};
use crate::memory::{IN_FLIGHT, Memory};
use crate::window::{Cost, Row, Window};

const HEAD: [&str; 12] = [
    "upload",
    "at once",
    "subject",
    "CPU ms/request",
    "× nginx",
    "requests/s",
    "p50 ms",
    "added",
    "p99 ms",
    "added",
    "peak MB",
    "windows",
];

/// Prints the conditions and both tables.
pub(crate) fn print(
    circumstances: &Circumstances,
    rows: &[Row],
    memories: &[Memory],
) -> io::Result<()> {
    let Circumstances { command, pace, pins, load: [before, after] } = circumstances;
    let Pace { windows, seconds, settle } = pace;
    let cores = if *pins { "each side on a core of its own" } else { "NOT PINNED to cores" };
    let mut out = io::stdout().lock();
    writeln!(out, "`{command}`\n")?;
    writeln!(
        out,
        "{windows} windows of {seconds} s in turn, medians; {cores}; load average {before} before, \
         {after} after.\n"
    )?;
    writeln!(out, "| {} |", HEAD.join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(HEAD.len()))?;
    for row in rows {
        writeln!(out, "| {} |", cells(row, rows).join(" | "))?;
    }
    writeln!(
        out,
        "\n| resident MB | idle | peak of {IN_FLIGHT} uploads | their bodies | {} s after |",
        settle.as_secs()
    )?;
    writeln!(out, "|{}", "---|".repeat(5))?;
    for Memory { subject, idle, peak, raw, settled } in memories {
        let [idle, peak, raw, settled] = [idle, peak, raw, settled].map(|bytes| megabytes(*bytes));
        writeln!(out, "| {subject} | {idle:.1} | {peak:.1} | {raw:.1} | {settled:.1} |")?;
    }
    Ok(())
}

fn cells(row: &Row, rows: &[Row]) -> [String; 12] {
    let cpu = cpu_ms(row);
    let beside = |subject: &str| {
        let same = |other: &&Row| {
            (other.subject.as_str(), other.size, other.connections)
                == (subject, row.size, row.connections)
        };
        rows.iter().find(same)
    };
    let ratio = cpu.zip(beside("nginx").and_then(cpu_ms)).map(|(ours, nginx)| ours / nginx);
    let at = |figure| middle(row, figure);
    let direct = beside("direct").filter(|direct| direct.subject != row.subject);
    let added = |figure| Some(at(figure)? - middle(direct?, figure)?);
    let (p50, p99): (Figure, Figure) =
        (|window| milliseconds(window.outcome.p50), |window| milliseconds(window.outcome.p99));
    let peak = median(costs(row).map(|cost| megabytes(cost.peak)));
    [
        row.size.to_owned(),
        row.connections.to_string(),
        row.subject.clone(),
        shown(cpu, 3),
        shown(ratio, 2),
        shown(at(|window| window.outcome.rate()), 0),
        shown(at(p50), 2),
        shown(added(p50), 2),
        shown(at(p99), 2),
        shown(added(p99), 2),
        shown(peak, 1),
        windows(row.windows.len(), row.void),
    ]
}

/// A value of a window.
type Figure = fn(&Window) -> f64;

fn middle(row: &Row, figure: Figure) -> Option<f64> {
    median(row.windows.iter().map(figure))
}

fn cpu_ms(row: &Row) -> Option<f64> {
    median(costs(row).map(|cost| cost.cpu_ms))
}

fn costs(row: &Row) -> impl Iterator<Item = Cost> {
    row.windows.iter().filter_map(|window| window.cost)
}

/// The median; of an even number of figures the upper one.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// The number of windows of a row, and of void ones.
pub(crate) fn windows(counted: usize, void: usize) -> String {
    if void == 0 { counted.to_string() } else { format!("{counted}, {void} void") }
}

/// A figure with so many decimals; empty if there is none.
pub(crate) fn shown(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(String::new, |figure| format!("{figure:.decimals$}"))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "resident bytes are far below 2^52")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    fn row(subject: &str, cpu: &[f64]) -> Row {
        let outcome = Outcome {
            requests: 100,
            elapsed: Duration::from_secs(2),
            p50: Duration::from_micros(1500),
            p99: Duration::from_millis(2),
        };
        let cost = |cpu_ms: &f64| Some(Cost { cpu_ms: *cpu_ms, peak: 7_000_000 });
        let windows = cpu.iter().map(|cpu_ms| Window { outcome, cost: cost(cpu_ms) }).collect();
        Row { subject: subject.to_owned(), size: "5 MB", connections: 1, windows, void: 0 }
    }

    #[test]
    fn a_row_shows_medians_and_its_ratio_to_nginx() {
        let rows = [row("gateway", &[9.0, 3.0, 3.5]), row("nginx", &[2.0, 1.0, 50.0])];
        let expected =
            ["5 MB", "1", "gateway", "3.500", "1.75", "50", "1.50", "", "2.00", "", "7.0", "3"];
        assert_eq!(cells(&rows[0], &rows), expected.map(str::to_owned));
    }

    #[test]
    fn without_nginx_there_is_no_ratio() {
        let rows = [row("gateway", &[1.0])];
        assert_eq!(cells(&rows[0], &rows)[4], "");
    }

    #[test]
    fn what_is_added_is_counted_from_no_hop_at_all_in_the_same_cell() {
        let mut direct = row("direct", &[1.0]);
        direct.windows[0].outcome.p50 = Duration::from_micros(500);
        let rows = [row("gateway", &[1.0]), direct];
        assert_eq!(cells(&rows[0], &rows)[7], "1.00");
        assert_eq!(cells(&rows[1], &rows)[7], "");
    }

    #[test]
    fn void_windows_are_named() {
        let row = Row { void: 2, ..row("gateway", &[1.0]) };
        assert_eq!(cells(&row, &[])[11], "1, 2 void");
    }
}
