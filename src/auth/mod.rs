//! Who is calling: from the text of a key to a tenant.
//!
//! A key is looked up on every request, so an answer of the store is remembered, for less than a
//! second: a change or a revocation binds within a second on every replica (docs/promises.md)
//! without the replicas telling each other. The age of a remembered answer counts from when the
//! store was *asked*; an answer that came slowly is not young, and a request that was in flight
//! during a revocation cannot bring the old answer back.
//!
//! Anybody can make up ids of keys, and each new id is a query. So only a few look-ups of ids that were never found
//! run at once, and their answers are remembered too. A flood of made-up keys cannot take the database from the
//! tenants, whose keys are looked up beside it.
//!
//! [`directory`] knows where tenants come from, `recent` remembers answers, [`tenancy`] knows whether there are
//! several tenants. [`key`], [`tenant`] and [`credential`] are the vocabulary. Nothing here knows HTTP or SQL, and
//! nothing enforces a limit.

pub mod authenticator;
pub mod credential;
pub mod directory;
pub mod error;
pub mod key;
pub mod store;
pub mod tenancy;
pub mod tenant;

mod recent;

#[cfg(test)]
mod fake;
