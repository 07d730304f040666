//! The link to the Redis that all replicas share.
//!
//! [`link::Link`] runs scripts with a timeout and tracks whether Redis answers. [`cells`] stores small values in it.
//! Each caller brings its own scripts, as the rate limits do.
//!
//! Needs Redis 5, Valkey, or a server that supports their protocol and runs Lua; one primary, not a cluster.

pub mod cells;
pub mod link;
pub mod script;
pub mod settings;

mod connection;
