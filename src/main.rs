//! The command `ocr-gateway`: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocr_gateway::cli::main()
}
