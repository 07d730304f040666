//! Rows of tenants and of their keys.

use jiff::Timestamp;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::{is_unreadable, limit, moment, parsed};
use crate::auth::key::{KeyHash, KeyLabel, KeyRecord};
use crate::auth::store::TenantStoreError;
use crate::auth::tenant::Tenant;
use crate::units::{Money, Pixels};

/// A row of `tenants`.
pub(in crate::store) struct TenantRow(pub(in crate::store) Tenant);

/// A row of `api_keys`.
pub(in crate::store) struct KeyRow(pub(in crate::store) KeyRecord);

/// A row of both, joined.
pub(in crate::store) struct KeyAndTenantRow(
    pub(in crate::store) KeyRecord,
    pub(in crate::store) Tenant,
);

impl<'r, R> FromRow<'r, R> for TenantRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let names = |column: String| serde_json::from_str(&column);
        Ok(Self(Tenant {
            name: parsed(row, "name", |name: String| name.try_into())?,
            max_pixels: limit(row, "max_pixels")?.map(|cap| Pixels::new(cap.get())),
            on_exceed: parsed(row, "on_exceed", |word: String| word.parse())?,
            max_tokens: limit(row, "max_tokens")?,
            requests_per_minute: limit(row, "requests_per_minute")?,
            tokens_per_minute: limit(row, "tokens_per_minute")?,
            concurrency: limit(row, "concurrency")?,
            daily_tokens: limit(row, "daily_tokens")?,
            monthly_tokens: limit(row, "monthly_tokens")?,
            daily_cost: limit(row, "daily_cost_nanos")?.map(|nanos| Money::from_nanos(nanos.get())),
            monthly_cost: limit(row, "monthly_cost_nanos")?
                .map(|nanos| Money::from_nanos(nanos.get())),
            models: parsed(row, "models", names)?,
            regions: parsed(row, "regions", names)?,
            disabled: row.try_get("disabled")?,
            of_file: false,
            unknown_bill: parsed(row, "unknown_bill", |word: String| word.parse())?,
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
            label: label.map(KeyLabel::stored),
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

/// A list of names as its column holds it.
pub(in crate::store) fn names_column(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A failed query as a store of tenants reports it.
pub(in crate::store) fn failure(error: sqlx::Error) -> TenantStoreError {
    if is_unreadable(&error) {
        return TenantStoreError::Unreadable(error.into());
    }
    TenantStoreError::Unavailable(error.into())
}
