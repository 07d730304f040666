//! Instances in a database.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::database::Database;
use super::rows;
use super::statement::Workload;
use crate::lease::{Heartbeats, LeaseError, LeaseStore};

impl LeaseStore for Database {
    fn register(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        let (insert, values) = (self.statements().register_instance, vec![name(instance).into()]);
        Box::pin(async move {
            let done = self.execute(Workload::Post, insert, values).await;
            done.map(|_| ()).map_err(failure)
        })
    }

    fn heartbeat(&self, instance: Uuid) -> BoxFuture<'_, Result<Option<Heartbeats>, LeaseError>> {
        let (statements, values) = (self.statements(), vec![name(instance).into()]);
        Box::pin(async move {
            let raised = self.execute(Workload::Post, statements.raise_heartbeat, values).await;
            if raised.map_err(failure)? == 0 {
                return Ok(None);
            }
            let select = statements.heartbeats;
            let found = self.fetch(Workload::Post, select, vec![], rows::ledger::heartbeat).await;
            found.map(Some).map_err(failure)
        })
    }

    fn expire(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        let (delete, values) = (self.statements().expire_instance, vec![name(instance).into()]);
        Box::pin(async move {
            let done = self.execute(Workload::Post, delete, values).await;
            done.map(|_| ()).map_err(failure)
        })
    }
}

fn name(instance: Uuid) -> String {
    instance.to_string()
}

/// Converts a failed query to an error of the lease store.
fn failure(error: sqlx::Error) -> LeaseError {
    if rows::is_lasting(&error) {
        return LeaseError::Broken(error.into());
    }
    LeaseError::Unavailable(error.into())
}
