//! How commands open the database. Only `serve` and `migrate` change its schema ([ADR
//! 0020](../docs/adr/0020-expand-and-contract.md)).

use secrecy::ExposeSecret;

use super::output::{Failure, say};
use crate::settings::DatabaseSettings;
use crate::store::{self, MissingFile, SchemaState, Store, StoreError};

/// Connects to a database whose schema this program supports, without changing the schema.
///
/// # Errors
///
/// [`StoreError::OlderDatabase`] names the missing migrations.
pub(super) async fn open(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    let store = connect(settings, MissingFile::Refused).await?;
    match store.schema().await? {
        SchemaState::Same | SchemaState::Newer { .. } => Ok(store),
        SchemaState::Older(missing) => {
            Err(StoreError::OlderDatabase { missing: missing.join(", ") })
        }
    }
}

/// Connects to the database, and applies missing migrations if `database.migrate` allows it.
pub(super) async fn open_to_serve(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    if settings.migrate { open_migrated(settings).await } else { open(settings).await }
}

/// Connects to the database and applies missing migrations.
pub(super) async fn open_migrated(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    let store = connect(settings, MissingFile::Made).await?;
    store.migrate().await?;
    Ok(store)
}

/// Connects to the database, with any schema.
pub(super) async fn connect(
    settings: &DatabaseSettings,
    missing_file: MissingFile,
) -> Result<Store, StoreError> {
    let options = store::StoreOptions {
        max_connections: settings.max_connections,
        missing_file,
        ..store::StoreOptions::default()
    };
    store::connect(settings.url.expose_secret(), options).await
}

/// `ocr-gateway migrate`
///
/// # Errors
///
/// The database cannot be reached or migrated.
pub(super) async fn migrate(settings: &DatabaseSettings) -> Result<(), Failure> {
    let store = open_migrated(settings).await?;
    match store.schema().await? {
        SchemaState::Newer { version, known } => say(&format!(
            "the database is newer than this version of the program, which runs on it: it has migration \
             {version}, and the program has those up to {known}"
        )),
        SchemaState::Same | SchemaState::Older(_) => say("the database is up to date"),
    }
    Ok(())
}
