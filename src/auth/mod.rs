//! Authentication: finds the tenant of a key.
//!
//! Every request needs a look-up of its key, so answers of the store are cached, for less than a second. So a change or
//! a revocation takes effect within a second on every replica (docs/promises.md), and the replicas need not notify each
//! other. The age of a cached answer counts from the start of its query. So a slow answer has less time left, and a
//! query that ran during a revocation cannot put the old answer back.
//!
//! Anybody can invent key ids, and each new id needs a query. So only a few look-ups of ids that were never found run
//! at once, and their answers are cached too. The keys of tenants are looked up outside that limit, so a flood of
//! invented keys cannot block them.
//!
//! [`directory`] reads tenants from the configuration and the database, `recent` is the cache, and [`tenancy`]
//! determines whether there are several tenants. [`key`], [`tenant`] and [`credential`] are the data types. This module
//! does not depend on HTTP or SQL, and it does not enforce limits.

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
