//! `ocr-gateway key`: creates, lists and revokes keys.
//!
//! A key is shown once, alone on standard output, so that `KEY=$(ocr-gateway key create acme)` assigns exactly the key.
//! It is stored before it is shown, so a key that was shown works. For a tenant of the configuration, `--for-file`
//! creates a key without storing it, and prints the line for the file to standard error.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use super::output::{cell, say, write_json, write_table};
use super::tenant::IsInFile;
use crate::auth::key::{ApiKey, KeyHash, KeyId, KeyLabel, KeyRecord, KeyState};
use crate::auth::store::{TenantStore, TenantStoreError};
use crate::auth::tenant::TenantName;
use crate::clock::Clock;
use crate::random::Random;

/// `ocr-gateway key …`
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Create a key and print it, once
    Create(NewKey),
    /// List the keys of the database, without the keys themselves
    List {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<TenantName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; all replicas refuse it within a second
    Revoke {
        /// The characters between the underscores of the key
        id: KeyId,
    },
}

/// The properties of a new key.
#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// The tenant that pays
    tenant: TenantName,
    /// Expire after this time, such as '90d' or '12h'
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<Span>,
    /// Expire at this moment, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<Timestamp>,
    /// A label to recognise the key by
    #[arg(long, value_name = "TEXT")]
    label: Option<KeyLabel>,
    /// Store nothing; print the key, and on standard error the line for [tenants.TENANT] in the configuration
    #[arg(long, conflicts_with = "label")]
    for_file: bool,
}

impl KeyCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`KeyCommandError`], for the person who typed the command.
    pub(super) async fn run(
        self,
        store: &dyn TenantStore,
        is_in_file: IsInFile<'_>,
        clock: &dyn Clock,
        random: &dyn Random,
        out: &mut dyn Write,
    ) -> Result<(), KeyCommandError> {
        let now = clock.timestamp();
        match self {
            Self::Create(new) if !new.for_file && is_in_file(&new.tenant) => {
                Err(KeyCommandError::InFile(new.tenant))
            }
            Self::Create(new) => create(new, store, now, random, out).await,
            Self::List { tenant, json } => {
                let keys = store.keys(tenant.as_ref()).await?;
                let listed: Vec<_> = keys.into_iter().map(|key| ListedKey::new(key, now)).collect();
                Ok(if json { write_json(out, &listed) } else { write_list(out, &listed) }?)
            }
            Self::Revoke { id } => revoke(id, store, now).await,
        }
    }
}

/// The reason why a command about keys failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyCommandError {
    /// The configuration has the tenant and its keys.
    #[error(
        "tenant {0} is kept in the configuration: run again with --for-file, and add the line \
         that it prints to [tenants.{0}] there"
    )]
    InFile(TenantName),
    /// No key in the database has this id.
    #[error("there is no key {0} in the database; one of the configuration is taken out there")]
    Unknown(KeyId),
    /// The key would be expired already.
    #[error("the key would have expired at {expires_at}; it is {now}")]
    Expired {
        /// The requested expiry.
        expires_at: Timestamp,
        /// The present time.
        now: Timestamp,
    },
    /// The expiry is beyond the calendar.
    #[error("--expires-in leads beyond the year 9999: {0}")]
    TooFar(jiff::Error),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] TenantStoreError),
    /// The result could not be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// Creates a key, and stores it unless it is for the configuration.
async fn create(
    new: NewKey,
    store: &dyn TenantStore,
    now: Timestamp,
    random: &dyn Random,
    out: &mut dyn Write,
) -> Result<(), KeyCommandError> {
    let expires_at = new.expiry(now)?;
    let (key, hash) = ApiKey::create(random);
    let NewKey { tenant, label, for_file, .. } = new;
    if for_file {
        let line = file_line(key.id(), &hash, expires_at);
        say(&format!("add to `keys` in [tenants.{tenant}]; the key is shown only now:\n{line}"));
    } else {
        let record = KeyRecord { expires_at, label, ..KeyRecord::new(&key, hash, tenant, now) };
        store.create_key(&record).await?;
        let end = expires_at.map_or_else(String::new, |end| format!(", expires at {end}"));
        say(&format!("key {} of tenant {}{end}; it is shown only now", record.id, record.tenant));
    }
    writeln!(out, "{}", key.expose())?;
    Ok(())
}

/// A key as an element of `keys` in `[tenants.NAME]` of the configuration (TOML).
fn file_line(id: &KeyId, hash: &KeyHash, expires_at: Option<Timestamp>) -> String {
    let end = expires_at.map_or_else(String::new, |end| format!(", expires_at = \"{end}\""));
    format!("{{ id = \"{id}\", sha256 = \"{}\"{end} }}", hash.to_hex())
}

async fn revoke(id: KeyId, store: &dyn TenantStore, now: Timestamp) -> Result<(), KeyCommandError> {
    if !store.revoke_key(&id, now).await? {
        return Err(KeyCommandError::Unknown(id));
    }
    say(&format!("key {id} revoked; replicas follow within a second"));
    Ok(())
}

impl NewKey {
    /// When the key expires, if it does.
    fn expiry(&self, now: Timestamp) -> Result<Option<Timestamp>, KeyCommandError> {
        let expires_at = match self.expires_in {
            Some(span) => Some(after(now, span).map_err(KeyCommandError::TooFar)?),
            None => self.expires_at,
        };
        match expires_at {
            Some(expires_at) if expires_at <= now => {
                Err(KeyCommandError::Expired { expires_at, now })
            }
            _ => Ok(expires_at),
        }
    }
}

/// The moment `span` after `now`, in UTC, where a day always has 24 hours.
fn after(now: Timestamp, span: Span) -> Result<Timestamp, jiff::Error> {
    Ok(now.to_zoned(TimeZone::UTC).checked_add(span)?.timestamp())
}

/// A key in a list: its record without the hash.
#[derive(Debug, Serialize)]
struct ListedKey {
    id: KeyId,
    tenant: TenantName,
    state: KeyState,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    label: Option<KeyLabel>,
}

impl ListedKey {
    fn new(key: KeyRecord, now: Timestamp) -> Self {
        Self {
            state: key.state(now),
            id: key.id,
            tenant: key.tenant,
            created_at: key.created_at.to_string(),
            expires_at: key.expires_at.map(|moment| moment.to_string()),
            revoked_at: key.revoked_at.map(|moment| moment.to_string()),
            label: key.label,
        }
    }
}

fn write_list(out: &mut dyn Write, keys: &[ListedKey]) -> io::Result<()> {
    let heading = ["ID", "TENANT", "STATE", "CREATED", "EXPIRES", "LABEL"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.to_string(),
            key.tenant.to_string(),
            key.state.as_str().to_owned(),
            key.created_at.clone(),
            cell(key.expires_at.as_ref()),
            cell(key.label.as_ref().map(KeyLabel::as_str)),
        ]
    }));
    write_table(out, &rows, 6)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use clap::Parser;

    use super::*;
    use crate::auth::tenant::Tenant;
    use crate::clock::ManualClock;
    use crate::random::SeededRandom;
    use crate::store;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        command: KeyCommand,
    }

    /// A database with the tenant `acme`, at the start of 2026; `filed` is in the configuration.
    struct Desk {
        store: Arc<dyn TenantStore>,
        clock: ManualClock,
        random: SeededRandom,
    }

    impl Desk {
        async fn open() -> Self {
            let store =
                store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
            store.migrate().await.unwrap();
            let start = SystemTime::UNIX_EPOCH + Duration::from_hours(490_896);
            let acme = Tenant::new("acme".parse().unwrap());
            store.tenants().create_tenant(&acme).await.unwrap();
            let (clock, random) = (ManualClock::new(start), SeededRandom::new(1));
            Self { store: store.tenants(), clock, random }
        }

        async fn run(&self, line: &str) -> Result<String, KeyCommandError> {
            let mut out = Vec::new();
            let is_in_file = |name: &TenantName| name.as_str() == "filed";
            let command = parse(line).unwrap();
            let (store, clock, random) = (&*self.store, &self.clock, &self.random);
            command.run(store, &is_in_file, clock, random, &mut out).await?;
            Ok(String::from_utf8(out).unwrap())
        }

        async fn only_key(&self) -> KeyRecord {
            self.store.keys(None).await.unwrap().remove(0)
        }
    }

    fn parse(line: &str) -> Result<KeyCommand, clap::Error> {
        let words = std::iter::once("key").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|parsed| parsed.command)
    }

    #[tokio::test]
    async fn create_prints_the_stored_key_alone() {
        let desk = Desk::open().await;
        let printed = desk.run("create acme --label batch").await.unwrap();
        let key = ApiKey::parse(printed.strip_suffix('\n').unwrap()).unwrap();
        let stored = desk.only_key().await;
        assert_eq!(stored.id, key.id);
        assert!(stored.hash.matches(&key.hash));
    }

    #[tokio::test]
    async fn ninety_days_are_counted_from_now() {
        let desk = Desk::open().await;
        desk.run("create acme --expires-in 90d").await.unwrap();
        let expires_at = desk.only_key().await.expires_at.unwrap();
        assert_eq!(expires_at.to_string(), "2026-04-01T00:00:00Z");
    }

    #[tokio::test]
    async fn a_key_that_would_have_expired_is_not_made() {
        let desk = Desk::open().await;
        for line in ["create acme --expires-at 2025-12-31T23:59:59Z", "create acme --expires-in 0s"]
        {
            let refusal = desk.run(line).await.unwrap_err();
            assert!(matches!(refusal, KeyCommandError::Expired { .. }), "{refusal}");
        }
        assert!(desk.store.keys(None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_list_tells_the_state_and_never_a_hash() {
        let desk = Desk::open().await;
        desk.run("create acme --expires-in 1h").await.unwrap();
        desk.clock.advance(Duration::from_hours(1));
        let (table, json) =
            (desk.run("list").await.unwrap(), desk.run("list --json").await.unwrap());
        assert!(table.contains("expired  2026-01-01T00:00:00Z  2026-01-01T01:00:00Z"), "{table}");
        assert!(json.contains("\"state\": \"expired\""), "{json}");
        let hash = desk.only_key().await.hash.to_hex();
        assert!(!table.contains(&hash) && !json.contains(&hash) && !json.contains("hash"));
    }

    #[tokio::test]
    async fn a_list_can_be_of_one_tenant() {
        let desk = Desk::open().await;
        desk.run("create acme").await.unwrap();
        assert_eq!(desk.run("list --tenant acme").await.unwrap().lines().count(), 2);
        assert_eq!(desk.run("list --tenant another").await.unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn revoking_marks_the_key_and_doing_it_again_is_fine() {
        let desk = Desk::open().await;
        desk.run("create acme").await.unwrap();
        let id = desk.only_key().await.id;
        desk.run(&format!("revoke {id}")).await.unwrap();
        desk.run(&format!("revoke {id}")).await.unwrap();
        assert!(desk.run("list").await.unwrap().contains("revoked"));
    }

    #[tokio::test]
    async fn revoking_an_unknown_key_is_refused() {
        let desk = Desk::open().await;
        let refusal = desk.run("revoke 000000000000").await.unwrap_err();
        assert!(matches!(refusal, KeyCommandError::Unknown(_)));
    }

    #[tokio::test]
    async fn a_key_for_the_configuration_is_printed_and_not_stored() {
        let desk = Desk::open().await;
        let refusal = desk.run("create filed").await.unwrap_err().to_string();
        assert!(refusal.contains("--for-file") && refusal.contains("[tenants.filed]"));
        let printed = desk.run("create filed --for-file").await.unwrap();
        assert!(ApiKey::parse(printed.trim_end()).is_ok());
        assert!(desk.store.keys(None).await.unwrap().is_empty());
    }

    #[test]
    fn the_line_for_the_configuration_is_what_a_section_reads() {
        let (key, hash) = ApiKey::create(&SeededRandom::new(1));
        let expires_at = Timestamp::from_second(1_893_456_000).unwrap();
        let line = file_line(key.id(), &hash, Some(expires_at));
        let end = format!("\"{}\", expires_at = \"2030-01-01T00:00:00Z\" }}", hash.to_hex());
        assert_eq!(line, format!("{{ id = \"{}\", sha256 = {end}", key.id()));
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_done() {
        let both = "create acme --expires-in 1d --expires-at 2030-01-01T00:00:00Z";
        for wrong in ["create", "create acme --expires-in soon", both, "revoke x", "revoke"] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
