//! Rows and the values they stand for, the same for both engines.
//!
//! The tables of the two engines have the same columns, so one reading serves both. A column that
//! does not hold what this program writes is an error and never a default: a limit that cannot be
//! read must not become no limit.

use std::num::NonZeroU64;

use jiff::Timestamp;
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use crate::auth::TenantStoreError;
use crate::auth::key::{KeyHash, KeyRecord};
use crate::auth::tenant::Tenant;
use crate::units::Pixels;

/// A row of `tenants`.
pub(super) struct TenantRow(pub(super) Tenant);

/// A row of `api_keys`.
pub(super) struct KeyRow(pub(super) KeyRecord);

/// A row of both, joined.
pub(super) struct KeyAndTenantRow(pub(super) KeyRecord, pub(super) Tenant);

impl<'r, R> FromRow<'r, R> for TenantRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let models: String = row.try_get("models")?;
        Ok(Self(Tenant {
            name: parsed(row, "name", |name: String| name.try_into())?,
            max_pixels: limit(row, "max_pixels")?.map(|cap| Pixels::new(cap.get())),
            on_exceed: parsed(row, "on_exceed", |word: String| word.parse())?,
            requests_per_minute: limit(row, "requests_per_minute")?,
            tokens_per_minute: limit(row, "tokens_per_minute")?,
            concurrency: limit(row, "concurrency")?,
            models: serde_json::from_str(&models).map_err(|error| unread("models", error))?,
            disabled: row.try_get("disabled")?,
        }))
    }
}

impl<'r, R> FromRow<'r, R> for KeyRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let label: Option<String> = row.try_get("label")?;
        Ok(Self(KeyRecord {
            id: parsed(row, "id", |id: String| id.try_into())?,
            tenant: parsed(row, "tenant", |name: String| name.try_into())?,
            hash: parsed(row, "hash", |bytes: Vec<u8>| bytes.as_slice().try_into())
                .map(KeyHash::from_bytes)?,
            created_at: parsed(row, "created_at", Timestamp::from_millisecond)?,
            expires_at: moment(row, "expires_at")?,
            revoked_at: moment(row, "revoked_at")?,
            label: label.map(TryInto::try_into).transpose().map_err(|e| unread("label", e))?,
        }))
    }
}

impl<'r, R> FromRow<'r, R> for KeyAndTenantRow
where
    R: Row,
    KeyRow: FromRow<'r, R>,
    TenantRow: FromRow<'r, R>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self(KeyRow::from_row(row)?.0, TenantRow::from_row(row)?.0))
    }
}

/// The list of models as its column holds it.
pub(super) fn models_column(tenant: &Tenant) -> String {
    serde_json::Value::from(tenant.models.clone()).to_string()
}

/// A number as its signed column holds it. [`Tenant::checked`] refuses what would be cut here.
pub(super) fn number_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An optional limit as its column holds it.
pub(super) fn limit_column(limit: Option<NonZeroU64>) -> Option<i64> {
    limit.map(|limit| number_column(limit.get()))
}

/// An optional moment as its column holds it.
pub(super) fn moment_column(moment: Option<Timestamp>) -> Option<i64> {
    moment.map(Timestamp::as_millisecond)
}

/// A failed query as a store of tenants reports it.
pub(super) fn failure(error: sqlx::Error) -> TenantStoreError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            TenantStoreError::Unreadable(error.into())
        }
        other => TenantStoreError::Unavailable(other.into()),
    }
}

/// Whether the row was refused because its primary key is taken.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Whether the row was refused because it points to a row that is not there.
pub(super) fn is_orphan(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation)
}

fn parsed<'r, R, C, T, E>(
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

fn limit<'r, R>(row: &'r R, column: &'static str) -> Result<Option<NonZeroU64>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let number: Option<i64> = row.try_get(column)?;
    let limit = number.map(|number| u64::try_from(number).and_then(NonZeroU64::try_from));
    limit.transpose().map_err(|error| unread(column, error))
}

fn moment<'r, R>(row: &'r R, column: &'static str) -> Result<Option<Timestamp>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let milliseconds: Option<i64> = row.try_get(column)?;
    let moment = milliseconds.map(Timestamp::from_millisecond).transpose();
    moment.map_err(|error| unread(column, error))
}

fn unread(column: &'static str, error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() }
}
