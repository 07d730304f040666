//! Tests of the emulator from outside: one module for each kind of promise.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot get ready must fail"
)]
#![expect(clippy::print_stdout, reason = "a test that skips says so")]

mod bodies;
mod client;
mod control;
mod extraction;
mod faults;
mod hosting;
mod limits;
mod reading;
mod refusals;
mod replays;
mod shapes;
mod streams;
mod uploads;
