//! Consecutive streams from each caller: every target in turn, window after window.

use std::time::Duration;

use super::target::Target;
use crate::circumstances::Pace;
use crate::listen::{Crowd, Heard};
use crate::subject::{Rig, printed};
use crate::terminal::{Failure, say};
use crate::upload::Upload;
use crate::window::in_turn;

/// How long each target is warmed up, in seconds.
const WARM_UP: f64 = 0.5;

/// The request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// Its name in the table.
    pub(crate) name: &'static str,
    pub(crate) upload: &'a Upload,
    /// Concurrent callers.
    pub(crate) connections: usize,
    /// Events of each stream.
    pub(crate) events: usize,
}

/// The measurements of one target.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) target: &'static str,
    /// The windows without an error.
    pub(crate) windows: Vec<Window>,
    /// The number of windows with an error.
    pub(crate) void: usize,
}

/// The measurements of one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) heard: Heard,
    /// The cost to the subject; `None` if the subject is not a process.
    pub(crate) cpu: Option<Duration>,
}

impl Flow<'_> {
    /// Measures every target. The rows are in the targets' order.
    pub(crate) fn measure(
        &self,
        rig: &Rig,
        targets: &[Target<'_>],
        pace: &Pace,
    ) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for target in targets {
            self.listen(rig, target, pace.seconds.min(WARM_UP))?;
            let (name, connections) = (self.name, self.connections);
            let (target, windows) = (target.name, Vec::new());
            rows.push(Row { name, connections, target, windows, void: 0 });
        }
        for index in in_turn(pace.windows, targets.len()) {
            let (target, row) = (&targets[index], &mut rows[index]);
            match self.window(rig, target, pace.seconds) {
                Ok(window) => row.windows.push(window),
                Err(failure) => {
                    say(&format!("a window of {} is void: {failure}", target.name));
                    row.void += 1;
                }
            }
        }
        Ok(rows)
    }

    fn window(&self, rig: &Rig, target: &Target<'_>, seconds: f64) -> Result<Window, Failure> {
        let Some(process) = &target.subject.process else {
            return Ok(Window { heard: self.listen(rig, target, seconds)?, cpu: None });
        };
        let before = process.cpu_time()?;
        let heard = self.listen(rig, target, seconds)?;
        let cpu = Some(process.cpu_time()?.saturating_sub(before));
        Ok(Window { heard, cpu })
    }

    fn listen(&self, rig: &Rig, target: &Target<'_>, seconds: f64) -> Result<Heard, Failure> {
        let crowd = Crowd { connections: self.connections, seconds, spread_ms: 0, deaf_ms: 0 };
        printed(target.listeners(rig, self.upload, self.events, crowd)?.output()?)?.parse()
    }
}
