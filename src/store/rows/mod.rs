//! Rows and the values they stand for, the same for both engines.
//!
//! The tables of the two engines have the same columns, so one reading serves both. A column that
//! does not hold what this program writes is an error and never a default: a limit that cannot be
//! read must not become no limit.

pub(super) mod ledger;
pub(super) mod tenants;

use std::num::NonZeroU64;

use jiff::Timestamp;
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::{ColumnIndex, Decode, Row, Type};

use crate::units::Money;

/// A number as its signed column holds it. What would be cut here was refused before.
pub(super) fn number_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An optional limit as its column holds it.
pub(super) fn limit_column(limit: Option<NonZeroU64>) -> Option<i64> {
    limit.map(|limit| number_column(limit.get()))
}

/// An optional amount of money as its column of nanos holds it.
pub(super) fn money_column(amount: Option<Money>) -> Option<i64> {
    amount.map(|amount| number_column(amount.nanos()))
}

/// An optional moment as its column holds it.
pub(super) fn moment_column(moment: Option<Timestamp>) -> Option<i64> {
    moment.map(Timestamp::as_millisecond)
}

/// Whether a row was found and holds what this program does not write.
pub(super) const fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// Whether the row was refused because its primary key is taken.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Whether the row was refused because it points to a row that is not there.
pub(super) fn is_orphan(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation)
}

/// A column as the value that it stands for.
pub(super) fn parsed<'r, R, C, T, E>(
    row: &'r R,
    column: &'static str,
    parse: impl FnOnce(C) -> Result<T, E>,
) -> Result<T, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    C: Decode<'r, R::Database> + Type<R::Database>,
    E: Into<BoxDynError>,
{
    parse(row.try_get(column)?).map_err(|error| unread(column, error))
}

/// A column that holds a number above zero or nothing.
pub(super) fn limit<'r, R>(
    row: &'r R,
    column: &'static str,
) -> Result<Option<NonZeroU64>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let number: Option<i64> = row.try_get(column)?;
    let limit = number.map(|number| u64::try_from(number).and_then(NonZeroU64::try_from));
    limit.transpose().map_err(|error| unread(column, error))
}

/// A column that holds a moment or nothing.
pub(super) fn moment<'r, R>(
    row: &'r R,
    column: &'static str,
) -> Result<Option<Timestamp>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let milliseconds: Option<i64> = row.try_get(column)?;
    let moment = milliseconds.map(Timestamp::from_millisecond).transpose();
    moment.map_err(|error| unread(column, error))
}

/// What a column that holds something else is reported as.
pub(super) fn unread(column: &'static str, error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() }
}
