#![doc = include_str!("../docs/architecture.md")]

// The order is the reading order, and a module imports only from those above it
// (`tests/it/architecture.rs` holds that). Blank lines keep rustfmt from sorting across layers.

pub mod code;
pub mod departure;
pub mod host;
pub mod json;
pub mod label;
pub mod units;

pub mod clock;
pub mod random;

pub mod telemetry;

pub mod supervisor;

pub mod capacity;
pub mod lease;
pub mod redis;

pub mod result_cache;

pub mod image;

pub mod pixels;

pub mod legibility;

pub mod catalog;
pub mod extract;

pub mod quote;

pub mod document;

pub mod auth;
pub mod calibration;
pub mod ledger;
pub mod rate_limit;

pub mod admission;

pub mod dashscope;

pub mod metering;

pub mod ocr;

pub mod dropin;

pub mod store;

pub mod settings;

pub mod gateway;

pub mod api;

pub mod server;

pub mod cli;
