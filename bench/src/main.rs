//! What one request costs the gateway, beside nginx and beside no gateway at all.
//!
//! One binary in several roles, so that each can be pinned to a core of its own: `upstream` stands in
//! for DashScope, `load` and `listen` ask, and `run`, `streams` and `flood` start everything, measure
//! and print tables; `quota` sees how calls are paced and what outages cost, `soak` looks for what half an
//! hour leaves behind. README.md says what the figures mean and what they do not.

mod cell;
mod chance;
mod chunked;
mod circumstances;
mod clock;
mod events;
mod figures;
mod flood;
mod http;
mod listen;
mod load;
mod memory;
mod metrics;
mod process;
mod quota;
mod run;
mod script;
mod soak;
mod streams;
mod subject;
mod table;
mod terminal;
mod upload;
mod upstream;
mod window;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use terminal::say;

/// Measures what one request costs the gateway, beside nginx and beside no gateway at all.
#[derive(Debug, Parser)]
#[command(name = "gateway-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure what an upload costs and print the tables
    Run(run::RunArgs),
    /// Measure what a stream costs and print the tables
    Streams(streams::StreamsArgs),
    /// Keep a gateway busy amid faults and see whether anything is left of it
    Soak(soak::SoakArgs),
    /// See how a quota that the gateway does not know is used and shared, and what outages cost
    Quota(quota::QuotaArgs),
    /// Send more at once than memory holds and tell whether the gateway lives
    Flood(flood::FloodArgs),
    /// Stand in for DashScope, as cheaply as can be
    Upstream(upstream::UpstreamArgs),
    /// Post one body again and again and tell how long the answers took
    Load(load::LoadArgs),
    /// Ask for streams, listen to them whole and tell how late their events were
    Listen(listen::ListenArgs),
}

fn main() -> ExitCode {
    let played = match Cli::parse().role {
        Role::Run(arguments) => run::run(&arguments),
        Role::Streams(arguments) => streams::run(&arguments),
        Role::Soak(arguments) => soak::run(&arguments),
        Role::Quota(arguments) => quota::run(&arguments),
        Role::Flood(arguments) => flood::run(&arguments),
        Role::Upstream(arguments) => upstream::run(&arguments),
        Role::Load(arguments) => load::run(&arguments),
        Role::Listen(arguments) => listen::run(&arguments),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}
