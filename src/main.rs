//! The command `ocr-gateway`: everything it does is in the library.

use std::process::ExitCode;

/// Chosen for the memory that it gives back, not for speed (docs/adr/0013-build-and-allocator.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ocr_gateway::cli::main()
}
