//! Samples of a process's resources, and whether they grow.

use std::io;
use std::time::{Duration, Instant};

use crate::process::Process;

/// Samples of a whole run.
const SAMPLES: u32 = 400;

/// The time between two samples.
pub(crate) fn pause(duration: Duration) -> Duration {
    (duration / SAMPLES).max(Duration::from_millis(500))
}

/// The resources of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    /// Resident bytes.
    pub(crate) resident: u64,
    /// Open files, sockets among them.
    pub(crate) files: usize,
    pub(crate) sockets: usize,
    pub(crate) threads: usize,
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

/// The change of resident memory, in KB a minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slope {
    pub(crate) per_minute: f64,
    /// The standard error of the change.
    pub(crate) error: f64,
    /// The mean of the measured quantity, in KB.
    pub(crate) mean: f64,
    /// The duration of the observation, in minutes.
    pub(crate) minutes: f64,
}

impl Sample {
    /// Samples a process.
    pub(crate) fn of(process: &Process) -> io::Result<Self> {
        let (files, sockets) = process.open_files()?;
        let (resident, threads) = (process.resident()?, process.threads()?);
        Ok(Self { at: Instant::now(), resident, files, sockets, threads })
    }
}

impl Samples {
    /// Adds a sample that is later than all before.
    pub(crate) fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The largest figure of all samples.
    pub(crate) fn most<T: Ord>(&self, figure: impl Fn(&Sample) -> T) -> Option<T> {
        self.0.iter().map(figure).max()
    }

    /// The least-squares line through the second half; `None` if that has too few samples.
    pub(crate) fn slope(&self) -> Option<Slope> {
        let half = &self.0[self.0.len() / 2..];
        let first = half.first()?.at;
        let points: Vec<_> = half
            .iter()
            .map(|sample| ((sample.at - first).as_secs_f64() / 60.0, kilobytes(sample.resident)))
            .collect();
        line(&points)
    }
}

#[expect(clippy::cast_precision_loss, reason = "resident bytes are far below 2^52")]
fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "some hundred samples")]
fn line(points: &[(f64, f64)]) -> Option<Slope> {
    let count = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let together = points.iter().map(|(x, y)| (x - mean_x) * (y - mean)).sum::<f64>();
    let per_minute = together / spread;
    let missed =
        points.iter().map(|(x, y)| (y - mean - per_minute * (x - mean_x)).powi(2)).sum::<f64>();
    let error = (missed / (count - 2.0) / spread).sqrt();
    let minutes = points.last()?.0;
    per_minute.is_finite().then_some(Slope { per_minute, error, mean, minutes })
}

impl Slope {
    /// Whether memory grows significantly and by a relevant amount: a run of a day would show
    /// smaller growth.
    pub(crate) fn grows(&self) -> bool {
        const SURE: f64 = 3.0;
        const MATTERS: f64 = 0.05;
        let least = self.per_minute - SURE * self.error;
        least > 0.0 && self.per_minute * self.minutes > MATTERS * self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(slope: f64, noise: f64) -> Vec<(f64, f64)> {
        let y = |x: f64, odd: bool| 1000.0 + slope * x + if odd { noise } else { -noise };
        (0..200_u32).map(|i| (f64::from(i) / 20.0, y(f64::from(i) / 20.0, i % 2 == 1))).collect()
    }

    #[test]
    fn a_line_is_found_through_noise() {
        let slope = line(&points(40.0, 100.0)).unwrap();
        assert!((slope.per_minute - 40.0).abs() < 3.0, "{slope:?}");
        assert!(slope.grows());
    }

    #[test]
    fn noise_and_a_level_line_do_not_grow() {
        assert!(!line(&points(0.0, 100.0)).unwrap().grows());
        assert!(!line(&points(1.0, 0.5)).unwrap().grows());
        assert!(line(&[(0.0, 1.0)]).is_none());
    }
}
