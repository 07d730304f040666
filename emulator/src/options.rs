//! The options of an emulator, and the errors of its start.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The configuration of an emulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 takes any free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// API keys that are accepted; empty accepts any key that is not blank.
    pub api_keys: Vec<String>,
    /// The engine that reads the images.
    pub engine: EngineChoice,
    /// Time added to every answer, after the image was read and before the first byte.
    pub latency: Duration,
    /// Time between the events of a stream; zero sends them at once.
    pub stream_interval: Duration,
    /// Requests a minute for each key, enforced by the second; `None`: no limit.
    pub rpm: Option<u64>,
    /// Tokens a minute for each key, input and output, enforced by the second; `None`: no limit.
    pub tpm: Option<u64>,
    /// Whether calls keep the bodies of request and answer, byte for byte. Off by default, since
    /// images are large.
    pub keep_bodies: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_keys: Vec::new(),
            engine: EngineChoice::default(),
            latency: Duration::ZERO,
            stream_interval: Duration::ZERO,
            rpm: None,
            tpm: None,
            keep_bodies: false,
        }
    }
}

/// The engine that reads the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// The Tesseract program.
    Tesseract {
        /// Languages by Tesseract's names; if empty, English and simplified Chinese, as far as they are installed.
        languages: Option<Vec<String>>,
    },
    /// No OCR: this text for every image. `{width}` and `{height}` in it are replaced by the size at which the image
    /// would have been read.
    Scripted(String),
}

impl Default for EngineChoice {
    fn default() -> Self {
        Self::Tesseract { languages: None }
    }
}

/// The reason why an emulator did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The address could not be bound.
    Bind {
        /// The requested address.
        listen: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The `tesseract` program could not be run.
    TesseractMissing {
        /// The system's error.
        source: io::Error,
    },
    /// Tesseract lacks a requested language.
    LanguagesMissing {
        /// The missing languages.
        missing: Vec<String>,
        /// The installed languages.
        installed: Vec<String>,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listen, source } => write!(f, "cannot listen on {listen}: {source}"),
            Self::TesseractMissing { source } => write!(
                f,
                "cannot run the tesseract program ({source}); install it, on Debian and Ubuntu with \
                 `apt-get install tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim`"
            ),
            Self::LanguagesMissing { missing, installed } => {
                let packages: Vec<String> = missing
                    .iter()
                    .map(|language| format!("tesseract-ocr-{}", language.replace('_', "-")))
                    .collect();
                write!(
                    f,
                    "tesseract has no data for {} (it has: {}); install it, on Debian and Ubuntu \
                     with `apt-get install {}`",
                    missing.join(", "),
                    installed.join(", "),
                    packages.join(" ")
                )
            }
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Bind { source, .. } | Self::TesseractMissing { source } => Some(source),
            Self::LanguagesMissing { .. } => None,
        }
    }
}
