//! Which engine reads, by the options of the emulator.

use std::sync::Arc;

use super::Engine;
use super::scripted::Scripted;
use super::tesseract::Tesseract;
use crate::options::{EngineChoice, StartError};

/// Opens the engine of that choice.
///
/// # Errors
///
/// [`StartError`] where Tesseract or one of its languages is missing.
pub(crate) async fn open(choice: &EngineChoice) -> Result<Arc<dyn Engine>, StartError> {
    Ok(match choice {
        EngineChoice::Tesseract { languages } => {
            Arc::new(Tesseract::open(languages.as_deref()).await?)
        }
        EngineChoice::Scripted(text) => Arc::new(Scripted::new(text.clone())),
    })
}
