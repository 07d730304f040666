//! The migrations that are compiled in, and what can be wrong with those of a database.
//!
//! They are embedded with `include_str!` and handed to sqlx as a list: its `migrate!` macro would
//! do the same, but needs the procedural macros that nothing else here needs. What the macro would
//! add, that no file is forgotten, `tests/it/store.rs` proves.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, MigrationType, Migrator};

use super::{Engine, StoreError};

/// One migration of one engine.
pub(super) struct Migration {
    /// Its number; they are applied in this order.
    pub(super) version: i64,
    /// Its name, the same for both engines.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) sql: &'static str,
}

/// Applies those that are missing, and refuses a database that has others or changed ones.
///
/// By `run_direct`, which sqlx keeps out of its documentation: the future of the documented `run`
/// is not `Send` in the eyes of the compiler ("implementation of `Acquire` is not general enough").
pub(super) async fn apply<C: Migrate>(
    migrations: &'static [Migration],
    connection: &mut C,
) -> Result<(), MigrateError> {
    let (no_target, is_skipping) = (None, false);
    migrator(migrations).run_direct(no_target, connection, is_skipping).await
}

/// The names of those that are not among the `applied` versions.
pub(super) fn pending(migrations: &[Migration], applied: &[i64]) -> Vec<&'static str> {
    let missing = migrations.iter().filter(|migration| !applied.contains(&migration.version));
    missing.map(|migration| migration.name).collect()
}

/// What went wrong, in words that say what to mend.
pub(super) fn failure(engine: Engine, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::NewerDatabase { version },
        MigrateError::VersionMismatch(version) => StoreError::ChangedMigration { version },
        other => StoreError::Migration { engine, source: Box::new(other) },
    }
}

/// The migrations in the form that sqlx applies.
fn migrator(migrations: &'static [Migration]) -> Migrator {
    let migrations = migrations.iter().map(|migration| {
        let Migration { version, name, sql } = *migration;
        let (kind, is_outside_transaction) = (MigrationType::Simple, false);
        let sql = sql.into_sql_str();
        sqlx::migrate::Migration::new(version, name.into(), kind, sql, is_outside_transaction)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // Each engine takes a lock in its own transaction, which lasts until the migrations are committed.
    migrator.set_locking(false);
    migrator
}
