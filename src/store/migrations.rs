//! The compiled-in migrations, and their comparison with those of a database.
//!
//! The migrations are embedded with `include_str!` and passed to sqlx as a list. Its `migrate!` macro would do the
//! same, but needs procedural macros that no other code here needs. The macro would also ensure that no file is
//! forgotten; `tests/it/store.rs` proves that instead.
//!
//! A database may have migrations that this program does not have. sqlx can only refuse all of them or ignore all of
//! them. Here each migration records in the database which programs support the schema after it ([ADR
//! 0020](../docs/adr/0020-expand-and-contract.md)), so [`schema`] decides before sqlx runs.

use std::collections::BTreeMap;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, MigrationType, Migrator};

use super::error::StoreError;
use super::options::Engine;

/// sqlx's table of applied migrations.
pub(super) const APPLIED: &str = "_sqlx_migrations";

/// The number and the checksum of each applied migration.
pub(super) const SELECT_APPLIED: &str =
    "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";

/// The table in which migrations record which programs support the schema after them. Migration 8 creates it.
pub(super) const COMPATIBILITY: &str = "schema_compatibility";

/// The number of each migration with such a record, and the last migration of the oldest program.
pub(super) const SELECT_COMPATIBILITY: &str =
    "SELECT version, oldest_compatible FROM schema_compatibility";

/// How the schema of a database compares with the schema of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// The database lacks these migrations, in their order.
    Older(Vec<&'static str>),
    /// The schemas are equal.
    Same,
    /// The database has more migrations, and each of them records that this program supports the schema after it.
    Newer {
        /// The last migration of the database.
        version: i64,
        /// The last migration of this program.
        known: i64,
    },
}

/// One migration of one engine.
pub(super) struct Migration {
    /// Its number; they are applied in this order.
    pub(super) version: i64,
    /// Its name, the same for both engines.
    pub(super) name: &'static str,
    /// Its statements.
    pub(super) sql: &'static str,
}

/// The migrations of a database.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The number and the checksum of each applied migration, in order.
    pub(super) applied: Vec<(i64, Vec<u8>)>,
    /// For each number, the last migration of the oldest program that supports the schema after it.
    pub(super) oldest_compatible: BTreeMap<i64, i64>,
}

/// The reason why migrations are not applied.
#[derive(Debug)]
pub(super) enum Refused {
    /// This program does not support the database.
    Schema(StoreError),
    /// A migration, or the database, failed.
    Failed(MigrateError),
}

impl Refused {
    /// The refusal, with the remedy.
    pub(super) fn told_of(self, engine: Engine) -> StoreError {
        match self {
            Self::Schema(error) => error,
            Self::Failed(error) => StoreError::Migration { engine, source: Box::new(error) },
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Schema(error)
    }
}

impl From<MigrateError> for Refused {
    fn from(error: MigrateError) -> Self {
        Self::Failed(error)
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether some of the `applied` migrations are not in this list. Only then do the records matter.
pub(super) fn are_unknown(migrations: &[Migration], applied: &[(i64, Vec<u8>)]) -> bool {
    let is_known = |version| migrations.iter().any(|migration| migration.version == version);
    applied.iter().any(|(version, _)| !is_known(*version))
}

/// Compares a database with this history with a program that has these `migrations`.
///
/// # Errors
///
/// The program must not use the database: a migration has another text, or an unknown one does not record that this
/// program supports the schema after it.
pub(super) fn schema(
    migrations: &'static [Migration],
    history: &History,
) -> Result<SchemaState, Refused> {
    let known = migrations.last().map_or(0, |migration| migration.version);
    let migrator = migrator(migrations);
    let mut unknown = Vec::new();
    for (version, checksum) in &history.applied {
        match migrator.iter().find(|migration| migration.version == *version) {
            Some(migration) if migration.checksum == *checksum => {}
            Some(_) => return Err(StoreError::ChangedMigration { version: *version }.into()),
            None => unknown.push(*version),
        }
    }
    let is_applied = |version| history.applied.iter().any(|(applied, _)| *applied == version);
    let missing = migrations.iter().filter(|migration| !is_applied(migration.version));
    let missing: Vec<_> = missing.map(|migration| migration.name).collect();
    if let (Some(&version), false) = (unknown.first(), missing.is_empty()) {
        return Err(StoreError::ForeignDatabase { version, missing: missing.join(", ") }.into());
    }
    for &version in &unknown {
        // An unknown migration without a record may have changed anything, even if its number is low.
        let oldest = history.oldest_compatible.get(&version).copied();
        let needed = oldest.unwrap_or_else(|| version.max(known + 1));
        if needed > known {
            return Err(StoreError::NewerDatabase { version, needed, known }.into());
        }
    }
    Ok(match unknown.last() {
        Some(&version) => SchemaState::Newer { version, known },
        None if missing.is_empty() => SchemaState::Same,
        None => SchemaState::Older(missing),
    })
}

/// Applies the missing migrations. The database must be older, as [`schema`] determines: sqlx then finds no unknown
/// one.
///
/// This uses `run_direct`, which sqlx omits from its documentation: the compiler does not accept the future of the
/// documented `run` as `Send` ("implementation of `Acquire` is not general enough").
pub(super) async fn apply<C: Migrate>(
    migrations: &'static [Migration],
    connection: &mut C,
) -> Result<(), MigrateError> {
    let (no_target, is_skipping) = (None, false);
    migrator(migrations).run_direct(no_target, connection, is_skipping).await
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

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { version: 1, name: "first", sql: "SELECT 1" },
        Migration { version: 2, name: "second", sql: "SELECT 2" },
        Migration { version: 3, name: "third", sql: "SELECT 3" },
    ];

    /// The history of a database with these migrations, some of which record the programs that support them.
    fn history(applied: &[i64], oldest_compatible: &[(i64, i64)]) -> History {
        let migrator = migrator(KNOWN);
        let checksum = |version| {
            let known = migrator.iter().find(|migration| migration.version == version);
            known.map_or_else(Vec::new, |migration| migration.checksum.to_vec())
        };
        History {
            applied: applied.iter().map(|version| (*version, checksum(*version))).collect(),
            oldest_compatible: oldest_compatible.iter().copied().collect(),
        }
    }

    fn compared(
        applied: &[i64],
        oldest_compatible: &[(i64, i64)],
    ) -> Result<SchemaState, StoreError> {
        schema(KNOWN, &history(applied, oldest_compatible))
            .map_err(|refused| refused.told_of(Engine::Sqlite))
    }

    #[test]
    fn an_older_schema_lacks_what_was_not_applied() {
        assert_eq!(
            compared(&[], &[]).unwrap(),
            SchemaState::Older(vec!["first", "second", "third"])
        );
        assert_eq!(compared(&[1, 2], &[]).unwrap(), SchemaState::Older(vec!["third"]));
        assert_eq!(compared(&[1, 2, 3], &[(3, 2)]).unwrap(), SchemaState::Same);
    }

    #[test]
    fn a_newer_schema_is_used_where_every_unknown_migration_says_so() {
        let newer = |version| SchemaState::Newer { version, known: 3 };
        assert_eq!(compared(&[1, 2, 3, 4], &[(4, 3)]).unwrap(), newer(4));
        assert_eq!(compared(&[1, 2, 3, 4, 5], &[(4, 1), (5, 3)]).unwrap(), newer(5));
    }

    #[test]
    fn an_unknown_migration_that_says_nothing_is_refused_whatever_its_number() {
        for number in [-3, 0] {
            let error = compared(&[number, 1, 2, 3], &[]).unwrap_err();
            assert!(matches!(error, StoreError::NewerDatabase { needed: 4, .. }), "{error}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused_where_one_unknown_migration_does_not_say_so() {
        for (oldest_compatible, refused) in [
            (vec![], (4, 4)),
            (vec![(4, 3)], (5, 5)),
            (vec![(4, 4), (5, 3)], (4, 4)),
            (vec![(4, 3), (5, 4)], (5, 4)),
            (vec![(5, 3)], (4, 4)),
        ] {
            let error = compared(&[1, 2, 3, 4, 5], &oldest_compatible).unwrap_err();
            let StoreError::NewerDatabase { version, needed, known: 3 } = error else {
                panic!("{error}")
            };
            assert_eq!((version, needed), refused, "{oldest_compatible:?}");
        }
    }

    #[test]
    fn a_database_of_another_line_of_versions_is_refused() {
        let error = compared(&[1, 3, 4], &[(4, 1)]).unwrap_err();
        assert!(matches!(error, StoreError::ForeignDatabase { version: 4, .. }), "{error}");
        assert!(error.to_string().contains("lacks second"), "{error}");
    }

    #[test]
    fn a_migration_with_another_text_is_refused_also_in_a_newer_schema() {
        let mut history = history(&[1, 2, 3, 4], &[(4, 1)]);
        history.applied[1].1.clear();
        let refused = schema(KNOWN, &history).unwrap_err().told_of(Engine::Sqlite);
        assert!(matches!(refused, StoreError::ChangedMigration { version: 2 }), "{refused}");
    }
}
