//! The guarantees of the service, one module for each, tested from outside: over TCP, against the emulator, on real
//! databases.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy knows a test by its attribute, and not the words that tests are made of"
)]

mod accounting;
mod alerts;
mod architecture;
mod audits;
mod auth;
mod auto;
mod bills;
mod bounds;
mod budget_gauges;
mod budgets;
mod damage;
mod databases;
mod documents;
mod dropin;
mod edge;
mod escalation;
mod extract;
mod extract_pages;
mod failover;
mod faults;
mod ground;
mod hangups;
mod harness;
mod image;
mod labels;
mod ledger;
mod levels;
mod lifecycle;
mod limits;
mod manifests;
mod markdown;
mod mistral;
mod nginx;
mod ocr;
mod ocr_streams;
mod openapi;
mod overload;
mod page_room;
mod pages;
mod patience;
mod pdf;
mod pgbouncer;
mod pictures;
mod pool;
mod program;
mod rate_limits;
mod readiness;
mod receipts;
mod recounts;
mod redis;
mod redis_outages;
mod regions;
mod replicas;
mod requests;
mod result_cache;
mod result_cache_shared;
mod revocation;
mod rollback;
mod rolling;
mod schema;
mod searchable;
mod shapes;
mod shares;
mod signals;
mod starting;
mod store;
mod supervision;
mod tasks;
mod telemetry;
mod templates;
mod told;
mod transport;
mod tune;
mod unknown_bills;
mod uploads;
mod usage;
mod waiting;
mod warnings;
mod wire;
mod workers;
