//! The settings section `[documents]`, and the limits that follow from it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::pdf::fonts::Fonts;
use crate::capacity::Ceiling;
use crate::quote::limits::LARGEST_FILE;

/// The most workers that `"auto"` gives. The rest of the service needs processors, too.
const MOST_AUTO_WORKERS: u64 = 4;

/// The least and the most memory of a worker that `"auto"` gives. A page of 8 million pixels takes 60 MB to draw, and
/// more with pictures on it.
const LEAST_MEMORY: u64 = 128 << 20;
const MOST_AUTO_MEMORY: u64 = 512 << 20;

/// The least memory of a worker in the settings. With less, no page of a scanner can be drawn.
const LEAST_SET_MEMORY: u64 = 16 << 20;

/// The most worker processes: more than the processors of any machine.
const MOST_WORKERS: u64 = 256;

/// The most pages of one document at once: more than its upstream calls could use.
const MOST_PAGES_AT_ONCE: u64 = 64;

/// The most seconds of CPU time for a step of a page: more than a request may last.
const MOST_SECONDS: u64 = 3600;

/// The settings section `[documents]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSettings {
    /// Pages that one request may read.
    pub max_pages: u32,
    /// Pixels that a page, or a picture on it, may have.
    pub max_page_pixels: u64,
    /// Pages of one document that are worked on at once.
    pub pages_at_once: usize,
    /// Worker processes at most.
    pub workers: Ceiling,
    /// Memory of one worker, in bytes.
    pub worker_memory_bytes: Ceiling,
    /// CPU time of one step of a page.
    pub page_cpu_seconds: u64,
    /// Longest step of a page.
    pub page_timeout_ms: u64,
    /// The font for CJK text whose font is not in the PDF; empty for the first that is found in the known places.
    pub fallback_font: PathBuf,
    /// The program of the workers: this program itself, except in tests that run the service in another one.
    #[serde(skip, default = "this_program")]
    pub program: PathBuf,
}

/// The running program, also after its file was replaced.
fn this_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// What the workers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Processes at once.
    pub workers: usize,
    /// Memory of one, in bytes, beyond what it maps before it reads.
    pub memory: u64,
    /// CPU time of one step.
    pub cpu_seconds: u64,
    /// Longest step.
    pub step: Duration,
    /// Pixels that a page, or a picture on it, may have.
    pub page_pixels: u64,
    /// The font for CJK text whose font is not in the PDF.
    pub font: Option<PathBuf>,
    /// The program to start.
    pub program: PathBuf,
}

/// A setting of documents that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentSettingsError {
    /// The number must be above 0.
    #[error("{key}: must be above 0")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// The number is above every useful value.
    #[error("{key}: {actual} is above {allowed}")]
    TooMuch {
        /// The key.
        key: &'static str,
        /// The setting.
        actual: u64,
        /// The allowed maximum.
        allowed: u64,
    },
    /// The memory is less than a worker needs.
    #[error("documents.worker_memory_bytes: {actual} is below {allowed}")]
    TooLittleMemory {
        /// The setting.
        actual: u64,
        /// The allowed minimum.
        allowed: u64,
    },
    /// A worker would never find room beside the largest upload.
    #[error(
        "documents.worker_memory_bytes: {memory}, two pages of {LARGEST_FILE} bytes and an upload of \
         server.max_body_bytes ({body}) do not fit into server.max_in_flight_bytes ({allowed}): lower one of the \
         former or raise the latter"
    )]
    NeverFits {
        /// Memory of one worker.
        memory: u64,
        /// Bytes of the largest upload.
        body: u64,
        /// Bytes in flight.
        allowed: u64,
    },
    /// The font cannot be read.
    #[error("documents.fallback_font: cannot read {}", path.display())]
    Font {
        /// The file.
        path: PathBuf,
    },
}

impl DocumentSettings {
    /// Longest step of a page.
    pub const fn page_timeout(&self) -> Duration {
        Duration::from_millis(self.page_timeout_ms)
    }

    /// The limits of the workers, where uploads of at most `body_bytes` and other work may hold `in_flight_bytes`
    /// together.
    ///
    /// # Errors
    ///
    /// [`DocumentSettingsError`] names the key that cannot work.
    pub fn limits(
        &self,
        in_flight_bytes: u64,
        body_bytes: u64,
    ) -> Result<WorkerLimits, DocumentSettingsError> {
        let workers = match self.workers {
            Ceiling::Fixed(number) => number,
            // As many as have room with the least memory each.
            Ceiling::Auto => {
                let by_memory = in_flight_bytes / 2 / LEAST_MEMORY;
                processors().min(MOST_AUTO_WORKERS).min(by_memory).max(1)
            }
        };
        let memory = match self.worker_memory_bytes {
            Ceiling::Fixed(bytes) => bytes,
            Ceiling::Auto => {
                let share = in_flight_bytes / 2 / workers;
                // Below the least only on a small machine: most documents need a fraction of it.
                let memory = share.min(MOST_AUTO_MEMORY).max(LEAST_MEMORY.min(in_flight_bytes / 2));
                let beside = body_bytes.saturating_add(2 * LARGEST_FILE);
                memory.min(in_flight_bytes.saturating_sub(beside).max(LEAST_SET_MEMORY))
            }
        };
        let limits = WorkerLimits {
            workers: usize::try_from(workers).unwrap_or(usize::MAX),
            memory,
            cpu_seconds: self.page_cpu_seconds,
            step: self.page_timeout(),
            page_pixels: self.max_page_pixels,
            font: self.font()?,
            program: self.program.clone(),
        };
        let is_set = matches!(self.worker_memory_bytes, Ceiling::Fixed(_));
        if is_set && limits.least_in_flight().saturating_add(body_bytes) > in_flight_bytes {
            let (body, allowed) = (body_bytes, in_flight_bytes);
            return Err(DocumentSettingsError::NeverFits { memory, body, allowed });
        }
        Ok(limits)
    }

    /// Checks what does not depend on the memory of this machine.
    ///
    /// # Errors
    ///
    /// [`DocumentSettingsError`] names the key that cannot work.
    pub fn validate(&self) -> Result<(), DocumentSettingsError> {
        let positive = [
            ("documents.max_pages", u64::from(self.max_pages)),
            ("documents.max_page_pixels", self.max_page_pixels),
            ("documents.pages_at_once", self.pages_at_once as u64),
            ("documents.page_cpu_seconds", self.page_cpu_seconds),
            ("documents.page_timeout_ms", self.page_timeout_ms),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, number)| *number == 0) {
            return Err(DocumentSettingsError::Zero { key });
        }
        let most = [
            ("documents.page_cpu_seconds", self.page_cpu_seconds, MOST_SECONDS),
            ("documents.pages_at_once", self.pages_at_once as u64, MOST_PAGES_AT_ONCE),
        ];
        let workers = match self.workers {
            Ceiling::Fixed(number) => Some(("documents.workers", number, MOST_WORKERS)),
            Ceiling::Auto => None,
        };
        for (key, actual, allowed) in most.into_iter().chain(workers) {
            if actual > allowed {
                return Err(DocumentSettingsError::TooMuch { key, actual, allowed });
            }
        }
        match self.worker_memory_bytes {
            Ceiling::Fixed(actual) if actual < LEAST_SET_MEMORY => {
                let allowed = LEAST_SET_MEMORY;
                Err(DocumentSettingsError::TooLittleMemory { actual, allowed })
            }
            _ => Ok(()),
        }
    }

    /// The font of the settings, or the first that is found.
    fn font(&self) -> Result<Option<PathBuf>, DocumentSettingsError> {
        let path = &self.fallback_font;
        if path.as_os_str().is_empty() {
            return Ok(Fonts::installed());
        }
        // Opened and not only looked for: a font that the service may not read is a fault, too.
        if std::fs::File::open(path).is_err() {
            return Err(DocumentSettingsError::Font { path: path.clone() });
        }
        Ok(Some(path.clone()))
    }
}

impl WorkerLimits {
    /// Bytes that must be free beside the files of documents, so that their pages are read one after the other: the
    /// memory of a worker, the page that it draws, and a page that was drawn before and is being read.
    pub(super) const fn least_in_flight(&self) -> u64 {
        self.memory.saturating_add(2 * LARGEST_FILE)
    }
}

impl fmt::Display for WorkerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, memory, cpu_seconds, step, .. } = self;
        let font = self.font.as_ref().map(|font| font.display());
        write!(
            f,
            "at most {workers} workers of {memory} bytes; {cpu_seconds} s of CPU time and {step:?} for each step of \
             a page; "
        )?;
        match font {
            Some(font) => write!(f, "CJK text without a font is drawn with {font}"),
            None => f.write_str("no font was found for CJK text without one"),
        }
    }
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |number| number.get() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The defaults with these changes.
    fn settings(changes: &str) -> DocumentSettings {
        let defaults = include_str!("../../config/default.toml");
        let changes = config::File::from_str(changes, config::FileFormat::Toml);
        let file = config::Config::builder()
            .add_source(config::File::from_str(defaults, config::FileFormat::Toml))
            .add_source(changes)
            .build()
            .unwrap();
        file.get("documents").unwrap()
    }

    /// The workers and the memory of each where so many bytes may be in flight.
    fn limits(changes: &str, in_flight: u64) -> Result<(usize, u64), DocumentSettingsError> {
        let settings = settings(&format!("[documents]\n{changes}"));
        settings.validate()?;
        settings.limits(in_flight, 20 * MIB).map(|limits| (limits.workers, limits.memory))
    }

    #[test]
    fn all_workers_together_take_at_most_half_of_what_may_be_in_flight() {
        for in_flight in [20 * MIB, 128 * MIB, 256 * MIB, 1024 * MIB, 64 * 1024 * MIB] {
            let (workers, memory) = limits("", in_flight).unwrap();
            assert!(workers as u64 * memory <= in_flight / 2, "{workers} of {memory}");
            assert!(memory <= 512 * MIB && (memory >= 128 * MIB || workers == 1));
        }
        assert_eq!(limits("workers = 2", 512 * MIB), Ok((2, 128 * MIB)));
        let beside_an_upload = 64 * MIB - 20 * MIB - 2 * LARGEST_FILE;
        assert_eq!(limits("", 64 * MIB), Ok((1, beside_an_upload)));
    }

    #[test]
    fn a_worker_that_finds_no_room_beside_the_largest_upload_is_an_error_that_names_all_keys() {
        let fits = |memory| limits(&format!("worker_memory_bytes = {memory}"), 100 * MIB);
        let most = 80 * MIB - 2 * LARGEST_FILE;
        assert!(fits(most).is_ok());
        let error = fits(most + 1).unwrap_err().to_string();
        let told = format!("documents.worker_memory_bytes: {}, two pages", most + 1);
        assert!(error.starts_with(&told), "{error}");
        assert!(error.contains("server.max_body_bytes (20971520)"), "{error}");
        assert!(error.contains("server.max_in_flight_bytes (104857600)"), "{error}");
    }

    #[test]
    fn a_number_that_cannot_work_is_an_error_that_names_key_value_and_limit() {
        for (changes, told) in [
            ("max_pages = 0", "documents.max_pages: must be above 0"),
            ("page_cpu_seconds = 3601", "documents.page_cpu_seconds: 3601 is above 3600"),
            ("pages_at_once = 65", "documents.pages_at_once: 65 is above 64"),
            ("workers = 257", "documents.workers: 257 is above 256"),
            ("worker_memory_bytes = 1000", "documents.worker_memory_bytes: 1000 is below 16777216"),
        ] {
            assert_eq!(limits(changes, 256 * MIB).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn a_font_that_cannot_be_read_is_an_error_that_names_it() {
        let error = limits("fallback_font = \"/nowhere.ttf\"", 256 * MIB).unwrap_err();
        let told = "documents.fallback_font: cannot read /nowhere.ttf";
        assert_eq!(error.to_string(), told);
    }
}
