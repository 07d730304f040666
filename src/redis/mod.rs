//! The link to the Redis that all replicas share.
//!
//! [`link::Link`] runs scripts within a bound of time and knows whether Redis answers. [`cells`] keeps small
//! values in it. What a script counts is the business of its caller: the rate limits bring their own.
//!
//! Needs Redis 5, Valkey, or a server that speaks their protocol and runs Lua; one primary, not a cluster.

pub mod cells;
pub mod link;
pub mod script;
pub mod settings;

mod connection;
