//! The tenants of the configuration file and of the database.
//!
//! The file is for operators who keep their configuration in version control. The database is for operators who add
//! tenants while the service runs. Both can be used at once, but a tenant must be in only one of them: otherwise an old
//! entry in the file could undo a revocation in the database. So a name in both is an error at the start, and a row
//! that is added later under a name of the file is not served.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::credential::Credential;
use super::key::{KeyHash, KeyId, KeyRecord};
use super::store::{TenantStore, TenantStoreError};
use super::tenant::rules::InvalidTenant;
use super::tenant::{DEFAULT_AUTO_AIM, OnExceed, PdfText, Tenant, TenantName, UnknownBill};
use crate::units::{Money, Pixels, Share};

/// The section `[tenants.NAME]` of a configuration file.
///
/// It repeats the settings of [`Tenant`], because serde cannot refuse unknown members with a flattened struct.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSection {
    /// As [`Tenant::max_pixels`].
    pub max_pixels: Option<Pixels>,
    /// As [`Tenant::on_exceed`].
    pub on_exceed: OnExceed,
    /// As [`Tenant::max_tokens`].
    pub max_tokens: Option<NonZeroU64>,
    /// As [`Tenant::requests_per_minute`].
    #[serde(rename = "rpm")]
    pub requests_per_minute: Option<NonZeroU64>,
    /// As [`Tenant::tokens_per_minute`].
    #[serde(rename = "tpm")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// As [`Tenant::concurrency`].
    pub concurrency: Option<NonZeroU64>,
    /// As [`Tenant::daily_tokens`].
    pub daily_tokens: Option<NonZeroU64>,
    /// As [`Tenant::monthly_tokens`].
    pub monthly_tokens: Option<NonZeroU64>,
    /// As [`Tenant::daily_cost`].
    pub daily_cost: Option<Money>,
    /// As [`Tenant::monthly_cost`].
    pub monthly_cost: Option<Money>,
    /// As [`Tenant::models`].
    pub models: Vec<String>,
    /// As [`Tenant::regions`].
    pub regions: Vec<String>,
    /// As [`Tenant::disabled`].
    pub disabled: bool,
    /// As [`Tenant::unknown_bill`].
    pub unknown_bill: UnknownBill,
    /// As [`Tenant::pdf_text`].
    pub pdf_text: PdfText,
    /// As [`Tenant::auto_pixels`].
    pub auto_pixels: bool,
    /// As [`Tenant::auto_audit`].
    pub auto_audit: Share,
    /// As [`Tenant::auto_aim`]; the default if none.
    pub auto_aim: Option<Share>,
    /// As [`Tenant::escalate`].
    pub escalate: bool,
    /// As [`Tenant::cache_ttl`].
    pub cache_ttl: u64,
    /// The tenant's keys. To revoke a key, remove it.
    pub keys: Vec<FileKey>,
}

impl TenantSection {
    /// Converts the section to a tenant.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`], as [`Tenant::checked`].
    pub fn tenant(&self, name: TenantName) -> Result<Tenant, InvalidTenant> {
        Tenant {
            name,
            max_pixels: self.max_pixels,
            on_exceed: self.on_exceed,
            max_tokens: self.max_tokens,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrency: self.concurrency,
            daily_tokens: self.daily_tokens,
            monthly_tokens: self.monthly_tokens,
            daily_cost: self.daily_cost,
            monthly_cost: self.monthly_cost,
            models: self.models.clone(),
            regions: self.regions.clone(),
            disabled: self.disabled,
            of_file: true,
            unknown_bill: self.unknown_bill,
            pdf_text: self.pdf_text,
            auto_pixels: self.auto_pixels,
            auto_audit: self.auto_audit,
            auto_aim: self.auto_aim.unwrap_or(DEFAULT_AUTO_AIM),
            escalate: self.escalate,
            cache_ttl: self.cache_ttl,
        }
        .checked()
    }
}

/// A key in a configuration file: its name and its hash, never the key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileKey {
    /// The characters between the underscores of the key.
    pub id: KeyId,
    /// The SHA-256 of the whole key, in hexadecimal.
    pub sha256: KeyHash,
    /// When it expires (RFC 3339); never, if absent.
    #[serde(default, deserialize_with = "moment")]
    pub expires_at: Option<Timestamp>,
}

/// All tenants, those of the file and those of the database.
#[derive(Debug)]
pub struct Directory {
    tenants: BTreeMap<TenantName, Arc<Tenant>>,
    keys: HashMap<KeyId, Arc<Credential>>,
    store: Arc<dyn TenantStore>,
}

impl Directory {
    /// Combines the tenants of the configuration and of the database, which must be migrated.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] for a section that breaks a rule, for a name or a key that is in two places, and if the
    /// database does not answer.
    pub async fn open(
        sections: BTreeMap<TenantName, TenantSection>,
        store: Arc<dyn TenantStore>,
    ) -> Result<Self, DirectoryError> {
        let mut directory = Self { tenants: BTreeMap::new(), keys: HashMap::new(), store };
        for (name, section) in sections {
            directory.add_section(name, section).await?;
        }
        Ok(directory)
    }

    /// The key of that id, if its tenant is in the file.
    pub fn in_files(&self, id: &KeyId) -> Option<Arc<Credential>> {
        self.keys.get(id).cloned()
    }

    /// The key of that id, if its tenant is only in the database.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError`] if the store does not answer.
    pub async fn in_database(
        &self,
        id: &KeyId,
    ) -> Result<Option<Arc<Credential>>, TenantStoreError> {
        let Some((key, tenant)) = self.store.key(id).await? else { return Ok(None) };
        if self.is_in_file(&tenant.name) {
            return Ok(None);
        }
        let KeyRecord { hash, expires_at, revoked_at, .. } = key;
        Ok(Some(Arc::new(Credential::new(hash, Arc::new(tenant), expires_at, revoked_at))))
    }

    /// Whether the tenant is in the configuration, so that commands cannot change it.
    pub fn is_in_file(&self, name: &TenantName) -> bool {
        self.tenants.contains_key(name)
    }

    /// The tenant of that name.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError`] if the store does not answer.
    pub async fn tenant(&self, name: &TenantName) -> Result<Option<Arc<Tenant>>, TenantStoreError> {
        if let Some(tenant) = self.tenants.get(name) {
            return Ok(Some(tenant.clone()));
        }
        Ok(self.store.tenant(name).await?.map(Arc::new))
    }

    /// All tenants, by name.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError`] if the store does not answer.
    pub async fn tenants(&self) -> Result<Vec<Arc<Tenant>>, TenantStoreError> {
        let stored = self.store.tenants().await?;
        let stored = stored.into_iter().map(|tenant| (tenant.name.clone(), Arc::new(tenant)));
        let mut all: BTreeMap<_, _> = stored.collect();
        all.extend(self.tenants.clone());
        Ok(all.into_values().collect())
    }

    /// Whether at least two tenants are not disabled.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError`] if the store does not answer.
    pub async fn has_several(&self) -> Result<bool, TenantStoreError> {
        let tenants = self.tenants().await?;
        Ok(tenants.iter().filter(|tenant| !tenant.disabled).take(2).count() == 2)
    }

    async fn add_section(
        &mut self,
        name: TenantName,
        section: TenantSection,
    ) -> Result<(), DirectoryError> {
        if self.store.tenant(&name).await?.is_some() {
            return Err(DirectoryError::TenantInBoth { tenant: name });
        }
        let tenant = Arc::new(section.tenant(name.clone())?);
        for key in section.keys {
            let id = key.id.clone();
            let is_stored = self.store.key(&id).await?.is_some();
            let credential =
                Arc::new(Credential::new(key.sha256, tenant.clone(), key.expires_at, None));
            let replaced = self.keys.insert(id.clone(), credential);
            if is_stored || replaced.is_some() {
                return Err(DirectoryError::KeyTwice { tenant: name, key: id });
            }
        }
        self.tenants.insert(name, tenant);
        Ok(())
    }
}

/// An error in the configuration of the tenants.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A name in two places.
    #[error(
        "tenant {tenant} is in the configuration ([tenants.{tenant}]) and in the database; \
         keep it in one of them"
    )]
    TenantInBoth {
        /// The name.
        tenant: TenantName,
    },
    /// A key in two places.
    #[error(
        "key {key} of [tenants.{tenant}] is there or elsewhere a second time; every key is its own"
    )]
    KeyTwice {
        /// The tenant with the second definition.
        tenant: TenantName,
        /// The public name of the key.
        key: KeyId,
    },
    /// A section with a setting that breaks a rule.
    #[error("[tenants.{}] {}", .0.name, .0.fault)]
    Section(#[from] InvalidTenant),
    /// The database does not answer, so it is unknown whether a name is in both.
    #[error("the tenants of the configuration cannot be compared with those of the database: {0}")]
    Store(#[from] TenantStoreError),
}

/// Parses an RFC 3339 timestamp.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let moment = text.map(|text| text.parse()).transpose();
    moment.map_err(|_| serde::de::Error::custom("write a time like 2030-01-31T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeStore;
    use super::*;
    use crate::auth::key::ApiKey;
    use crate::random::SeededRandom;

    fn name(text: &str) -> TenantName {
        text.parse().unwrap()
    }

    fn section(key: &ApiKey, hash: &KeyHash) -> TenantSection {
        let keys = vec![FileKey { id: key.id().clone(), sha256: hash.clone(), expires_at: None }];
        TenantSection { keys, ..TenantSection::default() }
    }

    async fn open(
        sections: impl IntoIterator<Item = (&str, TenantSection)>,
        store: FakeStore,
    ) -> Result<Directory, DirectoryError> {
        let sections = sections.into_iter().map(|(tenant, section)| (name(tenant), section));
        Directory::open(sections.collect(), Arc::new(store)).await
    }

    #[test]
    fn a_section_is_read_with_the_names_of_the_contract() {
        let json = r#"{"max_pixels":786432,"on_exceed":"reject","rpm":60,"tpm":9,"concurrency":2,
            "max_tokens":3,"daily_tokens":4,"monthly_tokens":5,"daily_cost":"0.6",
            "monthly_cost":"7","models":["a"],"regions":["b"],
            "unknown_bill":"fail","pdf_text":"prefer","auto_pixels":true,"auto_audit":0.01,"auto_aim":1,
            "escalate":true,"cache_ttl":60,"keys":[{"id":"4t0w9x2k7c1m","expires_at":"2030-01-31T00:00:00Z",
            "sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]}"#;
        let section: TenantSection = serde_json::from_str(json).unwrap();
        let tenant = section.tenant(name("acme")).unwrap();
        let expected = Tenant {
            max_pixels: Some(Pixels::new(786_432)),
            on_exceed: OnExceed::Reject,
            max_tokens: NonZeroU64::new(3),
            requests_per_minute: NonZeroU64::new(60),
            tokens_per_minute: NonZeroU64::new(9),
            concurrency: NonZeroU64::new(2),
            daily_tokens: NonZeroU64::new(4),
            monthly_tokens: NonZeroU64::new(5),
            daily_cost: Some(Money::from_nanos(600_000_000)),
            monthly_cost: Some(Money::from_nanos(7_000_000_000)),
            models: vec!["a".into()],
            regions: vec!["b".into()],
            of_file: true,
            unknown_bill: UnknownBill::Fail,
            pdf_text: PdfText::Prefer,
            auto_pixels: true,
            auto_audit: "0.01".parse().unwrap(),
            auto_aim: "1".parse().unwrap(),
            escalate: true,
            cache_ttl: 60,
            ..Tenant::new(name("acme"))
        };
        assert_eq!(tenant, expected);
        assert_eq!(section.keys[0].expires_at.unwrap().to_string(), "2030-01-31T00:00:00Z");
    }

    #[test]
    fn an_unknown_setting_in_a_section_is_refused() {
        for wrong in [
            r#"{"max_pixel":1}"#,
            r#"{"daily_token":1}"#,
            r#"{"pdf_text":"on"}"#,
            r#"{"auto_audit":1.5}"#,
            r#"{"keys":[{"key":"x"}]}"#,
        ] {
            assert!(serde_json::from_str::<TenantSection>(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[tokio::test]
    async fn a_name_in_the_file_and_in_the_database_is_an_error_that_names_it() {
        let store = FakeStore::default();
        store.put_tenant(Tenant::new(name("acme")));
        let refusal = open([("acme", TenantSection::default())], store).await.unwrap_err();
        assert!(matches!(refusal, DirectoryError::TenantInBoth { .. }));
        assert!(refusal.to_string().contains("tenants.acme"), "{refusal}");
    }

    #[tokio::test]
    async fn a_key_in_two_sections_is_an_error_that_names_it() {
        let (key, hash) = ApiKey::create(&SeededRandom::new(1));
        let twice = [("a", section(&key, &hash)), ("b", section(&key, &hash))];
        let refusal = open(twice, FakeStore::default()).await.unwrap_err();
        assert!(refusal.to_string().contains(key.id().as_str()), "{refusal}");
    }

    #[tokio::test]
    async fn a_section_whose_cap_cannot_bind_is_an_error_that_names_it() {
        let low = TenantSection { max_pixels: Some(Pixels::new(1)), ..TenantSection::default() };
        let refusal = open([("acme", low)], FakeStore::default()).await.unwrap_err().to_string();
        assert!(refusal.starts_with("[tenants.acme] max_pixels is 1"), "{refusal}");
    }

    #[tokio::test]
    async fn a_row_that_appears_under_a_files_name_is_not_served() {
        let (key, hash) = ApiKey::create(&SeededRandom::new(1));
        let store = Arc::new(FakeStore::default());
        let sections = BTreeMap::from([(name("acme"), TenantSection::default())]);
        let directory = Directory::open(sections, store.clone()).await.unwrap();
        store.put_key(&key, hash, Tenant::new(name("acme")));
        assert!(directory.in_database(key.id()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn tenants_of_both_places_are_listed_by_name() {
        let store = FakeStore::default();
        store.put_tenant(Tenant::new(name("b")));
        let files = [("a", TenantSection::default()), ("c", TenantSection::default())];
        let directory = open(files, store).await.unwrap();
        let tenants = directory.tenants().await.unwrap();
        let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
