//! Mistral's OCR API, as its SDKs and `LiteLLM` use it: the request, the answer, and how an error is worded.
//!
//! The shapes are those of Mistral's API reference and of its SDKs (`mistralai` 3.7, `@mistralai/mistralai` 2.7). Each
//! member of the request is served, left without effect as Mistral's documentation allows, or refused by name.
//! docs/mistral.md lists them.

pub(super) mod answer;
pub(super) mod error;
pub(super) mod request;
