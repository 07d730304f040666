//! The results as Markdown.

use std::io::{self, Write};
use std::time::Duration;

use super::crowd::{Crowded, Held, Shown};
use super::flow::{Row, Window};
use crate::circumstances::{Circumstances, Pace};
use crate::table::{megabytes, milliseconds, shown, windows};

const FIRST: [&str; 8] =
    ["upload", "at once", "through", "p50 ms", "added ms", "p99 ms", "added ms", "windows"];

const EVENTS: [&str; 7] =
    ["events a write", "at once", "through", "CPU µs/event", "× nginx", "events/s", "windows"];

const CROWDS: [&str; 13] = [
    "streams",
    "through",
    "whole",
    "events/s",
    "late p50 ms",
    "p99 ms",
    "CPU %",
    "CPU µs/event",
    "idle MB",
    "peak MB",
    "KB/stream",
    "MB after",
    "tokens billed",
];

/// Prints the circumstances and all tables.
pub(crate) fn print(
    circumstances: &Circumstances,
    first: &[Row],
    events: &[Row],
    crowds: &[Crowded],
) -> io::Result<()> {
    let Circumstances { command, pace, pins, load: [before, after] } = circumstances;
    let Pace { windows, seconds, settle } = pace;
    let cores = if *pins { "each side on a core of its own" } else { "NOT PINNED to cores" };
    let mut out = io::stdout().lock();
    writeln!(out, "`{command}`\n")?;
    writeln!(
        out,
        "{windows} windows of {seconds} s in turn, medians; {cores}; load average {before} before, \
         {after} after; memory \"after\" is {} s after the last stream.\n",
        settle.as_secs(),
    )?;
    table(
        &mut out,
        "First byte of a stream",
        FIRST,
        first.iter().map(|row| first_cells(row, first)),
    )?;
    table(&mut out, "Events passed on", EVENTS, events.iter().map(|row| event_cells(row, events)))?;
    table(&mut out, "Many streams at once", CROWDS, crowds.iter().map(crowd_cells))
}

fn table<const N: usize>(
    out: &mut impl Write,
    title: &str,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    writeln!(out, "**{title}**\n\n| {} |\n|{}", head.join(" | "), "---|".repeat(N))?;
    for row in rows {
        writeln!(out, "| {} |", row.join(" | "))?;
    }
    writeln!(out)
}

fn first_cells(row: &Row, rows: &[Row]) -> [String; 8] {
    let at = |figure: fn(&Window) -> Duration| {
        let of = |row: &Row| median(row, |window| Some(milliseconds(figure(window))));
        let direct = beside(row, rows, "direct").filter(|_| row.target != "direct").and_then(of);
        let ours = of(row);
        let added = ours.zip(direct).map(|(ours, direct)| ours - direct);
        [shown(ours, 2), shown(added, 2)]
    };
    let [p50, p50_added] = at(|window| window.heard.first.p50);
    let [p99, p99_added] = at(|window| window.heard.first.p99);
    [
        row.name.to_owned(),
        row.connections.to_string(),
        row.target.to_owned(),
        p50,
        p50_added,
        p99,
        p99_added,
        windows(row.windows.len(), row.void),
    ]
}

fn event_cells(row: &Row, rows: &[Row]) -> [String; 7] {
    let cpu = cost_of_event(row);
    let nginx = beside(row, rows, "nginx").and_then(cost_of_event);
    let ratio = cpu.zip(nginx).map(|(ours, nginx)| ours / nginx);
    [
        row.name.to_owned(),
        row.connections.to_string(),
        row.target.to_owned(),
        shown(cpu, 2),
        shown(ratio, 2),
        shown(median(row, |window| Some(window.heard.rate())), 0),
        windows(row.windows.len(), row.void),
    ]
}

fn crowd_cells(crowded: &Crowded) -> [String; 13] {
    let mut cells = [const { String::new() }; 13];
    cells[0] = crowded.gathering.into();
    cells[1] = crowded.who.into();
    let Some(Shown { heard, late, held, billed }) = crowded.shown else {
        cells[2] = "void".into();
        return cells;
    };
    cells[2] = heard.streams.to_string();
    cells[3] = shown(Some(heard.rate()), 0);
    cells[4] = shown(late.map(|late| milliseconds(late.p50)), 2);
    cells[5] = shown(late.map(|late| milliseconds(late.p99)), 2);
    let Some(Held { idle, peak, settled, steady }) = held else { return cells };
    cells[6] = shown(steady.map(|steady| steady.share() * 100.0), 1);
    cells[7] = shown(steady.map(|steady| micros(steady.cpu) / steady.events), 1);
    cells[8] = shown(Some(megabytes(idle)), 1);
    cells[9] = shown(Some(megabytes(peak)), 1);
    let grown = megabytes(peak.saturating_sub(idle));
    cells[10] = shown(Some(grown * 1e3 / count(heard.streams)), 0);
    cells[11] = shown(Some(megabytes(settled)), 1);
    cells[12] = billed.map_or_else(String::new, |tokens| tokens.to_string());
    cells
}

/// The row of another target in the same cell.
fn beside<'a>(row: &Row, rows: &'a [Row], target: &str) -> Option<&'a Row> {
    rows.iter().find(|other| {
        (other.target, other.name, other.connections) == (target, row.name, row.connections)
    })
}

fn median(row: &Row, figure: impl Fn(&Window) -> Option<f64>) -> Option<f64> {
    crate::table::median(row.windows.iter().filter_map(figure))
}

fn cost_of_event(row: &Row) -> Option<f64> {
    median(row, |window| Some(micros(window.cpu?) / count(window.heard.events)))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::crowd::Steady;
    use super::*;
    use crate::listen::{Heard, Spread};

    const fn spread(p50: u64, p99: u64) -> Spread {
        Spread { p50: Duration::from_micros(p50), p99: Duration::from_micros(p99) }
    }

    const HEARD: Heard = Heard {
        streams: 100,
        events: 4000,
        elapsed: Duration::from_secs(2),
        first: spread(500, 900),
        late: spread(40, 70),
    };

    fn row(target: &'static str, first: u64, cpu: Option<u64>) -> Row {
        let heard = Heard { first: spread(first, 2 * first), ..HEARD };
        let windows = vec![Window { heard, cpu: cpu.map(Duration::from_millis) }; 3];
        Row { name: "60 KB", connections: 1, target, windows, void: 0 }
    }

    #[test]
    fn the_first_byte_is_shown_with_what_is_added_to_no_hop_at_all() {
        let rows = [row("gateway", 750, Some(80)), row("direct", 250, None)];
        let expected = ["60 KB", "1", "gateway", "0.75", "0.50", "1.50", "1.00", "3"];
        assert_eq!(first_cells(&rows[0], &rows), expected.map(str::to_owned));
        assert_eq!(first_cells(&rows[1], &rows)[4], "");
    }

    #[test]
    fn an_event_is_shown_with_its_ratio_to_nginx() {
        let rows = [row("gateway", 1, Some(80)), row("nginx", 1, Some(20))];
        let expected = ["60 KB", "1", "gateway", "20.00", "4.00", "2000", "3"];
        assert_eq!(event_cells(&rows[0], &rows), expected.map(str::to_owned));
    }

    #[test]
    fn a_crowd_is_shown_with_what_each_stream_holds() {
        let steady =
            Steady { cpu: Duration::from_secs(3), time: Duration::from_secs(6), events: 60_000.0 };
        let held =
            Held { idle: 10_000_000, peak: 30_000_000, settled: 12_000_000, steady: Some(steady) };
        let shown =
            Some(Shown { heard: HEARD, late: Some(HEARD.late), held: Some(held), billed: Some(7) });
        let crowded = Crowded { gathering: "slow", who: "gateway", shown };
        let expected = [
            "slow", "gateway", "100", "2000", "0.04", "0.07", "50.0", "50.0", "10.0", "30.0",
            "200", "12.0", "7",
        ];
        assert_eq!(crowd_cells(&crowded), expected.map(str::to_owned));
    }

    #[test]
    fn a_void_crowd_is_named() {
        let crowded = Crowded { gathering: "slow", who: "gateway", shown: None };
        assert_eq!(crowd_cells(&crowded)[2], "void");
    }
}
