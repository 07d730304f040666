//! Heights that audits have raised, in a database.

use futures_util::future::BoxFuture;

use super::database::Database;
use super::rows::heights::height;
use super::statement::Workload;
use crate::calibration::controller::{HeightFactor, Step};
use crate::calibration::{HeightStore, HeightStoreError};

impl HeightStore for Database {
    fn apply<'a>(
        &'a self,
        tenant: &'a str,
        step: Step,
    ) -> BoxFuture<'a, Result<HeightFactor, HeightStoreError>> {
        Box::pin(async move {
            // As `HeightFactor::after`, in one statement, so that no step of another replica is lost.
            let upsert = "INSERT INTO auto_heights (tenant, factor_milli) VALUES ($1, $2)
                 ON CONFLICT (tenant) DO UPDATE SET factor_milli = CASE
                    WHEN (auto_heights.factor_milli * $3 + 500000) / 1000000 < 1000 THEN 1000
                    WHEN (auto_heights.factor_milli * $3 + 500000) / 1000000 > 4000 THEN 4000
                    ELSE (auto_heights.factor_milli * $3 + 500000) / 1000000
                 END
                 RETURNING tenant, factor_milli";
            let first = HeightFactor::ONE.after(step);
            let values = vec![
                tenant.into(),
                i64::from(first.thousandths()).into(),
                i64::from(step.millionths()).into(),
            ];
            let rows = self.fetch(Workload::LookUp, upsert, values, height).await;
            let row = rows.map_err(failure)?.pop();
            row.map(|(_, factor)| factor).ok_or_else(|| failure(sqlx::Error::RowNotFound))
        })
    }

    fn factors(&self) -> BoxFuture<'_, Result<Vec<(String, HeightFactor)>, HeightStoreError>> {
        Box::pin(async move {
            let select = "SELECT tenant, factor_milli FROM auto_heights";
            self.fetch(Workload::LookUp, select, vec![], height).await.map_err(failure)
        })
    }
}

fn failure(error: sqlx::Error) -> HeightStoreError {
    HeightStoreError(error.into())
}
