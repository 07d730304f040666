//! The reading of one image without a server, for tests that compare word for word.

use std::error::Error;
use std::fmt;

use bytes::Bytes;

use crate::engine::choice;
use crate::geometry::PixelLimits;
use crate::models::Model;
use crate::options::{EngineChoice, StartError};
use crate::picture::Picture;

/// The reason why an image was not transcribed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TranscribeError {
    /// There is no model with this name.
    UnknownModel(String),
    /// The image is refused; the message is the vendor's.
    Unreadable(String),
    /// The engine could not be opened.
    Start(StartError),
    /// The engine failed or took too long.
    Engine,
}

impl fmt::Display for TranscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel(name) => write!(f, "there is no model {name:?}"),
            Self::Unreadable(message) => f.write_str(message),
            Self::Start(error) => error.fmt(f),
            Self::Engine => f.write_str("the engine failed or took too long"),
        }
    }
}

impl Error for TranscribeError {}

/// Reads an image exactly like a call without a task: same size, same filter, same engine.
///
/// The text is not cut to any number of output tokens.
///
/// # Errors
///
/// [`TranscribeError`].
pub async fn transcribe(
    engine: &EngineChoice,
    model: &str,
    image: impl Into<Bytes>,
    limits: PixelLimits,
) -> Result<String, TranscribeError> {
    let unknown = || TranscribeError::UnknownModel(model.to_owned());
    let geometry = Model::named(model).ok_or_else(unknown)?.geometry_within(limits);
    let engine = choice::open(engine).await.map_err(TranscribeError::Start)?;
    let image = image.into();
    let shown = tokio::task::spawn_blocking(move || {
        let picture = Picture::probe(image)?;
        picture.judge()?;
        picture.shown_at(geometry.scale(picture.width, picture.height))
    });
    let shown = shown.await.map_err(|_| TranscribeError::Engine)?;
    let shown = shown.map_err(|why| TranscribeError::Unreadable(why.message()))?;
    let reading = engine.read(shown).await.map_err(|_| TranscribeError::Engine)?;
    Ok(reading.text())
}
