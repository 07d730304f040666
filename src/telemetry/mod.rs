//! Log lines and metrics for operators.
//!
//! Neither contains content: no image, text, prompt, field value, file name or key. They contain sizes, counts,
//! durations, names from closed sets, tenant names and request ids.

pub mod levels;
pub mod logging;
pub mod metrics;
mod registrar;
