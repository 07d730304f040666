//! Rows of tenants and of their keys.

use super::{amount, limit, moment, null, parsed, unread};
use crate::auth::key::{KeyHash, KeyLabel, KeyRecord};
use crate::auth::tenant::Tenant;
use crate::store::statement::Columns;
use crate::units::{Money, Pixels, Share};

/// A row of `tenants`.
pub(in crate::store) fn tenant(row: &dyn Columns) -> Result<Tenant, sqlx::Error> {
    let names = |column: String| serde_json::from_str(&column);
    Ok(Tenant {
        name: parsed(row, "name", TryInto::try_into)?,
        max_pixels: limit(row, "max_pixels")?.map(|cap| Pixels::new(cap.get())),
        on_exceed: parsed(row, "on_exceed", |word| word.parse())?,
        max_tokens: limit(row, "max_tokens")?,
        requests_per_minute: limit(row, "requests_per_minute")?,
        tokens_per_minute: limit(row, "tokens_per_minute")?,
        concurrency: limit(row, "concurrency")?,
        daily_tokens: limit(row, "daily_tokens")?,
        monthly_tokens: limit(row, "monthly_tokens")?,
        daily_cost: limit(row, "daily_cost_nanos")?.map(|nanos| Money::from_nanos(nanos.get())),
        monthly_cost: limit(row, "monthly_cost_nanos")?.map(|nanos| Money::from_nanos(nanos.get())),
        models: parsed(row, "models", names)?,
        regions: parsed(row, "regions", names)?,
        disabled: row.flag("disabled")?,
        of_file: false,
        unknown_bill: parsed(row, "unknown_bill", |word| word.parse())?,
        pdf_text: parsed(row, "pdf_text", |word| word.parse())?,
        auto_pixels: row.flag("auto_pixels")?,
        auto_audit: share(row, "auto_audit")?,
        auto_aim: share(row, "auto_aim")?,
        escalate: row.flag("escalate")?,
        cache_ttl: amount(row, "cache_ttl")?,
    })
}

/// A column of millionths.
fn share(row: &dyn Columns, column: &str) -> Result<Share, sqlx::Error> {
    let millionths = u32::try_from(amount(row, column)?).ok().and_then(Share::from_millionths);
    millionths.ok_or_else(|| unread(column, "above one million"))
}

/// A row of `api_keys`.
pub(in crate::store) fn key(row: &dyn Columns) -> Result<KeyRecord, sqlx::Error> {
    let hash = row.bytes("hash")?;
    let hash = hash.as_slice().try_into().map_err(|error| unread("hash", error))?;
    Ok(KeyRecord {
        id: parsed(row, "id", TryInto::try_into)?,
        tenant: parsed(row, "tenant", TryInto::try_into)?,
        hash: KeyHash::from_bytes(hash),
        created_at: moment(row, "created_at")?.ok_or_else(|| null("created_at"))?,
        expires_at: moment(row, "expires_at")?,
        revoked_at: moment(row, "revoked_at")?,
        label: row.text("label")?.map(KeyLabel::stored),
    })
}

/// A row of both, joined.
pub(in crate::store) fn key_and_tenant(
    row: &dyn Columns,
) -> Result<(KeyRecord, Tenant), sqlx::Error> {
    Ok((key(row)?, tenant(row)?))
}
