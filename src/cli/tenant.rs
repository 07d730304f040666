//! `ocr-gateway tenant`: creates, changes and shows tenants of the database.
//!
//! A tenant of the configuration is refused, and the error names its section: it must be changed in the file, and one
//! name never exists in both places.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};

use super::output::{cell, say, write_json, write_table};
use crate::auth::store::{TenantStore, TenantStoreError};
use crate::auth::tenant::change::{SettingChange, TenantChange};
use crate::auth::tenant::rules::InvalidTenant;
use crate::auth::tenant::{OnExceed, PdfText, Tenant, TenantName, UnknownBill};
use crate::units::{Money, Pixels, Share};

/// The word that removes a limit.
const CLEAR: &str = "none";

/// `ocr-gateway tenant …`
#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Add a tenant; without flags, it has no limits
    Create {
        /// 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit
        name: TenantName,
        /// The limits.
        #[command(flatten)]
        settings: TenantFlags,
    },
    /// Change a tenant's settings; settings that are not given stay
    #[command(group(ArgGroup::new("change").required(true).multiple(true).args(
        ["max_pixels", "on_exceed", "max_tokens", "rpm", "tpm", "concurrency", "daily_tokens",
         "monthly_tokens", "daily_cost", "monthly_cost", "models", "regions", "disabled",
         "unknown_bill", "pdf_text", "auto_pixels", "auto_audit", "auto_aim", "escalate",
         "cache_ttl"],
    )))]
    Set {
        /// The tenant
        name: TenantName,
        /// The changes.
        #[command(flatten)]
        settings: TenantFlags,
    },
    /// List the tenants of the database
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one tenant
    Show {
        /// The tenant
        name: TenantName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse all keys of a tenant, within a second; `set --disabled false` accepts them again
    Disable {
        /// The tenant
        name: TenantName,
    },
}

/// The settings of a tenant as flags.
#[derive(Debug, Default, Args)]
pub(super) struct TenantFlags {
    /// Cap on the pixels of one image, at least 3136, or 'none'
    #[arg(long, value_name = "PIXELS", value_parser = pixels)]
    max_pixels: Option<SettingChange<Pixels>>,
    /// Handling of an image above the cap: 'clamp' or 'reject'
    #[arg(long, value_name = "WHAT", value_parser = change::<OnExceed>)]
    on_exceed: Option<SettingChange<OnExceed>>,
    /// Tokens that the model may write in one answer, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    max_tokens: Option<SettingChange<NonZeroU64>>,
    /// Requests a minute, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    rpm: Option<SettingChange<NonZeroU64>>,
    /// Tokens a minute, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    tpm: Option<SettingChange<NonZeroU64>>,
    /// Requests at the same time, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    concurrency: Option<SettingChange<NonZeroU64>>,
    /// Tokens in a day, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    daily_tokens: Option<SettingChange<NonZeroU64>>,
    /// Tokens in a month, or 'none'
    #[arg(long, value_name = "COUNT", value_parser = change::<NonZeroU64>)]
    monthly_tokens: Option<SettingChange<NonZeroU64>>,
    /// Money in a day, like 12.50 in the price list's currency, or 'none'
    #[arg(long, value_name = "AMOUNT", value_parser = change::<Money>)]
    daily_cost: Option<SettingChange<Money>>,
    /// Money in a month, like 12.50 in the price list's currency, or 'none'
    #[arg(long, value_name = "AMOUNT", value_parser = change::<Money>)]
    monthly_cost: Option<SettingChange<Money>>,
    /// The allowed models, separated by commas, or 'none' for all
    #[arg(long, value_name = "MODELS", value_parser = names)]
    models: Option<SettingChange<Vec<String>>>,
    /// The regions in which requests may be served, separated by commas, or 'none' for all
    #[arg(long, value_name = "REGIONS", value_parser = names)]
    regions: Option<SettingChange<Vec<String>>>,
    /// Refuse all keys of the tenant
    #[arg(long, value_name = "BOOL", value_parser = change::<bool>)]
    disabled: Option<SettingChange<bool>>,
    /// Handling of a failed call that may have been billed: 'repeat' once or 'fail'
    #[arg(long, value_name = "WHAT", value_parser = change::<UnknownBill>)]
    unknown_bill: Option<SettingChange<UnknownBill>>,
    /// Whether PDF pages are answered from their own text, without the model, if a request does not say: 'off' or
    /// 'prefer'
    #[arg(long, value_name = "WHAT", value_parser = change::<PdfText>)]
    pdf_text: Option<SettingChange<PdfText>>,
    /// Choose the pixels of each page so that its text stays legible, if a request does not say
    #[arg(long, value_name = "BOOL", value_parser = change::<bool>)]
    auto_pixels: Option<SettingChange<bool>>,
    /// Share of the pages with chosen pixels that are read again at the cap to compare the texts, like 0.01, or 'none'
    #[arg(long, value_name = "SHARE", value_parser = change::<Share>)]
    auto_audit: Option<SettingChange<Share>>,
    /// Agreement of the two texts that is kept, like 0.95
    #[arg(long, value_name = "SHARE", value_parser = change::<Share>)]
    auto_aim: Option<SettingChange<Share>>,
    /// Read a page with chosen pixels again at the cap if its answer is in doubt
    #[arg(long, value_name = "BOOL", value_parser = change::<bool>)]
    escalate: Option<SettingChange<bool>>,
    /// Seconds for which an answer is kept for equal requests, at most 86400, or 'none'
    #[arg(long, value_name = "SECONDS", value_parser = change::<u64>)]
    cache_ttl: Option<SettingChange<u64>>,
}

impl From<TenantFlags> for TenantChange {
    fn from(settings: TenantFlags) -> Self {
        Self {
            max_pixels: settings.max_pixels.unwrap_or_default(),
            on_exceed: settings.on_exceed.unwrap_or_default(),
            max_tokens: settings.max_tokens.unwrap_or_default(),
            requests_per_minute: settings.rpm.unwrap_or_default(),
            tokens_per_minute: settings.tpm.unwrap_or_default(),
            concurrency: settings.concurrency.unwrap_or_default(),
            daily_tokens: settings.daily_tokens.unwrap_or_default(),
            monthly_tokens: settings.monthly_tokens.unwrap_or_default(),
            daily_cost: settings.daily_cost.unwrap_or_default(),
            monthly_cost: settings.monthly_cost.unwrap_or_default(),
            models: settings.models.unwrap_or_default(),
            regions: settings.regions.unwrap_or_default(),
            disabled: settings.disabled.unwrap_or_default(),
            unknown_bill: settings.unknown_bill.unwrap_or_default(),
            pdf_text: settings.pdf_text.unwrap_or_default(),
            auto_pixels: settings.auto_pixels.unwrap_or_default(),
            auto_audit: settings.auto_audit.unwrap_or_default(),
            auto_aim: settings.auto_aim.unwrap_or_default(),
            escalate: settings.escalate.unwrap_or_default(),
            cache_ttl: settings.cache_ttl.unwrap_or_default(),
        }
    }
}

/// Checks whether the configuration has a tenant.
pub(super) type IsInFile<'a> = &'a dyn Fn(&TenantName) -> bool;

impl TenantCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`TenantCommandError`], for the person who typed the command.
    pub(super) async fn run(
        self,
        store: &dyn TenantStore,
        is_in_file: IsInFile<'_>,
        out: &mut dyn Write,
    ) -> Result<(), TenantCommandError> {
        if let Some(name) = self.name().filter(|name| is_in_file(name)) {
            return Err(TenantCommandError::InFile(name.clone()));
        }
        match self {
            Self::Create { name, settings } => create(name, settings, store).await,
            Self::Set { name, settings } => set(name, settings.into(), store).await,
            Self::List { json: true } => Ok(write_json(out, &store.tenants().await?)?),
            Self::List { json: false } => Ok(write_list(out, &store.tenants().await?)?),
            Self::Show { name, json: true } => Ok(write_json(out, &known(name, store).await?)?),
            Self::Show { name, json: false } => Ok(write_one(out, &known(name, store).await?)?),
            Self::Disable { name } => {
                let disabled = SettingChange::Set(true);
                set(name, TenantChange { disabled, ..TenantChange::default() }, store).await
            }
        }
    }

    /// A warning about regions without an endpoint, where `known` are the regions of the configuration. It is no error,
    /// because the service may have another configuration than this command.
    pub(super) fn warning(&self, known: &BTreeSet<String>) -> Option<String> {
        let (Self::Create { settings, .. } | Self::Set { settings, .. }) = self else {
            return None;
        };
        let Some(SettingChange::Set(regions)) = &settings.regions else { return None };
        let unknown: Vec<_> =
            regions.iter().filter(|region| !known.contains(*region)).map(String::as_str).collect();
        if unknown.is_empty() {
            return None;
        }
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        Some(format!(
            "warning: no endpoint of the configuration is in {}; those that there are, are in {}. A \
             tenant whose regions have no endpoint is refused",
            unknown.join(", "),
            known.join(", ")
        ))
    }

    const fn name(&self) -> Option<&TenantName> {
        match self {
            Self::Create { name, .. }
            | Self::Set { name, .. }
            | Self::Show { name, .. }
            | Self::Disable { name } => Some(name),
            Self::List { .. } => None,
        }
    }
}

/// The reason why a command about tenants failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TenantCommandError {
    /// The configuration has the tenant.
    #[error("tenant {0} is kept in the configuration, in [tenants.{0}]; look and change there")]
    InFile(TenantName),
    /// No tenant has this name.
    #[error("there is no tenant {0}")]
    Unknown(TenantName),
    /// A setting can have no effect.
    #[error(transparent)]
    Invalid(#[from] InvalidTenant),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] TenantStoreError),
    /// The result could not be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

async fn create(
    name: TenantName,
    settings: TenantFlags,
    store: &dyn TenantStore,
) -> Result<(), TenantCommandError> {
    let tenant = TenantChange::from(settings).apply(Tenant::new(name))?;
    store.create_tenant(&tenant).await?;
    say(&format!("tenant {} created", tenant.name));
    Ok(())
}

async fn set(
    name: TenantName,
    change: TenantChange,
    store: &dyn TenantStore,
) -> Result<(), TenantCommandError> {
    let tenant = change.apply(known(name, store).await?)?;
    if !store.update_tenant(&tenant).await? {
        return Err(TenantCommandError::Unknown(tenant.name));
    }
    say(&format!("tenant {} changed; replicas follow within a second", tenant.name));
    Ok(())
}

async fn known(name: TenantName, store: &dyn TenantStore) -> Result<Tenant, TenantCommandError> {
    store.tenant(&name).await?.ok_or(TenantCommandError::Unknown(name))
}

fn write_list(out: &mut dyn Write, tenants: &[Tenant]) -> io::Result<()> {
    let mut rows = vec![SETTINGS.map(str::to_uppercase)];
    rows.extend(tenants.iter().map(cells));
    write_table(out, &rows, SETTINGS.len())
}

fn write_one(out: &mut dyn Write, tenant: &Tenant) -> io::Result<()> {
    let rows = SETTINGS.map(str::to_owned).into_iter().zip(cells(tenant));
    write_table(out, &rows.map(<[String; 2]>::from).collect::<Vec<_>>(), 2)
}

/// The settings in the order of the tables. Lists come last, because they may be long.
const SETTINGS: [&str; 21] = [
    "name",
    "max_pixels",
    "on_exceed",
    "max_tokens",
    "rpm",
    "tpm",
    "concurrency",
    "daily_tokens",
    "monthly_tokens",
    "daily_cost",
    "monthly_cost",
    "disabled",
    "unknown_bill",
    "pdf_text",
    "auto_pixels",
    "auto_audit",
    "auto_aim",
    "escalate",
    "cache_ttl",
    "regions",
    "models",
];

fn cells(tenant: &Tenant) -> [String; SETTINGS.len()] {
    [
        tenant.name.to_string(),
        cell(tenant.max_pixels),
        tenant.on_exceed.as_str().to_owned(),
        cell(tenant.max_tokens),
        cell(tenant.requests_per_minute),
        cell(tenant.tokens_per_minute),
        cell(tenant.concurrency),
        cell(tenant.daily_tokens),
        cell(tenant.monthly_tokens),
        cell(tenant.daily_cost),
        cell(tenant.monthly_cost),
        tenant.disabled.to_string(),
        tenant.unknown_bill.as_str().to_owned(),
        tenant.pdf_text.as_str().to_owned(),
        tenant.auto_pixels.to_string(),
        tenant.auto_audit.to_string(),
        tenant.auto_aim.to_string(),
        tenant.escalate.to_string(),
        tenant.cache_ttl.to_string(),
        list_cell(&tenant.regions),
        list_cell(&tenant.models),
    ]
}

/// A list as a cell of a table; `-` if it is empty.
fn list_cell(names: &[String]) -> String {
    cell(Some(names.join(",")).filter(|names| !names.is_empty()))
}

/// Reads a flag whose setting can be removed.
fn change<T: FromStr>(text: &str) -> Result<SettingChange<T>, T::Err> {
    if text == CLEAR {
        return Ok(SettingChange::Clear);
    }
    text.parse().map(SettingChange::Set)
}

fn pixels(text: &str) -> Result<SettingChange<Pixels>, std::num::ParseIntError> {
    if text == CLEAR {
        return Ok(SettingChange::Clear);
    }
    text.parse().map(|count| SettingChange::Set(Pixels::new(count)))
}

fn names(text: &str) -> Result<SettingChange<Vec<String>>, &'static str> {
    if text == CLEAR {
        return Ok(SettingChange::Clear);
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err("a name is missing beside a comma");
    }
    Ok(SettingChange::Set(names))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::store;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        command: TenantCommand,
    }

    fn parse(line: &str) -> Result<TenantCommand, clap::Error> {
        let words = std::iter::once("tenant").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|parsed| parsed.command)
    }

    async fn empty_store() -> Arc<dyn TenantStore> {
        let store =
            store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        store.tenants()
    }

    /// Runs `line`, with the tenant `filed` in the configuration, and returns the output.
    async fn run(store: &dyn TenantStore, line: &str) -> Result<String, TenantCommandError> {
        let mut out = Vec::new();
        let is_in_file = |name: &TenantName| name.as_str() == "filed";
        parse(line).unwrap().run(store, &is_in_file, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn a_created_tenant_is_shown_with_its_settings() {
        let store = empty_store().await;
        let created = "create acme --max-pixels 786432 --on-exceed reject --max-tokens 900 --rpm 60 \
                       --daily-tokens 1000 --monthly-cost 12.50 --models a,b \
                       --regions beijing,virginia";
        assert_eq!(run(&*store, created).await.unwrap(), "");
        let shown = run(&*store, "show acme").await.unwrap();
        let expected = "name            acme\nmax_pixels      786432\non_exceed       reject\n\
                        max_tokens      900\nrpm             60\ntpm             -\n\
                        concurrency     -\ndaily_tokens    1000\nmonthly_tokens  -\n\
                        daily_cost      -\nmonthly_cost    12.5\ndisabled        false\n\
                        unknown_bill    repeat\npdf_text        off\n\
                        auto_pixels     false\nauto_audit      0\n\
                        auto_aim        0.95\nescalate        false\ncache_ttl       0\n\
                        regions         beijing,virginia\nmodels          a,b\n";
        assert_eq!(shown, expected);
    }

    #[tokio::test]
    async fn json_has_the_names_of_the_contract() {
        let store = empty_store().await;
        run(&*store, "create acme --tpm 5 --concurrency 2 --daily-cost 0.5").await.unwrap();
        let listed = run(&*store, "list --json").await.unwrap();
        let expected = serde_json::json!([{ "name": "acme", "max_pixels": null, "tpm": 5,
            "on_exceed": "clamp", "max_tokens": null, "rpm": null, "concurrency": 2,
            "daily_tokens": null, "monthly_tokens": null, "daily_cost": "0.5",
            "monthly_cost": null, "models": [], "regions": [], "disabled": false,
            "unknown_bill": "repeat", "pdf_text": "off", "auto_pixels": false, "auto_audit": 0.0,
            "auto_aim": 0.95, "escalate": false, "cache_ttl": 0 }]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&listed).unwrap(), expected);
    }

    #[tokio::test]
    async fn set_changes_only_what_is_given_and_none_clears() {
        let store = empty_store().await;
        run(&*store, "create acme --rpm 60 --tpm 5 --models a").await.unwrap();
        run(&*store, "set acme --rpm none --models none").await.unwrap();
        let tenant = store.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((tenant.requests_per_minute, tenant.models.len()), (None, 0));
        assert_eq!(tenant.tokens_per_minute, NonZeroU64::new(5));
    }

    #[tokio::test]
    async fn every_limit_can_be_set_and_taken_away() {
        let store = empty_store().await;
        let limits = [
            ("max-pixels", "5000"),
            ("on-exceed", "reject"),
            ("max-tokens", "1"),
            ("rpm", "2"),
            ("tpm", "3"),
            ("concurrency", "4"),
            ("daily-tokens", "5"),
            ("monthly-tokens", "6"),
            ("daily-cost", "0.7"),
            ("monthly-cost", "8"),
            ("models", "a"),
            ("regions", "a,b"),
            ("unknown-bill", "fail"),
            ("pdf-text", "prefer"),
        ];
        run(&*store, "create acme").await.unwrap();
        let without = run(&*store, "show acme").await.unwrap();
        for (flag, value) in limits {
            run(&*store, &format!("set acme --{flag} {value}")).await.unwrap();
            let shown = run(&*store, "show acme").await.unwrap();
            let line = shown.lines().find(|line| line.starts_with(&flag.replace('-', "_")));
            assert!(line.unwrap().ends_with(&format!(" {value}")), "{shown}");
            run(&*store, &format!("set acme --{flag} none")).await.unwrap();
            assert_eq!(run(&*store, "show acme").await.unwrap(), without);
        }
    }

    #[tokio::test]
    async fn a_daily_budget_that_could_not_bind_is_refused_and_nothing_changes() {
        let store = empty_store().await;
        run(&*store, "create acme --monthly-cost 5").await.unwrap();
        let refusal = run(&*store, "set acme --daily-cost 5.01").await.unwrap_err().to_string();
        assert!(refusal.contains("daily_cost is 5.01, above monthly_cost 5"), "{refusal}");
        assert_eq!(store.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap().daily_cost, None);
    }

    #[tokio::test]
    async fn a_disabled_tenant_can_be_let_in_again() {
        let store = empty_store().await;
        run(&*store, "create acme").await.unwrap();
        run(&*store, "disable acme").await.unwrap();
        assert!(run(&*store, "list").await.unwrap().contains("true"));
        run(&*store, "set acme --disabled false").await.unwrap();
        assert!(run(&*store, "list").await.unwrap().contains("false"));
    }

    #[tokio::test]
    async fn a_tenant_of_the_configuration_is_refused_with_its_place() {
        let store = empty_store().await;
        for line in ["create filed", "set filed --rpm 1", "show filed", "disable filed"] {
            let refusal = run(&*store, line).await.unwrap_err().to_string();
            assert!(refusal.contains("[tenants.filed]"), "{line}: {refusal}");
        }
    }

    #[tokio::test]
    async fn an_unknown_tenant_is_named() {
        let store = empty_store().await;
        for line in ["set acme --rpm 1", "show acme", "disable acme"] {
            let refusal = run(&*store, line).await.unwrap_err().to_string();
            assert_eq!(refusal, "there is no tenant acme");
        }
    }

    #[test]
    fn a_region_that_no_endpoint_is_in_is_warned_of() {
        let known = BTreeSet::from(["beijing".to_owned(), "virginia".to_owned()]);
        let warning = |line: &str| parse(line).unwrap().warning(&known);
        for line in ["create a --regions virginia", "set a --regions none", "set a --rpm 1", "list"]
        {
            assert_eq!(warning(line), None, "{line}");
        }
        for line in ["create a --regions mars", "set a --regions beijing,mars"] {
            let warning = warning(line).unwrap();
            assert!(warning.contains("is in mars;"), "{warning}");
            assert!(warning.contains("are in beijing, virginia"), "{warning}");
        }
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_done() {
        for wrong in [
            "set acme",
            "create Acme",
            "create a --rpm 0",
            "create a --daily-tokens 0",
            "create a --daily-cost 1e3",
            "create a --monthly-cost=-1",
            "set a --on-exceed x",
            "set a --unknown-bill x",
            "set a --pdf-text on",
            "set a --regions a,,b",
            "show",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
