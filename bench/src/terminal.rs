//! What is told to the person at the terminal.

use std::error::Error;
use std::io::{self, Write as _};

/// Why a role fails. It is only printed, so a message is enough.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Prints a line of the result.
pub(crate) fn println(text: &str) {
    // Where standard output is closed, there is nobody to tell.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Tells the person at the terminal something that is no result.
pub(crate) fn say(text: &str) {
    // Where standard error is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}
