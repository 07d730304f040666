//! Opens the engine that the options select.

use std::sync::Arc;

use super::Engine;
use super::scripted::Scripted;
use super::tesseract::Tesseract;
use crate::options::{EngineChoice, StartError};

/// Opens the selected engine.
///
/// # Errors
///
/// [`StartError`] if Tesseract or one of its languages is missing.
pub(crate) async fn open(choice: &EngineChoice) -> Result<Arc<dyn Engine>, StartError> {
    Ok(match choice {
        EngineChoice::Tesseract { languages } => {
            Arc::new(Tesseract::open(languages.as_deref()).await?)
        }
        EngineChoice::Scripted(text) => Arc::new(Scripted::new(text.clone())),
    })
}
