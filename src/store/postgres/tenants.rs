//! Tenants and keys in PostgreSQL.

use jiff::Timestamp;

use super::Postgres;
use crate::auth::key::{KeyId, KeyLabel, KeyRecord};
use crate::auth::store::{BoxFuture, TenantStore, TenantStoreError};
use crate::auth::tenant::{Tenant, TenantName};
use crate::store::rows;
use crate::store::rows::tenants::{KeyAndTenantRow, KeyRow, TenantRow, failure, names_column};
use crate::units::Pixels;

impl TenantStore for Postgres {
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(
                "INSERT INTO tenants (name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            );
            match self.execute(&self.lookups, bind_tenant(insert, tenant)).await {
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
            let update = sqlx::query(
                "UPDATE tenants SET max_pixels = $2, on_exceed = $3, max_tokens = $4,
                    requests_per_minute = $5, tokens_per_minute = $6, concurrency = $7,
                    daily_tokens = $8, monthly_tokens = $9, daily_cost_nanos = $10,
                    monthly_cost_nanos = $11, models = $12, regions = $13, disabled = $14,
                    unknown_bill = $15
                 WHERE name = $1",
            );
            let done = self.execute(&self.lookups, bind_tenant(update, tenant)).await;
            Ok(done.map_err(failure)?.rows_affected() > 0)
        })
    }

    fn tenant<'a>(
        &'a self,
        name: &'a TenantName,
    ) -> BoxFuture<'a, Result<Option<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill
                 FROM tenants WHERE name = $1",
            );
            let row = self.fetch_optional(&self.lookups, select.bind(name.as_str())).await;
            Ok(row.map_err(failure)?.map(|TenantRow(tenant)| tenant))
        })
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill
                 FROM tenants ORDER BY name",
            );
            let found = self.fetch_all(&self.lookups, select).await.map_err(failure)?;
            Ok(found.into_iter().map(|TenantRow(tenant)| tenant).collect())
        })
    }

    fn create_key<'a>(&'a self, key: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(
                "INSERT INTO api_keys (id, tenant, hash, created_at, expires_at, revoked_at, label)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            );
            let insert = insert
                .bind(key.id.as_str())
                .bind(key.tenant.as_str())
                .bind(key.hash.as_bytes().as_slice())
                .bind(key.created_at.as_millisecond())
                .bind(rows::moment_column(key.expires_at))
                .bind(rows::moment_column(key.revoked_at))
                .bind(key.label.as_ref().map(KeyLabel::as_str));
            match self.execute(&self.lookups, insert).await {
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
            let select = sqlx::query_as(
                "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label,
                    name, max_pixels, on_exceed, max_tokens, requests_per_minute,
                    tokens_per_minute, concurrency, daily_tokens, monthly_tokens,
                    daily_cost_nanos, monthly_cost_nanos, models, regions, disabled, unknown_bill
                 FROM api_keys JOIN tenants ON tenants.name = api_keys.tenant
                 WHERE id = $1",
            );
            let row = self.fetch_optional(&self.lookups, select.bind(id.as_str())).await;
            Ok(row.map_err(failure)?.map(|KeyAndTenantRow(key, tenant)| (key, tenant)))
        })
    }

    fn keys<'a>(
        &'a self,
        tenant: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label
                 FROM api_keys WHERE $1::text IS NULL OR tenant = $1
                 ORDER BY tenant, created_at, id",
            );
            let select = select.bind(tenant.map(TenantName::as_str));
            let found = self.fetch_all(&self.lookups, select).await.map_err(failure)?;
            Ok(found.into_iter().map(|KeyRow(key)| key).collect())
        })
    }

    fn revoke_key<'a>(
        &'a self,
        id: &'a KeyId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        Box::pin(async move {
            let update = sqlx::query(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1",
            );
            let update = update.bind(id.as_str()).bind(at.as_millisecond());
            let done = self.execute(&self.lookups, update).await.map_err(failure)?;
            Ok(done.rows_affected() > 0)
        })
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds a tenant's columns in the order in which the statements list them.
fn bind_tenant<'q>(query: Query<'q>, tenant: &'q Tenant) -> Query<'q> {
    query
        .bind(tenant.name.as_str())
        .bind(tenant.max_pixels.map(|cap| rows::number_column(Pixels::get(cap))))
        .bind(tenant.on_exceed.as_str())
        .bind(rows::limit_column(tenant.max_tokens))
        .bind(rows::limit_column(tenant.requests_per_minute))
        .bind(rows::limit_column(tenant.tokens_per_minute))
        .bind(rows::limit_column(tenant.concurrency))
        .bind(rows::limit_column(tenant.daily_tokens))
        .bind(rows::limit_column(tenant.monthly_tokens))
        .bind(rows::money_column(tenant.daily_cost))
        .bind(rows::money_column(tenant.monthly_cost))
        .bind(names_column(&tenant.models))
        .bind(names_column(&tenant.regions))
        .bind(tenant.disabled)
        .bind(tenant.unknown_bill.as_str())
}
