//! A connected database of either engine.

use sqlx::SqlSafeStr;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::statement::{ReadRow, SqlValue, Statements, Workload};
use super::{postgres, sqlite};

/// A connected database.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    /// The statements whose text is specific to this engine.
    pub(super) const fn statements(&self) -> &'static Statements {
        match self {
            Self::Sqlite(_) => &sqlite::statements::STATEMENTS,
            Self::Postgres(_) => &postgres::statements::STATEMENTS,
        }
    }

    /// Runs a statement and returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        purpose: Workload,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.execute(purpose, sql, values).await,
            Self::Postgres(postgres) => postgres.execute(purpose, sql, values).await,
        }
    }

    /// The rows of a statement.
    pub(super) async fn fetch<T: Send + Unpin>(
        &self,
        purpose: Workload,
        sql: impl SqlSafeStr,
        values: Vec<SqlValue>,
        read: ReadRow<T>,
    ) -> Result<Vec<T>, sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.fetch(purpose, sql, values, read).await,
            Self::Postgres(postgres) => postgres.fetch(purpose, sql, values, read).await,
        }
    }
}
