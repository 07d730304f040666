//! Tenants and keys in a database.

use jiff::Timestamp;

use super::database::Database;
use super::rows;
use super::rows::tenants::{key, key_and_tenant, tenant};
use super::statement::{SqlValue, Workload};
use crate::auth::key::{KeyId, KeyLabel, KeyRecord};
use crate::auth::store::{BoxFuture, TenantStore, TenantStoreError};
use crate::auth::tenant::{Tenant, TenantName};
use crate::units::Pixels;

impl TenantStore for Database {
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert =
                "INSERT INTO tenants (name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill,
                    pdf_text, auto_pixels, auto_audit, auto_aim, escalate, cache_ttl)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                    $17, $18, $19, $20, $21)";
            match self.execute(Workload::LookUp, insert, tenant_values(tenant)).await {
                Ok(_) => Ok(()),
                Err(error) if rows::is_taken(&error) => {
                    Err(TenantStoreError::TenantExists(tenant.name.clone()))
                }
                Err(error) => Err(failure(error)),
            }
        })
    }

    fn update_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        Box::pin(async move {
            let update = "UPDATE tenants SET max_pixels = $2, on_exceed = $3, max_tokens = $4,
                    requests_per_minute = $5, tokens_per_minute = $6, concurrency = $7,
                    daily_tokens = $8, monthly_tokens = $9, daily_cost_nanos = $10,
                    monthly_cost_nanos = $11, models = $12, regions = $13, disabled = $14,
                    unknown_bill = $15, pdf_text = $16, auto_pixels = $17, auto_audit = $18,
                    auto_aim = $19, escalate = $20, cache_ttl = $21
                 WHERE name = $1";
            let done = self.execute(Workload::LookUp, update, tenant_values(tenant)).await;
            Ok(done.map_err(failure)? > 0)
        })
    }

    fn tenant<'a>(
        &'a self,
        name: &'a TenantName,
    ) -> BoxFuture<'a, Result<Option<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = "SELECT name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill,
                    pdf_text, auto_pixels, auto_audit, auto_aim, escalate, cache_ttl
                 FROM tenants WHERE name = $1";
            let values = vec![name.as_str().into()];
            let found = self.fetch(Workload::LookUp, select, values, tenant).await;
            Ok(found.map_err(failure)?.pop())
        })
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = "SELECT name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill,
                    pdf_text, auto_pixels, auto_audit, auto_aim, escalate, cache_ttl
                 FROM tenants ORDER BY name";
            self.fetch(Workload::LookUp, select, vec![], tenant).await.map_err(failure)
        })
    }

    fn create_key<'a>(&'a self, key: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert =
                "INSERT INTO api_keys (id, tenant, hash, created_at, expires_at, revoked_at, label)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)";
            let values = vec![
                key.id.as_str().into(),
                key.tenant.as_str().into(),
                SqlValue::Bytes(key.hash.as_bytes().to_vec()),
                key.created_at.as_millisecond().into(),
                rows::moment_column(key.expires_at).into(),
                rows::moment_column(key.revoked_at).into(),
                key.label.as_ref().map(KeyLabel::as_str).into(),
            ];
            match self.execute(Workload::LookUp, insert, values).await {
                Ok(_) => Ok(()),
                Err(error) if rows::is_taken(&error) => {
                    Err(TenantStoreError::KeyExists(key.id.clone()))
                }
                Err(error) if rows::is_orphan(&error) => {
                    Err(TenantStoreError::NoSuchTenant(key.tenant.clone()))
                }
                Err(error) => Err(failure(error)),
            }
        })
    }

    fn key<'a>(
        &'a self,
        id: &'a KeyId,
    ) -> BoxFuture<'a, Result<Option<(KeyRecord, Tenant)>, TenantStoreError>> {
        Box::pin(async move {
            let select = "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label,
                    name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill,
                    pdf_text, auto_pixels, auto_audit, auto_aim, escalate, cache_ttl
                 FROM api_keys JOIN tenants ON tenants.name = api_keys.tenant
                 WHERE id = $1";
            let values = vec![id.as_str().into()];
            let found = self.fetch(Workload::LookUp, select, values, key_and_tenant).await;
            Ok(found.map_err(failure)?.pop())
        })
    }

    fn keys<'a>(
        &'a self,
        tenant: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>> {
        Box::pin(async move {
            let select = "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label
                 FROM api_keys WHERE CAST($1 AS TEXT) IS NULL OR tenant = $1
                 ORDER BY tenant, created_at, id";
            let values = vec![tenant.map(TenantName::as_str).into()];
            self.fetch(Workload::LookUp, select, values, key).await.map_err(failure)
        })
    }

    fn revoke_key<'a>(
        &'a self,
        id: &'a KeyId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        Box::pin(async move {
            let update = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1";
            let values = vec![id.as_str().into(), at.as_millisecond().into()];
            let done = self.execute(Workload::LookUp, update, values).await;
            Ok(done.map_err(failure)? > 0)
        })
    }
}

/// A tenant's columns in the order of the statements.
fn tenant_values(tenant: &Tenant) -> Vec<SqlValue> {
    vec![
        tenant.name.as_str().into(),
        tenant.max_pixels.map(|cap| rows::number_column(Pixels::get(cap))).into(),
        tenant.on_exceed.as_str().into(),
        rows::limit_column(tenant.max_tokens).into(),
        rows::limit_column(tenant.requests_per_minute).into(),
        rows::limit_column(tenant.tokens_per_minute).into(),
        rows::limit_column(tenant.concurrency).into(),
        rows::limit_column(tenant.daily_tokens).into(),
        rows::limit_column(tenant.monthly_tokens).into(),
        rows::money_column(tenant.daily_cost).into(),
        rows::money_column(tenant.monthly_cost).into(),
        rows::names_column(&tenant.models).into(),
        rows::names_column(&tenant.regions).into(),
        SqlValue::Flag(tenant.disabled),
        tenant.unknown_bill.as_str().into(),
        tenant.pdf_text.as_str().into(),
        SqlValue::Flag(tenant.auto_pixels),
        i64::from(tenant.auto_audit.millionths()).into(),
        i64::from(tenant.auto_aim.millionths()).into(),
        SqlValue::Flag(tenant.escalate),
        rows::number_column(tenant.cache_ttl).into(),
    ]
}

/// Converts a failed query to an error of the tenant store.
fn failure(error: sqlx::Error) -> TenantStoreError {
    if rows::is_unreadable(&error) {
        return TenantStoreError::Unreadable(error.into());
    }
    TenantStoreError::Unavailable(error.into())
}
