//! A statement: its parameters, the rows of its answer, and the texts that differ between the engines.

use sqlx::query::Query;
use sqlx::{ColumnIndex, Decode, Encode, Row, SqlSafeStr, Type};

/// The kinds of statements. Each has connections of its own, so that none waits for another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// The ledger's posts and heartbeats.
    Post,
    /// Look-ups of tenants, keys and accounts.
    LookUp,
    /// Statements that read many rows.
    Report,
}

/// The value of a parameter. Parameters are written `$1`, `$2`, which SQLite understands too.
#[derive(Debug)]
pub(super) enum SqlValue {
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
    Bytes(Vec<u8>),
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for SqlValue {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for SqlValue {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for SqlValue {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for SqlValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A statement with its values, as sqlx runs it on engine `D`.
pub(super) fn query<'q, D>(
    sql: impl SqlSafeStr,
    values: Vec<SqlValue>,
) -> Query<'q, D, D::Arguments>
where
    D: sqlx::Database,
    Option<String>: for<'t> Encode<'t, D> + Type<D>,
    Option<i64>: for<'t> Encode<'t, D> + Type<D>,
    bool: for<'t> Encode<'t, D> + Type<D>,
    Vec<u8>: for<'t> Encode<'t, D> + Type<D>,
{
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        SqlValue::Text(text) => query.bind(text),
        SqlValue::Number(number) => query.bind(number),
        SqlValue::Flag(flag) => query.bind(flag),
        SqlValue::Bytes(bytes) => query.bind(bytes),
    })
}

/// The columns of a row of either engine.
pub(super) trait Columns {
    /// A column of text; `None` for NULL.
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;

    /// A column of numbers; `None` for NULL.
    fn number(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;

    fn flag(&self, column: &str) -> Result<bool, sqlx::Error>;

    fn bytes(&self, column: &str) -> Result<Vec<u8>, sqlx::Error>;
}

impl<R: Row> Columns for R
where
    for<'n> &'n str: ColumnIndex<R>,
    String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    bool: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn number(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn flag(&self, column: &str) -> Result<bool, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, sqlx::Error> {
        self.try_get(column)
    }
}

/// Reads one row.
pub(super) type ReadRow<T> = fn(&dyn Columns) -> Result<T, sqlx::Error>;

/// The statements whose text differs between the engines. PostgreSQL keeps ids in columns of type `uuid`, unpacks JSON
/// with other functions, and adds sums as `numeric`, which SQLite does not have.
pub(super) struct Statements {
    pub(super) register_instance: &'static str,
    pub(super) raise_heartbeat: &'static str,
    pub(super) heartbeats: &'static str,
    pub(super) expire_instance: &'static str,
    pub(super) orphans: &'static str,
    pub(super) accounts: &'static str,
    pub(super) prune: &'static str,
    pub(super) differing_accounts: &'static str,
    pub(super) differing_usage: &'static str,
    /// The sums of entries by part, given the column that names the part and the one that numbers its hour.
    pub(super) usage_by: fn(named: &str, hour: &str) -> String,
}
