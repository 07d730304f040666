//! Conversion between rows and values, the same for both engines.
//!
//! The tables of the two engines have the same columns, so one conversion serves both. A column with a value that this
//! program does not write is an error and never a default: a limit that cannot be read must not become no limit.

pub(super) mod heights;
pub(super) mod ledger;
pub(super) mod tenants;

use std::num::NonZeroU64;

use jiff::Timestamp;
use sqlx::error::{BoxDynError, DatabaseError};

use super::statement::Columns;
use crate::units::Money;

/// A number as its signed column stores it. Larger numbers were refused before.
pub(super) fn number_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An optional limit as its column stores it.
pub(super) fn limit_column(limit: Option<NonZeroU64>) -> Option<i64> {
    limit.map(|limit| number_column(limit.get()))
}

/// An optional amount of money as its column of nanos stores it.
pub(super) fn money_column(amount: Option<Money>) -> Option<i64> {
    amount.map(|amount| number_column(amount.nanos()))
}

/// An optional moment as its column stores it.
pub(super) fn moment_column(moment: Option<Timestamp>) -> Option<i64> {
    moment.map(Timestamp::as_millisecond)
}

/// A list of names as its column stores it.
pub(super) fn names_column(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// Whether a row was found with a value that this program does not write.
pub(super) const fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// Whether the row was refused because its primary key exists already.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Whether the row was refused because it references a row that does not exist.
pub(super) fn is_orphan(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation)
}

/// Whether the same query would fail again.
pub(super) fn is_lasting(error: &sqlx::Error) -> bool {
    let breaks_a_rule = error.as_database_error().is_some_and(|error| {
        // PostgreSQL reports "out of range" (SQLSTATE 22003) for a number that no column holds.
        error.is_check_violation() || error.code().is_some_and(|code| code == "22003")
    });
    breaks_a_rule || is_unreadable(error)
}

/// A column of text.
pub(super) fn text(row: &dyn Columns, column: &str) -> Result<String, sqlx::Error> {
    row.text(column)?.ok_or_else(|| null(column))
}

/// A column of numbers.
pub(super) fn number(row: &dyn Columns, column: &str) -> Result<i64, sqlx::Error> {
    row.number(column)?.ok_or_else(|| null(column))
}

/// A column that holds a number that is not negative.
pub(super) fn amount(row: &dyn Columns, column: &str) -> Result<u64, sqlx::Error> {
    optional_amount(row, column)?.ok_or_else(|| null(column))
}

/// A column that holds a number that is not negative, or NULL.
pub(super) fn optional_amount(row: &dyn Columns, column: &str) -> Result<Option<u64>, sqlx::Error> {
    let number = row.number(column)?.map(u64::try_from);
    number.transpose().map_err(|error| unread(column, error))
}

/// A column of text, parsed as a value.
pub(super) fn parsed<T, E: Into<BoxDynError>>(
    row: &dyn Columns,
    column: &str,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<T, sqlx::Error> {
    parse(text(row, column)?).map_err(|error| unread(column, error))
}

/// A column that holds a positive number or NULL.
pub(super) fn limit(row: &dyn Columns, column: &str) -> Result<Option<NonZeroU64>, sqlx::Error> {
    let limit =
        row.number(column)?.map(|number| u64::try_from(number).and_then(NonZeroU64::try_from));
    limit.transpose().map_err(|error| unread(column, error))
}

/// A column that holds a moment or NULL.
pub(super) fn moment(row: &dyn Columns, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let moment = row.number(column)?.map(Timestamp::from_millisecond);
    moment.transpose().map_err(|error| unread(column, error))
}

/// The error of a column with a value that this program does not write.
pub(super) fn unread(column: &str, error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() }
}

/// The error of a column that is NULL and must not be.
pub(super) fn null(column: &str) -> sqlx::Error {
    unread(column, "is NULL")
}
