//! The promises of the service, one module each, checked from outside: over TCP, against the emulator,
//! on real databases.

mod accounting;
mod architecture;
mod databases;
mod faults;
mod harness;
mod ocr;
mod openapi;
mod store;
mod wire;
