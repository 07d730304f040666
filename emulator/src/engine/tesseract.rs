//! The Tesseract program, one process for each image.
//!
//! The image is passed on standard input as PNM, and word boxes are returned as TSV, so nothing is written to the disk.
//! Each process has one thread, and there are as many processes as cores: more would only compete. Waiting for a
//! process slot and reading both have a timeout, and a process dies with the future that waits for it.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::time::Duration;

use image::RgbImage;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Bounds, Engine, EngineError, Reading, TextLine, Word};
use crate::options::StartError;

/// The default languages.
const USUAL_LANGUAGES: [&str; 2] = ["eng", "chi_sim"];

/// How long an image waits for a free process slot.
const SEAT_PATIENCE: Duration = Duration::from_mins(2);

/// How long one image may take.
const READING_PATIENCE: Duration = Duration::from_mins(2);

/// The column of a TSV row that holds its level, and the level of words.
const WORD_LEVEL: &str = "5";

/// Reads with the `tesseract` program.
#[derive(Debug)]
pub(crate) struct Tesseract {
    languages: String,
    seats: Semaphore,
}

impl Tesseract {
    /// Finds the program and its languages.
    ///
    /// # Errors
    ///
    /// [`StartError::TesseractMissing`], or [`StartError::LanguagesMissing`] if a requested language, or each default
    /// one, is not installed.
    pub(crate) async fn open(languages: Option<&[String]>) -> Result<Self, StartError> {
        let installed = installed_languages().await?;
        let is_installed = |language: &String| installed.contains(language);
        let usual = || USUAL_LANGUAGES.map(str::to_owned);
        let chosen: Vec<String> = match languages {
            Some(named) => named.to_vec(),
            None => usual().into_iter().filter(is_installed).collect(),
        };
        let mut missing = chosen.clone();
        missing.retain(|language| !is_installed(language));
        if chosen.is_empty() {
            missing = usual().to_vec();
        }
        if !missing.is_empty() {
            return Err(StartError::LanguagesMissing { missing, installed });
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self { languages: chosen.join("+"), seats: Semaphore::new(cores) })
    }

    async fn run(&self, image: RgbImage) -> Result<Reading, EngineError> {
        let seat = timeout(SEAT_PATIENCE, self.seats.acquire()).await;
        let Ok(Ok(_seat)) = seat else { return Err(EngineError::Busy) };
        let (width, height) = image.dimensions();
        let output = timeout(READING_PATIENCE, self.process(image)).await;
        let output = output.map_err(|_| EngineError::Slow)?.map_err(|_| EngineError::Failed)?;
        if !output.status.success() {
            return Err(EngineError::Failed);
        }
        let table = String::from_utf8_lossy(&output.stdout);
        Ok(Reading { width, height, lines: lines_of(&table) })
    }

    async fn process(&self, image: RgbImage) -> io::Result<Output> {
        let mut process = command()
            .args(["-", "-", "-l", &self.languages, "--psm", "3", "tsv"])
            .stdin(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let feed = async move {
            let Some(mut input) = input else { return };
            let head = format!("P6\n{} {}\n255\n", image.width(), image.height());
            // A process that ends early breaks the pipe; its exit status gives the cause.
            if input.write_all(head.as_bytes()).await.is_ok() {
                let _ = input.write_all(image.as_raw()).await;
            }
        };
        let ((), output) = tokio::join!(feed, process.wait_with_output());
        output
    }
}

impl Engine for Tesseract {
    fn read(
        &self,
        image: RgbImage,
    ) -> Pin<Box<dyn Future<Output = Result<Reading, EngineError>> + Send + '_>> {
        Box::pin(self.run(image))
    }
}

fn command() -> Command {
    let mut command = Command::new("tesseract");
    command
        .env("OMP_THREAD_LIMIT", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn installed_languages() -> Result<Vec<String>, StartError> {
    let output = command().arg("--list-langs").output().await;
    let output = output.map_err(|source| StartError::TesseractMissing { source })?;
    let listing = String::from_utf8_lossy(&output.stdout);
    // The first line is a header.
    Ok(listing.lines().skip(1).map(|line| line.trim().to_owned()).collect())
}

/// The lines of a TSV answer. Its columns: level, page, block, paragraph, line, word, left, top, width,
/// height, confidence, text (tesseract(1), "tsv").
fn lines_of(table: &str) -> Vec<TextLine> {
    let mut lines: Vec<TextLine> = Vec::new();
    let mut current = None;
    for row in table.lines() {
        let columns: Vec<&str> = row.splitn(12, '\t').collect();
        let [WORD_LEVEL, _, block, paragraph, line, _, left, top, width, height, _, text] =
            columns[..]
        else {
            continue;
        };
        let text = text.trim();
        let Some(bounds) = bounds_of([left, top, width, height]) else { continue };
        if text.is_empty() {
            continue;
        }
        let place = (block, paragraph, line);
        if current != Some(place) {
            current = Some(place);
            lines.push(TextLine { block: block.parse().unwrap_or(0), words: Vec::new() });
        }
        if let Some(line) = lines.last_mut() {
            line.words.push(Word { text: text.to_owned(), bounds });
        }
    }
    lines
}

fn bounds_of(columns: [&str; 4]) -> Option<Bounds> {
    let [left, top, width, height] = columns.map(|column| column.parse::<u32>().ok());
    let (left, top) = (left?, top?);
    Some(Bounds { left, top, right: left + width?, bottom: top + height? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_gathered_into_lines_and_blanks_left_out() {
        let table = "level\tpage_num\n\
            5\t1\t1\t1\t1\t1\t10\t20\t30\t40\t96.1\tTOTAL\n\
            5\t1\t1\t1\t1\t2\t50\t20\t30\t40\t95\t9.00\n\
            5\t1\t1\t1\t2\t1\t10\t60\t30\t40\t95\t \n\
            5\t1\t2\t1\t1\t1\t10\t90\t30\t40\t95\tThanks\n";
        let lines = lines_of(table);
        let texts: Vec<String> = lines.iter().map(TextLine::text).collect();
        assert_eq!(texts, ["TOTAL 9.00", "Thanks"]);
        assert_eq!(lines[1].block, 2);
        assert_eq!(lines[0].bounds(), Some(Bounds { left: 10, top: 20, right: 80, bottom: 60 }));
    }
}
