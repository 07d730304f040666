//! The figures of each size.

use std::fmt;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::calibration::agreement::{Weight, agreement};
use crate::cli::output::{cell, write_table};
use crate::units::{Cost, Money, Pixels, Share, Tokens};

/// The least agreement with full size of the size that is recommended.
const KEPT: Share = Share::from_millionths(995_000).expect("below one million");

/// A size at which samples are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// At most so many pixels for a page.
    Pixels(Pixels),
    /// As many as the gateway chooses.
    Auto,
}

/// One reading of a sample.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Pixels that were sent, of all pages together.
    pub(super) pixels: u64,
    pub(super) image_tokens: Tokens,
    /// All tokens.
    pub(super) tokens: Tokens,
    pub(super) cost: Cost,
    pub(super) text: String,
}

/// A sample that was read at each size.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    /// The reading of each rung. The first is at full size.
    pub(super) readings: Vec<Reading>,
    /// Its true text, if it is known.
    pub(super) truth: Option<String>,
}

/// The figures of all sizes.
#[derive(Debug, Serialize)]
pub(super) struct Tuning {
    /// The number of samples.
    samples: u64,
    /// The figures of each size; the first is full size.
    rungs: Vec<RungFigures>,
    /// The size with the fewest tokens whose mean agreement with full size is 99.5 % or more.
    keeps: Rung,
}

/// The figures of one size, as means of the samples.
#[derive(Debug, Serialize)]
struct RungFigures {
    max_pixels: Rung,
    /// Pixels that were sent for a sample.
    pixels: u64,
    image_tokens: u64,
    /// All tokens.
    tokens: u64,
    /// The cost of all samples together.
    cost: Cost,
    /// Agreement with full size. Null if no sample has enough text.
    agreement: Option<Share>,
    /// The least agreement of a sample, and the sample.
    worst: Option<WorstSample>,
    /// The part of the true texts that was read. Null if none is known.
    recall: Option<Share>,
}

/// The sample that loses most.
#[derive(Debug, Serialize)]
struct WorstSample {
    agreement: Share,
    file: String,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels(pixels) => pixels.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl Serialize for Rung {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pixels(pixels) => pixels.serialize(serializer),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl Tuning {
    /// The figures; `None` without a sample.
    pub(super) fn of(rungs: &[Rung], samples: &[Sample]) -> Option<Self> {
        let figures: Option<Vec<_>> = rungs
            .iter()
            .enumerate()
            .map(|(number, rung)| RungFigures::of(*rung, number, samples))
            .collect();
        let figures = figures?;
        let keeps = figures.iter().filter(|figures| figures.agreement.is_some_and(|of| of >= KEPT));
        let keeps = keeps.min_by_key(|figures| figures.tokens).or(figures.first())?.max_pixels;
        Some(Self { samples: samples.len() as u64, rungs: figures, keeps })
    }

    /// Writes the figures as a table, and the size to choose.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(full) = self.rungs.first() else { return Ok(()) };
        let header = [
            "MAX PIXELS",
            "PIXELS",
            "IMAGE TOKENS",
            "TOKENS",
            "SAVED",
            "COST OF ALL",
            "AGREEMENT",
            "WORST",
            "RECALL",
        ];
        let mut rows = vec![header.map(str::to_owned)];
        for rung in &self.rungs {
            let saved = full.tokens.saturating_sub(rung.tokens) * 1000 / full.tokens.max(1);
            rows.push([
                rung.max_pixels.to_string(),
                rung.pixels.to_string(),
                rung.image_tokens.to_string(),
                rung.tokens.to_string(),
                format!("{}.{} %", saved / 10, saved % 10),
                format!("{} {}", rung.cost.amount, rung.cost.currency),
                cell(rung.agreement.map(percent)),
                cell(rung.worst.as_ref().map(|worst| percent(worst.agreement))),
                cell(rung.recall.map(percent)),
            ]);
        }
        write_table(out, &rows, 1)?;
        let Self { samples, keeps, .. } = self;
        writeln!(out, "Means of {samples} samples. AGREEMENT is with {}.", full.max_pixels)?;
        writeln!(out, "Fewest tokens that keep {} of the text: max_pixels={keeps}", percent(KEPT))
    }
}

impl RungFigures {
    /// The figures of rung `number`; `None` without a sample.
    fn of(max_pixels: Rung, number: usize, samples: &[Sample]) -> Option<Self> {
        let readings: Vec<_> = samples.iter().map(|sample| &sample.readings[number]).collect();
        let mean = |of: fn(&Reading) -> u64| {
            readings.iter().copied().map(of).sum::<u64>() / readings.len() as u64
        };
        let currency = readings.first()?.cost.currency;
        let cost = readings
            .iter()
            .fold(Money::ZERO, |sum, reading| sum.saturating_add(reading.cost.amount));
        let agreements: Vec<_> = samples
            .iter()
            .filter_map(|sample| {
                let text = &sample.readings[number].text;
                Some((certain(&sample.readings[0].text, text)?, &sample.name))
            })
            .collect();
        let recalls: Vec<_> = samples
            .iter()
            .filter_map(|sample| certain(sample.truth.as_ref()?, &sample.readings[number].text))
            .collect();
        let worst = agreements.iter().min_by_key(|(agreement, _)| *agreement);
        Some(Self {
            max_pixels,
            pixels: mean(|reading| reading.pixels),
            image_tokens: mean(|reading| reading.image_tokens.get()),
            tokens: mean(|reading| reading.tokens.get()),
            cost: Cost::of(cost, currency),
            agreement: mean_of(agreements.iter().map(|(agreement, _)| *agreement)),
            worst: worst.map(|(agreement, file)| WorstSample {
                agreement: *agreement,
                file: (*file).clone(),
            }),
            recall: mean_of(recalls.into_iter()),
        })
    }
}

/// The mean of shares; `None` without one.
fn mean_of(shares: impl ExactSizeIterator<Item = Share>) -> Option<Share> {
    let count = shares.len() as u64;
    let sum: u64 = shares.map(|share| u64::from(share.millionths())).sum();
    Share::from_millionths(u32::try_from(sum.checked_div(count)?).ok()?)
}

/// A share as per cent with two decimals, rounded down so that only a whole is 100.
fn percent(share: Share) -> String {
    let hundredths = share.millionths() / 100;
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// How far a text agrees with `reference`. `None` if that is too short to say: a mean of samples counts each alike.
fn certain(reference: &str, text: &str) -> Option<Share> {
    let found = agreement(reference, text)?;
    (found.weight == Weight::FULL).then_some(found.share)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::units::Currency;

    const TEXT: &str = "the text of a page that is long enough";

    fn reading(tokens: u64, text: &str) -> Reading {
        Reading {
            pixels: tokens * 1024,
            image_tokens: Tokens::new(tokens),
            tokens: Tokens::new(tokens + 10),
            cost: Cost::of(Money::from_nanos(tokens), Currency::Cny),
            text: text.to_owned(),
        }
    }

    fn sample(name: &str, readings: [Reading; 3]) -> Sample {
        Sample { name: name.to_owned(), readings: readings.into(), truth: None }
    }

    fn rungs() -> [Rung; 3] {
        [Rung::Pixels(Pixels::new(2048)), Rung::Pixels(Pixels::new(1024)), Rung::Auto]
    }

    #[test]
    fn the_cheapest_size_that_keeps_the_text_is_named_and_the_worst_sample_of_each() {
        let first = [reading(400, TEXT), reading(100, "the text of"), reading(200, TEXT)];
        let second = [reading(200, TEXT), reading(100, TEXT), reading(100, TEXT)];
        let samples = [sample("a.png", first), sample("b.png", second)];
        let tuning = json!(Tuning::of(&rungs(), &samples).unwrap());
        assert_eq!(tuning["keeps"], "auto");
        let worst = |rung: usize| &tuning["rungs"][rung]["worst"]["file"];
        assert_eq!((worst(1), &tuning["rungs"][2]["agreement"]), (&json!("a.png"), &json!(1.0)));
        assert_eq!(tuning["rungs"][2]["tokens"], 160);
        assert_eq!(tuning["rungs"][2]["cost"]["amount"], "0.0000003");
        assert_eq!(tuning["rungs"][0]["recall"], json!(null));
    }

    #[test]
    fn full_size_is_named_if_every_other_loses_text() {
        let readings = [reading(400, TEXT), reading(100, "the"), reading(200, "text")];
        assert_eq!(Tuning::of(&rungs(), &[sample("a", readings)]).unwrap().keeps, rungs()[0]);
    }

    #[test]
    fn the_table_has_a_row_for_each_size_and_says_how_many_samples_there_were() {
        let readings = [reading(400, TEXT), reading(100, "the text of"), reading(200, TEXT)];
        let sample = Sample { truth: Some(TEXT.to_owned()), ..sample("a.png", readings) };
        let mut out = Vec::new();
        Tuning::of(&rungs(), &[sample]).unwrap().write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[1].starts_with("2048") && lines[1].ends_with("100.00 %  100.00 %  100.00 %"));
        assert!(lines[3].starts_with("auto") && lines[3].contains("48.7 %"), "{text}");
        assert_eq!(lines[5], "Fewest tokens that keep 99.50 % of the text: max_pixels=auto");
    }

    #[test]
    fn nothing_is_said_without_a_sample() {
        assert!(Tuning::of(&rungs(), &[]).is_none());
    }
}
