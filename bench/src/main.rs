//! What one request costs the gateway, beside nginx and beside no gateway at all.
//!
//! One binary in three roles, so that each can be pinned to a core of its own: `upstream` stands in
//! for DashScope, `load` asks, and `run` starts everything, measures in turn and prints the table.
//! README.md says what the figures mean and what they do not.

mod cell;
mod http;
mod load;
mod memory;
mod process;
mod run;
mod subject;
mod table;
mod upload;
mod upstream;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a role fails with: told to the person at the terminal, so a message is enough.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures what one request costs the gateway, beside nginx and beside no gateway at all.
#[derive(Debug, Parser)]
#[command(name = "gateway-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure and print the table
    Run(run::RunArgs),
    /// Stand in for DashScope, as cheaply as can be
    Upstream(upstream::UpstreamArgs),
    /// Post one body again and again and tell how long the answers took
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let played = match Cli::parse().role {
        Role::Run(arguments) => run::run(&arguments),
        Role::Upstream(arguments) => upstream::run(&arguments),
        Role::Load(arguments) => load::run(&arguments),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells the person at the terminal something that is no result.
fn say(text: &str) {
    // Where standard error is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}
