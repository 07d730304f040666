//! One size at one concurrency: every subject in turn, window after window.
//!
//! The first subject of one round is the last of the next, so that slow changes of the machine's
//! load affect all subjects alike. A window with an error is void and counted as such.

use crate::cell::Cell;
use crate::circumstances::Pace;
use crate::load::Outcome;
use crate::subject::{Rig, Subject};
use crate::terminal::{Failure, say};

/// How long each subject is warmed up, in seconds.
const WARM_UP: f64 = 0.5;

/// The measurements of one subject.
#[derive(Debug)]
pub(crate) struct Row {
    /// The subject's name.
    pub(crate) subject: String,
    /// The upload's name.
    pub(crate) size: &'static str,
    /// Callers at once.
    pub(crate) connections: usize,
    /// The windows without an error.
    pub(crate) windows: Vec<Window>,
    /// The number of windows with an error.
    pub(crate) void: usize,
}

/// The measurements of one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The measurements of the load.
    pub(crate) outcome: Outcome,
    /// The measurements of the subject; `None` if it is no process.
    pub(crate) cost: Option<Cost>,
}

/// The cost of a window to its subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// CPU time of each request, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// The peak of resident memory in bytes.
    pub(crate) peak: u64,
}

/// The subjects of the windows, round after round.
pub(crate) fn in_turn(rounds: usize, subjects: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| (0..subjects).map(move |place| (round + place) % subjects))
}

/// Measures every subject. The rows are in the subjects' order.
pub(crate) fn measure(
    cell: &Cell<'_>,
    rig: &Rig,
    subjects: &[Subject],
    pace: &Pace,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for subject in subjects {
        rig.check(subject, cell.upload)?;
        rig.load(subject, cell, pace.seconds.min(WARM_UP))?;
        rows.push(row(cell, subject));
    }
    for index in in_turn(pace.windows, subjects.len()) {
        let (subject, row) = (&subjects[index], &mut rows[index]);
        match window(cell, rig, subject, pace.seconds) {
            Ok(window) => row.windows.push(window),
            Err(failure) => {
                say(&format!("a window of {} is void: {failure}", subject.name));
                row.void += 1;
            }
        }
    }
    Ok(rows)
}

fn row(cell: &Cell<'_>, subject: &Subject) -> Row {
    Row {
        subject: subject.name.clone(),
        size: cell.upload.name,
        connections: cell.connections,
        windows: Vec::new(),
        void: 0,
    }
}

fn window(cell: &Cell<'_>, rig: &Rig, subject: &Subject, seconds: f64) -> Result<Window, Failure> {
    let Some(process) = &subject.process else {
        return Ok(Window { outcome: rig.load(subject, cell, seconds)?, cost: None });
    };
    process.forget_peak();
    let before = process.cpu_time()?;
    let outcome = rig.load(subject, cell, seconds)?;
    let spent = process.cpu_time()?.saturating_sub(before);
    let cpu_ms = spent.as_secs_f64() * 1e3 / f64::from(outcome.requests);
    Ok(Window { outcome, cost: Some(Cost { cpu_ms, peak: process.peak()? }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_one_round_is_the_last_of_the_next() {
        assert_eq!(in_turn(2, 3).collect::<Vec<_>>(), [0, 1, 2, 1, 2, 0]);
    }
}
