//! Measures the cost of a request at the gateway, compared with nginx and with a direct connection.
//!
//! One binary has several roles, so that each can be pinned to a core of its own: `upstream`
//! emulates DashScope, `load` and `listen` send requests, and `run`, `streams` and `flood` start
//! all programs, measure and print tables. `quota` tests the pacing of calls and the cost of
//! outages, and `soak` looks for leaks after half an hour. README.md explains what the figures mean
//! and what they do not.

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

/// Measures the cost of a request at the gateway, compared with nginx and with a direct connection.
#[derive(Debug, Parser)]
#[command(name = "gateway-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure the cost of an upload and print the tables
    Run(run::RunArgs),
    /// Measure the cost of a stream and print the tables
    Streams(streams::StreamsArgs),
    /// Keep a gateway busy amid faults and check for leaks
    Soak(soak::SoakArgs),
    /// Test how a quota that the gateway does not know is used and shared, and what outages cost
    Quota(quota::QuotaArgs),
    /// Send more at once than memory holds and check that the gateway survives
    Flood(flood::FloodArgs),
    /// Emulate DashScope at minimal cost
    Upstream(upstream::UpstreamArgs),
    /// Post one body repeatedly and print the durations of the answers
    Load(load::LoadArgs),
    /// Request streams, read them to their end and print the delays of their events
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
