//! What the service tells its operators: log lines and metrics.
//!
//! Neither ever carries content: no image, text, prompt, field value, file name or key. What they may
//! carry is sizes, counts, durations, names from closed sets, tenant names and request ids.

pub mod levels;
pub mod logging;
pub mod metrics;
