//! A thousand slow streams at once, and streams whose callers do not read.
//!
//! Each subject is a process of its own, so that no earlier crowd has grown its heap. All callers
//! arrive within a second and send one request each. Afterwards the gateway's metrics must show
//! exactly the tokens that the upstream billed for as many streams, or the row is void.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::target::{Programs, Target};
use crate::circumstances::Pace;
use crate::listen::{Crowd, Heard, Spread};
use crate::metrics;
use crate::subject::{Rig, Subject, printed};
use crate::terminal::{Failure, say};
use crate::upload::{self, Billing, Upload};
use crate::upstream::{Manner, OUTPUT_TOKENS, TEXT_TOKENS};

/// The idle time of a process before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// A crowd of callers, and the streams that they receive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering {
    /// Its name in the table.
    pub(crate) name: &'static str,
    manner: Manner,
    crowd: Crowd,
    /// The start and the length of the time in which all streams flow.
    steady: Option<(Duration, Duration)>,
    subjects: &'static [Who],
}

/// The target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Gateway,
    Aloud,
    Nginx,
    Direct,
}

/// The measurements of one subject under one crowd.
#[derive(Debug)]
pub(crate) struct Crowded {
    pub(crate) gathering: &'static str,
    pub(crate) who: &'static str,
    /// `None` if an error made it void.
    pub(crate) shown: Option<Shown>,
}

/// The streams received and their cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) heard: Heard,
    /// The delay of events; `None` if callers did not read while they arrived.
    pub(crate) late: Option<Spread>,
    /// `None` if the subject is no process.
    pub(crate) held: Option<Held>,
    /// For the gateway, the billed tokens, which are those of all streams.
    pub(crate) billed: Option<u64>,
}

/// Memory in bytes, and CPU time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// After the start, before the first request.
    pub(crate) idle: u64,
    /// The peak while streams flowed.
    pub(crate) peak: u64,
    /// Some time after the last end.
    pub(crate) settled: u64,
    /// While all streams flowed; `None` if they never do at the same time.
    pub(crate) steady: Option<Steady>,
}

/// An interval in which all streams flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    pub(crate) cpu: Duration,
    pub(crate) time: Duration,
    /// The events that the upstream sent in it.
    pub(crate) events: f64,
}

impl Steady {
    /// The used fraction of a core.
    pub(crate) fn share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64()
    }
}

impl Gathering {
    /// The crowds; small and short ones for a test run.
    pub(crate) fn all(quick: bool) -> [Self; 3] {
        let (connections, events) = if quick { (50, 10) } else { (1000, 100) };
        let manner = Manner { events, interval_ms: 100, ..Manner::PLAIN };
        let lasting = u64::try_from(events).unwrap_or(u64::MAX) * manner.interval_ms;
        let spread_ms = lasting / 10;
        let crowd = Crowd { connections, seconds: 0.0, spread_ms, deaf_ms: 0 };
        let part = |tenths: u64| Duration::from_millis(lasting * tenths / 10);
        let flood = Manner { events: 2000, event_bytes: 4000, together: 16, ..Manner::PLAIN };
        let (few, wait) = if quick { (5, 500) } else { (100, 6000) };
        [
            Self {
                name: "slow",
                manner,
                crowd,
                steady: Some((part(2), part(6))),
                subjects: &[Who::Gateway, Who::Aloud, Who::Nginx, Who::Direct],
            },
            Self {
                name: "slow, read at the end",
                manner,
                crowd: Crowd { deaf_ms: lasting + 500, ..crowd },
                steady: None,
                subjects: &[Who::Gateway, Who::Nginx],
            },
            Self {
                name: "8 MB, read late",
                manner: flood,
                crowd: Crowd { connections: few, deaf_ms: wait, spread_ms: 0, ..crowd },
                steady: None,
                subjects: &[Who::Gateway, Who::Nginx],
            },
        ]
    }
}

/// Runs every crowd against every subject.
pub(crate) fn measure(
    rig: &Rig,
    programs: &Programs<'_>,
    gatherings: impl IntoIterator<Item = Gathering>,
    upload: &Upload,
    pace: &Pace,
) -> Result<Vec<Crowded>, Failure> {
    let mut rows = Vec::new();
    for gathering in gatherings {
        for who in gathering.subjects {
            say(&format!("{} through {}", gathering.name, who.name()));
            let (_upstream, address) = rig.upstream(&gathering.manner)?;
            let Some(subject) = who.start(rig, programs, address)? else { continue };
            let shown = gathering.gather(rig, &who.target(&subject), upload, pace.settle);
            if let Err(failure) = &shown {
                say(&format!("{} through {} is void: {failure}", gathering.name, who.name()));
            }
            let (gathering, who) = (gathering.name, who.name());
            rows.push(Crowded { gathering, who, shown: shown.ok() });
        }
    }
    Ok(rows)
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Aloud => "gateway, `/ocr`",
            Self::Nginx => "nginx",
            Self::Direct => "direct",
        }
    }

    /// `None` if the program is missing.
    fn start(
        self,
        rig: &Rig,
        programs: &Programs<'_>,
        upstream: SocketAddr,
    ) -> Result<Option<Subject>, Failure> {
        match self {
            Self::Gateway | Self::Aloud => rig.gateway(programs.gateway, upstream).map(Some),
            Self::Nginx => programs.nginx.map(|nginx| rig.nginx(nginx, upstream)).transpose(),
            Self::Direct => Ok(Some(Rig::direct(upstream))),
        }
    }

    fn target(self, subject: &Subject) -> Target<'_> {
        match self {
            Self::Aloud => Target::aloud(self.name(), subject),
            _ => Target::compatible(self.name(), subject, Billing::Told),
        }
    }
}

impl Gathering {
    fn gather(
        &self,
        rig: &Rig,
        target: &Target<'_>,
        upload: &Upload,
        settle: Duration,
    ) -> Result<Shown, Failure> {
        let command = target.listeners(rig, upload, self.manner.events, self.crowd)?;
        let Some(process) = &target.subject.process else {
            let (heard, _steady) = self.listen(command, || Ok(Duration::ZERO))?;
            return Ok(Shown { heard, late: self.late(&heard), held: None, billed: None });
        };
        thread::sleep(REST);
        let idle = process.resident()?;
        process.forget_peak();
        let (heard, steady) = self.listen(command, || Ok(process.cpu_time()?))?;
        let peak = process.peak()?;
        let billed = target.subject.metrics.map(|metrics| billed(metrics, &heard)).transpose()?;
        thread::sleep(settle);
        let held = Some(Held { idle, peak, settled: process.resident()?, steady });
        Ok(Shown { heard, late: self.late(&heard), held, billed })
    }

    fn late(&self, heard: &Heard) -> Option<Spread> {
        (self.crowd.deaf_ms == 0).then_some(heard.late)
    }

    /// Lets all callers send their requests, and reads the subject's CPU time while they read.
    fn listen(
        &self,
        mut command: Command,
        cpu_time: impl Fn() -> Result<Duration, Failure>,
    ) -> Result<(Heard, Option<Steady>), Failure> {
        let listeners = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut steady = None;
        if let Some((from, time)) = self.steady {
            thread::sleep(from);
            let before = cpu_time()?;
            thread::sleep(time);
            let cpu = cpu_time()?.saturating_sub(before);
            steady = Some(Steady { cpu, time, events: self.events_in(time) });
        }
        let heard = printed(listeners.wait_with_output()?)?.parse()?;
        Ok((heard, steady))
    }

    /// The events that the upstream sends in an interval in which all streams flow.
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer events than 2^52")]
    fn events_in(&self, time: Duration) -> f64 {
        let each = time.as_secs_f64() * 1e3 / self.manner.interval_ms as f64;
        each * self.crowd.connections as f64
    }
}

/// The tokens that the gateway counted as billed, if they equal those of all streams.
fn billed(metrics: SocketAddr, heard: &Heard) -> Result<u64, Failure> {
    let each = upload::IMAGE_TOKENS + TEXT_TOKENS + OUTPUT_TOKENS;
    let expected = heard.streams * u64::from(each);
    let spent = metrics::tokens_spent(metrics, expected)?;
    if spent == expected {
        Ok(spent)
    } else {
        Err(format!("{spent} tokens were counted where {expected} were billed").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_all_flow_nobody_comes_or_ends() {
        for gathering in Gathering::all(false).into_iter().chain(Gathering::all(true)) {
            let Some((from, time)) = gathering.steady else { continue };
            let Gathering { manner, crowd, .. } = gathering;
            let events = u64::try_from(manner.events).unwrap();
            assert!(from > Duration::from_millis(crowd.spread_ms));
            assert!(from + time < Duration::from_millis(events * manner.interval_ms));
        }
    }

    #[test]
    fn a_crowd_is_sent_its_events_evenly() {
        let [slow, ..] = Gathering::all(false);
        assert!((slow.events_in(Duration::from_secs(6)) - 60_000.0).abs() < 1e-6);
    }
}
