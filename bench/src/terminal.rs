//! Messages to the person at the terminal.

use std::error::Error;
use std::io::{self, Write as _};

/// The reason why a role fails. It is only printed, so a message suffices.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Prints a line of the result.
pub(crate) fn println(text: &str) {
    // If standard output is closed, the message is lost.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a message to the person at the terminal that is not a result.
pub(crate) fn say(text: &str) {
    // If standard error is closed, the message is lost.
    let _ = writeln!(io::stderr(), "{text}");
}
