//! A local emulator of DashScope's Qwen-OCR endpoints, for development, demonstrations and tests.
//!
//! It supports both of DashScope's protocols over HTTP, scales each image exactly by the vendor's published formula,
//! reads it with a real OCR engine, counts tokens, and keeps a bill. Faults can be scripted: any documented error, lost
//! and late answers, resets, garbage. It is not part of the gateway that calls it and shares no code with it: with
//! shared types, both would have the same mistakes.
//!
//! It is not the service. Tesseract reads the text, rules find the fields, text tokens are estimated from bytes, and
//! nothing is ever fetched from a URL. The README lists every approximation.

mod address;
mod answer;
mod call;
mod clock;
mod compatible;
mod connection;
mod control;
mod delivery;
mod emulator;
mod engine;
mod error;
mod exchange;
mod fault;
mod geometry;
mod head;
mod hosting;
mod identifier;
mod inference;
mod layout;
mod models;
mod native;
mod options;
mod picture;
mod reader;
mod replay;
mod request;
mod routes;
mod service;
mod sheet;
mod tasks;
mod throttle;
mod transcribe;
mod uploads;
mod usage;
mod world;

pub use call::{Bill, Call, ImageSeen};
pub use emulator::Emulator;
pub use fault::Fault;
pub use geometry::PixelLimits;
pub use options::{EngineChoice, Options, StartError};
pub use transcribe::{TranscribeError, transcribe};
pub use usage::{Usage, image_tokens};
pub use world::World;
